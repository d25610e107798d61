/* device/cpu/bf16_row_avx512.c: weights of bf16 by a single row, as processors of Intel want it,
 * and of e4m3, which are bf16, too, once they are scaled.
 *
 * The numbers that avx2_product_dense and avx2_product_f32 give, bit for bit, as their order of
 * summation is kept: a vector has the 8 lanes of an output and those of another. That takes half as
 * many instructions. Outputs are read in four places, and lines called for twice: to the first
 * cache, and further ahead to the second.
 */
#include <math.h>

#include "device/cpu/matmul_avx512.h"

#define BLOCK AVX2_SUM_BLOCK
#define PLACES 4
#define LINE 64   /* bytes */
#define NEAR 1024 /* bytes to what is called for to the first cache */
#define FAR 3072  /* to the second */
#define SCALED 32 /* numbers that surely share a scale */

/* Outputs side by side: their weights from a block's first on, and the scales there. */
struct places {
    const uint8_t *w[PLACES];
    float scales[PLACES][BLOCK / SCALED];
    __m512i greatest[PLACES]; /* of e4m3 */
};

/* The first n of 16 numbers of an output, zeros behind them. */
INLINE __m256i numbers(const uint8_t *p, int n)
{
    return n == 16 ? _mm256_loadu_si256((const __m256i *)p)
                   : _mm256_maskz_loadu_epi16(first_16(n), p);
}

/* 16 numbers of one output and 16 of another, as bf16: the first 8 of each, and the last. */
struct pairs {
    __m512 first, last;
};

INLINE struct pairs load_bf16(const uint8_t *a, const uint8_t *b, int n)
{
    const __m512i first_8 = _mm512_set_epi16(23, 0, 22, 0, 21, 0, 20, 0, 19, 0, 18, 0, 17, 0, 16, 0,
                                             7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    const __m512i last_8 = _mm512_add_epi16(first_8, _mm512_set1_epi16(8));
    __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(numbers(a, n)), numbers(b, n), 1);

    return (struct pairs){
        _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, first_8, v)),
        _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAAAAAA, last_8, v)),
    };
}

#define TWO(i) 0, (i), 0, (i) + 8 /* bytes, in the upper half of 16 bits */
#define EIGHT(i) TWO(i), TWO((i) + 1), TWO((i) + 2), TWO((i) + 3)

/* Bytes of e4m3, by their scales, which are 2^8 times too large, as the f16 that a byte with a zero
 * behind its sign is is 2^8 times too small. */
INLINE struct pairs load_e4m3(const uint8_t *a, const uint8_t *b, int n, float scale_a,
                              float scale_b)
{
    static const _Alignas(64)
        uint8_t eighths_apart[64] = {EIGHT(0), EIGHT(4), EIGHT(16), EIGHT(20)};
    const __mmask16 there = first_16(n);
    __m256i bytes =
        n == 16 ? _mm256_set_m128i(_mm_loadu_si128((const __m128i *)b),
                                   _mm_loadu_si128((const __m128i *)a))
                : _mm256_set_m128i(_mm_maskz_loadu_epi8(there, b), _mm_maskz_loadu_epi8(there, a));
    __m512i v = _mm512_maskz_permutexvar_epi8(0xAAAAAAAAAAAAAAAA, _mm512_load_si512(eighths_apart),
                                              _mm512_castsi256_si512(bytes));

    v = _mm512_and_si512(_mm512_srai_epi16(v, 1), _mm512_set1_epi16((short)0xBF80));
    __m512 of_a =
        _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(v)), _mm512_set1_ps(scale_a));
    __m512 of_b =
        _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1)), _mm512_set1_ps(scale_b));

    v = (__m512i)_mm512_cvtne2ps_pbh(of_b, of_a);
    return (struct pairs){
        _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)),
        _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xFFFF0000))),
    };
}

/* sums += the products of the first n of 16 numbers of each place, from number i of a block on. */
INLINE void add_products(__m512 sums[PLACES / 2], const float *x, const struct places *p, int i,
                         int n, const enum weight_format format)
{
    __m512 first = _mm512_broadcast_f32x8(
        n >= 8 ? _mm256_loadu_ps(x + i) : _mm256_maskz_loadu_ps((__mmask8)first_16(n), x + i));
    __m512 last = _mm512_broadcast_f32x8(
        n == 16 ? _mm256_loadu_ps(x + i + 8)
                : _mm256_maskz_loadu_ps((__mmask8)first_16(n - 8), x + i + 8));

#pragma GCC unroll 2
    for (int j = 0; j < PLACES / 2; j++) {
        const uint8_t *a = p->w[2 * j], *b = p->w[2 * j + 1];
        struct pairs w = format == WEIGHT_BF16
                             ? load_bf16(a + 2 * i, b + 2 * i, n)
                             : load_e4m3(a + i, b + i, n, p->scales[2 * j][i / SCALED],
                                         p->scales[2 * j + 1][i / SCALED]);

        sums[j] = _mm512_fmadd_ps(first, w.first, sums[j]);
        if (n > 8)
            sums[j] = _mm512_fmadd_ps(last, w.last, sums[j]);
    }
}

/* The greatest of n magnitudes of e4m3 and those before, byte by byte: all ones are no number. */
INLINE __m512i greatest(__m512i before, const uint8_t *p, int n)
{
    __m512i v = n == LINE ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(~0ull >> (LINE - n), p);

    return _mm512_max_epu8(before, _mm512_and_si512(v, _mm512_set1_epi8(0x7F)));
}

/* The sums of a block of n numbers, for each place. */
INLINE __m128 block_sums(const float *x, struct places *w, int n, const enum weight_format format)
{
    const int size = format == WEIGHT_BF16 ? 2 : 1, line = LINE / size;
    __m512 sums[PLACES / 2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    int i = 0;

    for (; i + line <= n; i += line) {
#pragma GCC unroll 4
        for (int p = 0; p < PLACES; p++) {
            _mm_prefetch((const char *)w->w[p] + i * size + NEAR, _MM_HINT_T0);
            _mm_prefetch((const char *)w->w[p] + i * size + FAR, _MM_HINT_T1);
            if (size == 1)
                w->greatest[p] = greatest(w->greatest[p], w->w[p] + i, LINE);
        }
#pragma GCC unroll 4
        for (int j = 0; j < line; j += 16)
            add_products(sums, x, w, i + j, 16, format);
    }
    for (int p = 0; p < PLACES && size == 1 && i < n; p++)
        w->greatest[p] = greatest(w->greatest[p], w->w[p] + i, n - i);
    for (; i < n; i += 16)
        add_products(sums, x, w, i, n - i < 16 ? n - i : 16, format);
    return sums4(_mm512_castps512_ps256(sums[0]), _mm512_extractf32x8_ps(sums[0], 1),
                 _mm512_castps512_ps256(sums[1]), _mm512_extractf32x8_ps(sums[1], 1));
}

/* The scales of a block of n numbers of output o from number k on, times 2^8. */
INLINE void load_scales(float to[BLOCK / SCALED], const struct weight *w, int o, int k, int n,
                        const enum weight_format format)
{
    const uint8_t *from;

    if (format == WEIGHT_BF16)
        return;
    if (format == WEIGHT_MXFP8) {
        from = weight_scale(w, w->scales, o, k);
        _mm512_storeu_ps(
            to, _mm512_mul_ps(avx512_scales(from, (n + SCALED - 1) / SCALED, DTYPE_F8_E8M0),
                              _mm512_set1_ps(256)));
        return;
    }
    int left = w->group_size - k % w->group_size; /* numbers of this group */

    from = weight_fp8_scales(w, o) + 4 * (size_t)(k / w->group_size);
    for (int i = 0; i < n; i += SCALED, left -= SCALED) {
        float scale;

        if (left <= 0) {
            from += 4;
            left = w->group_size;
        }
        memcpy(&scale, from, sizeof scale);
        to[i / SCALED] = scale * 256;
    }
}

static int places(const struct cpu_task *t)
{
    (void)t;
    return PLACES;
}

INLINE void multiply(const struct cpu_task *t, const struct cpu_outputs *outputs,
                     const enum weight_format format)
{
    const float *x = cpu_task_x(t, 0);
    float *y = cpu_task_y(t, 0);

    for (int o = outputs->begin; o < outputs->begin + outputs->n; o++) {
        struct places w;
        float sums[PLACES] = {0};
        int at[PLACES], n_there = 0;

        for (int p = 0; p < PLACES; p++) {
            at[p] = o + p * outputs->step;
            bool there = at[p] < outputs->end;

            if (!there)
                at[p] = o;
            w.w[p] = weight_data(t->w, at[p]);
            w.greatest[p] = _mm512_setzero_si512();
            if (there && t->bias)
                sums[p] = t->bias[at[p]];
            n_there += there;
        }
        __m128 all = _mm_loadu_ps(sums);

        for (int k = 0; k < t->w->n_in; k += BLOCK) {
            int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

            for (int p = 0; p < PLACES; p++)
                load_scales(w.scales[p], t->w, at[p], k, n, format);
            all = _mm_add_ps(all, block_sums(x + k, &w, n, format));
            for (int p = 0; p < PLACES; p++)
                w.w[p] += format == WEIGHT_BF16 ? BLOCK * 2 : BLOCK;
        }
        _mm_storeu_ps(sums, all);
        for (int p = 0; p < n_there; p++) {
            bool is_nan = format != WEIGHT_BF16 &&
                          _mm512_cmpeq_epi8_mask(w.greatest[p], _mm512_set1_epi8(0x7F));

            y[at[p]] = is_nan ? NAN : sums[p];
        }
    }
}

static void multiply_bf16(const struct cpu_task *t, const struct cpu_outputs *outputs)
{
    multiply(t, outputs, WEIGHT_BF16);
}

static void multiply_e4m3(const struct cpu_task *t, const struct cpu_outputs *outputs)
{
    if (t->w->format == WEIGHT_FP8)
        multiply(t, outputs, WEIGHT_FP8);
    else
        multiply(t, outputs, WEIGHT_MXFP8);
}

const struct cpu_product avx512_bf16_row = {
    .name = "bf16, a row",
    .panel_cols = PLACES,
    .places = places,
    .multiply_places = multiply_bf16,
};

const struct cpu_product avx512_e4m3_row = {
    .name = "e4m3, a row",
    .panel_cols = PLACES,
    .places = places,
    .multiply_places = multiply_e4m3,
};
