/* device/cuda/product_one.cu: products of one row of x with few instructions: what there is to read
 * is read in a microsecond or two, so that a product is as long as what comes one after the other
 * in it.
 *
 * A block has some tiles of 16 outputs. Its warps share the numbers of a row, in spans of 256, and
 * each has the same spans of all tiles: it reads these of x by itself, and waits for nobody until
 * the sums of all are added up. What a norm divides by is found meanwhile and comes last.
 *
 * For codes x becomes whole numbers of 22 bits, one power of two for a span, and each of these
 * three digits of 8 bits with a sign: the columns of matrix instructions of bytes, which take the
 * codes as they lie. Sums are exact up to there. For bf16 x is two numbers of bf16. The order along
 * a row does not matter, if x has the same: a lane takes 16 bytes of a row as they lie.
 */
#include "device/cuda/math.cuh"
#include "device/cuda/product_args.cuh"
#include "device/cuda/rows.cuh"
#include "device/cuda/stream.cuh"

#include <limits.h>

enum {
    SPAN = 256,       /* numbers */
    ONE_WARPS = 16,   /* at most */
    SLOTS = 20,       /* of an output's sums, in shared memory: four rows lie in other banks */
    ONE_PARTS = 4,    /* products of one launch */
    DIGITS_BEGIN = 20 /* the exponent of the greatest number of a span */
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
    float eps, per_number, scale;
    enum activation act;
    bool adds;
    struct one_part parts[ONE_PARTS];
};

template <int C> struct one_of {
    static constexpr int BLOCKS = SPAN * bits_of(C) / 512; /* of 64 bytes of a row */
    static constexpr int PLANES = is_int(C) ? 3 : 2;
    static constexpr int PITCH = C == BF16 ? 512 + 64 : C == INT8 ? 256 + 64 : 256 + 32;
    static constexpr int SUMS = PLANES * PITCH; /* of x by group, and a digit's value */
    static constexpr int BYTES = SUMS + (is_int(C) ? 32 : 0);
};

/* --- Weights --- */

/* What comes next: the lane's row g of a tile, and how far along it is. */
struct one_place {
    const uint8_t *data, *scales, *biases;
    int tile, span;
};

struct one_scales {
    uint2 scales[2]; /* of four groups */
    uint32_t biases[2];
};

template <int C, bool PAIRED>
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
    if (is_int(C)) {
        uint64_t at = (uint64_t)row * s.scale_row_bytes;

        p->scales = of.scales + at;
        p->biases = of.biases + at + lane % 4 * 2;
    }
}

/* No loads of constants, which the compiler may move behind the wait. */
static __device__ __forceinline__ uint4 read_piece(const uint8_t *p)
{
    uint4 v;

    asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

static __device__ __forceinline__ uint2 read_four(const uint8_t *p)
{
    uint2 v;

    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
    return v;
}

static __device__ __forceinline__ uint32_t read_one(const uint8_t *p)
{
    uint16_t v;

    asm volatile("ld.global.u16 %0, [%1];" : "=h"(v) : "l"(p) : "memory");
    return v;
}

static __device__ __forceinline__ void read_block(uint4 to[2], const struct one_place &p,
                                                  const struct one &s, int at)
{
    to[0] = read_piece(p.data + at);
    to[1] = read_piece(p.data + s.jump + at);
}

static __device__ __forceinline__ void read_groups(struct one_scales *to, const struct one_place &p,
                                                   const struct one &s)
{
    int at = p.span * 8;

    to->scales[0] = read_four(p.scales + at);
    to->scales[1] = read_four(p.scales + s.jump_scales + at);
    to->biases[0] = read_one(p.biases + at);
    to->biases[1] = read_one(p.biases + s.jump_biases + at);
}

/* --- x --- */

static __device__ __forceinline__ void read8(float v[8], const float *p)
{
    float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];

    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/* The digits of four numbers, of which the lowest 23 bits hold one, and what makes all of it
 * positive: 0x408080. */
static __device__ __forceinline__ void digits_of(uint32_t planes[3], const uint32_t n[8], int a,
                                                 int step)
{
    uint32_t b = __byte_perm(n[a], n[a + step], 0x5140);
    uint32_t c = __byte_perm(n[a + 2 * step], n[a + 3 * step], 0x5140);
    uint32_t d = __byte_perm(n[a], n[a + step], 0x0062);
    uint32_t e = __byte_perm(n[a + 2 * step], n[a + 3 * step], 0x0062);

    planes[0] = __byte_perm(b, c, 0x5410) ^ 0x80808080;
    planes[1] = __byte_perm(b, c, 0x7632) ^ 0x80808080;
    planes[2] = (__byte_perm(d, e, 0x5410) ^ 0x40404040) << 1; /* twice it, which has a sign */
}

/* A span's numbers, eight of each lane, for the matrix unit. */
template <int C> static __device__ __forceinline__ void put_span(uint8_t *to, float v[8])
{
    typedef one_of<C> O;
    int lane = threadIdx.x % 32;

    if (C == BF16) {
#pragma unroll
        for (int plane = 0; plane < 2; plane++) {
            uint32_t r[4];

#pragma unroll
            for (int i = 0; i < 4; i++) {
                __nv_bfloat162 h = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);

                memcpy(&r[i], &h, 4);
                v[2 * i] -= __uint_as_float(r[i] << 16);
                v[2 * i + 1] -= __uint_as_float(r[i] & 0xFFFF0000);
            }
            *(uint4 *)(to + plane * O::PITCH + lane * 16) = make_uint4(r[0], r[2], r[1], r[3]);
        }
        return;
    }

    float most = 0, sum = 0;
    uint32_t n[8], first[3], second[3];
#pragma unroll
    for (int i = 0; i < 8; i++)
        most = fmaxf(most, fabsf(v[i]));
    uint32_t e = __reduce_max_sync(~0u, __float_as_uint(most)) >> 23;
    sum = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
#pragma unroll
    for (int lanes = 1; lanes < 8; lanes *= 2)
        sum += __shfl_xor_sync(~0u, sum, lanes);
    e = max(e, DIGITS_BEGIN + 1);

    float scale = __uint_as_float((254 + DIGITS_BEGIN - e) << 23);
#pragma unroll
    for (int i = 0; i < 8; i++)
        n[i] = __float_as_uint(fmaf(v[i], scale, 0x1.8p23f + 0x8080));
    digits_of(first, n, 0, C == INT4 ? 2 : 1);
    digits_of(second, n, C == INT4 ? 1 : 4, C == INT4 ? 2 : 1);
    to += C == INT4 ? lane * 4 : lane / 2 * 16 + lane % 2 * 4;
#pragma unroll
    for (int plane = 0; plane < 3; plane++) {
        *(uint32_t *)(to + plane * O::PITCH) = first[plane];
        *(uint32_t *)(to + plane * O::PITCH + (C == INT4 ? 128 : 8)) = second[plane];
    }
    to -= C == INT4 ? lane * 4 : lane / 2 * 16 + lane % 2 * 4;
    if (lane % 8 == 0)
        ((float *)(to + O::SUMS))[lane / 8] = sum;
    if (lane == 0) /* of infinity and NaN come NaN */
        ((float *)(to + O::SUMS))[4] = __uint_as_float(e == 255 ? ~0u : (e - DIGITS_BEGIN) << 23);
}

/* The warp's spans of x into shared memory; the squares of each lane's numbers. */
template <int C>
static __device__ __forceinline__ float take_x(uint8_t *shared, const struct one &s, int span,
                                               int n_warps, float w[8])
{
    const float *x = s.x + threadIdx.x % 32 * 8;
    float v[8], next[8] = {}, squares = 0;

    read8(v, x + span * SPAN);
#pragma unroll 1
    for (;;) {
        int now = span;

        span += n_warps;
        if (s.norm) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                squares += v[i] * v[i];
                v[i] *= w[i];
            }
        }
        if (span < s.n_spans)
            read8(next, x + span * SPAN);
        put_span<C>(shared + now * one_of<C>::BYTES, v);
        if (span >= s.n_spans)
            return squares;
        if (s.w)
            read8(w, s.w + span * SPAN + threadIdx.x % 32 * 8);
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = next[i];
    }
}

/* --- Products --- */

/* Lanes that are not asked keep what they have. */
static __device__ __forceinline__ void read_x(uint4 *v, uint32_t at, bool asked)
{
    asm volatile("{.reg .pred p; setp.ne.u32 p, %5, 0;"
                 "@p ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];}"
                 : "+r"(v->x), "+r"(v->y), "+r"(v->z), "+r"(v->w)
                 : "r"(at), "r"((uint32_t)asked));
}

static __device__ __forceinline__ uint2 read_x(uint32_t at)
{
    uint2 v;

    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
    return v;
}

/* d += a b, a 16 x 32 codes, b 32 x 8 digits */
static __device__ __forceinline__ void multiply_bytes(int d[4], uint32_t a0, uint32_t a1,
                                                      uint32_t a2, uint32_t a3, uint32_t b0,
                                                      uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* One of two scales in a word. */
template <bool HALF> static __device__ __forceinline__ float scale_in(uint32_t word, bool upper)
{
    if (HALF)
        return f16_number((uint16_t)(upper ? word >> 16 : word));
    return __uint_as_float(__byte_perm(word, 0, upper ? 0x3244 : 0x1044));
}

/* What a lane does in the products. */
struct one_lane {
    uint32_t x;    /* its column's digits of span 0 */
    uint4 kept[2]; /* of x: zeros where its numbers are not of its column's group */
    bool asked;
    int up;       /* what the second of its columns is multiplied by */
    float weight; /* and the first, with the sum of both */
};

/* acc += block b of a span. */
template <int C, bool HALF>
static __device__ __forceinline__ void use_block(float acc[8], const uint4 a[2], int b,
                                                 struct one_lane *lane, uint32_t at,
                                                 const struct one_scales &scales, float factor)
{
    const uint4 &low = a[0], &high = a[1];
    bool upper = C == INT4 ? threadIdx.x % 4 > 1 : b % 2;
    int d[4] = {}, e[4] = {};

    /* Four words of a row as they lie are two rows to the matrix unit, of which each has columns
     * of its own. */
    if (C == BF16) {
        uint2 x = read_x(at + b * 64);

        multiply<true>(acc, low.x, low.y, low.z, low.w, x.x, x.y);
        multiply<true>(acc + 4, high.x, high.y, high.z, high.w, x.x, x.y);
        return;
    }
    if (C == INT8) {
        uint2 x = read_x(at + b * 64);
        bool second = threadIdx.x % 4 > 1;

        multiply_bytes(d, low.x, low.y, low.z, low.w, x.x, x.y);
        multiply_bytes(e, high.x, high.y, high.z, high.w, x.x, x.y);
        d[0] = second ? d[2] : d[0];
        d[1] = second ? d[3] : d[1];
        d[2] = second ? e[2] : e[0];
        d[3] = second ? e[3] : e[1];
    } else {
        const uint32_t m = 0x0F0F0F0F, n = 0xF0F0F0F0;
        uint4 &x = lane->kept[0], &y = lane->kept[1];

        read_x(&x, at + b * 64, lane->asked);
        read_x(&y, at + b * 64 + 128, lane->asked);
        multiply_bytes(d, low.x & m, high.x & m, low.y & m, high.y & m, x.x, x.y);
        multiply_bytes(e, low.x & n, high.x & n, low.y & n, high.y & n, y.x, y.y);
        multiply_bytes(d, low.z & m, high.z & m, low.w & m, high.w & m, x.z, x.w);
        multiply_bytes(e, low.z & n, high.z & n, low.w & n, high.w & n, y.z, y.w);
#pragma unroll
        for (int i = 0; i < 4; i++)
            d[i] = d[i] * 16 + e[i];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint2 &all = scales.scales[i];
        uint32_t word = (C == INT4 ? b : b / 2) ? all.y : all.x;

        acc[i] +=
            (float)(d[2 * i] + lane->up * d[2 * i + 1]) * (scale_in<HALF>(word, upper) * factor);
    }
}

/* --- Outputs --- */

/* Over the four lanes of a row, a quarter each; n of 16 are there. */
static __device__ __forceinline__ float sum_slots(const float *from, int n)
{
    int first = threadIdx.x % 4 * 4;
    float4 v = *(const float4 *)(from + first);

    float sum = (first < n ? v.x : 0) + (first + 1 < n ? v.y : 0);
    sum += (first + 2 < n ? v.z : 0) + (first + 3 < n ? v.w : 0);
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
}

/* The norm is written down, by each block its share. */
static __device__ __forceinline__ void put_norm(const struct one &s, float factor)
{
    int n = s.n_spans * SPAN, step = 4 * (int)gridDim.x;

    for (int k = 4 * (int)blockIdx.x + step * (int)(blockDim.x - 1 - threadIdx.x); k < n;
         k += step * (int)blockDim.x) {
        float4 v = *(const float4 *)(s.x + k), w = {1, 1, 1, 1};

        if (s.w)
            w = *(const float4 *)(s.w + k);
        *(float4 *)(s.norm + k) = make_float4(v.x * factor * w.x, v.y * factor * w.y,
                                              v.z * factor * w.z, v.w * factor * w.w);
    }
}

/* --- The kernel --- */

template <int C, bool PAIRED, bool HALF>
static __global__ void __launch_bounds__(32 * ONE_WARPS, 1)
    one_kernel(const __grid_constant__ struct one s)
{
    typedef one_of<C> O;
    extern __shared__ __align__(16) uint8_t shared[];

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    int t = lane % 4, g = lane / 4;
    float *squares = (float *)(shared + s.n_spans * O::BYTES), *sums = squares + ONE_WARPS;
    struct one_place ahead;
    struct one_scales scales;
    uint4 blocks[O::BLOCKS][2];
    float w[8] = {1, 1, 1, 1, 1, 1, 1, 1};

    cuda_let_go();
    ahead.tile = blockIdx.x;
    ahead.span = warp;
    find_tile<C, PAIRED>(&ahead, s);
    /* Weights come before anything is waited for: what writes them never lets go early. */
#pragma unroll
    for (int b = 0; b < O::BLOCKS; b++)
        read_block(blocks[b], ahead, s, (warp * O::BLOCKS + b) * 64);
    if (is_int(C))
        read_groups(&scales, ahead, s);
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
    float square = take_x<C>(shared, s, warp, n_warps, w);
    __syncwarp();

    struct one_lane at = {};
    float acc[8] = {};
    int kept = 0, span = warp;
    bool there = true;

    at.x = shared_address(shared) + (C == BF16 ? g % 2 : min(g % 4, 2)) * O::PITCH + t * 16 +
           (C == INT4 ? 0 : g / 4 * 8);
    at.asked = g / 4 == t / 2;
    at.up = t % 2 ? 0 : 256;
    at.weight = (t % 2 ? 0x1p15f : 1) * (C == INT4 ? 0x1p-4f : 1);
    while (there) {
        const float *of = (const float *)(shared + span * O::BYTES + O::SUMS);
        uint32_t x = at.x + span * O::BYTES;
        float factor = is_int(C) ? of[4] * at.weight : 0;

        ahead.span += n_warps;
        bool last = ahead.span >= s.n_spans;
        if (last) {
            ahead.span = warp;
            ahead.tile += gridDim.x;
            there = ahead.tile < s.n_tiles;
            if (there)
                find_tile<C, PAIRED>(&ahead, s);
        }
#pragma unroll
        for (int b = 0; b < O::BLOCKS; b++) {
            use_block<C, HALF>(acc, blocks[b], b, &at, x, scales, factor);
            if (there)
                read_block(blocks[b], ahead, s, (ahead.span * O::BLOCKS + b) * 64);
        }
        if (is_int(C)) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                acc[i] += scale_in<HALF>(scales.biases[i], false) * of[t];
            if (there)
                read_groups(&scales, ahead, s);
        }
        span = ahead.span;
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
    if (s.norm) {
        square = over_warp(square, sum_of());
        if (lane == 0)
            squares[warp] = square;
    }
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
                s.to[o] = glu_of(sum, up, s.act);
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
        put_norm(s, factor);
}

/* --- Which it suits --- */

/* False where there is too little memory. */
template <int C, bool PAIRED>
static bool launch_kind(struct cuda_device *c, const struct one &s, int n_warps, bool half)
{
    struct cuda_shape shape = {};
    int slots = ONE_WARPS / n_warps * c->n_processors;
    int rounds = (s.n_tiles + slots - 1) / slots;
    size_t size =
        (size_t)s.n_spans * one_of<C>::BYTES + ONE_WARPS * 4 + (size_t)rounds * TILE * SLOTS * 4;

    if (size > c->shared_memory)
        return false;
    shape.grid = dim3((unsigned)((s.n_tiles + rounds - 1) / rounds));
    shape.block = dim3(32 * (unsigned)n_warps);
    shape.shared = (unsigned)size;
    shape.early = true;
    cuda_settle(c);
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
    if (w->bits == 4)
        return (paired ? launch_kind<INT4, true> : launch_kind<INT4, false>)(c, s, n_warps, half);
    return (paired ? launch_kind<INT8, true> : launch_kind<INT8, false>)(c, s, n_warps, half);
}
