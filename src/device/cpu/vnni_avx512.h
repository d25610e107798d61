/* device/cpu/vnni_avx512.h: strips of x in 8 bits, and tiles of ROWS rows by COLS outputs of these
 * and of the panels of panels_avx2.h, as VNNI computes them.
 *
 * A tile's sums, of the integers and what they add up to as f32, are all in registers: processors
 * that start one product of 512 bits in a cycle store 512 bits in two.
 *
 * A strip holds 64 numbers of each of ROWS rows side by side, then the next 64, in the order of the
 * panels; then the steps, x = step q, and a sum of q for each group of weights.
 */
#ifndef DEVICE_CPU_VNNI_AVX512_H
#define DEVICE_CPU_VNNI_AVX512_H

#include "device/cpu/matmul_avx512.h"

#define COLS 32
#include "device/cpu/panels_avx2.h"

enum { ROWS = 6 };

/* A part of a strip: all rows, from some number of them on. */
struct part {
    const int8_t *x;    /* [n / 64, ROWS, 64] */
    const float *steps; /* [n / unit, ROWS] */
    const float *sums;  /* [n / group, ROWS] */
};

static inline size_t strip_numbers(int n_in)
{
    return ROWS * (((size_t)n_in + 63) & ~(size_t)63);
}

static inline size_t strip_size(int n_in, int unit, int group_size)
{
    size_t n = (size_t)n_in;
    size_t floats = ROWS * (n / (size_t)unit + n / (size_t)group_size);

    return (strip_numbers(n_in) + sizeof(float) * floats + 63) & ~(size_t)63;
}

/* From number k on, which is the first of a group. */
static inline struct part strip_part(const void *strip, int n_in, int unit, int group_size, int k)
{
    const int8_t *x = strip;
    const float *steps = (const float *)(const void *)(x + strip_numbers(n_in));

    return (struct part){
        .x = x + ROWS * (k & ~63) + k % 64,
        .steps = steps + ROWS * (k / unit),
        .sums = steps + ROWS * (n_in / unit) + ROWS * (k / group_size),
    };
}

/* q of a unit of numbers x, a multiple of 16, to every ROWS-th run of 64; returns what q sums up
 * to.
 */
INLINE int32_t quantise(int8_t *to, const float *x, int unit, float *step)
{
    const __m128i even_first = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i most = _mm512_setzero_si512(), sum = _mm512_setzero_si512();
    float inverse;

    for (int i = 0; i < unit; i += 16) /* as integers NaN > infinity > all numbers */
        most = _mm512_max_epi32(
            most, _mm512_and_si512(magnitude, _mm512_castps_si512(_mm512_loadu_ps(x + i))));
    *step =
        avx2_step(_mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(most)))),
                  127, &inverse);
    for (int i = 0; i < unit; i += 16) {
        __m512i q =
            _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));

        sum = _mm512_add_epi32(sum, q);
        _mm_storeu_si128((__m128i *)(to + ROWS * (i & ~63) + i % 64),
                         _mm_shuffle_epi8(_mm512_cvtsepi32_epi8(q), even_first));
    }
    return _mm512_reduce_add_epi32(sum);
}

/* Where row r of a strip has q, steps and sums. */
INLINE struct part strip_row(void *strip, int r, int n_in, int unit, int group_size)
{
    struct part p = strip_part(strip, n_in, unit, group_size, 0);

    p.x += 64 * r;
    p.steps += r;
    p.sums += r;
    return p;
}

/* sums += what n numbers give, a multiple of 4; of x they are within one run of 64. */
INLINE void add_products(__m512i sums[ROWS][2], const uint8_t *codes, const int8_t *x, int n,
                         const int rows)
{
    for (int i = 0; i < n; i += 4, codes += 4 * COLS, x += 4) {
        __m512i w0 = _mm512_load_si512(codes), w1 = _mm512_load_si512(codes + 64);

#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m512i v = _mm512_set1_epi32(*(const int32_t *)(const void *)(x + 64 * r));

            sums[r][0] = avx512_now(_mm512_dpbusd_epi32(sums[r][0], w0, v));
            sums[r][1] = avx512_now(_mm512_dpbusd_epi32(sums[r][1], w1, v));
        }
    }
}

/* Adds a tile to rows of y from the first on, outputs o to o + n_cols of them. */
INLINE void add_tile(const struct cpu_task *t, __m512 tile[ROWS][2], int first, int n_rows, int o,
                     int n_cols, bool begin, const int rows)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        if (r < n_rows)
            avx512_add_row(t, first + r, tile[r], o, n_cols, begin);
}

#endif
