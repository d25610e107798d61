/* device/cuda/product_one.cuh: what products of one row of x are made of: weights on their way to
 * registers, x for the matrix unit, a span of 256 numbers of 16 outputs.
 *
 * For codes x becomes whole numbers of 22 bits, one power of two for a span, and each of these
 * three digits of 8 bits with a sign: the columns of matrix instructions of bytes, which take the
 * codes as they lie. Sums are exact up to there. For bf16 x is two numbers of bf16. The order along
 * a row does not matter, if x has the same: a lane takes 16 bytes of a row as they lie.
 */
#ifndef DEVICE_CUDA_PRODUCT_ONE_CUH
#define DEVICE_CUDA_PRODUCT_ONE_CUH

#include "device/cuda/product_args.cuh"
#include "device/cuda/stream.cuh"

enum {
    SPAN = 256,       /* numbers */
    DENSE_SPANS = 8,  /* of x, at most, where layer_dense.cu joins products */
    DIGITS_BEGIN = 20 /* the exponent of the greatest number of a span */
};

template <int C> struct one_of {
    static constexpr int BLOCKS = SPAN * bits_of(C) / 512; /* of 64 bytes of a row */
    static constexpr int PLANES = is_int(C) ? 3 : 2;
    static constexpr int PITCH = C == BF16 ? 512 + 64 : C == INT8 ? 256 + 64 : 256 + 32;
    static constexpr int SUMS = PLANES * PITCH; /* of x by group, and a digit's value */
    static constexpr int BYTES = SUMS + (is_int(C) ? 32 : 0);
};

/* --- Weights --- */

struct one_scales {
    uint2 scales[2]; /* of four groups */
    uint32_t biases[2];
};

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

static __device__ __forceinline__ void read_block(uint4 to[2], const uint8_t *p, int64_t jump)
{
    to[0] = read_piece(p);
    to[1] = read_piece(p + jump);
}

/* Of a span, at places in their rows. */
static __device__ __forceinline__ void read_groups(struct one_scales *to, const uint8_t *scales,
                                                   int64_t jump_scales, const uint8_t *biases,
                                                   int64_t jump_biases)
{
    to->scales[0] = read_four(scales);
    to->scales[1] = read_four(scales + jump_scales);
    to->biases[0] = read_one(biases);
    to->biases[1] = read_one(biases + jump_biases);
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

#endif
