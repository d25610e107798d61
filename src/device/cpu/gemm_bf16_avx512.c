/* device/cpu/gemm_bf16_avx512.c: bf16 weights by many rows, x rounded to bf16, sums in f32. An odd
 * last number gets a zero beside it. */
#define PER 2
#define BLOCK 1024 /* 64 KB, which come from the second cache */
#include "device/cpu/dense_avx512.h"

/* Rounds to nearest, ties to even. */
static void prepare_row(uint32_t *to, const float *x, int n)
{
    for (int i = 0; i < n; i += 32, to += 16 * ROWS) {
        __m512 low = _mm512_maskz_loadu_ps(first_16(n - i), x + i);
        __m512 high = _mm512_maskz_loadu_ps(first_16(n - i - 16), x + i + 16);
        uint32_t pairs[16];

        _mm512_storeu_si512(pairs, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        for (int j = 0; j < 16 && i + 2 * j < n; j++)
            to[j * ROWS] = pairs[j];
    }
}

static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    for (int part = 0; part < COLS; part += 8) {
        const uint8_t *rows[8];

        for (int c = 0; c < 8; c++)
            rows[c] =
                weight_data(w, o + (part + c < n_cols ? part + c : n_cols - 1)) + 2 * (size_t)k;
        for (int i = 0; i < n; i += 16) {
            uint8_t last[8][32] = {0};
            __m256i v[8];

            for (int c = 0; c < 8; c++) {
                const uint8_t *p = rows[c] + 2 * i;

                if (n - i < 16)
                    p = memcpy(last[c], p, 2 * (size_t)(n - i));
                v[c] = _mm256_loadu_si256((const __m256i *)p);
            }
            transpose8(v);
            for (int j = 0; j < 8 && i + 2 * j < n; j++)
                _mm256_store_si256((__m256i *)(panel->w + (i / 2 + j) * COLS + part), v[j]);
        }
    }
}

INLINE __m512 multiply_add(__m512 sum, __m512i w, __m512i x)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
}

const struct cpu_product avx512_gemm_bf16 = {
    .name = "bf16 panels",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
