/* device/cpu/exact_row_avx512.c: affine weights of 4 and 8 bits by a row, exactly: what routers
 * are read with, and all of --exact for a single text.
 *
 * The numbers that avx2_product_f32 gives, bit for bit, as its order of summation is kept; but
 * weights become f32 in registers, those of 4 bits looked up in what the 16 codes of a group stand
 * for.
 */
#include "device/cpu/matmul_avx512.h"

#define BLOCK AVX2_SUM_BLOCK
#define COLS 8        /* outputs at a time: as many sums as hide each other's latency */
#define MAX_GROUPS 64 /* whose scales are expanded at a time */

/* Some outputs: their weights from a block on, the scales of its groups and of some behind it. */
struct outputs {
    const float *x;
    const uint8_t *data[COLS];
    const float *scales, *biases; /* [COLS, MAX_GROUPS] */
    int n, group_size;
};

/* q s + b, rounded twice, as weight_row_f32 has it. */
INLINE __m256 stands_for(__m256 q, __m256 s, __m256 b)
{
    __m256 product = _mm256_mul_ps(q, s);

    __asm__("" : "+v"(product));
    return _mm256_add_ps(product, b);
}

INLINE void add_group_4(__m256 acc[COLS], const struct outputs *b, int g)
{
    const __m256 first = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 last = _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const int begin = g * b->group_size;
    __m256 low[COLS], high[COLS];

#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++) {
        __m256 scale = _mm256_set1_ps(b->scales[c * MAX_GROUPS + g]),
               bias = _mm256_set1_ps(b->biases[c * MAX_GROUPS + g]);

        low[c] = stands_for(first, scale, bias);
        high[c] = stands_for(last, scale, bias);
    }
    for (int i = begin; i < begin + b->group_size; i += 8) {
        __m256 x = _mm256_loadu_ps(b->x + i);

#pragma GCC unroll 8
        for (int c = 0; c < COLS; c++) {
            uint32_t word;

            memcpy(&word, b->data[c] + i / 2, sizeof word);
            __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32((int)word), shifts);

            acc[c] = _mm256_fmadd_ps(x, _mm256_permutex2var_ps(low[c], codes, high[c]), acc[c]);
        }
    }
}

INLINE void add_group_8(__m256 acc[COLS], const struct outputs *b, int g)
{
    const int begin = g * b->group_size;
    __m256 scale[COLS], bias[COLS];

#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++) {
        scale[c] = _mm256_set1_ps(b->scales[c * MAX_GROUPS + g]);
        bias[c] = _mm256_set1_ps(b->biases[c * MAX_GROUPS + g]);
    }
    for (int i = begin; i < begin + b->group_size; i += 8) {
        __m256 x = _mm256_loadu_ps(b->x + i);

#pragma GCC unroll 8
        for (int c = 0; c < COLS; c++) {
            __m128i codes = _mm_loadl_epi64((const __m128i *)(b->data[c] + i));
            __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));

            acc[c] = _mm256_fmadd_ps(x, stands_for(q, scale[c], bias[c]), acc[c]);
        }
    }
}

/* sums of COLS outputs over a block. */
INLINE void block_sums(float sums[COLS], const struct outputs *b, const int bits)
{
    __m256 acc[COLS];

#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++)
        acc[c] = _mm256_setzero_ps();
    for (int g = 0; g * b->group_size < b->n; g++)
        if (bits == 4)
            add_group_4(acc, b, g);
        else
            add_group_8(acc, b, g);
    _mm_storeu_ps(sums, sums4(acc[0], acc[1], acc[2], acc[3]));
    _mm_storeu_ps(sums + 4, sums4(acc[4], acc[5], acc[6], acc[7]));
}

/* Of the groups from that of value k on. */
static void expand(float *to, const struct weight *w, const void *scales, const int cols[COLS],
                   int k)
{
    int n = (w->n_in - k) / w->group_size;

    for (int c = 0; c < COLS; c++)
        avx2_scales(to + c * MAX_GROUPS, weight_scale(w, scales, cols[c], k), w->scale_type,
                    n < MAX_GROUPS ? n : MAX_GROUPS);
}

/* n_cols outputs from o on, step apart, so that memory is read in several places. */
INLINE void multiply_cols(const struct cpu_task *t, const float *x, float *y, int o, int step,
                          int n_cols, const int bits)
{
    const struct weight *w = t->w;
    float scales[COLS * MAX_GROUPS], biases[COLS * MAX_GROUPS];
    int cols[COLS], expanded = MAX_GROUPS * w->group_size; /* numbers */
    struct outputs b;

    for (int c = 0; c < COLS; c++)
        cols[c] = o + (c < n_cols ? c : 0) * step;
    for (int k = 0; k < w->n_in; k += BLOCK) {
        float sums[COLS];
        int g = k % expanded / w->group_size;

        if (g == 0) {
            expand(scales, w, w->scales, cols, k);
            expand(biases, w, w->biases, cols, k);
        }
        b.x = x + k;
        b.n = w->n_in - k < BLOCK ? w->n_in - k : BLOCK;
        b.group_size = w->group_size;
        b.scales = scales + g;
        b.biases = biases + g;
        for (int c = 0; c < COLS; c++)
            b.data[c] = weight_data(w, cols[c]) + (size_t)k * bits / 8;
        block_sums(sums, &b, bits);
        for (int c = 0; c < n_cols; c++)
            y[cols[c]] = (k > 0 ? y[cols[c]] : t->bias ? t->bias[cols[c]] : 0) + sums[c];
    }
}

INLINE void multiply_bits(const struct cpu_task *t, int begin, int end, const int bits)
{
    int part = (end - begin + COLS - 1) / COLS;

    for (int r = 0; r < t->n_rows; r++)
        for (int o = begin; o < begin + part; o++)
            multiply_cols(t, cpu_task_x(t, r), cpu_task_y(t, r), o, part,
                          (end - o + part - 1) / part, bits);
}

static void multiply_4(const struct cpu_task *t, int begin, int end)
{
    multiply_bits(t, begin, end, 4);
}

static void multiply_8(const struct cpu_task *t, int begin, int end)
{
    multiply_bits(t, begin, end, 8);
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    if (t->w->bits == 4)
        multiply_4(t, begin, end);
    else
        multiply_8(t, begin, end);
}

const struct cpu_product avx512_exact_row = {
    .name = "f32 rows",
    .panel_cols = COLS,
    .slowness = 4,
    .multiply = multiply,
};
