/* device/cpu/gemm_f32_avx512.c: weights by many rows in f32. Where products of bf16 are no faster
 * it is the way of bf16 too. */
#define PER 1
#define BLOCK 512 /* 64 KB, which come from the second cache */
#include "device/cpu/dense_avx512.h"

INLINE __m512i run_of(const float *x, int n)
{
    return _mm512_castps_si512(_mm512_maskz_loadu_ps(first_16(n), x));
}

static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    for (int part = 0; part < COLS; part += 8) {
        for (int c = 0; c < 8; c++)
            avx2_dequantise(panel->rows + c * BLOCK, w,
                            o + (part + c < n_cols ? part + c : n_cols - 1), k, n);
        for (int i = 0; i < n; i += 8) { /* what is behind n is not looked at */
            __m256i v[8];

#pragma GCC unroll 8
            for (int c = 0; c < 8; c++)
                v[c] = _mm256_load_si256((const __m256i *)(panel->rows + c * BLOCK + i));
            transpose8(v);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                _mm256_store_si256((__m256i *)(panel->w + (i + j) * COLS + part), v[j]);
        }
    }
}

INLINE __m512 multiply_add(__m512 sum, __m512i w, __m512i x)
{
    return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), sum);
}

const struct cpu_product avx512_gemm_f32 = {
    .name = "f32 panels",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
