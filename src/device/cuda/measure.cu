/* device/cuda/measure.cu: what the GPU can do at its best, for benchmarks. */
#include "device/cuda/cuda.h"

enum { COPY_BYTES = 1 << 30, REPEATS = 5, FMA_BLOCKS = 16, FMA_THREADS = 256, FMA_STEPS = 8192 };

static const double fma_flops = 16.0 * (int)FMA_STEPS * (int)FMA_BLOCKS * (int)FMA_THREADS;

/* Eight chains of multiply-adds a thread. */
static __global__ void multiply_add(float *out, float a)
{
    float x[8];

    for (int i = 0; i < 8; i++)
        x[i] = (float)(threadIdx.x + i);
    for (int step = 0; step < FMA_STEPS; step++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = fmaf(x[i], a, 1.0f);
    for (int i = 1; i < 8; i++)
        x[0] += x[i];
    out[(size_t)blockIdx.x * blockDim.x + threadIdx.x] = x[0];
}

static void do_copy(struct cuda_device *c, char *room)
{
    cuda_check(
        c,
        cudaMemcpyAsync(room, room + COPY_BYTES, COPY_BYTES, cudaMemcpyDeviceToDevice, c->stream),
        "copying");
}

static void do_arithmetic(struct cuda_device *c, char *room)
{
    struct cuda_shape shape = {dim3((unsigned)(FMA_BLOCKS * c->n_processors)), dim3(FMA_THREADS), 0,
                               false};

    cuda_launch(c, multiply_add, shape, (float *)room, 0.5f);
    cuda_flush(c);
}

/* The least seconds of some runs, after one that does not count. */
static double least_seconds(struct cuda_device *c, char *room,
                            void (*run)(struct cuda_device *c, char *room))
{
    cudaEvent_t begin = NULL, end = NULL;
    float least = 0, ms = 0;

    cuda_check(c, cudaEventCreate(&begin), "making an event");
    cuda_check(c, cudaEventCreate(&end), "making an event");
    for (int i = 0; i <= REPEATS && !c->failure.code; i++) {
        cuda_check(c, cudaEventRecord(begin, cuda_flush(c)), "timing");
        run(c, room);
        cuda_check(c, cudaEventRecord(end, c->stream), "timing");
        cuda_check(c, cudaEventSynchronize(end), "timing");
        cuda_check(c, cudaEventElapsedTime(&ms, begin, end), "timing");
        if (i > 0 && (least == 0 || ms < least))
            least = ms;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return (double)least / 1000;
}

/* All of it takes some hundredths of a second. */
void cuda_measure(device *d, struct device_limits *limits, bool (*go_on)(void *ctx), void *ctx)
{
    struct cuda_device *c = cuda_device_of(d);
    double flops = fma_flops * c->n_processors;
    char *room = (char *)cuda_alloc(d, 2 * (size_t)COPY_BYTES, &c->failure);
    double copy, arithmetic;

    (void)go_on;
    (void)ctx;
    *limits = (struct device_limits){};
    if (!room)
        return;
    copy = least_seconds(c, room, do_copy);
    arithmetic = least_seconds(c, room, do_arithmetic);
    cuda_free(d, room);
    if (copy > 0 && arithmetic > 0) {
        limits->read_bytes_per_second = 2.0 * (double)COPY_BYTES / copy;
        limits->f32_flops_per_second = flops / arithmetic;
    }
}
