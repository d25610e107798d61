/* device/cuda/matmul.cu: which way a product goes, and rows of an embedding.
 *
 * Exact products all go one way, in f32. Of others few rows go through the kernels that read
 * weights at the speed of memory, many to cuBLASLt. Weights of f32 stay f32 everywhere: routers and
 * the like are, and what they choose should not turn on a rounding.
 */
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"

enum {
    THREADS = 256,
    FEW = 8 /* rows that no other way is faster for */
};

/* --- Products --- */

/* Jobs that are alike, in one launch for so many rows. */
static void product_in_streams(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                               const tensor *x, int most)
{
    for (int first = 0, n; first < x->rows; first += n) {
        struct matmul_job parts[CUDA_STREAM_JOBS];
        tensor y[CUDA_STREAM_JOBS], some;

        n = x->rows - first < most ? x->rows - first : most;
        some = cuda_some_rows(x, first, n);
        for (int i = 0; i < n_jobs; i++) {
            y[i] = cuda_some_rows(jobs[i].y, first, n);
            parts[i] = (struct matmul_job){&y[i], jobs[i].w, jobs[i].bias};
        }
        cuda_product_stream(c, parts, n_jobs, &some);
    }
}

/* How many of the jobs can go together, the first of them included. */
static int count_alike(const struct cuda_device *c, const struct matmul_job *jobs, int n_jobs)
{
    int n = 1;

    while (n < n_jobs && n < CUDA_STREAM_JOBS && cuda_stream_rows(c, jobs[n].w) &&
           cuda_stream_alike(jobs[0].w, jobs[n].w))
        n++;
    return n;
}

/* Rows up to which a weight is read for so few at a time rather than given to cuBLASLt. */
static int few_rows(const struct cuda_device *c, const struct weight *w)
{
    int most = cuda_stream_rows(c, w);

    return w->format <= WEIGHT_BF16 || most < FEW ? FEW : most;
}

static bool is_few(const struct cuda_device *c, const struct weight *w, int n_rows)
{
    return n_rows <= few_rows(c, w);
}

void cuda_matmul(device *d, const struct matmul_job *jobs, int n_jobs, const tensor *x)
{
    struct cuda_device *c = cuda_device_of(d);

    for (int i = 0, n; i < n_jobs && x->rows > 0; i += n) {
        int most = cuda_stream_rows(c, jobs[i].w);

        n = 1;
        if (c->exact) {
            cuda_product_f32(c, &jobs[i], x, NULL);
            continue;
        }
        if (!is_few(c, jobs[i].w, x->rows)) {
            while (i + n < n_jobs && !is_few(c, jobs[i + n].w, x->rows))
                n++;
            if (cuda_product_dense(c, jobs + i, n, x))
                continue;
            n = 1;
        }
        if (most) {
            n = count_alike(c, jobs + i, n_jobs - i);
            product_in_streams(c, jobs + i, n, x, most);
        } else {
            cuda_product_f32(c, &jobs[i], x, NULL);
        }
    }
}

/* --- Rows --- */

static __global__ void __launch_bounds__(THREADS)
    embed_kernel(struct rows y, const struct weight w, const int32_t *ids, float scale)
{
    int k = (int)(blockIdx.x * THREADS + threadIdx.x) * 8;

    cuda_begin();
    if (k >= w.n_in)
        return;
    for (int r = blockIdx.y; r < y.n; r += gridDim.y) {
        float *to = row_at(y, r) + k, v[8];

        weight_numbers8(v, w, ids[r], k);
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (k + i < w.n_in)
                to[i] = scale * v[i];
    }
}

void cuda_embed(device *d, tensor *y, const struct weight *w, const int32_t *ids, float scale)
{
    dim3 grid(blocks_for(w->n_in, 8 * THREADS), grid_rows(y->rows));

    cuda_launch(cuda_device_of(d), embed_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), *w,
                ids, scale);
}

/* --- The largest --- */

/* The better of two, the first on ties. */
static __device__ void better(float &best, int &at, float other, int other_at)
{
    if (other > best || (other == best && other_at < at)) {
        best = other;
        at = other_at;
    }
}

static __global__ void argmax_kernel(int32_t *ids, struct rows x)
{
    __shared__ float values[WARP];
    __shared__ int places[WARP];
    int at = INT32_MAX, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float best = -INFINITY;

    cuda_begin();
    const float *row = row_at(x, blockIdx.x);
    for (int i = threadIdx.x; i < x.cols; i += blockDim.x)
        better(best, at, row[i], i);
    for (int step = WARP / 2; step; step /= 2)
        better(best, at, __shfl_xor_sync(0xFFFFFFFF, best, step),
               __shfl_xor_sync(0xFFFFFFFF, at, step));
    if (lane == 0) {
        values[warp] = best;
        places[warp] = at;
    }
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int i = 1; i < (int)blockDim.x / WARP; i++)
        better(best, at, values[i], places[i]);
    ids[blockIdx.x] = at == INT32_MAX ? 0 : at;
}

void cuda_argmax(device *d, int32_t *ids, const tensor *x)
{
    cuda_launch(cuda_device_of(d), argmax_kernel, shape_of(dim3((unsigned)x->rows), dim3(1024), 0),
                ids, rows_of(x));
}
