/* device/cpu/matmul_avx512.h: what the matrix kernels for AVX-512 share, beside those for AVX2. */
#ifndef DEVICE_CPU_MATMUL_AVX512_H
#define DEVICE_CPU_MATMUL_AVX512_H

#include "device/cpu/matmul_avx2.h"

#define AVX512_FEW_ROWS 16    /* that avx512_few takes at most */
#define AVX512_FEW_OUTPUTS 16 /* and at least so many outputs */
#define RUN_SIZE 128          /* avx512_gemm_runs takes weights of a multiple of so many numbers */

/* Affine of 2, 3, 5 or 6 bits with scales of 16; few rows. */
const struct cpu_product *avx512_gemv_bits(int bits);

/* As the slot of struct cpu_matmul_kernels. */
const struct cpu_product *avx512_choose(const struct weight *w, int n_rows, bool exact);

extern const struct cpu_product avx512_gemm_i8;      /* affine, mxfp4, nvfp4; many rows */
extern const struct cpu_product avx512_gemm_bf16;    /* bf16; many rows */
extern const struct cpu_product avx512_gemm_f32;     /* any format, many rows */
extern const struct cpu_product avx512_gemm_runs;    /* affine of 4 bits, mxfp4; many rows */
extern const struct cpu_product avx512_few;          /* affine of 4 bits, mxfp4; some rows */
extern const struct cpu_product avx512_gemv_nibbles; /* affine of 4 bits, mxfp4, nvfp4; few rows */
extern const struct cpu_product avx512_gemv_bytes;   /* affine of 8 bits; few rows */
extern const struct cpu_product avx512_exact_row;    /* affine of 4 and 8 bits, exact; few rows */
extern const struct cpu_product avx512_bf16_row;     /* bf16, exact; a row */
extern const struct cpu_product avx512_e4m3_row;     /* mxfp8; fp8, scales of whole 32 numbers */

/* Has v computed here, in its register: else gcc copies sums about in loops, and spills them. */
INLINE __m512i avx512_now(__m512i v)
{
    __asm__("" : "+v"(v));
    return v;
}

/* The first n of 16 lanes; n may be less than 0 or more than 16. */
INLINE __mmask16 first_16(int n)
{
    return (__mmask16)(n <= 0 ? 0 : n < 16 ? (1u << n) - 1 : 0xFFFF);
}

/* The first n of 16 scales of a type, zeros behind them. */
INLINE __m512 avx512_scales(const uint8_t *p, int n, const enum dtype type)
{
    const __mmask16 there = first_16(n);

    if (type == DTYPE_F32)
        return _mm512_maskz_loadu_ps(there, p);
    if (type == DTYPE_F16 || type == DTYPE_BF16) {
        __m256i v = n < 16 ? _mm256_maskz_loadu_epi16(there, p)
                           : _mm256_loadu_si256((const __m256i *)(const void *)p);

        return type == DTYPE_F16
                   ? _mm512_cvtph_ps(v)
                   : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
    }
    __m128i low = _mm_maskz_loadu_epi8(there, p), high = _mm_unpackhi_epi64(low, low);
    __m256 first = type == DTYPE_F8_E4M3 ? e4m3_to_f32(low) : e8m0_to_f32x8(low);
    __m256 last = type == DTYPE_F8_E4M3 ? e4m3_to_f32(high) : e8m0_to_f32x8(high);

    return _mm512_maskz_mov_ps(there, _mm512_insertf32x8(_mm512_castps256_ps512(first), last, 1));
}

/* Twice the values of e2m1 codes, and E2M1_ZERO. */
INLINE __m512i avx512_e2m1(__m512i codes)
{
    const __m512i table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));

    return _mm512_shuffle_epi8(table, codes);
}

/* v[i] = the i-th 32 bits of 32 bytes of each of 16 rows, from byte at on. */
INLINE void avx512_load_transposed(__m512i v[8], const uint8_t *const rows[16], int at)
{
    __m512i t[8], u[8];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) { /* rows 0 to 3 beside 4 to 7, 8 to 11 beside 12 to 15 */
        int row = i < 4 ? i : i + 4;
        __m256i low = _mm256_loadu_si256((const __m256i *)(rows[row] + at));

        v[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low),
                                  _mm256_loadu_si256((const __m256i *)(rows[row + 4] + at)), 1);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i64x2(u[i], u[4 + i], 0x88);
        v[4 + i] = _mm512_shuffle_i64x2(u[i], u[4 + i], 0xDD);
    }
}

/* The first 32 numbers of x in bf16, zeros behind n; rounded to nearest, ties to even. */
INLINE __m512i avx512_bf16_of(const float *x, int n)
{
    __m512 low = _mm512_maskz_loadu_ps(first_16(n), x);
    __m512 high = _mm512_maskz_loadu_ps(first_16(n - 16), x + 16);

    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* n numbers of 16 bits of each of 16 rows, pairs of all rows side by side: to[i / 2 * stride + row]
 * is numbers i and i + 1. An odd last number gets a zero beside it. */
INLINE void avx512_store_pairs(uint32_t *to, int stride, const uint8_t *const rows[16], int n)
{
    const uint8_t *from[16];
    uint8_t last[16][32] = {0};

    memcpy(from, rows, sizeof from);
    for (int i = 0; i < n; i += 16) {
        int at = 2 * i;
        __m512i v[8];

        if (n - i < 16) {
            for (int r = 0; r < 16; r++)
                from[r] = memcpy(last[r], rows[r] + at, 2 * (size_t)(n - i));
            at = 0;
        }
        avx512_load_transposed(v, from, at);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            if (i + 2 * j < n)
                _mm512_store_si512(to + (i / 2 + j) * stride, v[j]);
    }
}

/* Numbers k to k + n of 32 outputs of bf16 from o on, of which there are n_cols (past the last: of
 * that again), as such pairs. */
INLINE void avx512_bf16_pairs(uint32_t *to, const struct weight *w, int o, int n_cols, int k, int n)
{
    for (int half = 0; half < 32; half += 16) {
        const uint8_t *rows[16];

        for (int c = 0; c < 16; c++)
            rows[c] =
                weight_data(w, o + (half + c < n_cols ? half + c : n_cols - 1)) + 2 * (size_t)k;
        avx512_store_pairs(to + half, 32, rows, n);
    }
}

/* Adds sums of 32 outputs from o on, of which there are n_cols, to a row of y, or begins with the
 * bias. */
INLINE void avx512_add_row(const struct cpu_task *t, int row, const __m512 sums[2], int o,
                           int n_cols, bool begin)
{
    float *y = cpu_task_y(t, row) + o;
    const float *before = !begin ? y : t->bias ? t->bias + o : NULL;
    __mmask16 a = 0xFFFF, b = 0xFFFF;

    if (n_cols < 32) {
        a = first_16(n_cols);
        b = first_16(n_cols - 16);
    }
    if (before) {
        _mm512_mask_storeu_ps(y, a, _mm512_add_ps(_mm512_maskz_loadu_ps(a, before), sums[0]));
        _mm512_mask_storeu_ps(y + 16, b,
                              _mm512_add_ps(_mm512_maskz_loadu_ps(b, before + 16), sums[1]));
        return;
    }
    _mm512_mask_storeu_ps(y, a, sums[0]);
    _mm512_mask_storeu_ps(y + 16, b, sums[1]);
}

/* Calls for 32 outputs from o on of some rows of y. */
INLINE void avx512_prefetch_rows(const struct cpu_task *t, int first, int rows, int o)
{
    for (int r = 0; r < rows; r++) {
        const char *y = (const char *)(cpu_task_y(t, first + r) + o);

        _mm_prefetch(y, _MM_HINT_T0);
        _mm_prefetch(y + 64, _MM_HINT_T0);
    }
}

#endif
