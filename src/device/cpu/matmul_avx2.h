/* device/cpu/matmul_avx2.h: what the matrix kernels for AVX2 share. Only for files built with its
 * flags.
 */
#ifndef DEVICE_CPU_MATMUL_AVX2_H
#define DEVICE_CPU_MATMUL_AVX2_H

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "device/cpu/inline.h"
#include "device/cpu/matmul_kernels.h"

#define E2M1_ZERO 12 /* the code of 0, when e2m1 values are doubled and made positive */

/* dequantise_avx2.c */

/* As the slot of struct cpu_matmul_kernels. */
const struct cpu_product *avx2_choose(const struct weight *w, int n_rows, bool exact);

/* out[i] = the i-th of n scales or biases as f32; out has room for n rounded up to 8. */
void avx2_scales(float *out, const void *scales, enum dtype type, int n);
enum dtype avx2_scale_type(const struct weight *w);
void avx2_dequantise(float *out, const struct weight *w, int o, int k, int n);

/* quantise_avx2.c: x = *step q for n numbers, a multiple of 16; returns *step times the sum of q.
 */
float avx2_quantise_i16(int16_t *q, const float *x, int n, float *step);
float avx2_quantise_i8(int8_t *q, const float *x, int n, float *step);

/* Numbers of a row that exact products sum together: product_f32_avx2.c. */
#define AVX2_SUM_BLOCK 512

/* The step of a run of numbers whose largest is given, limit steps, and in *inverse what they are
 * multiplied by. Runs that do not get to 1e-30 are taken for zeros. */
INLINE float avx2_step(float most, float limit, float *inverse)
{
    *inverse = most > 1e-30f ? limit / most : 0;
    if (!(most < INFINITY))
        return NAN;
    return most > 1e-30f ? most / limit : 0;
}

extern const struct cpu_product avx2_product_f32;   /* any format, exact */
extern const struct cpu_product avx2_gemm_f32;      /* any format, many rows */
extern const struct cpu_product avx2_product_dense; /* f32, f16, bf16, exact; few rows */
extern const struct cpu_product avx2_gemv;          /* affine but 4 bits; few rows */
extern const struct cpu_product avx2_gemv_nibbles;  /* affine of 4 bits, mxfp4, nvfp4; few rows */
extern const struct cpu_product avx2_gemm_i8;       /* affine up to 5 bits, mxfp4, nvfp4 */
extern const struct cpu_product avx2_gemm_i16;      /* affine of 6 and 8 bits */

static inline const uint8_t *weight_data(const struct weight *w, int o)
{
    return (const uint8_t *)w->data + (size_t)o * weight_row_bytes(w);
}

/* Scales (or biases) of row o, from that of value k. */
static inline const uint8_t *weight_scale(const struct weight *w, const void *scales, int o, int k)
{
    size_t row = weight_scale_row_bytes(w);

    return (const uint8_t *)scales + (size_t)o * row +
           (size_t)(k / w->group_size) * (row / (size_t)(w->n_in / w->group_size));
}

/* The first n of 8 lanes. */
INLINE __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of 8 numbers: masks are slow, and rarely needed. */
INLINE __m256 load_first(const float *p, int n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(n));
}

INLINE void store_first(float *p, int n, __m256 v)
{
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, first_lanes(n), v);
}

/* The first n <= 16 of y = a, b, plus before, where there is such. */
INLINE void avx2_add_row(float *y, __m256 a, __m256 b, const float *before, int n)
{
    if (before) {
        a = _mm256_add_ps(load_first(before, n), a);
        b = _mm256_add_ps(load_first(before + 8, n - 8), b);
    }
    store_first(y, n, a);
    store_first(y + 8, n - 8, b);
}

/* 32 values of the given bits, end to end in 4 * bits bytes, as bytes. */
INLINE __m256i codes32(const uint8_t *p, const int bits)
{
    __m256i v;

    if (bits == 8)
        return _mm256_loadu_si256((const __m256i *)p);
    if (bits == 4) {
        v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
        v = _mm256_or_si256(v, _mm256_slli_epi16(v, 4));
        return _mm256_and_si256(v, _mm256_set1_epi8(0x0F));
    }
    /* 8 values are as many bytes as a value has bits: one such run into every 64 bits, the lower
     * half of them from p, the upper half from skip bytes later: so no byte beyond the last is
     * touched. */
    const int skip = bits == 6 ? 8 : bits == 2 ? 0 : 4;
    const char z = -1, b = (char)bits, u = (char)(2 * bits - skip);
    __m128i low, high;

    if (bits < 4) {
        low = _mm_loadl_epi64((const __m128i *)p);
        high = _mm_loadl_epi64((const __m128i *)(p + skip));
    } else {
        low = _mm_loadu_si128((const __m128i *)p);
        high = _mm_loadu_si128((const __m128i *)(p + skip));
    }
#define AT(start, i) ((i) < bits ? (char)((start) + (i)) : z)
#define RUN(start)                                                                                 \
    AT(start, 0), AT(start, 1), AT(start, 2), AT(start, 3), AT(start, 4), AT(start, 5), z, z
    v = _mm256_shuffle_epi8(_mm256_set_m128i(high, low),
                            _mm256_setr_epi8(RUN(0), RUN(b), RUN(u), RUN(u + b)));
#undef RUN
#undef AT
    /* Halve each run of values: 64 bits into two of 32, these into four of 16, into eight of 8. */
    __m256i half = _mm256_set1_epi64x((1ll << 4 * bits) - 1);
    v = _mm256_or_si256(
        _mm256_and_si256(v, half),
        _mm256_andnot_si256(_mm256_set1_epi64x(0xFFFFFFFF), _mm256_slli_epi64(v, 32 - 4 * bits)));
    half = _mm256_set1_epi32((1 << 2 * bits) - 1);
    v = _mm256_or_si256(
        _mm256_and_si256(v, half),
        _mm256_andnot_si256(_mm256_set1_epi32(0xFFFF), _mm256_slli_epi32(v, 16 - 2 * bits)));
    half = _mm256_set1_epi16((short)((1 << bits) - 1));
    return _mm256_or_si256(
        _mm256_and_si256(v, half),
        _mm256_and_si256(_mm256_slli_epi16(v, 8 - bits), _mm256_slli_epi16(half, 8)));
}

/* Twice the value of an e2m1 code. */
INLINE __m256i e2m1_doubled(__m256i codes)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));

    return _mm256_shuffle_epi8(table, codes);
}

/* 8 e4m3 values. As f16 they are 2^8 too small: the bias of the exponent is 7 here and 15 there. */
INLINE __m256 e4m3_to_f32(__m128i bytes)
{
    __m128i v = _mm_cvtepu8_epi16(bytes);
    __m128i magnitude = _mm_and_si128(v, _mm_set1_epi16(0x7F));
    __m128i nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7F));
    __m128i half = _mm_or_si128(_mm_slli_epi16(magnitude, 7),
                                _mm_slli_epi16(_mm_andnot_si128(_mm_set1_epi16(0x7F), v), 8));

    half = _mm_or_si128(half, _mm_and_si128(nan, _mm_set1_epi16(0x7E00)));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
}

/* 2^(s - 127). Shifted into the exponent it is right but for 0, which stands for half of the
 * smallest normal number, and 255, not a number: both lack the highest bit of the fraction. */
INLINE __m256 e8m0_to_f32x8(__m128i bytes)
{
    __m256i s = _mm256_cvtepu8_epi32(bytes);
    __m256i odd = _mm256_or_si256(_mm256_cmpeq_epi32(s, _mm256_setzero_si256()),
                                  _mm256_cmpeq_epi32(s, _mm256_set1_epi32(255)));
    __m256i bits = _mm256_slli_epi32(s, 23);

    bits = _mm256_or_si256(bits, _mm256_and_si256(odd, _mm256_set1_epi32(0x00400000)));
    return _mm256_castsi256_ps(bits);
}

INLINE __m256 bf16_to_f32x8(__m128i v)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* 8 numbers of a type; all 8 are read. */
INLINE __m256 avx2_load8(const uint8_t *p, enum dtype type)
{
    switch (type) {
    case DTYPE_F32:
        return _mm256_loadu_ps((const float *)(const void *)p);
    case DTYPE_F16:
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    case DTYPE_BF16:
        return bf16_to_f32x8(_mm_loadu_si128((const __m128i *)p));
    case DTYPE_F8_E4M3:
        return e4m3_to_f32(_mm_loadl_epi64((const __m128i *)p));
    default:
        return e8m0_to_f32x8(_mm_loadl_epi64((const __m128i *)p));
    }
}

/* The sums of four vectors, each ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). */
INLINE __m128 sums4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));

    return _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
}

/* v[i] = the i-th 32 bits of all 8. */
INLINE void transpose8(__m256i v[8])
{
    __m256i t[8], u[8];

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        u[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x20);
        v[4 + i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x31);
    }
}

/* Of every 8 bytes those at even places, then those at odd ones: as the nibbles of 32 bits come
 * out. */
INLINE __m256i even_first(__m256i v)
{
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));

    return _mm256_shuffle_epi8(v, order);
}

/* The same of n bytes, a multiple of 16. */
INLINE void avx2_order_bytes(int8_t *q, int n)
{
    for (int i = 0; i < n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(q + i));

        _mm_storeu_si128((__m128i *)(q + i),
                         _mm256_castsi256_si128(even_first(_mm256_castsi128_si256(v))));
    }
}

/* DO(r) for each of up to six rows; rows is a constant wherever this is used. */
#define EACH_ROW(rows, DO)                                                                         \
    do {                                                                                           \
        DO(0)                                                                                      \
        if ((rows) > 1) {                                                                          \
            DO(1)                                                                                  \
        }                                                                                          \
        if ((rows) > 2) {                                                                          \
            DO(2)                                                                                  \
        }                                                                                          \
        if ((rows) > 3) {                                                                          \
            DO(3)                                                                                  \
        }                                                                                          \
        if ((rows) > 4) {                                                                          \
            DO(4)                                                                                  \
        }                                                                                          \
        if ((rows) > 5) {                                                                          \
            DO(5)                                                                                  \
        }                                                                                          \
    } while (0)

#endif
