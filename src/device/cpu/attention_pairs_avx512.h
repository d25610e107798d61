/* device/cpu/attention_pairs_avx512.h: keys and values of 16 bits that three or four queries meet
 * as pairs of bf16; see attention_avx512.c. */
#ifndef DEVICE_CPU_ATTENTION_PAIRS_AVX512_H
#define DEVICE_CPU_ATTENTION_PAIRS_AVX512_H

#include <string.h>

#include "device/cpu/inline.h"
#include "device/cpu/simd_avx512.h"
#include "device/cpu/vector_kernels.h"

enum {
    FOUR = 4,            /* queries at a time */
    EIGHT = 8,           /* keys at a time */
    STRIP = 32,          /* numbers that make a vector of 16 bits each */
    TURNED = 16 * STRIP, /* what a strip of four queries becomes */
    OR_DIFFER = 0xF6     /* a | (b ^ c) */
};

/* The bits of f16, shifted to where bf16 has them, are those of a number 2^112 times as small, or 0
 * for one below 2^-14; so these are what the other factors are multiplied by, and results. */

#define KEY_SCALE 0x1p56f
#define VALUE_SCALE 0x1p112f

INLINE __mmask32 strip_mask(int n)
{
    return n < STRIP ? (1u << n) - 1 : 0xFFFFFFFF;
}

/* Zeros past n. */
INLINE __m512i load_strip(const uint16_t *p, int n)
{
    return n >= STRIP ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(strip_mask(n), p);
}

/* Rounded to eight bits of mantissa; the sign of a lane of strange is set where a number was not
 * finite: 1 more in the exponent turns its sign. */
INLINE __m512i as_bf16(__m512i v, enum dtype type, __m512i *strange)
{
    if (type == DTYPE_BF16)
        return v;
    __m512i half_up = _mm512_add_epi16(v, _mm512_set1_epi16(4));
    __m512i more = _mm512_add_epi16(v, _mm512_set1_epi16(0x400));

    *strange = _mm512_ternarylogic_epi32(*strange, v, more, OR_DIFFER);
    return _mm512_and_si512(_mm512_srai_epi16(half_up, 3), _mm512_set1_epi16((short)0x8FFF));
}

INLINE bool any_strange(__m512i strange)
{
    return _mm512_movepi16_mask(strange) != 0;
}

INLINE vf multiply(vf sum, __m512i a, __m512i b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* Rows that are read, and what is called to the second cache meanwhile: one line after every few
 * products, for of many at once the processor leaves some out, and of few some too, so that each is
 * called once more, before it is read. With nothing to call for these are the rows
 * themselves, which costs less than to ask. */
struct calls {
    const uint16_t *rows, *ahead, *soon;
};

INLINE void call_line(const uint16_t *p)
{
    __builtin_prefetch(p, 0, 2);
}

/* --- Scores ---
 *
 * Pairs of numbers of four keys are exchanged within quarters of vectors, pair t of each quarter of
 * key j to pair j of vector t, so that a pair of sums has one key; they meet queries of which pair
 * t of a quarter fills that quarter of vector t. What is left to add up are quarters.
 */

/* A strip of a query, as products of those keys meet it. */
INLINE void turn_strip(uint16_t *to, __m512i v)
{
    _mm512_storeu_si512(to, _mm512_shuffle_epi32(v, 0x00));
    _mm512_storeu_si512(to + FOUR * STRIP, _mm512_shuffle_epi32(v, 0x55));
    _mm512_storeu_si512(to + 2 * FOUR * STRIP, _mm512_shuffle_epi32(v, 0xAA));
    _mm512_storeu_si512(to + 3 * FOUR * STRIP, _mm512_shuffle_epi32(v, 0xFF));
}

INLINE void exchange_pairs(__m512i k[FOUR])
{
    __m512i low01 = _mm512_unpacklo_epi32(k[0], k[1]), high01 = _mm512_unpackhi_epi32(k[0], k[1]);
    __m512i low23 = _mm512_unpacklo_epi32(k[2], k[3]), high23 = _mm512_unpackhi_epi32(k[2], k[3]);

    k[0] = _mm512_unpacklo_epi64(low01, low23);
    k[1] = _mm512_unpackhi_epi64(low01, low23);
    k[2] = _mm512_unpacklo_epi64(high01, high23);
    k[3] = _mm512_unpackhi_epi64(high01, high23);
}

/* Quarters of the result: a02 a13 b02 b13. */
INLINE vf add_halves(vf a, vf b)
{
    return vf_add(_mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(1, 0, 1, 0)),
                  _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 2, 3, 2)));
}

/* a01 a23 b01 b23 */
INLINE vf add_neighbours(vf a, vf b)
{
    return vf_add(_mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(2, 0, 2, 0)),
                  _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
}

/* n numbers of so many keys, EIGHT at most. */
INLINE void score_strip(vf sums[FOUR][2], const uint16_t *q, struct calls at, int n_keys, int dim,
                        int n, enum dtype type, const int rows, __m512i *strange)
{
    __m512i k[2][FOUR];

#pragma GCC unroll 8
    for (int j = 0; j < EIGHT; j++) {
        int64_t key = j < n_keys ? j : 0;

        k[j / FOUR][j % FOUR] = as_bf16(load_strip(at.rows + key * dim, n), type, strange);
    }
    exchange_pairs(k[0]);
    exchange_pairs(k[1]);
#pragma GCC unroll 4
    for (int t = 0; t < 4; t++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m512i query = _mm512_loadu_si512(q + (t * FOUR + r) * STRIP);

            sums[r][0] = multiply(sums[r][0], k[0][t], query);
            sums[r][1] = multiply(sums[r][1], k[1][t], query);
            if (r % 2 == 0)
                call_line(at.ahead + (2 * t + r / 2) * STRIP);
            if (r % 2 == (rows > 3))
                call_line(at.soon + (2 * t + r / 2) * STRIP);
        }
}

/* Of so many keys, EIGHT at most: two[i] has the scores of queries 2 i and 2 i + 1. Lines are
 * called for in memory's order. */
INLINE void sum_eight(vf two[FOUR / 2], const uint16_t *q, struct calls at, int n_keys, int dim,
                      enum dtype type, const int rows, __m512i *strange)
{
    vf sums[FOUR][2], scale = vf_set(type == DTYPE_F16 ? KEY_SCALE : 1);
    int i = 0;

#pragma GCC unroll 4
    for (int r = 0; r < FOUR; r++)
        sums[r][0] = sums[r][1] = vf_set(0);
    for (; i + STRIP <= dim; i += STRIP, q += TURNED) {
        score_strip(sums, q, at, n_keys, dim, STRIP, type, rows, strange);
        at.rows += STRIP;
        at.ahead += STRIP * EIGHT;
        at.soon += STRIP * EIGHT;
    }
    if (i < dim)
        score_strip(sums, q, at, n_keys, dim, dim - i, type, rows, strange);
#pragma GCC unroll 2
    for (int r = 0; r < rows; r += 2)
        two[r / 2] = vf_mul(add_neighbours(add_halves(sums[r][0], sums[r][1]),
                                           add_halves(sums[r + 1][0], sums[r + 1][1])),
                            scale);
}

/* --- Values --- */

/* Two values, or one with another that weighs nothing. */
INLINE void weigh_pair(vf sums[FOUR][4], const uint16_t *p, int ldp, struct calls at, int64_t other,
                       int dim, enum dtype type, const int strips, const int last, const int rows,
                       __m512i *strange)
{
    __m512i value[4];

#pragma GCC unroll 2
    for (int v = 0; v < strips; v++) {
        int n = v < strips - 1 ? STRIP : last;
        __m512i a = as_bf16(load_strip(at.rows + v * STRIP, n), type, strange);
        __m512i b = as_bf16(load_strip(at.rows + other + v * STRIP, n), type, strange);

        value[2 * v] = _mm512_unpacklo_epi16(a, b);
        value[2 * v + 1] = _mm512_unpackhi_epi16(a, b);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        int32_t two;

        memcpy(&two, p + r * ldp, sizeof two);
        for (int l = r; l < 2 * strips; l += rows) {
            int64_t line = (int64_t)(l % 2) * dim + l / 2 * STRIP;

            call_line(at.ahead + line);
            call_line(at.soon + line);
        }
#pragma GCC unroll 4
        for (int v = 0; v < 2 * strips; v++)
            sums[r][v] = multiply(sums[r][v], value[v], _mm512_set1_epi32(two));
    }
}

/* Two vectors in the order in which sums of values stand, and back. */
INLINE void part_quarters(vf to[2], vf a, vf b)
{
    to[0] = _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(2, 0, 2, 0));
    to[1] = _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 1, 3, 1));
}

INLINE void join_quarters(float *to, vf a, vf b)
{
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_add_epi64(first, _mm512_set1_epi64(4));
    __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);

    vf_store(to, _mm512_castpd_ps(_mm512_permutex2var_pd(x, first, y)));
    vf_store(to + VF_LANES, _mm512_castpd_ps(_mm512_permutex2var_pd(x, second, y)));
}

/* attention_both_avx512.c: attend of struct cpu_attention_at_once. */
bool cpu_attend_f16_avx512(float *acc, int ld, float *max, float *sum,
                           const struct cpu_paired_queries *q, const struct cpu_stretch *keys,
                           const struct cpu_stretch *values, int n_stretches, int k_dim, int v_dim);
bool cpu_attend_bf16_avx512(float *acc, int ld, float *max, float *sum,
                            const struct cpu_paired_queries *q, const struct cpu_stretch *keys,
                            const struct cpu_stretch *values, int n_stretches, int k_dim,
                            int v_dim);

#endif
