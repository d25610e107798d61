/* device/cuda/heads.cuh: what is done to one head of queries, keys or values, by a warp. */
#ifndef DEVICE_CUDA_HEADS_CUH
#define DEVICE_CUDA_HEADS_CUH

#include "device/cuda/kv_store.cuh"

/* One tensor's heads, those of a launch from number first on; steps that are not asked for have
 * no eps or no table. */
struct head_part {
    struct rows x, table;
    const float *w;
    float eps;
    int head_dim, first;
    bool normed, interleaved, stored, values;
};

static inline struct head_part head_part_of(const struct cuda_heads_part *from)
{
    struct head_part p = {};

    p.x = rows_of(&from->x);
    if (from->table.cols)
        p.table = rows_of(&from->table);
    p.w = from->w;
    p.eps = from->eps;
    p.head_dim = from->head_dim;
    p.normed = from->normed;
    p.interleaved = from->interleaved;
    p.stored = from->stored;
    p.values = from->values;
    return p;
}

static __device__ void norm_head(float *x, int n, const float *w, float eps)
{
    int lane = threadIdx.x % WARP;
    float sum = 0;

    for (int i = lane; i < n; i += WARP)
        sum += x[i] * x[i];
    float factor = 1.0f / sqrtf(over_warp(sum, sum_of()) / (float)n + eps);
    for (int i = lane; i < n; i += WARP)
        x[i] = x[i] * factor * (w ? w[i] : 1.0f);
    __syncwarp();
}

static __device__ void turn_head(float *x, const struct rows &table, int64_t t, bool interleaved)
{
    int n = table.cols / 2;

    for (int i = threadIdx.x % WARP; i < n; i += WARP) {
        float cosine = row_at(table, t)[i], sine = row_at(table, t)[n + i];
        float *p = x + (interleaved ? 2 * i : i), *q = p + (interleaved ? 1 : n), a = *p, b = *q;

        *p = a * cosine - b * sine;
        *q = a * sine + b * cosine;
    }
    __syncwarp();
}

/* A head of row t as it should be, at own. */
static __device__ __noinline__ void take_head(float *own, const struct head_part &part, int64_t t,
                                              int head)
{
    const float *x = row_at(part.x, t) + (int64_t)head * part.head_dim;

    for (int i = threadIdx.x % WARP; i < part.head_dim; i += WARP)
        own[i] = x[i];
    __syncwarp();
    if (part.normed)
        norm_head(own, part.head_dim, part.w, part.eps);
    if (part.table.cols)
        turn_head(own, part.table, t, part.interleaved);
}

#endif
