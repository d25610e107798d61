/* device/cuda/product.cu: products in f32, in one order of summation.
 *
 * A warp has one output of a few rows. Lane l takes the numbers [8 l, 8 l + 8) of each 256, one
 * after another; a sum of eight products joins that of the lane, and the lanes' join in a tree.
 * Nothing of this depends on how many rows there are.
 */
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"

enum { WARPS = 8, ROWS = 8 };

struct product {
    struct weight w;
    const struct weight *ws; /* of all experts, in device memory */
    struct cuda_experts experts;
    struct rows x, y;
    const float *bias;
    bool wide;
};

/* sums[r] += of one lane's numbers; the rows from first on. */
template <int N>
static __device__ __forceinline__ void add_products(float sums[N], const struct product &p,
                                                    const struct weight &w, int o, int first)
{
    for (int k = 8 * (threadIdx.x % WARP); k < w.n_in; k += 8 * WARP) {
        float v[8];

        weight_numbers8(v, w, o, k);
#pragma unroll
        for (int r = 0; r < N; r++) {
            int row = first + r < p.y.n ? first + r : first;
            float x[8], sum;

            floats8(x, row_at(p.x, row / p.experts.x_share), k, w.n_in, p.wide);
            sum = __fmul_rn(x[0], v[0]);
#pragma unroll
            for (int i = 1; i < 8; i++)
                sum = __fmaf_rn(x[i], v[i], sum);
            sums[r] = __fadd_rn(sums[r], sum);
        }
    }
}

template <int N>
static __global__ void __launch_bounds__(32 * WARPS)
    product_kernel(const __grid_constant__ struct product p)
{
    int o = blockIdx.x * WARPS + threadIdx.x / WARP;

    cuda_begin();
    if (o >= p.w.n_out)
        return;
    for (int first = blockIdx.y * N; first < p.y.n; first += gridDim.y * N) {
        const float *bias = p.bias ? p.bias + o : NULL;
        float sums[N] = {};

        if (p.ws) {
            const struct cuda_experts &e = p.experts;
            int id = e.ids[first / e.per_row * e.ids_stride + first % e.per_row];

            add_products<N>(sums, p, p.ws[id], o, first);
            bias = bias ? bias + (size_t)id * p.w.n_out : NULL;
        } else {
            add_products<N>(sums, p, p.w, o, first);
        }
#pragma unroll
        for (int r = 0; r < N; r++) {
            float sum = over_warp(sums[r], sum_of());

            if (threadIdx.x % WARP == 0 && first + r < p.y.n)
                row_at(p.y, first + r)[o] = bias ? __fadd_rn(sum, *bias) : sum;
        }
    }
}

void cuda_product_f32(struct cuda_device *c, const struct matmul_job *job, const tensor *x,
                      const struct cuda_experts *experts)
{
    struct product p = {};
    int n = job->y->rows > 1 && !experts ? ROWS : 1;
    dim3 grid(blocks_for(job->w->n_out, WARPS), grid_rows((job->y->rows + n - 1) / n));

    p.w = *job->w;
    p.experts.x_share = 1;
    if (experts) {
        p.experts = *experts;
        p.ws = (const struct weight *)cuda_keep(c, job->w, experts->n_experts * sizeof *job->w);
    }
    p.x = rows_of(x);
    p.y = rows_of(job->y);
    p.bias = job->bias;
    p.wide = rows_are_wide(x);
    cuda_launch(c, n == 1 ? product_kernel<1> : product_kernel<ROWS>,
                shape_of(grid, dim3(32 * WARPS), 0), p);
}
