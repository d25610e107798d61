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
