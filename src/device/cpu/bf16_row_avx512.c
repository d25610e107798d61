/* device/cpu/bf16_row_avx512.c: weights of bf16 by a single row, as processors of Intel want it.
 *
 * The numbers that avx2_product_dense gives, bit for bit, as its order of summation is kept: a
 * vector has the 8 lanes of an output and those of another. That takes half as many instructions.
 * Outputs are read in four places, and lines called for twice: to the first cache, and further
 * ahead to the second.
 */
#include "device/cpu/matmul_avx512.h"

#define BLOCK AVX2_SUM_BLOCK
#define PLACES 4
#define LINE 32   /* numbers */
#define NEAR 1024 /* bytes to what is called for to the first cache */
#define FAR 3072  /* to the second */

/* The first n of 16 numbers of an output, zeros behind them. */
INLINE __m256i numbers(const uint8_t *p, int n)
{
    return n == 16 ? _mm256_loadu_si256((const __m256i *)p)
                   : _mm256_maskz_loadu_epi16(first_16(n), p);
}

/* Of two outputs' 16 numbers each the first 8, or the last, as f32. */
INLINE __m512 widen(__m512i pair, const bool last)
{
    const __m512i first_8 = _mm512_set_epi16(23, 0, 22, 0, 21, 0, 20, 0, 19, 0, 18, 0, 17, 0, 16, 0,
                                             7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    __m512i at = last ? _mm512_add_epi16(first_8, _mm512_set1_epi16(8)) : first_8;

    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, at, pair));
}

/* sums += the products of the first n of 16 numbers of each place, from byte `at` on. */
INLINE void add_products(__m512 sums[PLACES / 2], const float *x, const uint8_t *const w[PLACES],
                         size_t at, int n)
{
    __m512i pairs[PLACES / 2];
    __m512 first = _mm512_broadcast_f32x8(n >= 8 ? _mm256_loadu_ps(x)
                                                 : _mm256_maskz_loadu_ps((__mmask8)first_16(n), x));

#pragma GCC unroll 2
    for (int i = 0; i < PLACES / 2; i++) {
        pairs[i] = _mm512_inserti64x4(_mm512_castsi256_si512(numbers(w[2 * i] + at, n)),
                                      numbers(w[2 * i + 1] + at, n), 1);
        sums[i] = _mm512_fmadd_ps(first, widen(pairs[i], false), sums[i]);
    }
    if (n <= 8)
        return;
    __m512 last = _mm512_broadcast_f32x8(
        n == 16 ? _mm256_loadu_ps(x + 8) : _mm256_maskz_loadu_ps((__mmask8)first_16(n - 8), x + 8));

#pragma GCC unroll 2
    for (int i = 0; i < PLACES / 2; i++)
        sums[i] = _mm512_fmadd_ps(last, widen(pairs[i], true), sums[i]);
}

/* The sums of a block of n numbers, for each place. */
INLINE __m128 block_sums(const float *x, const uint8_t *const w[PLACES], int n)
{
    __m512 sums[PLACES / 2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    int i = 0;

    for (; i + LINE <= n; i += LINE) {
        size_t at = (size_t)i * 2;

#pragma GCC unroll 4
        for (int p = 0; p < PLACES; p++) {
            _mm_prefetch((const char *)w[p] + at + NEAR, _MM_HINT_T0);
            _mm_prefetch((const char *)w[p] + at + FAR, _MM_HINT_T1);
        }
        add_products(sums, x + i, w, at, 16);
        add_products(sums, x + i + 16, w, at + 32, 16);
    }
    for (; i < n; i += 16)
        add_products(sums, x + i, w, (size_t)i * 2, n - i < 16 ? n - i : 16);
    return sums4(_mm512_castps512_ps256(sums[0]), _mm512_extractf32x8_ps(sums[0], 1),
                 _mm512_castps512_ps256(sums[1]), _mm512_extractf32x8_ps(sums[1], 1));
}

static int places(const struct cpu_task *t)
{
    (void)t;
    return PLACES;
}

static void multiply(const struct cpu_task *t, const struct cpu_outputs *outputs)
{
    const float *x = cpu_task_x(t, 0);
    float *y = cpu_task_y(t, 0);

    for (int o = outputs->begin; o < outputs->begin + outputs->n; o++) {
        const uint8_t *w[PLACES];
        float sums[PLACES] = {0};
        int n_there = 0;

        for (int p = 0; p < PLACES; p++) {
            int at = o + p * outputs->step;
            bool there = at < outputs->end;

            w[p] = weight_data(t->w, there ? at : o);
            if (there && t->bias)
                sums[p] = t->bias[at];
            n_there += there;
        }
        __m128 all = _mm_loadu_ps(sums);

        for (int k = 0; k < t->w->n_in; k += BLOCK) {
            int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

            all = _mm_add_ps(all, block_sums(x + k, w, n));
            for (int p = 0; p < PLACES; p++)
                w[p] += BLOCK * 2;
        }
        _mm_storeu_ps(sums, all);
        for (int p = 0; p < n_there; p++)
            y[o + p * outputs->step] = sums[p];
    }
}

const struct cpu_product avx512_bf16_row = {
    .name = "bf16, a row",
    .panel_cols = PLACES,
    .places = places,
    .multiply_places = multiply,
};
