/* device/cuda/rows.cuh: the rows of f32 tensors as kernels take them, and sums over a warp or a
 * block. Every sum is taken in an order of its own that follows from sizes alone. */
#ifndef DEVICE_CUDA_ROWS_CUH
#define DEVICE_CUDA_ROWS_CUH

#include "device/cuda/cuda.h"

struct rows {
    float *data;
    int64_t stride;
    int n, cols;
};

static inline struct rows rows_of(const tensor *x)
{
    return (struct rows){(float *)x->data, x->stride, x->rows, x->cols};
}

static __device__ __forceinline__ float *row_at(const struct rows &x, int64_t row)
{
    return x.data + row * x.stride;
}

/* An early kernel's first statement: the next may be brought up, and what came before has ended. */
static __device__ __forceinline__ void cuda_begin(void)
{
    cuda_let_go();
    cuda_wait();
}

static inline unsigned blocks_for(int64_t n, int per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

static inline struct cuda_shape shape_of(dim3 grid, dim3 block, size_t shared)
{
    return (struct cuda_shape){grid, block, (unsigned)shared, true, false};
}

enum { WARP = 32, MAX_GRID_Y = 65535 };

/* The second dimension of a grid, over rows: kernels step on by gridDim.y. */
static inline unsigned grid_rows(int rows)
{
    return (unsigned)(rows < MAX_GRID_Y ? rows : MAX_GRID_Y);
}

struct sum_of {
    template <typename T> __device__ T operator()(T a, T b) const
    {
        return a + b;
    }
};

struct most_of {
    __device__ float operator()(float a, float b) const
    {
        return fmaxf(a, b);
    }
};

/* x of all lanes put together, in every lane. */
template <typename T, typename F> static __device__ __forceinline__ T over_warp(T x, F f)
{
    for (int step = WARP / 2; step; step /= 2)
        x = f(x, __shfl_xor_sync(0xFFFFFFFF, x, step));
    return x;
}

/* x of all threads put together, in every thread; the block is of whole warps. room: a number for
 * each warp, in shared memory, which may be used again after. */
template <typename T, typename F> static __device__ __forceinline__ T over_block(T x, T *room, F f)
{
    int lane = threadIdx.x % WARP, n_warps = blockDim.x / WARP;

    x = over_warp(x, f);
    if (n_warps == 1)
        return x;
    if (lane == 0)
        room[threadIdx.x / WARP] = x;
    __syncthreads();
    x = room[0];
    for (int i = 1; i < n_warps; i++)
        x = f(x, room[i]);
    __syncthreads();
    return x;
}

#endif
