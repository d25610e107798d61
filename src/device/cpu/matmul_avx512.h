/* device/cpu/matmul_avx512.h: what the matrix kernels for AVX-512 share, beside those for AVX2. */
#ifndef DEVICE_CPU_MATMUL_AVX512_H
#define DEVICE_CPU_MATMUL_AVX512_H

#include "device/cpu/matmul_avx2.h"

extern const struct cpu_product avx512_gemm_i8;   /* affine, mxfp4, nvfp4; many rows */
extern const struct cpu_product avx512_gemm_bf16; /* bf16; many rows */

/* Adds sums of 32 outputs from o on, of which there are n_cols, to a row of y, or begins with the
 * bias. */
INLINE void avx512_add_row(const struct cpu_task *t, int row, const __m512 sums[2], int o,
                           int n_cols, bool begin)
{
    for (int half = 0; half < 2; half++) {
        int n = n_cols - 16 * half, at = o + 16 * half;
        __mmask16 mask = (__mmask16)(n <= 0 ? 0 : n < 16 ? (1u << n) - 1 : 0xFFFF);
        __m512 before = _mm512_setzero_ps();

        if (!begin)
            before = _mm512_maskz_loadu_ps(mask, cpu_task_y(t, row) + at);
        else if (t->bias)
            before = _mm512_maskz_loadu_ps(mask, t->bias + at);
        _mm512_mask_storeu_ps(cpu_task_y(t, row) + at, mask, _mm512_add_ps(before, sums[half]));
    }
}

#endif
