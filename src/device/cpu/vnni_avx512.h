/* device/cpu/vnni_avx512.h: tiles of ROWS rows by COLS outputs of the panels and strips of
 * panels_avx2.h, which a file includes before, as VNNI computes them.
 */
#ifndef DEVICE_CPU_VNNI_AVX512_H
#define DEVICE_CPU_VNNI_AVX512_H

#include "device/cpu/matmul_avx512.h"

/* tile = what the biases of n_groups groups contribute. */
INLINE void begin_tile(float *tile, const float *biases, const float *sums, int n_groups,
                       const int rows)
{
    __m512 s[ROWS][2];

#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = _mm512_setzero_ps();
    for (int g = 0; g < n_groups; g++, biases += COLS, sums += ROWS) {
        __m512 b0 = _mm512_load_ps(biases), b1 = _mm512_load_ps(biases + 16);

#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512 v = _mm512_set1_ps(sums[r]);

            s[r][0] = _mm512_fmadd_ps(b0, v, s[r][0]);
            s[r][1] = _mm512_fmadd_ps(b1, v, s[r][1]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        _mm512_store_ps(tile + r * COLS, s[r][0]);
        _mm512_store_ps(tile + r * COLS + 16, s[r][1]);
    }
}

/* A unit of numbers, a multiple of 4: tile += scale step sum q xq. */
INLINE void multiply_unit(float *tile, const uint8_t *codes, const int32_t *x, const float *scales,
                          const float *steps, int unit, const int rows)
{
    __m512 s0 = _mm512_load_ps(scales), s1 = _mm512_load_ps(scales + 16);
    __m512i sums[ROWS][2];

#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_si512();
    for (int i = 0; i < unit / 4; i++, codes += 4 * COLS, x += ROWS) {
        __m512i w0 = _mm512_load_si512(codes), w1 = _mm512_load_si512(codes + 64);

#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512i v = _mm512_set1_epi32(x[r]);

            sums[r][0] = avx512_now(_mm512_dpbusd_epi32(sums[r][0], w0, v));
            sums[r][1] = avx512_now(_mm512_dpbusd_epi32(sums[r][1], w1, v));
        }
    }
    __asm__ volatile("" : : : "memory"); /* the tile stays there */
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        __m512 step = _mm512_set1_ps(steps[r]);
        float *to = tile + r * COLS;

        _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][0]), _mm512_mul_ps(s0, step),
                                            _mm512_load_ps(to)));
        _mm512_store_ps(to + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][1]),
                                                 _mm512_mul_ps(s1, step), _mm512_load_ps(to + 16)));
    }
}

/* Adds the tile of rows of y from the first on, outputs o to o + n_cols of them. */
INLINE void add_tile(const struct cpu_task *t, const float *tile, int first, int rows, int o,
                     int n_cols, bool begin)
{
    for (int r = 0; r < rows; r++) {
        __m512 sums[2] = {_mm512_load_ps(tile + r * COLS), _mm512_load_ps(tile + r * COLS + 16)};

        avx512_add_row(t, first + r, sums, o, n_cols, begin);
    }
}

#endif
