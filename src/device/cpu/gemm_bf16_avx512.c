/* device/cpu/gemm_bf16_avx512.c: bf16 weights by many rows, x rounded to bf16, sums in f32. */
#define PER 2
#define BLOCK 2048 /* 128 KB, which come from the second cache */
#include "device/cpu/dense_avx512.h"

INLINE __m512i run_of(const float *x, int n)
{
    return avx512_bf16_of(x, n);
}

static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    avx512_bf16_pairs(panel->w, w, o, n_cols, k, n);
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
