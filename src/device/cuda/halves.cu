/* device/cuda/halves.cu: rows in bf16 beside those of f32, and the operations of prompts that leave
 * them: 16 bytes at a time, where one number to a thread would not fill the memory's queues. */
#include "device/cuda/halves.h"

#include "device/cuda/blas.h"
#include "device/cuda/math.cuh"
#include "device/cuda/mma.cuh"
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"
#include "device/cuda/weights.cuh"

enum { THREADS = 256, FEW = 8 /* rows, of which no product takes a copy */ };

/* --- Copies --- */

static struct cuda_halves room_for(struct cuda_device *c, const tensor *x, int which)
{
    int64_t stride = (x->cols + 7) / 8 * 8;
    size_t size = (size_t)x->rows * (size_t)stride * 2;

    return (struct cuda_halves){(uint16_t *)cuda_halves_room(c, which, size), stride};
}

/* Whether a product may take a copy of y. */
static bool is_wanted(struct cuda_device *c, const tensor *y)
{
    return !c->exact && y->rows > FEW && y->cols % 8 == 0 &&
           (cuda_tiles_rows(c) >= y->rows || cuda_blas_of(c));
}

struct cuda_halves cuda_halves_for(struct cuda_device *c, const tensor *y)
{
    return is_wanted(c, y) ? room_for(c, y, 0) : (struct cuda_halves){};
}

struct cuda_halves cuda_halves_beside(struct cuda_device *c, const tensor *y,
                                      const struct cuda_halves *x)
{
    if (!is_wanted(c, y) || x->data == cuda_halves_room(c, 1, 0))
        return (struct cuda_halves){};
    return room_for(c, y, 1);
}

void cuda_halves_made(struct cuda_device *c, const tensor *y, const struct cuda_halves *at)
{
    c->halved = *y;
    c->halved_at = c->n_given;
    c->halved_to = at->data;
}

static __global__ void __launch_bounds__(THREADS)
    halve_rows(struct cuda_halves to, struct rows x, bool wide)
{
    int k = (int)(blockIdx.x * THREADS + threadIdx.x) * 8;

    cuda_begin();
    for (int r = blockIdx.y; k < to.stride && r < x.n; r += gridDim.y) {
        float v[8];

        floats8(v, row_at(x, r), k, x.cols, wide);
        store_bf16s(to.data + r * to.stride + k, v);
    }
}

struct cuda_halves cuda_halves_of(struct cuda_device *c, const tensor *x)
{
    const tensor *had = &c->halved;

    cuda_settle(c);
    if (c->halved_at == c->n_given && had->data == x->data && had->stride == x->stride &&
        had->rows == x->rows && had->cols == x->cols)
        return (struct cuda_halves){c->halved_to, (x->cols + 7) / 8 * 8};
    struct cuda_halves h = room_for(c, x, 0);
    if (!h.data)
        return h;
    dim3 grid(blocks_for(h.stride, 8 * THREADS), grid_rows(x->rows));
    cuda_launch(c, halve_rows, shape_of(grid, dim3(THREADS), 0), h, rows_of(x), rows_are_wide(x));
    cuda_halves_made(c, x, &h);
    return h;
}

/* --- Norms --- */

/* A block has a row, a thread four numbers of it at a time, which it keeps. */
template <int KEPT>
static __global__ void __launch_bounds__(THREADS)
    norm_kernel(struct rows y, struct rows x, struct rows a, float scale, const float *w, float eps,
                struct cuda_halves halves)
{
    __shared__ float room[WARP];
    float4 kept[KEPT];
    float sum = 0;

    float4 by[KEPT];
    int n = x.cols / 4;

    cuda_let_go();
    /* Weights were there before. */
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        int i = threadIdx.x + j * THREADS;

        by[j] = w && i < n ? __ldg((const float4 *)w + i) : make_float4(1, 1, 1, 1);
    }
    cuda_wait();
    float4 *at = (float4 *)row_at(x, blockIdx.x), *to = (float4 *)row_at(y, blockIdx.x);
    const float4 *more = a.data ? (const float4 *)row_at(a, blockIdx.x) : NULL;

#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        int i = threadIdx.x + j * THREADS;

        kept[j] = i < n ? at[i] : float4();
        if (i < n && more) {
            float4 add = more[i];

            kept[j].x += scale * add.x, kept[j].y += scale * add.y;
            kept[j].z += scale * add.z, kept[j].w += scale * add.w;
            at[i] = kept[j];
        }
    }
#pragma unroll
    for (int j = 0; j < KEPT; j++)
        sum += kept[j].x * kept[j].x + kept[j].y * kept[j].y + kept[j].z * kept[j].z +
               kept[j].w * kept[j].w;
    float factor = 1.0f / sqrtf(over_block(sum, room, sum_of()) / (float)x.cols + eps);

#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        int i = threadIdx.x + j * THREADS;

        if (i >= n)
            break;
        float4 v = kept[j];
        v = make_float4(v.x * factor * by[j].x, v.y * factor * by[j].y, v.z * factor * by[j].z,
                        v.w * factor * by[j].w);
        to[i] = v;
        *(uint2 *)(halves.data + blockIdx.x * halves.stride + 4 * i) =
            make_uint2(mma_pack<__nv_bfloat16>(v.x, v.y), mma_pack<__nv_bfloat16>(v.z, v.w));
    }
}

bool cuda_halves_norm(struct cuda_device *c, const tensor *y, const tensor *x, const tensor *a,
                      float scale, const float *w, float eps)
{
    struct cuda_halves halves = {};

    if (x->cols % 8 == 0 && x->cols <= 8 * 4 * THREADS && rows_are_wide(x) && rows_are_wide(y) &&
        (!a || rows_are_wide(a)) && (uintptr_t)w % 16 == 0)
        halves = cuda_halves_for(c, y);
    if (!halves.data)
        return false;
    cuda_launch(c, x->cols <= 4 * 4 * THREADS ? norm_kernel<4> : norm_kernel<8>,
                shape_of(dim3((unsigned)x->rows), dim3(THREADS), 0), rows_of(y), rows_of(x),
                a ? rows_of(a) : (struct rows){}, scale, w, eps, halves);
    cuda_halves_made(c, y, &halves);
    return true;
}

/* --- Gates --- */

static __global__ void __launch_bounds__(THREADS)
    glu_kernel(struct rows y, struct rows gate, struct rows up, enum activation act,
               struct cuda_halves halves)
{
    int k = (int)(blockIdx.x * THREADS + threadIdx.x) * 8;

    cuda_begin();
    for (int r = blockIdx.y; k < y.cols && r < y.n; r += gridDim.y) {
        float a[8], b[8], *to = row_at(y, r) + k;

        floats8(a, row_at(gate, r), k, y.cols, true);
        floats8(b, row_at(up, r), k, y.cols, true);
#pragma unroll
        for (int i = 0; i < 8; i++)
            a[i] = glu_of(a[i], b[i], act);
        *(float4 *)to = make_float4(a[0], a[1], a[2], a[3]);
        *(float4 *)(to + 4) = make_float4(a[4], a[5], a[6], a[7]);
        store_bf16s(halves.data + r * halves.stride + k, a);
    }
}

bool cuda_halves_glu(struct cuda_device *c, const tensor *y, const tensor *gate, const tensor *up,
                     enum activation act)
{
    struct cuda_halves halves = {};

    if (y->cols % 8 == 0 && rows_are_wide(y) && rows_are_wide(gate) && rows_are_wide(up))
        halves = cuda_halves_for(c, y);
    if (!halves.data)
        return false;
    dim3 grid(blocks_for(y->cols, 8 * THREADS), grid_rows(y->rows));
    cuda_launch(c, glu_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), rows_of(gate),
                rows_of(up), act, halves);
    cuda_halves_made(c, y, &halves);
    return true;
}
