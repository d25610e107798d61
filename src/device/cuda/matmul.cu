/* device/cuda/matmul.cu: products with weights of any format, an output number for each warp: the
 * plain way, which every faster one is held against. */
#include "device/cuda/numbers.cuh"
#include "device/cuda/rows.cuh"

enum { WARPS = 8 };

static __device__ float product(const struct weight &w, int o, const float *x)
{
    float sum = 0;

    for (int i = threadIdx.x; i < w.n_in; i += WARP)
        sum += x[i] * weight_number(w, o, i);
    return over_warp(sum, sum_of());
}

static __global__ void matmul_kernel(struct rows y, struct weight w, const float *bias,
                                     struct rows x)
{
    int o = blockIdx.x * WARPS + threadIdx.y;

    cuda_begin();
    for (int t = blockIdx.y; o < w.n_out && t < x.n; t += gridDim.y) {
        float sum = product(w, o, row_at(x, t));

        if (threadIdx.x == 0)
            row_at(y, t)[o] = sum + (bias ? bias[o] : 0);
    }
}

void cuda_matmul(device *d, const struct matmul_job *jobs, int n_jobs, const tensor *x)
{
    struct cuda_device *c = cuda_device_of(d);

    for (int j = 0; j < n_jobs; j++) {
        const struct weight *w = jobs[j].w;
        dim3 grid(blocks_for(w->n_out, WARPS), grid_rows(x->rows));

        cuda_launch(c, matmul_kernel, shape_of(grid, dim3(WARP, WARPS), 0), rows_of(jobs[j].y), *w,
                    jobs[j].bias, rows_of(x));
    }
}

/* Row r of y is that of expert ids[r / k, r % k]. */
static __global__ void experts_kernel(struct rows y, const struct weight *ws, const float *bias,
                                      struct rows x, const int32_t *ids, int64_t ids_stride, int k,
                                      int n_rows)
{
    int o = blockIdx.x * WARPS + threadIdx.y;

    cuda_begin();
    for (int r = blockIdx.y; r < n_rows; r += gridDim.y) {
        int id = ids[r / k * ids_stride + r % k];
        struct weight w = ws[id];

        if (o >= w.n_out)
            return;
        float sum = product(w, o, row_at(x, x.n == n_rows ? r : r / k));

        if (threadIdx.x == 0)
            row_at(y, r)[o] = sum + (bias ? bias[(int64_t)id * w.n_out + o] : 0);
    }
}

void cuda_matmul_experts(device *d, const struct matmul_job *jobs, int n_jobs, int n_experts,
                         const tensor *x, const tensor *ids)
{
    struct cuda_device *c = cuda_device_of(d);
    int n_rows = ids->rows * ids->cols;

    for (int j = 0; j < n_jobs && n_rows; j++) {
        const struct weight *w = jobs[j].w;
        dim3 grid(blocks_for(w->n_out, WARPS), grid_rows(n_rows));
        const void *ws = cuda_keep(c, w, (size_t)n_experts * sizeof *w);

        cuda_launch(c, experts_kernel, shape_of(grid, dim3(WARP, WARPS), 0), rows_of(jobs[j].y),
                    (const struct weight *)ws, jobs[j].bias, rows_of(x), (const int32_t *)ids->data,
                    ids->stride, ids->cols, n_rows);
    }
}

static __global__ void embed_kernel(struct rows y, struct weight w, const int32_t *ids, float scale)
{
    cuda_begin();
    for (int t = blockIdx.y; t < y.n; t += gridDim.y)
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < w.n_in; i += gridDim.x * blockDim.x)
            row_at(y, t)[i] = scale * weight_number(w, ids[t], i);
}

void cuda_embed(device *d, tensor *y, const struct weight *w, const int32_t *ids, float scale)
{
    dim3 grid(blocks_for(w->n_in, 256), grid_rows(y->rows));

    cuda_launch(cuda_device_of(d), embed_kernel, shape_of(grid, dim3(256), 0), rows_of(y), *w, ids,
                scale);
}

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
