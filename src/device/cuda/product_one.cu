/* device/cuda/product_one.cu: products of one row of x with few instructions: what there is to read
 * is read in a microsecond or two, so that a product is as long as what comes one after the other
 * in it.
 *
 * A block has some tiles of 16 outputs. Its warps share the numbers of a row, in spans of 256, and
 * each has the same spans of all tiles: it reads these of x by itself, and waits for nobody until
 * the sums of all are added up. What a norm divides by is found meanwhile and comes last.
 */
#include "device/cuda/math.cuh"
#include "device/cuda/product_one.cuh"
#include "device/cuda/rows.cuh"

#include <limits.h>

enum {
    ONE_WARPS = 16,  /* at most */
    RING_WARPS = 14, /* with which a ring of weights for each gains */
    RING_CHUNKS = 3, /* of a ring, at most */
    RING_TURNS = 4,  /* spans of a warp, where they are told beforehand: this or one */
    AHEAD = 6 << 20, /* bytes of the next launch's weights that go to L2, about */
    SLOTS = 20,      /* of an output's sums, in shared memory: four rows lie in other banks */
    ONE_PARTS = 4    /* products of one launch */
};

struct one_part {
    const uint8_t *data, *scales, *biases;
    float *y;
    const float *bias;
};

struct one {
    const float *x, *w; /* w: the norm's weights, or NULL */
    float *norm;        /* where it is written down; NULL: there is none */
    float *to;          /* of the tail */
    int n_tiles, n_spans;
    uint32_t row_bytes, scale_row_bytes;
    int firsts[ONE_PARTS];                  /* outputs before those of a part */
    int64_t jump, jump_scales, jump_biases; /* from a lane's row to its other one */
    int64_t step, step_scales; /* from a block's tile to its next; 0: that may be in another part */
    float eps, per_number, scale;
    enum activation act;
    unsigned ring; /* where in shared memory rings begin */
    int n_blocks;  /* of a launch with rings */
    bool adds;
    struct one_part parts[ONE_PARTS];
};

/* Of what the next launch reads first: a block's share of it. */
struct one_ahead {
    const uint8_t *from;
    uint64_t bytes; /* no room behind it: arguments are compared byte by byte */
};

/* Of a launch with rings of weights. */
struct one_rings {
    struct one s;
    int64_t n_ahead;
    struct one_ahead ahead[6];
};

/* --- Weights --- */

/* What comes next: the lane's row g of a tile, and how far along it is. */
struct one_place {
    const uint8_t *data, *scales, *biases;
    int tile, span;
};

template <int C, bool PAIRED, bool RING>
static __device__ __forceinline__ void find_tile(struct one_place *p, const struct one &s)
{
    int lane = threadIdx.x % 32, part = 0, first = p->tile * (PAIRED ? TILE / 2 : TILE);

    if (!PAIRED) {
        part = (first >= s.firsts[1]) + (first >= s.firsts[2]) + (first >= s.firsts[3]);
        first -= s.firsts[part];
    }
    uint32_t row = (uint32_t)(first + lane / 4);
    const struct one_part &of = s.parts[part];
    p->data = of.data + (uint64_t)row * s.row_bytes + lane % 4 * 16;
    if (RING) {
        int t = lane % 4;

        /* Four lanes have scales and biases of two rows. */
        p->scales = (t < 2 ? of.scales : of.biases) + (uint64_t)row * s.scale_row_bytes +
                    t % 2 * (t < 2 ? s.jump_scales : s.jump_biases);
    } else if (is_int(C)) {
        uint64_t at = (uint64_t)row * s.scale_row_bytes;

        p->scales = of.scales + at;
        p->biases = of.biases + at + lane % 4 * 2;
    }
}

static __device__ __forceinline__ void take_groups(struct one_scales *to, const struct one_place &p,
                                                   const struct one &s)
{
    int at = p.span * 8;

    read_groups(to, p.scales + at, s.jump_scales, p.biases + at, s.jump_biases);
}

/* --- Weights by way of shared memory ---
 *
 * What a warp has asked for lies in a ring of its own. More can be on its way than registers hold,
 * but who asks for x behind it waits for all of it: so x comes first where it is there already. */

/* A chunk: of a tile a span, each lane's pieces as it takes them, then what belongs to groups. */
template <int C> struct chunk_of {
    static constexpr int GROUPS = one_of<C>::BLOCKS * 1024;
    static constexpr int BYTES = GROUPS + 256;
};

template <int C>
static __device__ __forceinline__ void ask_for(uint32_t to, const struct one_place &p,
                                               const struct one &s)
{
    int lane = threadIdx.x % 32;
    const uint8_t *data = p.data + p.span * one_of<C>::BLOCKS * 64;
    uint64_t policy;

    /* They are read once: code, arguments and x shall stay in L2. */
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#pragma unroll
    for (int i = 0; i < 2 * one_of<C>::BLOCKS; i++)
        asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], "
                     "[%1], 16, %2;" ::"r"(to + i * 512 + lane * 16),
                     "l"(data + i / 2 * 64 + i % 2 * s.jump), "l"(policy)
                     : "memory");
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to + chunk_of<C>::GROUPS + lane * 8),
        "l"(p.scales + p.span * 8)
        : "memory");
}

template <int C>
static __device__ __forceinline__ void take_chunk(uint4 blocks[][2], struct one_scales *groups,
                                                  uint32_t from)
{
    int lane = threadIdx.x % 32;
    uint32_t at = from + chunk_of<C>::GROUPS + lane / 4 * 32;

#pragma unroll
    for (int i = 0; i < 2 * one_of<C>::BLOCKS; i++) {
        uint4 &v = blocks[i / 2][i % 2];

        asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "r"(from + i * 512 + lane * 16)
                     : "memory");
    }
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(groups->scales[0].x), "=r"(groups->scales[0].y), "=r"(groups->scales[1].x),
                   "=r"(groups->scales[1].y)
                 : "r"(at)
                 : "memory");
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint16_t v;

        asm volatile("ld.shared.u16 %0, [%1];"
                     : "=h"(v)
                     : "r"(at + 16 + i * 8 + lane % 4 * 2)
                     : "memory");
        groups->biases[i] = v;
    }
}

/* Where the warp's next chunk lies. */
template <int C, bool PAIRED, int TURNS>
static __device__ __forceinline__ void go_on(struct one_place *p, const struct one &s)
{
    if (TURNS != 1) {
        p->span += blockDim.x / 32;
        if (p->span < s.n_spans)
            return;
        p->span = threadIdx.x / 32;
    }
    p->tile += gridDim.x;
    if (PAIRED || s.step) {
        p->data += s.step;
        p->scales += s.step_scales;
    } else if (p->tile < s.n_tiles) {
        find_tile<C, PAIRED, true>(p, s);
    }
}

/* The block's share of what the next launch begins with is brought to L2: memory has nothing else
 * to do until that asks for it. */
static __device__ __forceinline__ void bring_ahead(const struct one_rings &r)
{
    int lane = threadIdx.x % 32;

    if (threadIdx.x / 32 != blockDim.x / 32 - 1 || lane >= r.n_ahead)
        return;
#if __CUDA_ARCH__ >= 900
    const struct one_ahead &a = r.ahead[lane];
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(a.from + blockIdx.x * a.bytes),
                 "r"((uint32_t)a.bytes)
                 : "memory");
#endif
}

/* --- x --- */

/* The warp's spans of x into shared memory, of which v has the first N; the squares of each lane's
 * numbers. */
template <int C, int N>
static __device__ __forceinline__ float take_x(uint8_t *shared, const struct one &s, int span,
                                               int n_warps, float w[8], float v[N][8])
{
    const float *x = s.x + threadIdx.x % 32 * 8;
    float next[8] = {}, squares = 0;

#pragma unroll 1
    for (;;) {
        int now = span;

        span += n_warps;
        if (s.norm) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                squares += v[0][i] * v[0][i];
                v[0][i] *= w[i];
            }
        }
        if (now + N * n_warps < s.n_spans)
            read8(next, x + (now + N * n_warps) * SPAN);
        put_span<C>(shared + now * one_of<C>::BYTES, v[0]);
        if (span >= s.n_spans)
            return squares;
        if (s.w)
            read8(w, s.w + span * SPAN + threadIdx.x % 32 * 8);
#pragma unroll
        for (int i = 0; i < 8 * N; i++)
            v[i / 8][i % 8] = i / 8 + 1 < N ? v[(i / 8 + 1) % N][i % 8] : next[i % 8];
    }
}

/* The same of all spans that the warp has; more than one have no norm. */
template <int C, int N>
static __device__ __forceinline__ float take_all(uint8_t *shared, const struct one &s, int span,
                                                 int n_warps, const float w[8], float v[N][8])
{
    float squares = 0;

    if (N == 1 && s.norm) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            squares += v[0][i] * v[0][i];
            v[0][i] *= w[i];
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        put_span<C>(shared + (span + i * n_warps) * one_of<C>::BYTES, v[i]);
    return squares;
}

/* --- Outputs --- */

/* What is written down of the norm, by each block its share: four numbers of a thread, which are on
 * their way while the block's sums meet; */
struct one_norm {
    float4 x, w;
};

static __device__ __forceinline__ void read_norm(struct one_norm *v, const struct one &s, int k)
{
    v->x = *(const float4 *)(s.x + k);
    if (s.w)
        v->w = *(const float4 *)(s.w + k);
}

/* these and what else is the thread's. */
static __device__ __forceinline__ void put_norm(const struct one &s, struct one_norm *v, int k,
                                                float factor)
{
    int n = s.n_spans * SPAN, step = 4 * (int)(gridDim.x * blockDim.x);

    if (k >= n)
        return;
    for (;;) {
        float4 x = v->x, w = v->w;

        *(float4 *)(s.norm + k) = make_float4(x.x * w.x * factor, x.y * w.y * factor,
                                              x.z * w.z * factor, x.w * w.w * factor);
        k += step;
        if (k >= n)
            return;
        read_norm(v, s, k);
    }
}

/* --- The kernel --- */

/* RING: chunks of a ring, all before the wait where they are the most, else one; 0: by registers.
 * TURNS: spans of each warp, with silu; 0: any number, any activation. */
template <int C, bool PAIRED, bool HALF, int RING = 0, int TURNS = 0>
static __device__ __forceinline__ void multiply_row(const struct one &s,
                                                    const struct one_rings *rings = NULL)
{
    typedef one_of<C> O;
    extern __shared__ __align__(16) uint8_t shared[];

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    int t = lane % 4, g = lane / 4;
    float *squares = (float *)(shared + s.n_spans * O::BYTES), *sums = squares + ONE_WARPS;
    struct one_place ahead;
    struct one_scales scales;
    uint4 blocks[O::BLOCKS][2];
    constexpr int EARLY = RING == RING_CHUNKS ? RING : 1;
    /* spans of x, before weights are asked for */
    constexpr int N = TURNS ? TURNS : RING ? RING_TURNS : 1;
    float w[8] = {1, 1, 1, 1, 1, 1, 1, 1}, v[N][8];
    uint32_t ring = 0;
    int slot = 0;

    cuda_let_go();
    ahead.tile = blockIdx.x;
    ahead.span = warp;
    find_tile<C, PAIRED, RING != 0>(&ahead, s);
    /* Weights come before anything is waited for: what writes them never lets go early. */
    auto ask_next = [&](int to) {
        if (ahead.tile < s.n_tiles) {
            ask_for<C>(ring + to * chunk_of<C>::BYTES, ahead, s);
            go_on<C, PAIRED, TURNS>(&ahead, s);
        }
        copies_end();
    };
    auto take_next = [&](int from) {
        copies_wait(RING - 1);
        __syncwarp();
        take_chunk<C>(blocks, &scales, ring + from * chunk_of<C>::BYTES);
        __syncwarp();
        ask_next(from);
    };
    if constexpr (RING) {
        ring = shared_address(shared) + s.ring + warp * RING * chunk_of<C>::BYTES;
        /* One after the other: all at once they are in the way of what runs. */
#pragma unroll
        for (int i = 0; i < EARLY; i++) {
            if (i)
                copies_wait(0);
            ask_next(i);
        }
    } else {
#pragma unroll
        for (int b = 0; b < O::BLOCKS; b++)
            read_block(blocks[b], ahead.data + (warp * O::BLOCKS + b) * 64, s.jump);
        if (is_int(C))
            take_groups(&scales, ahead, s);
    }
    if (s.w)
        read8(w, s.w + warp * SPAN + lane * 8);

    /* The output of four lanes each: two times four in a row of a tile. */
    int own = threadIdx.x / 4, quad = g % 4 + g / 4 * 8;
    const struct one_part &part = s.parts[PAIRED ? g / 4 : 0];
    int tile = blockIdx.x + own / TILE * gridDim.x;
    float before = 0;

    cuda_wait();
    if (!PAIRED && s.adds && tile < s.n_tiles)
        before = s.to[tile * TILE + own / 8 % 2 * 4 + quad];
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i == 0 || TURNS || warp + i * n_warps < s.n_spans)
            read8(v[i], s.x + (warp + i * n_warps) * SPAN + lane * 8);
    if constexpr (RING)
#pragma unroll
        for (int i = EARLY; i < RING; i++)
            ask_next(i);
    float square = TURNS ? take_all<C, N>(shared, s, warp, n_warps, w, v)
                         : take_x<C, N>(shared, s, warp, n_warps, w, v);
    /* While weights come. */
    if (s.norm) {
        square = over_warp(square, sum_of());
        if (lane == 0)
            squares[warp] = square;
    }
    __syncwarp();

    struct one_lane at = {};
    float acc[8] = {};
    int kept = 0, span = warp;
    bool there = true;
    int tile_now = blockIdx.x;

    at.x = shared_address(shared) + (C == BF16 ? g % 2 : min(g % 4, 2)) * O::PITCH + t * 16 +
           (C == INT4 ? 0 : g / 4 * 8);
    at.asked = g / 4 == t / 2;
    at.up = t % 2 ? 0 : 256;
    at.weight = (t % 2 ? 0x1p15f : 1) * (C == INT4 ? 0x1p-4f : 1);
    while (there) {
        if constexpr (RING)
            take_next(slot);
        const float *of = (const float *)(shared + span * O::BYTES + O::SUMS);
        uint32_t x = at.x + span * O::BYTES;
        float factor = is_int(C) ? of[4] * at.weight : 0;

        int &on = RING ? span : ahead.span, &tile_on = RING ? tile_now : ahead.tile;
        on += n_warps;
        bool last = TURNS == 1 || on >= s.n_spans;
        if (last) {
            on = warp;
            tile_on += gridDim.x;
            there = tile_on < s.n_tiles;
            if (!RING && (PAIRED || s.step)) {
                ahead.data += s.step;
                if (is_int(C)) {
                    ahead.scales += s.step_scales;
                    ahead.biases += s.step_scales;
                }
            } else if (!RING && there) {
                find_tile<C, PAIRED, false>(&ahead, s);
            }
        }
#pragma unroll
        for (int b = 0; b < O::BLOCKS; b++) {
            use_block<C, HALF>(acc, blocks[b], b, &at, x, scales, factor);
            if (!RING && there)
                read_block(blocks[b], ahead.data + (ahead.span * O::BLOCKS + b) * 64, s.jump);
        }
        if (is_int(C)) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                acc[i] += scale_in<HALF>(scales.biases[i], false) * of[t];
            if (!RING && there)
                take_groups(&scales, ahead, s);
        }
        if constexpr (RING) {
            slot = slot + 1 == RING ? 0 : slot + 1;
        } else {
            span = ahead.span;
        }
        if (!last)
            continue;

        float *to = sums + (kept * TILE + g) * SLOTS + warp;
        if (C == BF16) {
            acc[0] = t == 0 ? acc[0] + acc[1] : t == 2 ? acc[2] + acc[3] : 0;
            acc[1] = t == 0 ? acc[4] + acc[5] : t == 2 ? acc[6] + acc[7] : 0;
        }
        float mine = t % 2 ? acc[1] : acc[0], other = t % 2 ? acc[0] : acc[1];

        mine += __shfl_xor_sync(~0u, other, 1);
        mine += __shfl_xor_sync(~0u, mine, 2);
        if (t < 2)
            to[t * 8 * SLOTS] = mine;
        kept++;
#pragma unroll
        for (int i = 0; i < 8; i++)
            acc[i] = 0;
    }
    if constexpr (RING != 0)
        bring_ahead(*rings);
    int share = 4 * (int)(blockIdx.x + gridDim.x * (blockDim.x - 1 - threadIdx.x));
    struct one_norm numbers = {{}, {1, 1, 1, 1}};
    if (s.norm && share < s.n_spans * SPAN)
        read_norm(&numbers, s, share);
    __syncthreads();

    float factor = 1;
    if (s.norm)
        factor = rsqrtf(sum_slots(squares, n_warps) * s.per_number + s.eps);
    for (int i = own; i < kept * TILE; i += blockDim.x / 4) {
        int row = i / 8 % 2 * 4 + quad;
        float sum = sum_slots(sums + (i / TILE * TILE + row) * SLOTS, n_warps) * factor;
        int o = (int)(blockIdx.x + i / TILE * gridDim.x) * (PAIRED ? TILE / 2 : TILE) +
                (PAIRED ? row % 8 : row);

        if (PAIRED) {
            if (part.bias)
                sum += part.bias[o];

            float up = __shfl_down_sync(~0u, sum, 16);
            if (t == 0)
                part.y[o] = sum;
            __syncwarp(); /* both may go to one place */
            if (lane < 16 && t == 0)
                s.to[o] = TURNS || s.act == ACT_SILU ? up * __fdividef(sum, 1 + __expf(-sum))
                                                     : glu_of(sum, up, s.act);
            continue;
        }
        int which = (o >= s.firsts[1]) + (o >= s.firsts[2]) + (o >= s.firsts[3]);
        const struct one_part &of = s.parts[which];
        int in_part = o - s.firsts[which];
        if (of.bias)
            sum += of.bias[in_part];
        if (t == 0)
            of.y[in_part] = sum;
        if (s.adds && t == 0)
            s.to[o] = (i == own ? before : s.to[o]) + s.scale * sum;
    }
    if (s.norm)
        put_norm(s, &numbers, share, factor);
}

template <int C, bool PAIRED, bool HALF>
static __global__ void __launch_bounds__(32 * ONE_WARPS, 1)
    one_kernel(const __grid_constant__ struct one s)
{
    multiply_row<C, PAIRED, HALF>(s);
}

/* With more weights on their way than registers hold. */
template <bool PAIRED, bool HALF, int RING, int TURNS>
static __global__ void __launch_bounds__(32 * ONE_WARPS, 1)
    one_ring_kernel(const __grid_constant__ struct one_rings r)
{
    multiply_row<INT4, PAIRED, HALF, RING, TURNS>(r.s, &r);
}

/* So few registers that a block of a router's product, which comes next, has room beside it: its
 * weights are there when this ends. */
template <int C, bool HALF>
static __global__ void __maxnreg__(104) one_beside_kernel(const __grid_constant__ struct one s)
{
    multiply_row<C, false, HALF>(s);
}

/* --- Rings --- */

enum { ANY, ONE_TURN, MANY_TURNS, ALL_EARLY, RING_KINDS };

typedef void (*ring_kernel)(struct one_rings);

template <bool PAIRED, bool HALF> static ring_kernel find_kernel(int kind)
{
    /* Pairs have neither many turns nor all asked for early. */
    constexpr int MANY = PAIRED ? 0 : RING_TURNS, EARLY = PAIRED ? 2 : RING_CHUNKS;
    const ring_kernel kernels[RING_KINDS] = {
        one_ring_kernel<PAIRED, HALF, 2, 0>, one_ring_kernel<PAIRED, HALF, 2, 1>,
        one_ring_kernel<PAIRED, HALF, 2, MANY>, one_ring_kernel<PAIRED, HALF, EARLY, 1>};

    return kernels[kind];
}

static ring_kernel find_kernel(int kind, bool paired, bool half)
{
    if (paired)
        return half ? find_kernel<true, true>(kind) : find_kernel<true, false>(kind);
    return half ? find_kernel<false, true>(kind) : find_kernel<false, false>(kind);
}

/* The launch ahead, if it goes by rings, brings to L2 what this one begins
 * with. */
static void bring(struct cuda_device *c, const struct one &s, bool paired)
{
    struct one_rings *before = NULL;
    int rows = paired ? TILE / 2 : TILE, n = s.firsts[1] < INT_MAX ? s.firsts[1] : s.n_tiles * rows;

    for (int i = 0; i < 4 * RING_KINDS && !before; i++)
        before = (struct one_rings *)cuda_queue_find(
            c, cuda_queue_last(c), (const void *)find_kernel(i / 4, i % 2, i / 2 % 2));
    if (!before)
        return;
    n = min(n, min(rows * s.n_blocks, (int)(AHEAD / s.row_bytes)));
    for (int i = 0; i < (paired ? 2 : 1); i++) {
        const struct one_part &of = s.parts[i];
        const uint8_t *from[3] = {of.data, of.scales, of.biases};

        for (int j = 0; j < 3; j++) {
            uint64_t bytes = (uint64_t)n * (j ? s.scale_row_bytes : s.row_bytes);
            uint64_t share = bytes / (unsigned)before->s.n_blocks / 16 * 16;

            if ((uintptr_t)from[j] % 16 == 0 && share > 0)
                before->ahead[before->n_ahead++] = {from[j], share};
        }
    }
}

/* --- Which it suits --- */

/* False where there is too little memory. */
template <int C, bool PAIRED>
static bool launch_kind(struct cuda_device *c, struct one &s, int n_warps, bool half)
{
    struct cuda_shape shape = {};
    int slots = ONE_WARPS / n_warps * c->n_processors;
    int rounds = (s.n_tiles + slots - 1) / slots;
    bool one_span = s.n_spans == n_warps;
    /* Fewer warps gain nothing, and beside attention to many keys a step loses by rings. */
    bool ring = C == INT4 && c->arch >= 90 && n_warps >= RING_WARPS &&
                c->attended_blocks < INT_MAX && !(s.adds && c->normed_at);

    int chunks = 2;
    if (ring && s.adds && one_span) {
        /* Behind attention all of it may be there when that ends, in fewer blocks, if these find
         * room beside attention's. */
        ring = rounds == 2 && (c->attended_at == c->n_given || !c->attended_at) &&
               c->attended_blocks + (s.n_tiles + RING_CHUNKS - 1) / RING_CHUNKS <= c->n_processors;
        if (ring)
            rounds = chunks = RING_CHUNKS;
    }
    size_t size =
        (size_t)s.n_spans * one_of<C>::BYTES + ONE_WARPS * 4 + (size_t)rounds * TILE * SLOTS * 4;
    size_t rings = (size_t)(n_warps * chunks) * chunk_of<C>::BYTES;

    ring = ring && size + rings <= c->shared_memory;
    s.ring = (unsigned)size;
    size += ring ? rings : 0;
    if (size > c->shared_memory)
        return false;
    shape.grid = dim3((unsigned)((s.n_tiles + rounds - 1) / rounds));
    if (PAIRED || s.firsts[1] == INT_MAX) {
        int64_t outputs = (int64_t)shape.grid.x * (PAIRED ? TILE / 2 : TILE);

        s.step = outputs * s.row_bytes;
        s.step_scales = outputs * s.scale_row_bytes;
    }
    shape.block = dim3(32 * (unsigned)n_warps);
    shape.shared = (unsigned)size;
    shape.early = true;
    /* layer_experts.cu, layer_dense.cu */
    shape.joins =
        C == INT4 && (c->normed_at ? s.adds : s.n_spans <= DENSE_SPANS && (PAIRED || s.adds));
    cuda_settle(c);
    if constexpr (C == INT4 && !PAIRED) {
        /* Where there are routers, one comes behind what is added to x. */
        if (s.adds && n_warps == ONE_WARPS && c->normed_at) {
            cuda_launch(c, half ? one_beside_kernel<C, true> : one_beside_kernel<C, false>, shape,
                        s);
            return true;
        }
    }
    if constexpr (C == INT4) {
        if (ring) {
            bool plain = !PAIRED || s.act == ACT_SILU;
            int kind = chunks == RING_CHUNKS                                     ? ALL_EARLY
                       : one_span && plain                                       ? ONE_TURN
                       : s.n_spans == RING_TURNS * n_warps && !PAIRED && !s.norm ? MANY_TURNS
                                                                                 : ANY;
            struct one_rings r = {};

            s.n_blocks = (int)shape.grid.x;
            bring(c, s, PAIRED);
            r.s = s;
            cuda_launch(c, find_kernel(kind, PAIRED, half), shape, r);
            return true;
        }
    }
    if (is_int(C) && half)
        cuda_launch(c, one_kernel<C, PAIRED, is_int(C)>, shape, s);
    else
        cuda_launch(c, one_kernel<C, PAIRED, false>, shape, s);
    return true;
}

/* Whole spans and tiles, at places that can be read at once. */
static bool suits(const struct weight *w, int rows)
{
    uintptr_t scales = (uintptr_t)w->scales | (uintptr_t)w->biases;

    if (w->n_in % SPAN || w->n_out % rows || (uintptr_t)w->data % 16)
        return false;
    return w->format == WEIGHT_BF16 ||
           (w->format == WEIGHT_AFFINE && (w->bits == 4 || w->bits == 8) && w->group_size == 64 &&
            w->scale_type != DTYPE_F32 && scales % 8 == 0);
}

bool cuda_product_one(struct cuda_device *c, const struct cuda_product *p)
{
    const tensor *x = p->normed ? &p->norm.x : &p->x;
    const struct weight *w = p->w;

    if (cuda_layer_next(c, p) || cuda_dense_down(c, p) || cuda_dense_next(c, p))
        return true;

    bool paired = p->tail.kind == CUDA_TAIL_GLU;
    int rows = paired ? TILE / 2 : TILE, n_out = 0;
    struct one s = {};

    if (p->experts.ids || p->x.rows != 1 || p->n_jobs > ONE_PARTS || !rows_are_wide(x) ||
        p->tail.kind == CUDA_TAIL_COMBINE)
        return false;
    for (int i = 0; i < ONE_PARTS; i++) {
        s.firsts[i] = i < p->n_jobs ? n_out : INT_MAX;
        if (i >= p->n_jobs)
            continue;
        if (!suits(&w[i], rows))
            return false;
        s.parts[i] = {(const uint8_t *)w[i].data, (const uint8_t *)w[i].scales,
                      (const uint8_t *)w[i].biases, (float *)p->y[i].data, p->bias[i]};
        n_out += w[i].n_out;
    }
    s.n_tiles = n_out / TILE;
    s.n_spans = w->n_in / SPAN;
    s.row_bytes = (uint32_t)weight_row_bytes(w);
    s.scale_row_bytes = w->format == WEIGHT_AFFINE ? (uint32_t)weight_scale_row_bytes(w) : 0;
    s.jump = TILE / 2 * (int64_t)s.row_bytes;
    s.jump_scales = s.jump_biases = TILE / 2 * (int64_t)s.scale_row_bytes;
    if (paired) {
        s.jump = s.parts[1].data - s.parts[0].data;
        s.jump_scales = s.parts[1].scales - s.parts[0].scales;
        s.jump_biases = s.parts[1].biases - s.parts[0].biases;
    }
    s.x = (const float *)x->data;
    if (p->normed) {
        s.w = p->norm.w;
        s.norm = (float *)p->norm.y.data;
        s.eps = p->norm.eps;
        s.per_number = 1.0f / (float)w->n_in;
    }
    s.adds = p->tail.kind == CUDA_TAIL_ADD;
    s.to = (float *)p->tail.y.data;
    s.scale = p->tail.scale;
    s.act = p->tail.act;

    /* Fewer warps where some would have less to do than others. */
    int turns = (s.n_spans + ONE_WARPS - 1) / ONE_WARPS, n_warps = (s.n_spans + turns - 1) / turns;
    bool half = w->scale_type == DTYPE_F16;
    if (w->format == WEIGHT_BF16)
        return (paired ? launch_kind<BF16, true> : launch_kind<BF16, false>)(c, s, n_warps, half);
    if (w->bits == 4) {
        if (!(paired ? launch_kind<INT4, true> : launch_kind<INT4, false>)(c, s, n_warps, half))
            return false;
        if (!c->normed_at)
            cuda_dense_note(c, p);
        return true;
    }
    return (paired ? launch_kind<INT8, true> : launch_kind<INT8, false>)(c, s, n_warps, half);
}
