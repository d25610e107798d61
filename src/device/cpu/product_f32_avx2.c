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

/* sums[r] = the sums over n numbers of COLS outputs, for rows <= ROWS rows of x. */
INLINE void block_sums(__m128 sums[ROWS], const float *const x[ROWS], const uint8_t *const w[COLS],
                       const enum weight_format format, const int rows, int n)
{
    const size_t size = format == WEIGHT_F32 ? 4 : 2;
    __m256 acc[ROWS][COLS];
    int i = 0;

    for (int r = 0; r < rows; r++)
        for (int c = 0; c < COLS; c++)
            acc[r][c] = _mm256_setzero_ps();
    for (; i + 8 <= n; i += 8) {
        __m256 v[ROWS];

        for (int r = 0; r < rows; r++)
            v[r] = _mm256_loadu_ps(x[r] + i);
        for (int c = 0; c < COLS; c++) {
            const uint8_t *p = w[c] + (size_t)i * size;
            __m256 wc = load_weights(p, format);

            if ((size_t)i * size % 64 == 0)
                _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T1);
            for (int r = 0; r < rows; r++)
                acc[r][c] = _mm256_fmadd_ps(v[r], wc, acc[r][c]);
        }
    }
    if (i < n)
        for (int c = 0; c < COLS; c++) {
            __m256 wc = load_last_weights(w[c] + (size_t)i * size, format, n - i);

            for (int r = 0; r < rows; r++)
                acc[r][c] = _mm256_fmadd_ps(_mm256_maskload_ps(x[r] + i, first_lanes(n - i)), wc,
                                            acc[r][c]);
        }
    for (int r = 0; r < rows; r++)
        sums[r] = sums4(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
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
