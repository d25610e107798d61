/* device/cpu/attention_avx512.c: attention over a chunk of keys for AVX-512 (F, BW, DQ, VL, BF16).
 *
 * Where a cache has 16 bits a number, three or four queries that go straight to it are multiplied
 * as bf16: half as many instructions as f32 takes, so that memory is what they wait for. Factors
 * are off by 2^-8 then, at most.
 */
#include <string.h>

#include "device/cpu/simd_avx512.h"

#define FOR_TILE_ROWS(CASE)                                                                        \
    CASE(1)                                                                                        \
    CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#include "device/cpu/attention_simd.h"

enum {
    FOUR = 4,         /* queries at a time */
    PAIRED_DIM = 512, /* numbers of a query at most */
    STRIP = 32        /* numbers that make a vector of 16 bits each */
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

/* Rounded to eight bits of mantissa. */
INLINE __m512i as_bf16(__m512i v, enum dtype type)
{
    if (type == DTYPE_BF16)
        return v;
    v = _mm512_srai_epi16(_mm512_add_epi16(v, _mm512_set1_epi16(4)), 3);
    return _mm512_and_si512(v, _mm512_set1_epi16((short)0x8FFF));
}

/* Is one of n numbers of f16 infinite, or none? Their bits would become those of a number. */
static bool any_infinite(const uint16_t *p, int64_t n)
{
    __m512i a = _mm512_setzero_si512(), b = a;
    int64_t i = 0;

    for (; i + 2 * STRIP <= n; i += 2 * STRIP) {
        __m512i v = _mm512_loadu_si512(p + i), w = _mm512_loadu_si512(p + i + STRIP);

        a = _mm512_max_epu16(a, _mm512_add_epi16(v, v));
        b = _mm512_max_epu16(b, _mm512_add_epi16(w, w));
    }
    for (; i < n; i += STRIP) {
        __m512i v = load_strip(p + i, n - i < STRIP ? (int)(n - i) : STRIP);

        a = _mm512_max_epu16(a, _mm512_add_epi16(v, v));
    }
    return _mm512_cmpge_epu16_mask(_mm512_max_epu16(a, b), _mm512_set1_epi16((short)0xF800)) != 0;
}

INLINE vf multiply(vf sum, __m512i a, __m512i b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* n floats by a scale as bf16, zeros up to a strip. */
INLINE void store_rounded(uint16_t *to, const float *from, int n, float scale)
{
    __mmask32 mask = strip_mask(n);
    vf low = _mm512_maskz_loadu_ps((__mmask16)mask, from);
    vf high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), from + VF_LANES);

    _mm512_storeu_si512(
        to, (__m512i)_mm512_cvtne2ps_pbh(vf_mul(high, vf_set(scale)), vf_mul(low, vf_set(scale))));
}

/* Quarter c of key j to quarter j of vector c. */
INLINE void turn_quarters(__m512i k[4])
{
    __m512i low01 = _mm512_shuffle_i32x4(k[0], k[1], _MM_SHUFFLE(1, 0, 1, 0));
    __m512i high01 = _mm512_shuffle_i32x4(k[0], k[1], _MM_SHUFFLE(3, 2, 3, 2));
    __m512i low23 = _mm512_shuffle_i32x4(k[2], k[3], _MM_SHUFFLE(1, 0, 1, 0));
    __m512i high23 = _mm512_shuffle_i32x4(k[2], k[3], _MM_SHUFFLE(3, 2, 3, 2));

    k[0] = _mm512_shuffle_i32x4(low01, low23, _MM_SHUFFLE(2, 0, 2, 0));
    k[1] = _mm512_shuffle_i32x4(low01, low23, _MM_SHUFFLE(3, 1, 3, 1));
    k[2] = _mm512_shuffle_i32x4(high01, high23, _MM_SHUFFLE(2, 0, 2, 0));
    k[3] = _mm512_shuffle_i32x4(high01, high23, _MM_SHUFFLE(3, 1, 3, 1));
}

/* Quarter j of sums[r] adds up to the score of query r and key j, which lane 4 j + r gets. */
INLINE vf add_lanes(vf a, vf b, vf c, vf d)
{
    vf ab = vf_add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    vf cd = vf_add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));

    return vf_add(unpack_low_pairs(ab, cd), unpack_high_pairs(ab, cd));
}

/* s[r, 0..7] of eight keys, apart from the first by so many numbers. */
INLINE void score_eight(float *s, int64_t lds, const uint16_t *q, const uint16_t *keys,
                        const int64_t apart[8], __mmask8 mask, int dim, enum dtype type,
                        const int rows)
{
    const __m512i first =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    vf scale = vf_set(type == DTYPE_F16 ? KEY_SCALE : 1), sums[2][FOUR], both[2], out[2];

#pragma GCC unroll 4
    for (int r = 0; r < FOUR; r++)
        sums[0][r] = sums[1][r] = vf_set(0);
    for (int i = 0; i < dim; i += STRIP, q += STRIP, keys += STRIP) {
        __m512i k[2][4];

#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            k[j / 4][j % 4] = load_strip(keys + apart[j], dim - i);
        turn_quarters(k[0]);
        turn_quarters(k[1]);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            __m512i a = as_bf16(k[0][c], type), b = as_bf16(k[1][c], type);

#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                __m512i part = _mm512_broadcast_i32x4(
                    _mm_loadu_si128((const void *)(q + r * PAIRED_DIM + 8 * c)));

                sums[0][r] = multiply(sums[0][r], a, part);
                sums[1][r] = multiply(sums[1][r], b, part);
            }
        }
    }
    for (int g = 0; g < 2; g++)
        both[g] = vf_mul(add_lanes(sums[g][0], sums[g][1], sums[g][2], sums[g][3]), scale);
    out[0] = _mm512_permutex2var_ps(both[0], first, both[1]);
    out[1] =
        _mm512_permutex2var_ps(both[0], _mm512_add_epi32(first, _mm512_set1_epi32(2)), both[1]);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        _mm256_mask_storeu_ps(s + r * lds, mask,
                              r % 2 ? _mm512_extractf32x8_ps(out[r / 2], 1)
                                    : _mm512_castps512_ps256(out[r / 2]));
}

INLINE void score_four(float *s, int64_t lds, const float *q, int64_t ldq, const uint16_t *keys,
                       int n_keys, int dim, enum dtype type, const void *ahead, const int rows)
{
    uint16_t rounded[FOUR * PAIRED_DIM];
    int64_t apart[8];

    for (int r = 0; r < rows; r++)
        for (int i = 0; i < dim; i += STRIP)
            store_rounded(rounded + r * PAIRED_DIM + i, q + r * ldq + i, dim - i,
                          type == DTYPE_F16 ? KEY_SCALE : 1);
    for (int j = 0; j < 8; j++)
        apart[j] = (int64_t)j * dim;
    for (int j = 0; j < n_keys; j += 8) {
        int n = n_keys - j < 8 ? n_keys - j : 8;

        for (int l = n; l < 8; l++)
            apart[l] = 0;
        if (ahead)
            prefetch(numbers_at(ahead, (int64_t)j * dim, type), n * dim, type);
        score_eight(s + j, lds, rounded, keys + (int64_t)j * dim, apart, (__mmask8)((1u << n) - 1),
                    dim, type, rows);
    }
}

/* Strips of n values, the last of which has so many numbers, for pairs of keys' weights p. */
INLINE void weigh_strips(float *y, int64_t ldy, const uint16_t *p, const uint16_t *values, int n,
                         int dim, enum dtype type, const int strips, const int last, const int rows,
                         const uint16_t *ahead)
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    vf sums[FOUR][4];

#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 2 * strips; v++)
            sums[r][v] = vf_load(y + r * ldy + v * VF_LANES);
    for (int j = 0; j < n; j += 2, values += 2 * dim) {
        const uint16_t *other = j + 1 < n ? values + dim : values;
        __m512i value[4];

        if (ahead)
            prefetch(ahead + (int64_t)j * dim, j + 1 < n ? 2 * dim : dim, type);
#pragma GCC unroll 2
        for (int v = 0; v < strips; v++) {
            int numbers = v < strips - 1 ? STRIP : last;
            __m512i a = load_strip(values + v * STRIP, numbers);
            __m512i b = load_strip(other + v * STRIP, numbers);

            value[2 * v] = as_bf16(_mm512_permutex2var_epi16(a, low, b), type);
            value[2 * v + 1] = as_bf16(_mm512_permutex2var_epi16(a, high, b), type);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            int32_t two;

            memcpy(&two, p + r * CPU_ATTEND_CHUNK + j, sizeof two);
#pragma GCC unroll 4
            for (int v = 0; v < 2 * strips; v++)
                sums[r][v] = multiply(sums[r][v], value[v], _mm512_set1_epi32(two));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 2 * strips; v++)
            vf_store(y + r * ldy + v * VF_LANES, sums[r][v]);
}

/* Of at most a chunk of values. */
INLINE void weigh_four(float *y, int64_t ldy, const float *s, int64_t lds, const uint16_t *values,
                       int n, int dim, enum dtype type, const uint16_t *ahead, const int rows)
{
    uint16_t p[FOUR * CPU_ATTEND_CHUNK];

    for (int r = 0; r < rows; r++)
        for (int j = 0; j < n; j += STRIP)
            store_rounded(p + r * CPU_ATTEND_CHUNK + j, s + r * lds + j, n - j,
                          type == DTYPE_F16 ? VALUE_SCALE : 1);
    for (int i = 0; i < dim; i += 2 * STRIP, ahead = NULL) {
        int left = dim - i;

        if (left >= 2 * STRIP)
            weigh_strips(y + i, ldy, p, values + i, n, dim, type, 2, STRIP, rows, ahead);
        else if (left > STRIP)
            weigh_strips(y + i, ldy, p, values + i, n, dim, type, 2, left - STRIP, rows, ahead);
        else
            weigh_strips(y + i, ldy, p, values + i, n, dim, type, 1, left, rows, ahead);
    }
}

/* Both for all rows: fours, or three, and what is left as f32. */
INLINE void paired_scores(float *s, int lds, const float *q, int ldq, int n_rows, const void *keys,
                          int n_keys, int dim, enum dtype type, const void *ahead)
{
    bool fits = dim <= PAIRED_DIM && n_rows >= 3 &&
                (type != DTYPE_F16 || !any_infinite(keys, (int64_t)n_keys * dim));
    int left = fits ? n_rows : 0, done = 0;

    for (; left >= 3; left -= FOUR, done += FOUR, ahead = NULL) {
        float *to = s + (int64_t)done * lds;
        const float *from = q + (int64_t)done * ldq;

        if (left == 3)
            score_four(to, lds, from, ldq, keys, n_keys, dim, type, ahead, 3);
        else
            score_four(to, lds, from, ldq, keys, n_keys, dim, type, ahead, FOUR);
    }
    if (done < n_rows)
        scores(s + (int64_t)done * lds, lds, q + (int64_t)done * ldq, ldq, n_rows - done, keys,
               n_keys, dim, type, ahead);
}

INLINE void paired_weigh(float *y, int ldy, const float *s, int lds, int n_rows, const void *values,
                         int n_keys, int dim, enum dtype type, const void *ahead)
{
    bool fits = n_keys <= CPU_ATTEND_CHUNK && n_rows >= 3 &&
                (type != DTYPE_F16 || !any_infinite(values, (int64_t)n_keys * dim));
    int left = fits ? n_rows : 0, done = 0;

    for (; left >= 3; left -= FOUR, done += FOUR, ahead = NULL) {
        float *to = y + (int64_t)done * ldy;
        const float *from = s + (int64_t)done * lds;

        if (left == 3)
            weigh_four(to, ldy, from, lds, values, n_keys, dim, type, ahead, 3);
        else
            weigh_four(to, ldy, from, lds, values, n_keys, dim, type, ahead, FOUR);
    }
    if (done < n_rows)
        weigh(y + (int64_t)done * ldy, ldy, s + (int64_t)done * lds, lds, n_rows - done, values,
              n_keys, dim, type, ahead);
}

#define PAIRED(suffix, type)                                                                       \
    static void paired_scores_##suffix(float *s, int lds, const float *q, int ldq, int n_rows,     \
                                       const void *keys, int n_keys, int dim, const void *ahead)   \
    {                                                                                              \
        paired_scores(s, lds, q, ldq, n_rows, keys, n_keys, dim, type, ahead);                     \
    }                                                                                              \
    static void paired_weigh_##suffix(float *y, int ldy, const float *s, int lds, int n_rows,      \
                                      const void *values, int n_keys, int dim, const void *ahead)  \
    {                                                                                              \
        paired_weigh(y, ldy, s, lds, n_rows, values, n_keys, dim, type, ahead);                    \
    }

PAIRED(f16, DTYPE_F16)
PAIRED(bf16, DTYPE_BF16)

void cpu_attention_kernels_avx512(struct cpu_vector_kernels *k)
{
    simd_attention_kernels(k);
    k->integers = &cpu_int_attention_avx512;
    k->rounds_factors = true;
    k->scores[DTYPE_F16] = paired_scores_f16;
    k->scores[DTYPE_BF16] = paired_scores_bf16;
    k->weigh[DTYPE_F16] = paired_weigh_f16;
    k->weigh[DTYPE_BF16] = paired_weigh_bf16;
}
