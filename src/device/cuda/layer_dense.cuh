/* device/cuda/layer_dense.cuh: what the launch of layer_dense.cu is told, and its stages. */
#ifndef DEVICE_CUDA_LAYER_DENSE_CUH
#define DEVICE_CUDA_LAYER_DENSE_CUH

#include "device/cuda/chosen.cuh"
#include "device/cuda/handover.cuh"
#include "device/cuda/math.cuh"
#include "device/cuda/product_one.cuh"
#include "device/cuda/rows.cuh"

enum {
    DENSE_WARPS = 16,
    DENSE_THREADS = WARP * DENSE_WARPS,
    DENSE_DEPTH = 3, /* chunks of a warp on their way */
    DENSE_EARLY = 2, /* of these asked for before the launch ahead has ended */
    DENSE_FIRST = 300,
    DENSE_AGAIN = 20,                     /* nanoseconds, as HANDOVER_FIRST and HANDOVER_AGAIN */
    DENSE_GROUPS = 8,                     /* of blocks, which share what lies between */
    DENSE_CODES = 4 * WARP * 16,          /* bytes */
    DENSE_BYTES = DENSE_CODES + WARP * 8, /* and scales and biases of 16 rows */
    SUM_PITCH = 20,  /* of an output's sums, in shared memory: four rows lie in other banks */
    DENSE_OUT = 1,   /* tiles of a block */
    DENSE_GATED = 8, /* likewise */
    DENSE_NEXT = 1,  /* of a warp */
    DENSE_STAGES = 3 + DENSE_NEXT, /* of which each tile of the last is one */
    DENSE_BETWEEN = 4,             /* spans of a group */
    DENSE_PARTS = 3,
    DENSE_AREA = one_of<INT4>::BYTES,
    MOST_X = DENSE_SPANS * SPAN,
    DENSE_FOR_ATTENTION = 4 /* processors */
};

enum dense_stage { STAGE_OUT, STAGE_GATED, STAGE_DOWN, STAGE_NEXT };

/* What is handed over. Of two turns: the one that is not used is made empty. */
struct dense_handover {
    float x[MOST_X], between[DENSE_GROUPS * DENSE_BETWEEN * SPAN];
    unsigned long long sums[MOST_X];
};

struct dense_memory {
    struct dense_handover turns[2];
    uint32_t turn[1024]; /* of each block */
};

struct dense_matrix {
    const uint8_t *data, *scales;
    int64_t to_biases;
    uint32_t row_bytes, scale_row_bytes;
};

struct dense {
    struct dense_memory *memory;
    int n_spans, n_tiles; /* of x */
    int n_sharing;        /* warps for a row's spans */
    uint32_t by_spans;
    int n_ranks; /* blocks of a group */
    uint32_t by_ranks;
    /* Output. */
    struct dense_matrix out;
    const float *out_x;
    float *out_y, *x;
    float out_scale;
    /* Gate and up. */
    const float *norm;
    float eps, per_number;
    float *normed;
    struct dense_matrix gate;
    int64_t to_up, to_up_scales, to_up_biases;
    int group_tiles, n_gated; /* of a group, of a block */
    float *gate_y, *up_y, *to;
    /* Down. */
    struct dense_matrix down;
    int between_spans;          /* of a group */
    int down_tiles, down_parts; /* of a block; warps that share a tile */
    uint32_t by_down_tiles;
    float *down_y;
    float scale;
    /* Queries, keys, values. */
    struct dense_matrix next[DENSE_PARTS];
    float *next_y[DENSE_PARTS];
    int firsts[DENSE_PARTS + 1]; /* tiles before those of a part */
    const float *next_norm;
    float next_eps, *next_normed;
    int64_t jumps[DENSE_STAGES];
    uint32_t steps[DENSE_STAGES], scale_steps[DENSE_STAGES];
};

/* --- Shared memory --- */

/* Where a lane's first weights of a stage lie: 16 bytes of each of four pieces, and 8 of the scales
 * or biases of one row. */
struct __align__(16) dense_aim
{
    const uint8_t *data, *scales;
};

struct dense_room {
    uint8_t ring[DENSE_WARPS][DENSE_DEPTH][DENSE_BYTES];
    uint8_t x[DENSE_SPANS][DENSE_AREA];
    uint8_t between[DENSE_BETWEEN][DENSE_AREA];
    float out[DENSE_OUT * +TILE * SUM_PITCH];
    float sums[DENSE_GATED * +TILE * SUM_PITCH];
    float squares[DENSE_WARPS];
    struct dense_aim aims[DENSE_STAGES - 1][DENSE_THREADS]; /* from the second on */
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* --- Sums over blocks --- */

/* Whole numbers, so that their order does not matter, and above them how many are added up. A
 * number that is too large, or none, is told apart. */
static constexpr float SUM_UNIT = 0x1p27f, SUM_MOST = 0x1p22f;
enum { SUM_BIAS = 49, SUM_COUNT = 54, SUM_BAD = 59 };

static __device__ __forceinline__ void add_sum(unsigned long long *to, float x)
{
    unsigned long long n = (1ull << SUM_COUNT) + (1ull << SUM_BIAS);

    if (fabsf(x) < SUM_MOST)
        n += (unsigned long long)__float2ll_rn(x * SUM_UNIT);
    else
        n += 1ull << SUM_BAD;
    asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(to), "l"(n) : "memory");
}

static __device__ __forceinline__ bool sum_is_there(unsigned long long sum, int n)
{
    return (int)(sum >> SUM_COUNT & 31) == n;
}

static __device__ __forceinline__ float sum_number(unsigned long long sum, int n)
{
    long long low = (long long)(sum & ((1ull << SUM_COUNT) - 1));

    if (sum >> SUM_BAD)
        return __uint_as_float(0x7FC00000);
    return __ll2float_rn(low - ((long long)n << SUM_BIAS)) * (1 / SUM_UNIT);
}

/* Eight of each lane. */
static __device__ __forceinline__ void take_sums8(float v[8], const unsigned long long *from, int n)
{
    unsigned long long sums[8];

    __nanosleep(DENSE_FIRST);
#pragma unroll 1
    for (int turn = 0;; turn++) {
        bool missing = false;

#pragma unroll
        for (int i = 0; i < 8; i += 2)
            asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
                         : "=l"(sums[i]), "=l"(sums[i + 1])
                         : "l"(from + i)
                         : "memory");
#pragma unroll
        for (int i = 0; i < 8; i++)
            missing |= !sum_is_there(sums[i], n);
        if (!__any_sync(~0u, missing))
            break;
        __nanosleep(DENSE_AGAIN);
        if (turn == HANDOVER_TURNS)
            __trap();
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = sum_number(sums[i], n);
}

/* --- Weights on their way --- */

/* Where a warp is, and how many chunks it has of a stage. */
struct dense_warp {
    int group, rank;   /* of the block */
    int sharing, span; /* which of the warps that share a row's spans; its span */
    int n_out, n_gated, n_down, n_next;
    int down_tile, down_part;
};

/* What is asked for next. */
struct dense_ahead {
    const uint8_t *data, *scales;
    int64_t jump;
    uint32_t step, scale_step;
    int left, stage, slot; /* stages: each tile of STAGE_NEXT is one */
};

static __device__ __forceinline__ int how_many(int first, int step, int n)
{
    int i = 0;

#pragma unroll 1
    for (; first < n; first += step)
        i++;
    return i;
}

static __device__ __forceinline__ struct dense_aim aim_at(const struct dense_matrix &m, int row,
                                                          int span)
{
    int lane = threadIdx.x % WARP;
    struct dense_aim a;

    a.data =
        m.data + (uint64_t)(uint32_t)(row + lane / 4) * m.row_bytes + span * 128 + lane % 4 * 16;
    a.scales = m.scales + (lane / 16 ? m.to_biases : 0) +
               (uint64_t)(uint32_t)(row + lane % 16) * m.scale_row_bytes + span * 8;
    return a;
}

/* Chunks of a warp in a stage. */
static __device__ __forceinline__ int chunks_of(int stage, const struct dense_warp &w)
{
    return stage == STAGE_OUT     ? w.n_out
           : stage == STAGE_GATED ? w.n_gated
           : stage == STAGE_DOWN  ? w.n_down
                                  : stage - STAGE_NEXT < w.n_next;
}

static __device__ __forceinline__ void put_aims(struct dense_aim *first, struct dense_room &room,
                                                const struct dense_warp &w, const struct dense &s)
{
    int lane = threadIdx.x % WARP, me = threadIdx.x;

    if (w.n_out)
        *first = aim_at(s.out, ((int)blockIdx.x + w.sharing * (int)gridDim.x) * TILE, w.span);
    if (w.n_gated) {
        struct dense_aim a =
            aim_at(s.gate, (w.group * s.group_tiles + w.rank + w.sharing * s.n_ranks) * (TILE / 2),
                   w.span);

        if (lane / 8 % 2)
            a.scales += (lane / 16 ? s.to_up_biases : s.to_up_scales) -
                        (int64_t)(TILE / 2) * s.gate.scale_row_bytes;
        room.aims[STAGE_GATED - 1][me] = a;
    }
    if (w.n_down)
        room.aims[STAGE_DOWN - 1][me] = aim_at(s.down, (w.rank + w.down_tile * s.n_ranks) * TILE,
                                               w.group * s.between_spans + w.down_part * w.n_down);
#pragma unroll 1
    for (int i = 0; i < w.n_next; i++) {
        int tile = (int)blockIdx.x + (w.sharing + i * s.n_sharing) * (int)gridDim.x;
        int part = (tile >= s.firsts[1]) + (tile >= s.firsts[2]);

        room.aims[STAGE_NEXT - 1 + i][me] =
            aim_at(s.next[part], (tile - s.firsts[part]) * TILE, w.span);
    }
}

static __device__ __forceinline__ void aim(struct dense_ahead *a, const struct dense_aim &to,
                                           const struct dense &s)
{
    a->data = to.data;
    a->scales = to.scales;
    a->jump = s.jumps[a->stage];
    a->step = s.steps[a->stage];
    a->scale_step = s.scale_steps[a->stage];
}

/* The next stage that the warp has chunks of. */
static __device__ __forceinline__ void aim_next(struct dense_ahead *a,
                                                const struct dense_room &room,
                                                const struct dense_warp &w, const struct dense &s)
{
    do
        a->left = chunks_of(++a->stage, w);
    while (!a->left && a->stage < DENSE_STAGES - 1);
    if (a->left)
        aim(a, room.aims[a->stage - 1][threadIdx.x], s);
}

static __device__ __forceinline__ void ask_next(struct dense_ahead *a, uint32_t ring,
                                                const struct dense_room &room,
                                                const struct dense_warp &w, const struct dense &s)
{
    int lane = threadIdx.x % WARP;
    uint32_t to = ring + a->slot * DENSE_BYTES + lane * 16;

    if (a->left) {
#pragma unroll
        for (int b = 0; b < 2; b++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(
                                 to + (b * 2 + half) * (WARP * 16)),
                             "l"(a->data + b * 64 + half * a->jump)
                             : "memory");
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to + DENSE_CODES - lane * 8),
                     "l"(a->scales)
                     : "memory");
        a->data += a->step;
        a->scales += a->scale_step;
        if (--a->left == 0)
            aim_next(a, room, w, s);
    }
    copies_end();
    a->slot = a->slot == DENSE_DEPTH - 1 ? 0 : a->slot + 1;
}

struct dense_chunk {
    uint4 blocks[2][2];
    struct one_scales scales;
};

/* What was asked for first. */
static __device__ __forceinline__ void take_dense(struct dense_chunk *c, const uint8_t *slot)
{
    int lane = threadIdx.x % WARP, t = lane % 4, g = lane / 4;

    asm volatile("cp.async.wait_group %0;" ::"n"(DENSE_DEPTH - 1) : "memory");
    __syncwarp();
#pragma unroll
    for (int b = 0; b < 2; b++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            c->blocks[b][half] = *(const uint4 *)(slot + (b * 2 + half) * (WARP * 16) + lane * 16);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        c->scales.scales[i] = *(const uint2 *)(slot + DENSE_CODES + (g + i * 8) * 8);
        c->scales.biases[i] =
            *(const uint16_t *)(slot + DENSE_CODES + (TILE + g + i * 8) * 8 + t * 2);
    }
    __syncwarp();
}

/* --- Stages --- */

/* Eight numbers of the lane, by the block that has them to write. */
static __device__ __forceinline__ void put_unit(float *to, const float v[8], int unit, int n)
{
    if (!to)
        return;
#pragma unroll 1
    for (int mine = blockIdx.x; mine < n; mine += gridDim.x)
        if (mine == unit) {
            *(float4 *)(to + unit * 8) = make_float4(v[0], v[1], v[2], v[3]);
            *(float4 *)(to + unit * 8 + 4) = make_float4(v[4], v[5], v[6], v[7]);
        }
}

/* Squares of x and its digits times the norm's weights. */
static __device__ __forceinline__ void norm_span(struct dense_room &room, const float v[8],
                                                 float w[8])
{
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float square = 0;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        square += v[i] * v[i];
        w[i] *= v[i];
    }
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = w[i];
    put_span<INT4>(room.x[warp], x);
    square = over_warp(square, sum_of());
    if (lane == 0)
        room.squares[warp] = square;
}

static __device__ __forceinline__ void put_dense_gated(struct dense_handover *hand,
                                                       struct dense_room &room,
                                                       const struct dense_warp &w,
                                                       const struct dense &s)
{
    int lane = threadIdx.x % WARP, quad = lane / 4 % 4 + lane / 16 * 8;
    float factor = rsqrtf(sum_slots(room.squares, s.n_spans) * s.per_number + s.eps);

#pragma unroll 1
    for (int i = threadIdx.x / 4; i < s.n_gated * TILE; i += DENSE_THREADS / 4) {
        int tile = w.rank + i / TILE * s.n_ranks, row = i / 8 % 2 * 4 + quad;
        int in_group = tile * (TILE / 2) + row % 8;
        int o = w.group * s.group_tiles * (TILE / 2) + in_group;
        bool there = tile < s.group_tiles;
        float sum = sum_slots(room.sums + (i / TILE * TILE + row) * SUM_PITCH, s.n_spans) * factor;
        float up = __shfl_down_sync(~0u, sum, 16);

        if (lane % 4 || !there)
            continue;
        if (lane < 16) {
            float y = up * __fdividef(sum, 1 + __expf(-sum));

            hand_over(hand->between + o, y);
            if (s.to)
                s.to[o] = y;
            if (s.gate_y)
                s.gate_y[o] = sum;
        } else if (s.up_y) {
            s.up_y[o] = sum;
        }
    }
}

static __device__ __forceinline__ void put_dense_next(struct dense_room &room,
                                                      const struct dense &s)
{
    int lane = threadIdx.x % WARP, own = threadIdx.x / 4;
    int row = own / 8 % 2 * 4 + lane / 4 % 4 + lane / 16 * 8;
    int tile = (int)blockIdx.x + own / TILE * (int)gridDim.x;
    float factor = rsqrtf(sum_slots(room.squares, s.n_spans) * s.per_number + s.next_eps);

    if (tile >= s.firsts[DENSE_PARTS])
        return;
    int part = (tile >= s.firsts[1]) + (tile >= s.firsts[2]);
    float sum = sum_slots(room.sums + (own / TILE * TILE + row) * SUM_PITCH, s.n_spans) * factor;

    if (lane % 4 == 0)
        s.next_y[part][(tile - s.firsts[part]) * TILE + row] = sum;
}

#endif

#endif
