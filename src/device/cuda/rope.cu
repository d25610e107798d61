/* device/cuda/rope.cu: rotary positions. */
#include "device/cuda/rows.cuh"

enum { THREADS = 128 };

static __global__ void table_kernel(struct rows table, const int32_t *positions,
                                    const float *inv_freq, float mscale)
{
    int n = table.cols / 2, i = blockIdx.x * THREADS + threadIdx.x;

    cuda_begin();
    for (int t = blockIdx.y; i < n && t < table.n; t += gridDim.y) {
        float sine, cosine;

        sincosf(__fmul_rn((float)positions[t], inv_freq[i]), &sine, &cosine);
        row_at(table, t)[i] = mscale * cosine;
        row_at(table, t)[n + i] = mscale * sine;
    }
}

void cuda_rope_table(device *d, tensor *table, const int32_t *positions, const float *inv_freq,
                     float mscale)
{
    dim3 grid(blocks_for(table->cols / 2, THREADS), grid_rows(table->rows));

    cuda_launch(cuda_device_of(d), table_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(table),
                positions, inv_freq, mscale);
}

/* A thread for each pair of a row. */
static __global__ void rope_kernel(struct rows x, int n_heads, int head_dim, struct rows table,
                                   bool interleaved)
{
    int n = table.cols / 2, pair = blockIdx.x * THREADS + threadIdx.x;
    int head = pair / n, i = pair % n;

    cuda_begin();
    for (int t = blockIdx.y; head < n_heads && t < x.n; t += gridDim.y) {
        float cosine = row_at(table, t)[i], sine = row_at(table, t)[n + i];
        float *p = row_at(x, t) + (int64_t)head * head_dim + (interleaved ? 2 * i : i);
        float *q = p + (interleaved ? 1 : n), a = *p, b = *q;

        *p = a * cosine - b * sine;
        *q = a * sine + b * cosine;
    }
}

void cuda_rope(device *d, tensor *x, int head_dim, const tensor *table, bool interleaved)
{
    int n_heads = x->cols / head_dim;
    dim3 grid(blocks_for((int64_t)n_heads * (table->cols / 2), THREADS), grid_rows(x->rows));

    if (table->cols >= 2)
        cuda_launch(cuda_device_of(d), rope_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(x),
                    n_heads, head_dim, rows_of(table), interleaved);
}
