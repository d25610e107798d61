/* device/cuda/product_block.cu: products of few outputs, in f32: a block for each output of a few
 * rows, as a router has them. There are too few to fill the GPU otherwise, and what takes time is
 * how long it takes from the numbers to the sum.
 *
 * A thread has eight numbers of every 2048, its weights before anything is waited for. Sums are
 * over lanes, then over warps, in an order that follows from sizes alone.
 */
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"

enum { THREADS = 256, PIECE = 8 * THREADS, N_WARPS = THREADS / WARP, ROWS = 4 };

struct product {
    struct weight w;
    struct rows x, y;
    const float *bias;
    bool wide;
    /* x is the norm of what x says, and goes to normed. */
    bool is_normed, lets_go_late;
    struct rows normed;
    const float *norm;
    float eps;
};

static __device__ __forceinline__ void weights_at(float v[8], float norm[8],
                                                  const struct product &p, int k)
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        v[i] = 0;
        norm[i] = 1;
    }
    if (k >= p.w.n_in)
        return;
    weight_numbers8(v, p.w, blockIdx.x, k);
    if (p.norm)
        floats8(norm, p.norm, k, p.w.n_in, true);
}

template <int N>
static __device__ __forceinline__ void add_piece(float sums[N], float squares[N],
                                                 const struct product &p, int first, int k,
                                                 const float v[8], const float norm[8])
{
    float x[N][8];

#pragma unroll
    for (int r = 0; r < N; r++)
        floats8(x[r], row_at(p.x, min(first + r, p.y.n - 1)), k, p.w.n_in, p.wide);
#pragma unroll
    for (int r = 0; r < N; r++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            squares[r] += x[r][i] * x[r][i];
            sums[r] += x[r][i] * norm[i] * v[i];
        }
}

/* A block's share of the rows' norm, and its first number for the thread: read with x, written when
 * the factors are known. */
template <int N> struct share {
    int i, end;
    float x[N], norm;
};

template <int N>
static __device__ __forceinline__ void read_share(struct share<N> *s, const struct product &p,
                                                  int first)
{
#pragma unroll
    for (int r = 0; r < N; r++)
        s->x[r] = first + r < p.y.n && s->i < s->end ? row_at(p.x, first + r)[s->i] : 0;
}

template <int N>
static __device__ __forceinline__ void put_norm(struct share<N> *s, const float factors[N],
                                                const struct product &p, int first)
{
    while (s->i < s->end) {
#pragma unroll
        for (int r = 0; r < N; r++)
            if (first + r < p.y.n)
                row_at(p.normed, first + r)[s->i] = s->x[r] * factors[r] * s->norm;
        s->i += THREADS;
        if (s->i < s->end) {
            read_share(s, p, first);
            s->norm = p.norm ? p.norm[s->i] : 1;
        }
    }
}

template <int N>
static __global__ void __launch_bounds__(THREADS)
    block_kernel(const __grid_constant__ struct product p)
{
    __shared__ float room[N_WARPS][2 * N];
    int o = blockIdx.x, first = blockIdx.y * N;
    float v[8], norm[8], sums[N] = {}, squares[N] = {}, factors[N];

    if (!p.lets_go_late)
        cuda_let_go();
    weights_at(v, norm, p, 8 * threadIdx.x);
    float bias = p.bias ? p.bias[o] : 0;
    struct share<N> share = {
    };
    if (p.is_normed) {
        int each = (p.w.n_in + gridDim.x - 1) / gridDim.x;

        share.i = blockIdx.x * each + threadIdx.x;
        share.end = min((int)(blockIdx.x + 1) * each, p.w.n_in);
        share.norm = p.norm && share.i < share.end ? p.norm[share.i] : 1;
    }
    cuda_wait();
    if (p.lets_go_late)
        cuda_let_go();
    if (p.is_normed)
        read_share(&share, p, first);
    for (int k = 8 * threadIdx.x; k < p.w.n_in;) {
        add_piece<N>(sums, squares, p, first, k, v, norm);
        k += PIECE;
        weights_at(v, norm, p, k);
    }
#pragma unroll
    for (int r = 0; r < N; r++) {
        float sum = over_warp(sums[r], sum_of()), square = over_warp(squares[r], sum_of());

        if (threadIdx.x % WARP == 0) {
            room[threadIdx.x / WARP][2 * r] = sum;
            room[threadIdx.x / WARP][2 * r + 1] = square;
        }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < N; r++) {
        float sum = 0, square = 0;

#pragma unroll
        for (int w = 0; w < N_WARPS; w++) {
            sum += room[w][2 * r];
            square += room[w][2 * r + 1];
        }
        factors[r] = p.is_normed ? 1.0f / sqrtf(square / (float)p.w.n_in + p.eps) : 1;
        if (threadIdx.x == 0 && first + r < p.y.n)
            row_at(p.y, first + r)[o] = sum * factors[r] + bias;
    }
    if (p.is_normed)
        put_norm(&share, factors, p, first);
}

void cuda_product_block(struct cuda_device *c, const struct matmul_job *job, const tensor *x,
                        const struct cuda_norm *norm)
{
    struct product p = {};
    int n = x->rows == 1 ? 1 : ROWS;
    dim3 grid((unsigned)job->w->n_out, blocks_for(x->rows, n));

    p.w = *job->w;
    p.x = rows_of(x);
    p.y = rows_of(job->y);
    p.bias = job->bias;
    p.wide = rows_are_wide(x);
    if (norm) {
        p.is_normed = true;
        p.lets_go_late = n == 1;
        p.normed = p.x;
        p.x = rows_of(&norm->x);
        p.norm = norm->w;
        p.eps = norm->eps;
    }
    struct cuda_shape shape = shape_of(grid, dim3(THREADS), 0);
    shape.joins = p.lets_go_late;
    cuda_launch(c, n == 1 ? block_kernel<1> : block_kernel<ROWS>, shape, p);
    if (p.lets_go_late) {
        c->normed = *norm;
        c->normed_at = c->n_given;
        cuda_layer_router(c, job, norm);
    }
}
