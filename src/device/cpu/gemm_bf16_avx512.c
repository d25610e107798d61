/* device/cpu/gemm_bf16_avx512.c: bf16 weights by many rows, x rounded to bf16, sums in f32. An odd
 * last number gets a zero beside it. */
#define PER 2
#define BLOCK 2048 /* 128 KB, which come from the second cache */
#include "device/cpu/dense_avx512.h"

/* Rounds to nearest, ties to even. */
INLINE __m512i run_of(const float *x, int n)
{
    __m512 low = _mm512_maskz_loadu_ps(first_16(n), x);
    __m512 high = _mm512_maskz_loadu_ps(first_16(n - 16), x + 16);

    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    for (int half = 0; half < COLS; half += 16) {
        const uint8_t *rows[16];
        uint8_t last[16][32] = {0};

        for (int c = 0; c < 16; c++)
            rows[c] =
                weight_data(w, o + (half + c < n_cols ? half + c : n_cols - 1)) + 2 * (size_t)k;
        for (int i = 0; i < n; i += 16) {
            int at = 2 * i;
            __m512i v[8];

            if (n - i < 16) {
                for (int c = 0; c < 16; c++)
                    rows[c] = memcpy(last[c], rows[c] + at, 2 * (size_t)(n - i));
                at = 0;
            }
            avx512_load_transposed(v, rows, at);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                if (i + 2 * j < n)
                    _mm512_store_si512(panel->w + (i / 2 + j) * COLS + half, v[j]);
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
