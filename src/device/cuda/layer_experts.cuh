/* device/cuda/layer_experts.cuh: what the launch of layer_experts.cu is told, and its stages. */
#ifndef DEVICE_CUDA_LAYER_EXPERTS_CUH
#define DEVICE_CUDA_LAYER_EXPERTS_CUH

#include "device/cuda/chosen.cuh"
#include "device/cuda/handover.cuh"
#include "device/cuda/math.cuh"
#include "device/cuda/product_one.cuh"
#include "device/cuda/rows.cuh"
#include "device/cuda/wgmma.cuh"

enum {
    LAYER_WARPS = 16,
    LAYER_THREADS = 32 * LAYER_WARPS,
    ROWS = TILE,        /* outputs */
    PITCH = 20,         /* of an output's sums, in shared memory: four rows lie in other banks */
    GATED_TILES = 8,    /* of a block */
    NEXT_TILES = 4,     /* likewise */
    DOWN_CHUNKS = 2,    /* of a warp */
    DOWN_PITCH = 36,    /* of an output's sums */
    MOST_CHOSEN = WARP, /* experts: a lane knows each */
    SUMMING = 8,        /* lanes for an output of several experts */
    MOST_HIDDEN = LAYER_WARPS * SPAN,
    MOST_BETWEEN = DOWN_CHUNKS * LAYER_WARPS * SPAN,
    NEXT_PARTS = 3,
    NEXT_PAD = 64,     /* behind a row in shared memory */
    FOR_ATTENTION = 4, /* processors */
    ROUTER_WARP = 2,   /* one that no output of the tile is summed by */
    AREA = one_of<INT4>::BYTES
};

/* Nanoseconds before the first weights are asked for: attention's queries, keys and values are on
 * their way then. These weights are near (prefetch_behind). */
enum { AFTER_ATTENTION_BEGAN = 800 };

/* What is handed over. Of two turns: the one that is not used is made empty. */
struct handover {
    float x[MOST_HIDDEN], logits[ROUTED_EXPERTS], between[MOST_BETWEEN], y[MOST_HIDDEN];
};

enum { HANDED = sizeof(struct handover) / 16 };

struct layer_memory {
    struct handover turns[2];
    uint32_t turn[1024]; /* of each block */
};

/* A matrix of codes, or the first of several experts'. */
struct layer_matrix {
    const uint8_t *data, *scales;
    int64_t to_biases;
    uint32_t row_bytes, scale_row_bytes;
    uint32_t step, scale_step; /* from expert to expert */
};

struct layer {
    struct layer_memory *memory;
    int n_spans, n_tiles; /* of x */
    /* Output. */
    struct layer_matrix out;
    int out_spans;
    const float *out_x;
    float *out_y, *x;
    float out_scale;
    /* Norm, router, choice. */
    struct layer_matrix router;
    int router_shift; /* numbers to bytes: 1 of 4 bits, 0 of 8 */
    enum dtype router_scales;
    struct router_params choice;
    const float *of_out; /* what the router makes of the output's x: cuda_layer_router_of */
    const float *norm;
    float eps, per_number;
    float *normed, *logits, *found_weights;
    int32_t *found;
    int n_chosen;
    /* Gate and up. */
    struct layer_matrix gate;
    int64_t to_up, to_up_scales, to_up_biases;
    int tiles_each, n_gated; /* tiles of an expert, and in all */
    int n_groups, n_mine;    /* groups of warps; tiles of a block */
    uint32_t by_sharing, by_tiles;
    float *gate_y, *up_y, *to;
    int64_t gate_stride, up_stride, to_stride;
    /* Down. */
    struct layer_matrix down;
    int down_spans;
    uint32_t by_spans;
    float *down_y, *together;
    int64_t down_stride;
    float scale;
    /* Queries, keys, values. */
    struct layer_matrix next[NEXT_PARTS];
    float *next_y[NEXT_PARTS];
    int firsts[NEXT_PARTS + 1]; /* tiles before those of a part */
    int next_each, next_more;   /* tiles of a block; how many have one more */
    const float *next_norm;
    float next_eps, *next_normed;
    /* The output of the launch behind, and what its router makes of it; NULL: not known. */
    struct layer_matrix behind;
    const float *behind_of_out;
    int behind_experts;
};

/* --- Shared memory --- */

struct layer_room {
    uint8_t x[DOWN_CHUNKS * LAYER_WARPS][AREA];
    float out[ROWS * PITCH];
    float gated[GATED_TILES * ROWS * PITCH]; /* and of queries, keys and values */
    float down[ROWS * DOWN_PITCH];
    __align__(16) float of_warps[LAYER_WARPS];
    __align__(16) float squares[LAYER_WARPS];
    unsigned keys[ROUTED_EXPERTS + 16];
    float logits[ROUTED_EXPERTS], weights[2 * MOST_CHOSEN];
    float own[TILE];
    int ids[MOST_CHOSEN];
    uint64_t barrier;
};

/* How a tile lies in shared memory: rows, scales, biases. */
struct next_layout {
    int pitch, scales, biases, size;
};

static __host__ __device__ inline struct next_layout next_layout_of(int row_bytes, int scale_bytes)
{
    struct next_layout l;

    l.pitch = row_bytes + NEXT_PAD;
    l.scales = TILE * l.pitch;
    l.biases = l.scales + TILE * scale_bytes;
    l.size = (l.biases + TILE * scale_bytes + 127) / 128 * 128;
    return l;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* --- A chunk --- */

struct chunk {
    uint4 blocks[2][2];
    struct one_scales scales;
};

struct jumps {
    int64_t data, scales, biases;
};

/* Rows g and g + 8 of a tile, or of two matrices. */
static __device__ __forceinline__ void ask(struct chunk *c, const uint8_t *data,
                                           const uint8_t *scales, int64_t to_biases,
                                           const struct jumps &jumps)
{
    read_block(c->blocks[0], data, jumps.data);
    read_block(c->blocks[1], data + 64, jumps.data);
    read_groups(&c->scales, scales, jumps.scales, scales + to_biases, jumps.biases);
}

/* The sums of 16 outputs, of digits at x. */
template <bool HALF>
static __device__ __forceinline__ void multiply_chunk(float *to, int pitch, const struct chunk &c,
                                                      struct one_lane *at, const uint8_t *x,
                                                      uint32_t x_at)
{
    int t = threadIdx.x % 4;
    const float *of = (const float *)(x + one_of<INT4>::SUMS);
    float factor = of[4] * at->weight, acc[8] = {};

#pragma unroll
    for (int b = 0; b < 2; b++)
        use_block<INT4, HALF>(acc, c.blocks[b], b, at, x_at, c.scales, factor);
#pragma unroll
    for (int i = 0; i < 2; i++)
        acc[i] += scale_in<HALF>(c.scales.biases[i], false) * of[t];

    float own = t % 2 ? acc[1] : acc[0], other = t % 2 ? acc[0] : acc[1];

    own += __shfl_xor_sync(~0u, other, 1);
    own += __shfl_xor_sync(~0u, own, 2);
    if (t < 2)
        to[t * 8 * pitch] = own;
}

/* --- Queries, keys, values: weights --- */

/* The part that a tile is of. */
static __device__ __forceinline__ int part_of_tile(int tile, const struct layer &s)
{
    return (tile >= s.firsts[1]) + (tile >= s.firsts[2]);
}

/* All tiles of the block, by one warp. */
static __device__ __forceinline__ void bring_next(uint8_t *to, uint64_t *barrier,
                                                  const struct layer &s)
{
    int lane = threadIdx.x % WARP, row_bytes = s.next[0].row_bytes;
    int scale_bytes = s.next[0].scale_row_bytes;
    const struct next_layout l = next_layout_of(row_bytes, scale_bytes);
    uint32_t at = shared_address(to), bar = shared_address(barrier);
    int n = s.next_each + (blockIdx.x < s.next_more);

    if (lane == 0) {
        barrier_open(bar, 1);
        barrier_show();
        barrier_expect(bar, n * TILE * (row_bytes + 2 * scale_bytes));
    }
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < n; i++) {
        int tile = blockIdx.x + i * gridDim.x, part = part_of_tile(tile, s);
        const struct layer_matrix &m = s.next[part];
        int64_t row = (int64_t)(tile - s.firsts[part]) * TILE;

        if (lane < TILE)
            copy_bulk(at + i * l.size + lane * l.pitch, m.data + (row + lane) * row_bytes,
                      row_bytes, bar);
        else if (lane < TILE + 2)
            copy_bulk(at + i * l.size + (lane == TILE ? l.scales : l.biases),
                      m.scales + (lane == TILE ? 0 : m.to_biases) + row * scale_bytes,
                      TILE * scale_bytes, bar);
    }
}

/* The lane's of a chunk. */
static __device__ __forceinline__ void take_chunk(struct chunk *c, const uint8_t *tile,
                                                  const struct next_layout &l, int scale_bytes,
                                                  int span)
{
    int lane = threadIdx.x % WARP, t = lane % 4, g = lane / 4;
    const uint8_t *row = tile + g * l.pitch + span * 128 + t * 16;
    const uint8_t *scales = tile + l.scales + g * scale_bytes + span * 8;

#pragma unroll
    for (int b = 0; b < 2; b++) {
        c->blocks[b][0] = *(const uint4 *)(row + b * 64);
        c->blocks[b][1] = *(const uint4 *)(row + b * 64 + TILE / 2 * l.pitch);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint8_t *its = scales + i * (TILE / 2) * scale_bytes;

        c->scales.scales[i] = *(const uint2 *)its;
        c->scales.biases[i] = *(const uint16_t *)(its + l.biases - l.scales + t * 2);
    }
}

/* --- Stages --- */

/* Eight numbers of the router's row, codes of 4 or 8 bits. */
static __device__ __forceinline__ void read_router(float v[8], const struct layer &s, int k)
{
    const struct layer_matrix &m = s.router;
    const uint8_t *data = m.data + (size_t)blockIdx.x * m.row_bytes + (k >> s.router_shift);
    const uint8_t *scales = m.scales + (size_t)blockIdx.x * m.scale_row_bytes + k / 64 * 2;
    uint32_t low = *(const uint32_t *)data, high = low >> 16, mask = 15;
    float scale = scale_number(scales, 0, s.router_scales);
    float bias = scale_number(scales + m.to_biases, 0, s.router_scales);

    int bits = s.router_shift ? 4 : 8;
    if (bits == 8) {
        high = *(const uint32_t *)(data + 4);
        mask = 255;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] =
            __fadd_rn(__fmul_rn((float)((i < 4 ? low : high) >> i % 4 * bits & mask), scale), bias);
}

/* The lane's numbers of a norm that is written down, by the block that has them to write. */
static __device__ __forceinline__ void put_share(float *to, const float v[8], int unit, int n)
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

/* What the answers of those chosen are multiplied by, by one warp; written down by one block.
 * factor: the norm's, which the logits are without. */
static __device__ __forceinline__ void weigh(struct layer_room &room, int id, float factor,
                                             const struct layer &s)
{
    int lane = threadIdx.x % WARP, n = s.choice.n_experts;
    float x = room.logits[id] * factor;

    if (s.choice.score == ROUTER_SOFTMAX_ALL) {
        float most = __shfl_sync(~0u, x, 0), sum = 0; /* the first choice is the greatest */

#pragma unroll 1
        for (int i = lane; i < n; i += WARP)
            sum += expf(room.logits[i] * factor - most);
        x = or_least(expf(x - most) / over_warp(sum, sum_of()));
    }
    if (lane < s.n_chosen)
        room.weights[MOST_CHOSEN + lane] = x;
    __syncwarp();
    finish_weights(room.weights, room.weights + MOST_CHOSEN, s.choice);
    __syncwarp();
    if (blockIdx.x + 1 == gridDim.x && lane < s.n_chosen) {
        if (s.found)
            s.found[lane] = id;
        if (s.found_weights)
            s.found_weights[lane] = room.weights[lane];
    }
}

/* The output of gate or up that four lanes have; of both a warp has four each, side by side. */
struct gated_output {
    int in_block, row, o; /* row: the choice; below 0: there is none */
};

static __device__ __forceinline__ struct gated_output find_gated(const struct layer &s)
{
    int lane = threadIdx.x % WARP, in_tile = threadIdx.x / WARP % 2 * 4 + lane / 4 % 4;
    int nth = threadIdx.x / 4 / TILE, tile = (int)blockIdx.x * s.n_mine + nth;
    int row = quotient_of(tile, s.by_tiles);

    return {nth * TILE + in_tile + lane / 16 * 8, nth < s.n_mine && tile < s.n_gated ? row : -1,
            (tile - row * s.tiles_each) * (TILE / 2) + in_tile};
}

static __device__ __forceinline__ void put_gated(struct handover *hand, const float *sums,
                                                 const struct gated_output &at, float factor,
                                                 const struct layer &s)
{
    int lane = threadIdx.x % WARP;

    if (at.row < 0)
        return;
    float sum = sum_slots(sums + at.in_block * PITCH, s.n_spans) * factor;
    float up = __shfl_down_sync(~0u, sum, 16);
    if (lane % 4)
        return;
    if (lane < 16) {
        float y = up * __fdividef(sum, 1 + __expf(-sum));

        hand_over(hand->between + at.row * s.tiles_each * (TILE / 2) + at.o, y);
        if (s.to)
            s.to[at.row * s.to_stride + at.o] = y;
        if (s.gate_y)
            s.gate_y[at.row * s.gate_stride + at.o] = sum;
    } else if (s.up_y) {
        s.up_y[at.row * s.up_stride + at.o] = sum;
    }
}

/* SUMMING lanes for an output of the block's tile, which have some of the experts each. */
template <bool NEXT>
static __device__ __forceinline__ void
put_together(struct handover *hand, const struct layer_room &room, const struct layer &s)
{
    int i = threadIdx.x / SUMMING, o = (int)blockIdx.x * TILE + i;
    float all = 0;

#pragma unroll 1
    for (int e = threadIdx.x % SUMMING; e < s.n_chosen; e += SUMMING) {
        const float *from = room.down + i * DOWN_PITCH + e * s.down_spans;
        float sum = 0;

#pragma unroll
        for (int j = 0; j < 4; j++)
            sum += j < s.down_spans ? from[j] : 0;
#pragma unroll 1
        for (int j = 4; j < s.down_spans; j++)
            sum += from[j];
        if (s.down_y)
            s.down_y[e * s.down_stride + o] = sum;
        all += room.weights[e] * sum;
    }
#pragma unroll
    for (int lanes = 1; lanes < SUMMING; lanes *= 2)
        all += __shfl_xor_sync(~0u, all, lanes);
    if (threadIdx.x % SUMMING)
        return;
    float y = room.own[i] + s.scale * all;
    if (NEXT)
        hand_over(hand->y + o, y);
    s.x[o] = y;
    if (s.together)
        s.together[o] = all;
}

static __device__ __forceinline__ void to_l2(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* What the launch behind begins with comes nearer while memory has nothing else to do: lines of the
 * block's tile of the output, of its router's row, of scales and biases. */
static __device__ __forceinline__ void prefetch_behind(const struct layer &s)
{
    const struct layer_matrix &m = s.behind;
    int row = (int)blockIdx.x * TILE + (int)threadIdx.x % TILE, nth = threadIdx.x / TILE;

    if (!m.data || (int)blockIdx.x >= s.n_tiles)
        return;
    for (int i = nth * 128; i < (int)m.row_bytes; i += LAYER_THREADS / TILE * 128)
        to_l2(m.data + (int64_t)row * m.row_bytes + i);
    if (nth == LAYER_THREADS / TILE - 1)
        to_l2(m.scales + (int64_t)row * m.scale_row_bytes);
    if (nth == LAYER_THREADS / TILE - 2)
        to_l2(m.scales + m.to_biases + (int64_t)row * m.scale_row_bytes);
    if ((int)blockIdx.x < s.behind_experts)
        for (int i = threadIdx.x; i < s.out_spans * SPAN / 32; i += LAYER_THREADS)
            to_l2(s.behind_of_out + (int64_t)blockIdx.x * s.out_spans * SPAN + i * 32);
}

/* Queries, keys and values. */
template <bool HALF>
static __device__ __forceinline__ void multiply_next(struct handover *hand, struct layer_room &room,
                                                     const uint8_t *weights, struct one_lane at,
                                                     const float w[8], const struct layer &s)
{
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4;
    int group = quotient_of(warp, s.by_sharing), span = warp - group * s.n_spans;
    int scale_bytes = s.next[0].scale_row_bytes;
    int n = s.next_each + (blockIdx.x < s.next_more);
    const struct next_layout l = next_layout_of(s.next[0].row_bytes, scale_bytes);
    float v[8], kept[8], square = 0;
    struct chunk c;

    if (group < s.n_groups && group < n) {
        barrier_wait(shared_address(&room.barrier), 0);
        take_chunk(&c, weights + group * l.size, l, scale_bytes, span);
    }
    if (group == 0) {
        take_over8<1>(&v, hand->y + span * SPAN + lane * 8);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            square += v[i] * v[i];
            kept[i] = v[i] *= w[i];
        }
        put_span<INT4>(room.x[warp], v);
        square = over_warp(square, sum_of());
        if (lane == 0)
            room.squares[warp] = square;
    }
    __syncthreads();
    if (group < s.n_groups) {
#pragma unroll 1
        for (int i = group; i < n; i += s.n_groups) {
            if (i > group)
                take_chunk(&c, weights + i * l.size, l, scale_bytes, span);
            multiply_chunk<HALF>(room.gated + (i * TILE + g) * PITCH + span, PITCH, c, &at,
                                 room.x[span], at.x + span * AREA);
        }
    }
    __syncthreads();

    float factor = rsqrtf(sum_slots(room.squares, s.n_spans) * s.per_number + s.next_eps);
    int own = threadIdx.x / 4;
    if (own < n * TILE) {
        int row = own / 8 % 2 * 4 + g % 4 + g / 4 * 8, tile = blockIdx.x + own / TILE * gridDim.x;
        int part = part_of_tile(tile, s);
        float sum = sum_slots(room.gated + (own / TILE * TILE + row) * PITCH, s.n_spans) * factor;

        if (lane % 4 == 0)
            s.next_y[part][(tile - s.firsts[part]) * TILE + row] = sum;
    }
    if (group == 0) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            kept[i] *= factor;
        put_share(s.next_normed, kept, span * WARP + lane, s.n_spans * WARP);
    }
}

#endif

#endif
