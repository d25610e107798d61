/* device/cpu/product_f32_avx2.c: products in f32: exact for every format, and the fastest for dense
 * ones.
 *
 * One order of summation for all of it: the numbers of a row are cut into blocks of BLOCK; in a
 * block, lane l of 8 sums the products l, l + 8, l + 16, ... by fused operations, the lanes are
 * summed as in sums4, and the blocks one after another. So a result depends neither on the rows
 * beside it nor on the number of threads.
 */
#include "device/cpu/matmul_avx2.h"

#define BLOCK AVX2_SUM_BLOCK
#define AHEAD 1024 /* bytes, called to the second cache */
#define COLS 4     /* outputs and rows that a kernel has sums of in registers */
#define ROWS 3
#define PANEL 8 /* outputs whose block is dequantised at a time, 16 KB: half of the smallest L1 */

/* 8 weights as they lie. */
INLINE __m256 load_weights(const uint8_t *p, const enum weight_format format)
{
    if (format == WEIGHT_F32)
        return _mm256_loadu_ps((const float *)(const void *)p);
    if (format == WEIGHT_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

/* The first n < 8. */
INLINE __m256 load_last_weights(const uint8_t *p, const enum weight_format format, int n)
{
    uint8_t last[32] = {0};

    memcpy(last, p, (size_t)n * (format == WEIGHT_F32 ? 4 : 2));
    return load_weights(last, format);
}

/* A register of each row, by name: sanitizers keep an array in memory, and check each access. */
struct rows {
    __m256 of0, of1, of2;
};

/* 8 products of each row by an output's weights. */
INLINE struct rows add_products(struct rows sums, struct rows x, __m256 w, const int rows)
{
    sums.of0 = _mm256_fmadd_ps(x.of0, w, sums.of0);
    if (rows > 1)
        sums.of1 = _mm256_fmadd_ps(x.of1, w, sums.of1);
    if (rows > 2)
        sums.of2 = _mm256_fmadd_ps(x.of2, w, sums.of2);
    return sums;
}

/* sums[r] = the sums over n numbers of COLS outputs, for rows <= ROWS rows of x. */
INLINE void block_sums(__m128 sums[ROWS], const float *const x[ROWS], const uint8_t *const w[COLS],
                       const enum weight_format format, const int rows, int n)
{
    const size_t size = format == WEIGHT_F32 ? 4 : 2;
    const uint8_t *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];
    const float *x0 = x[0], *x1 = rows > 1 ? x[1] : x0, *x2 = rows > 2 ? x[2] : x0;
    const __m256 zero = _mm256_setzero_ps();
    struct rows acc0 = {zero, zero, zero}, acc1 = acc0, acc2 = acc0, acc3 = acc0, v = acc0;
    int i = 0;

    for (; i + 8 <= n; i += 8) {
        size_t at = (size_t)i * size;

        v.of0 = _mm256_loadu_ps(x0 + i);
        if (rows > 1)
            v.of1 = _mm256_loadu_ps(x1 + i);
        if (rows > 2)
            v.of2 = _mm256_loadu_ps(x2 + i);
        acc0 = add_products(acc0, v, load_weights(w0 + at, format), rows);
        acc1 = add_products(acc1, v, load_weights(w1 + at, format), rows);
        acc2 = add_products(acc2, v, load_weights(w2 + at, format), rows);
        acc3 = add_products(acc3, v, load_weights(w3 + at, format), rows);
        if (at % 64 == 0) {
            _mm_prefetch((const char *)w0 + at + AHEAD, _MM_HINT_T1);
            _mm_prefetch((const char *)w1 + at + AHEAD, _MM_HINT_T1);
            _mm_prefetch((const char *)w2 + at + AHEAD, _MM_HINT_T1);
            _mm_prefetch((const char *)w3 + at + AHEAD, _MM_HINT_T1);
        }
    }
    if (i < n) {
        const __m256i lanes = first_lanes(n - i);
        size_t at = (size_t)i * size;

        v.of0 = _mm256_maskload_ps(x0 + i, lanes);
        if (rows > 1)
            v.of1 = _mm256_maskload_ps(x1 + i, lanes);
        if (rows > 2)
            v.of2 = _mm256_maskload_ps(x2 + i, lanes);
        acc0 = add_products(acc0, v, load_last_weights(w0 + at, format, n - i), rows);
        acc1 = add_products(acc1, v, load_last_weights(w1 + at, format, n - i), rows);
        acc2 = add_products(acc2, v, load_last_weights(w2 + at, format, n - i), rows);
        acc3 = add_products(acc3, v, load_last_weights(w3 + at, format, n - i), rows);
    }
    sums[0] = sums4(acc0.of0, acc1.of0, acc2.of0, acc3.of0);
    if (rows > 1)
        sums[1] = sums4(acc0.of1, acc1.of1, acc2.of1, acc3.of1);
    if (rows > 2)
        sums[2] = sums4(acc0.of2, acc1.of2, acc2.of2, acc3.of2);
}

/* Adds the sums of a block to n_cols <= COLS outputs of y, step apart, or begins them with the
 * bias.
 */
INLINE void add_sums(float *y, __m128 sums, const float *bias, bool first, int n_cols, int step)
{
    float s[COLS];

    _mm_storeu_ps(s, sums);
    for (int c = 0; c < n_cols; c++) {
        int64_t o = (int64_t)c * step;
        float before = !first ? y[o] : bias ? bias[o] : 0;

        y[o] = before + s[c];
    }
}

/* A block of n_cols outputs, from o on and step apart, whose weights lie stride bytes apart: from
 * value k on. */
INLINE void multiply_block(const struct cpu_task *t, const uint8_t *w, size_t stride,
                           const enum weight_format format, int o, int n_cols, int step, int k,
                           int n)
{
    const float *bias = t->bias ? t->bias + o : NULL;
    const uint8_t *cols[COLS];

    for (int c = 0; c < COLS; c++)
        cols[c] = w + (size_t)(c < n_cols ? c : 0) * stride;
    for (int r = 0; r < t->n_rows; r += ROWS) {
        int rows = t->n_rows - r < ROWS ? t->n_rows - r : ROWS;
        const float *x[ROWS];
        __m128 sums[ROWS];

        for (int i = 0; i < rows; i++)
            x[i] = cpu_task_x(t, r + i) + k;
        if (rows == 1)
            block_sums(sums, x, cols, format, 1, n);
        else if (rows == 2)
            block_sums(sums, x, cols, format, 2, n);
        else
            block_sums(sums, x, cols, format, 3, n);
        for (int i = 0; i < rows; i++)
            add_sums(cpu_task_y(t, r + i) + o, sums[i], bias, k == 0, n_cols, step);
    }
}

/* Weights of any format through a panel of f32 in the cache. */
static void multiply_panels(const struct cpu_task *t, int begin, int end, void *scratch)
{
    float *panel = scratch; /* [PANEL, BLOCK] */
    int n_in = t->w->n_in;

    for (int o = begin; o < end; o += PANEL) {
        int n_cols = end - o < PANEL ? end - o : PANEL;

        for (int k = 0; k < n_in; k += BLOCK) {
            int n = n_in - k < BLOCK ? n_in - k : BLOCK;

            for (int c = 0; c < n_cols; c++)
                avx2_dequantise(panel + c * BLOCK, t->w, o + c, k, n);
            for (int c = 0; c < n_cols; c += COLS)
                multiply_block(t, (const uint8_t *)(panel + c * BLOCK), BLOCK * sizeof(float),
                               WEIGHT_F32, o + c, n_cols - c < COLS ? n_cols - c : COLS, 1, k, n);
        }
    }
}

/* One output after another of the first part of [begin, end), with those that lie as far behind the
 * begin of the other parts: memory gives more when several pages are read at a time. */
INLINE void multiply_dense(const struct cpu_task *t, int begin, int end,
                           const enum weight_format format)
{
    size_t size = format == WEIGHT_F32 ? 4 : 2, row = weight_row_bytes(t->w);
    int part = (end - begin + COLS - 1) / COLS;

    for (int o = begin; o < begin + part; o++)
        for (int k = 0; k < t->w->n_in; k += BLOCK)
            multiply_block(t, weight_data(t->w, o) + (size_t)k * size, (size_t)part * row, format,
                           o, (end - o + part - 1) / part, part, k,
                           t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK);
}

/* Dense weights straight from where they lie. */
static void multiply_straight(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    if (t->w->format == WEIGHT_F32)
        multiply_dense(t, begin, end, WEIGHT_F32);
    else if (t->w->format == WEIGHT_F16)
        multiply_dense(t, begin, end, WEIGHT_F16);
    else
        multiply_dense(t, begin, end, WEIGHT_BF16);
}

const struct cpu_product avx2_product_f32 = {
    .name = "f32 panels",
    .panel_cols = PANEL,
    .multiply = multiply_panels,
};

const struct cpu_product avx2_product_dense = {
    .name = "dense",
    .panel_cols = COLS,
    .multiply = multiply_straight,
};
