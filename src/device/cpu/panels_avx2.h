/* device/cpu/panels_avx2.h: panels of integer weights, for the products in gemm_avx2.c and
 * gemm_avx512.c. A file defines COLS, of a panel, a multiple of 8, and includes it.
 *
 * A panel holds COLS outputs by some numbers of a row; in it 32 bits of each output lie side by
 * side: four numbers of 8 bits, or two of 16. Of every 8 numbers of 8 bits those at even places
 * come first, then those at odd ones.
 */
#ifndef DEVICE_CPU_PANELS_AVX2_H
#define DEVICE_CPU_PANELS_AVX2_H

#include "device/cpu/matmul_avx2.h"

#define PANEL_GROUPS 64 /* of an output in a panel, at most */

/* What a panel is unpacked from; 2 to 8: affine of so many bits. */
enum { E2M1 = 16 };

/* 32 numbers of 8 outputs into their places in a panel, of which to is the first. */
INLINE void unpack_square(uint8_t *to, const uint8_t *const rows[8], int at, const int bits,
                          const int bytes)
{
    const __m256i low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const __m256i high = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
    __m256i v[8];

#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        v[c] = codes32(rows[c] + at / 8 * bits, bits);
        if (bytes == 1)
            v[c] = even_first(v[c]);
    }
    transpose8(v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        if (bytes == 1) {
            _mm256_store_si256((__m256i *)(to + i * 4 * COLS), v[i]);
            continue;
        }
        _mm256_store_si256((__m256i *)(to + (2 * i) * 4 * COLS), _mm256_shuffle_epi8(v[i], low));
        _mm256_store_si256((__m256i *)(to + (2 * i + 1) * 4 * COLS),
                           _mm256_shuffle_epi8(v[i], high));
    }
}

INLINE __m256i nibbles(__m256i v, const int kind)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));

    v = _mm256_and_si256(v, _mm256_set1_epi8(0x0F));
    return kind == E2M1 ? _mm256_shuffle_epi8(table, v) : v;
}

/* 64 numbers, or the n left, of 4 bits: 32 bits of them change places before they come apart. */
INLINE void unpack_nibbles(uint8_t *to, const uint8_t *const rows[8], int at, int n, const int kind)
{
    __m256i v[8];

#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        const uint8_t *p = rows[c] + at / 2;

        if (n >= 64)
            v[c] = _mm256_loadu_si256((const __m256i *)p);
        else if (n > 32) /* groups of nvfp4 */
            v[c] = _mm256_set_m128i(_mm_loadl_epi64((const __m128i *)(p + 16)),
                                    _mm_loadu_si128((const __m128i *)p));
        else if (n == 32)
            v[c] = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
        else
            v[c] = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)p));
    }
    transpose8(v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        if (n < 64 && 8 * i >= n)
            break;
        _mm256_store_si256((__m256i *)(to + (2 * i) * 4 * COLS), nibbles(v[i], kind));
        _mm256_store_si256((__m256i *)(to + (2 * i + 1) * 4 * COLS),
                           nibbles(_mm256_srli_epi16(v[i], 4), kind));
    }
}

/* Codes of outputs o to o + COLS (past the last: of that again), numbers k to k + n. */
INLINE void unpack_codes(uint8_t *codes, const struct weight *w, int o, int n_cols, int k, int n,
                         const int kind, const int bytes)
{
    const int bits = kind == E2M1 ? 4 : kind, step = bits == 4 ? 64 : 32;
    size_t next = COLS * weight_row_bytes(w);

    for (int half = 0; half < COLS; half += 8) {
        const uint8_t *rows[8];

        for (int c = 0; c < 8; c++)
            rows[c] =
                weight_data(w, o + (half + c < n_cols ? half + c : n_cols - 1)) + k / 8 * bits;
        for (int i = 0; i < n; i += step) {
            uint8_t *to = codes + (i * bytes / 4 * COLS + half) * 4;

            if (bits != 4)
                unpack_square(to, rows, i, bits, bytes);
            else if (n - i >= 64)
                unpack_nibbles(to, rows, i, 64, kind);
            else
                unpack_nibbles(to, rows, i, n - i, kind);
            if (i * bits % 512 == 0)
                for (int c = 0; c < 8; c++)
                    _mm_prefetch((const char *)rows[c] + i / 8 * bits + next, _MM_HINT_T1);
        }
    }
}

/* Expands numbers of 8 rows of groups and puts them side by side: to [n_groups, COLS], times unit.
 */
static inline void unpack_floats(float *to, const struct weight *w, const void *scales,
                                 const int rows[8], int k, int n_groups, float unit)
{
    float expanded[8][PANEL_GROUPS + 8];

    for (int c = 0; c < 8; c++)
        avx2_scales(expanded[c], weight_scale(w, scales, rows[c], k), avx2_scale_type(w), n_groups);
    for (int g = 0; g < n_groups; g += 8) {
        __m256i v[8];

#pragma GCC unroll 8
        for (int c = 0; c < 8; c++)
            v[c] = _mm256_castps_si256(
                _mm256_mul_ps(_mm256_loadu_ps(expanded[c] + g), _mm256_set1_ps(unit)));
        transpose8(v);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            if (g + i < n_groups)
                _mm256_store_si256((__m256i *)(to + (g + i) * COLS), v[i]);
    }
}

/* Scales and biases of groups. e2m1 values are doubled, and E2M1_ZERO too large. */
static inline void unpack_scales(float *scales, float *biases, const struct weight *w, int o,
                                 int n_cols, int k, int n)
{
    int n_groups = n / w->group_size;

    for (int half = 0; half < COLS; half += 8) {
        int rows[8];

        for (int c = 0; c < 8; c++)
            rows[c] = o + (half + c < n_cols ? half + c : n_cols - 1);
        if (w->format == WEIGHT_AFFINE) {
            unpack_floats(scales + half, w, w->scales, rows, k, n_groups, 1);
            unpack_floats(biases + half, w, w->biases, rows, k, n_groups, 1);
        } else {
            unpack_floats(scales + half, w, w->scales, rows, k, n_groups, 0.5f);
            unpack_floats(biases + half, w, w->scales, rows, k, n_groups, -0.5f * E2M1_ZERO);
        }
    }
}

/* The codes of any format that has such. bytes 2 is for 6 and 8 bits. */
INLINE void unpack_format(uint8_t *codes, const struct weight *w, int o, int n_cols, int k, int n,
                          const int bytes)
{
    switch (w->format == WEIGHT_AFFINE ? w->bits : E2M1) {
    case 2:
        unpack_codes(codes, w, o, n_cols, k, n, 2, 1);
        break;
    case 3:
        unpack_codes(codes, w, o, n_cols, k, n, 3, 1);
        break;
    case 4:
        unpack_codes(codes, w, o, n_cols, k, n, 4, 1);
        break;
    case 5:
        unpack_codes(codes, w, o, n_cols, k, n, 5, 1);
        break;
    case 6:
        unpack_codes(codes, w, o, n_cols, k, n, 6, bytes);
        break;
    case 8:
        unpack_codes(codes, w, o, n_cols, k, n, 8, bytes);
        break;
    default:
        unpack_codes(codes, w, o, n_cols, k, n, E2M1, 1);
        break;
    }
}

#endif
