/* device/cuda/attend_join.cuh: what the warps of decode's blocks, and then the blocks, have found,
 * put together in order, whoever ends last. */
#ifndef DEVICE_CUDA_ATTEND_JOIN_CUH
#define DEVICE_CUDA_ATTEND_JOIN_CUH

#include "device/cuda/attend_tile.cuh"
#include "device/cuda/cluster.cuh"

/* What a warp has found; of its queries a lane knows 2 t and 2 t + 1 of each 8, of the sums a part.
 */
template <int DIM, int NQ> struct found {
    float acc[DIM / 16][NQ][4];
    float max[NQ][2], sum[NQ][2];
};

/* What a block has found: of position (pair, lane), pair m * NQ + n, the four sums of tile m and
 * queries n as that lane of a warp has them; and of each query the max and the sum. */
template <int DIM, int NQ> struct layout {
    static const int pairs = DIM / 16 * NQ, each = pairs / WARPS; /* of a thread */
    static const int partial = 2 * 8 * NQ + pairs * 32 * 4;       /* floats in global memory */
};

/* What a block has for the others of its cluster. */
template <int DIM, int NQ> struct handed {
    float4 acc[layout<DIM, NQ>::pairs][32];
    float2 soft[8 * NQ];
};

template <int DIM, int NQ> struct shared_room {
    union {
        struct handed<DIM, NQ> own;
        float4 acc[WARPS][layout<DIM, NQ>::pairs][32];
        float2 factors[2 * MAX_SPLITS][4 * NQ]; /* of a block's results, by pairs of queries */
    };
    float2 soft[WARPS][8 * NQ]; /* max and sum */
};

static __device__ __forceinline__ void add_scaled(float4 &to, const float4 &x, float2 factor)
{
    to.x = fmaf(x.x, factor.x, to.x);
    to.y = fmaf(x.y, factor.y, to.y);
    to.z = fmaf(x.z, factor.x, to.z);
    to.w = fmaf(x.w, factor.y, to.w);
}

/* By what results with this max are multiplied. */
static __device__ __forceinline__ float factor_for(float max, float most)
{
    return most == -INFINITY ? 0 : mma_exp2(max - most);
}

/* What a thread knows of the block's result: each pair number warp + 4 j, and the queries 2 t and
 * 2 t + 1 of each 8. */
template <int DIM, int NQ> struct result {
    float4 acc[layout<DIM, NQ>::each];
    float2 soft[NQ][2];
};

/* The warps' results as one, warp after warp. */
template <int DIM, int NQ>
static __device__ __forceinline__ void gather(struct shared_room<DIM, NQ> &room,
                                              struct found<DIM, NQ> &f, struct result<DIM, NQ> &r)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    float2 factors[NQ][WARPS];

#pragma unroll
    for (int m = 0; m < DIM / 16; m++)
#pragma unroll
        for (int n = 0; n < NQ; n++)
            room.acc[warp][m * NQ + n][lane] =
                make_float4(f.acc[m][n][0], f.acc[m][n][1], f.acc[m][n][2], f.acc[m][n][3]);
#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = f.sum[n][i];

            sum += __shfl_xor_sync(0xffffffffu, sum, 4);
            sum += __shfl_xor_sync(0xffffffffu, sum, 8);
            sum += __shfl_xor_sync(0xffffffffu, sum, 16);
            if (lane < 4)
                room.soft[warp][8 * n + 2 * t + i] = make_float2(f.max[n][i], sum);
        }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = -INFINITY, sum = 0;

#pragma unroll
            for (int w = 0; w < WARPS; w++)
                most = fmaxf(most, room.soft[w][8 * n + 2 * t + i].x);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                float2 soft = room.soft[w][8 * n + 2 * t + i];
                float factor = factor_for(soft.x, most);

                (i ? factors[n][w].y : factors[n][w].x) = factor;
                sum = fmaf(soft.y, factor, sum);
            }
            r.soft[n][i] = make_float2(most, sum);
        }
#pragma unroll
    for (int j = 0; j < layout<DIM, NQ>::each; j++) {
        int pair = warp + WARPS * j;

        r.acc[j] = {};
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            add_scaled(r.acc[j], room.acc[w][pair][lane],
                       NQ == 1 || pair % 2 == 0 ? factors[0][w] : factors[NQ - 1][w]);
    }
}

/* Puts y in its place. */
template <int DIM, int NQ>
static __device__ __forceinline__ void put(const attend_args &a, const struct work &w,
                                           const struct result<DIM, NQ> &r)
{
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int query = 8 * n + 2 * t + i;

            if (query >= w.n_queries)
                continue;
            int64_t row = w.row + row_of(a, w, query);
            int head = head_of(a, w, query);
            float log_sum,
                factor = attend_finish(a, head, r.soft[n][i].x, r.soft[n][i].y, &log_sum);
            float *y = row_at(a.y, row) + (int64_t)head * a.kv.v_dim;

            if (a.log_sums && warp == 0 && g == 0)
                a.log_sums[row * a.log_stride + head] = log_sum;
#pragma unroll
            for (int j = 0; j < layout<DIM, NQ>::each; j++) {
                int pair = warp + WARPS * j, m = pair / NQ, d = m / 4 * 64 + 8 * g + m % 4 * 2;

                if (pair % NQ != n || d >= a.kv.v_dim)
                    continue;
                float low = (i ? r.acc[j].y : r.acc[j].x) * factor;
                float high = (i ? r.acc[j].w : r.acc[j].z) * factor;

                y[d] = low;
                y[d + 1] = high;
                if (a.halves.data)
                    *(uint32_t *)(a.halves.data + row * a.halves.stride +
                                  (int64_t)head * a.kv.v_dim + d) =
                        mma_pack<__nv_bfloat16>(low, high);
            }
        }
}

template <int DIM, int NQ>
static __device__ __forceinline__ void hand_in(const struct work &w,
                                               const struct result<DIM, NQ> &r, float *partial)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    float2 *soft = (float2 *)partial;
    float4 *acc = (float4 *)(partial + 2 * 8 * NQ);

#pragma unroll
    for (int j = 0; j < layout<DIM, NQ>::each; j++) {
        int pair = warp + WARPS * j;

        if (8 * (pair % NQ) + 2 * t < w.n_queries)
            acc[pair * 32 + lane] = r.acc[j];
    }
    if (warp == 0 && lane < 4)
#pragma unroll
        for (int n = 0; n < NQ; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                soft[8 * n + 2 * t + i] = r.soft[n][i];
}

/* The results of the n blocks of a cluster that have some, in order, as one, which the first gets.
 * Nothing of it goes through memory. */
template <int DIM, int NQ>
static __device__ __forceinline__ void join_cluster(struct shared_room<DIM, NQ> &room, int rank,
                                                    int n, struct result<DIM, NQ> &r)
{
    struct handed<DIM, NQ> &own = room.own;
    const int each = layout<DIM, NQ>::each;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    float factors[MAX_CLUSTER][NQ][2], x[MAX_CLUSTER][each][4];

    __syncthreads(); /* what gather() has read */
#pragma unroll
    for (int j = 0; j < each; j++)
        own.acc[warp + WARPS * j][lane] = r.acc[j];
    if (warp == 0 && lane < 4)
#pragma unroll
        for (int k = 0; k < NQ; k++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                own.soft[8 * k + 2 * t + i] = r.soft[k][i];
    meet_cluster();
    if (rank) {
        meet_cluster();
        return;
    }
#pragma unroll
    for (int b = 0; b < MAX_CLUSTER; b++)
#pragma unroll
        for (int j = 0; j < each; j++)
            if (b < n)
                read_other<4>(x[b][j], &own.acc[warp + WARPS * j][lane], b);
#pragma unroll
    for (int k = 0; k < NQ; k++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float soft[MAX_CLUSTER][2], most = -INFINITY, sum = 0;

#pragma unroll
            for (int b = 0; b < MAX_CLUSTER; b++) {
                soft[b][0] = -INFINITY, soft[b][1] = 0;
                if (b < n)
                    read_other<2>(soft[b], &own.soft[8 * k + 2 * t + i], b);
            }
#pragma unroll
            for (int b = 0; b < MAX_CLUSTER; b++)
                most = fmaxf(most, soft[b][0]);
#pragma unroll
            for (int b = 0; b < MAX_CLUSTER; b++) {
                factors[b][k][i] = factor_for(soft[b][0], most);
                sum = fmaf(soft[b][1], factors[b][k][i], sum);
            }
            r.soft[k][i] = make_float2(most, sum);
        }
    meet_cluster();
#pragma unroll
    for (int j = 0; j < each; j++) {
        int k = (warp + WARPS * j) % NQ;

        r.acc[j] = {};
#pragma unroll
        for (int b = 0; b < MAX_CLUSTER; b++)
            if (b < n)
                add_scaled(r.acc[j], make_float4(x[b][j][0], x[b][j][1], x[b][j][2], x[b][j][3]),
                           NQ == 1 || k == 0
                               ? make_float2(factors[b][0][0], factors[b][0][1])
                               : make_float2(factors[b][NQ - 1][0], factors[b][NQ - 1][1]));
    }
}

/* The max and the sum of queries over n blocks, and by what each block's results are multiplied. */
template <int DIM, int NQ>
static __device__ __forceinline__ void
combine_softs(struct shared_room<DIM, NQ> &room, const struct work &w, const float *partials, int n)
{
    const int each = 2 * NQ, most_each = 2 * MAX_SPLITS / 32;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float2 soft[each][most_each];

#pragma unroll
    for (int q = 0; q < each; q++)
#pragma unroll
        for (int j = 0; j < most_each; j++) {
            soft[q][j] = make_float2(-INFINITY, 0);
            if (lane + 32 * j < n && warp + WARPS * q < w.n_queries)
                soft[q][j] = __ldcg((const float2 *)(partials + (size_t)(lane + 32 * j) *
                                                                    layout<DIM, NQ>::partial) +
                                    warp + WARPS * q);
        }
#pragma unroll
    for (int q = 0; q < each; q++) {
        float most = -INFINITY, sum = 0;

#pragma unroll
        for (int j = 0; j < most_each; j++)
            most = fmaxf(most, soft[q][j].x);
        most = mma_warp_max(most);
#pragma unroll
        for (int j = 0; j < most_each; j++) {
            float factor = factor_for(soft[q][j].x, most);

            sum = fmaf(soft[q][j].y, factor, sum);
            if (lane + 32 * j < n)
                ((float *)room.factors[lane + 32 * j])[warp + WARPS * q] = factor;
        }
        sum = over_warp(sum, sum_of());
        if (lane == 0)
            room.soft[0][warp + WARPS * q] = make_float2(most, sum);
    }
    __syncthreads();
}

/* The results of n blocks, in order, as one. The first few are asked for ahead of all else. */
template <int DIM, int NQ>
static __device__ __forceinline__ void combine(struct shared_room<DIM, NQ> &room,
                                               const struct work &w, const float *partials, int n,
                                               struct result<DIM, NQ> &r)
{
    const int size = layout<DIM, NQ>::partial, each = layout<DIM, NQ>::each, few = 16 / each;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4;
    float4 x[each][few];

#pragma unroll
    for (int j = 0; j < each; j++)
#pragma unroll
        for (int i = 0; i < few; i++) {
            int pair = warp + WARPS * j;

            x[j][i] = {};
            if (i < n && 8 * (pair % NQ) + 2 * t < w.n_queries)
                x[j][i] =
                    __ldcg((const float4 *)(partials + i * size + 2 * 8 * NQ) + pair * 32 + lane);
        }
    combine_softs(room, w, partials, n);
#pragma unroll
    for (int k = 0; k < NQ; k++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            r.soft[k][i] = room.soft[0][8 * k + 2 * t + i];
#pragma unroll
    for (int j = 0; j < each; j++) {
        int pair = warp + WARPS * j, k = pair % NQ;
        const float *from = partials + 2 * 8 * NQ + (pair * 32 + lane) * 4;

        r.acc[j] = {};
        if (8 * k + 2 * t >= w.n_queries)
            continue;
#pragma unroll
        for (int i = 0; i < few; i++)
            if (i < n)
                add_scaled(r.acc[j], x[j][i], room.factors[i][4 * k + t]);
#pragma unroll 8
        for (int i = few; i < n; i++)
            add_scaled(r.acc[j], __ldcg((const float4 *)(from + (size_t)i * size)),
                       room.factors[i][4 * k + t]);
    }
}

/* Of the n blocks that share a ticket, is this the last? Then what the others wrote is there. */
static __device__ __forceinline__ bool is_last(unsigned *ticket, int n)
{
    __shared__ bool last;

    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(ticket, 1u) == (unsigned)n - 1;
        if (last)
            *ticket = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}

#endif
