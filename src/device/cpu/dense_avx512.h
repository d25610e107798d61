/* device/cpu/dense_avx512.h: panels of weights and strips of x for products of f32 or of pairs of
 * bf16, whose sums are f32. A file defines PER, how many numbers 32 bits hold, BLOCK, the numbers
 * in a panel, and
 *
 *     run_of(x, n)                          the first 16 PER numbers of x, zeros behind n
 *     unpack(panel, w, o, n_cols, k, n)     numbers k to k + n of outputs o to o + COLS; those past
 *                                           the last of n_cols are that one again
 *     multiply_add(sum, w, x)               sum + w x, in each lane of all PER numbers
 *
 * and includes it. A panel is [BLOCK / PER, COLS], a strip [n / RUN, ROWS, RUN / PER], runs of each
 * row side by side: a panel meets BLOCK numbers of every strip; these lie side by side, to be read
 * in a row and from the cache again for the next panel.
 */
#ifndef DEVICE_CPU_DENSE_AVX512_H
#define DEVICE_CPU_DENSE_AVX512_H

#include "device/cpu/matmul_avx512.h"

enum { ROWS = 12, COLS = 32, RUN = 16 * PER };

struct panel {
    uint32_t w[BLOCK / PER * COLS];
#if PER == 1
    float rows[8 * BLOCK]; /* of weights, on their way there */
#endif
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

INLINE __m512i run_of(const float *x, int n);
static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n);
INLINE __m512 multiply_add(__m512 sum, __m512i w, __m512i x);

/* 32 bits of a row in a strip of n numbers. */
INLINE size_t strip_row(int n)
{
    return ((size_t)n + RUN - 1) / RUN * 16;
}

static size_t strip_bytes(int n_in, int group_size)
{
    (void)group_size;
    return ROWS * sizeof(uint32_t) * strip_row(n_in);
}

/* What the strip that begins at row `first` has from number k on, a multiple of BLOCK. */
INLINE uint32_t *strip_part(const struct cpu_task *t, int first, int k)
{
    size_t n_strips = (size_t)((t->n_rows + ROWS - 1) / ROWS);
    int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

    return (uint32_t *)t->prepared + ROWS * n_strips * strip_row(k) + (size_t)first * strip_row(n);
}

/* Rows that are not there are zeros, so that the kernels need to know only fours of rows. */
static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)strip;
    for (int k = 0; k < t->w->n_in; k += BLOCK) {
        int size = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;
        uint32_t *to = strip_part(t, first, k);

        if (n % 4)
            memset(to, 0, sizeof *to * ROWS * strip_row(size));
        for (int r = 0; r < n; r++)
            for (int i = 0; i < size; i += RUN)
                _mm512_storeu_si512(to + ROWS * strip_row(i) + 16 * r,
                                    run_of(cpu_task_x(t, first + r) + k + i, size - i));
    }
}

/* Rows of y from the first on by a panel; there are rows of x in the strip, n_rows of them real. */
INLINE void multiply_strip(const struct cpu_task *t, const uint32_t *w, int first, int n_rows,
                           int o, int n_cols, int k, int n, const int rows)
{
    const uint32_t *x = strip_part(t, first, k);
    __m512 sums[ROWS][2];

    avx512_prefetch_rows(t, first, n_rows, o);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int i = 0; i < n; i += RUN, x += 16 * ROWS)
        for (int j = 0; j < RUN && i + j < n; j += PER, w += COLS) {
            __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 16);

#pragma GCC unroll 12
            for (int r = 0; r < rows; r++) {
                __m512i v = _mm512_set1_epi32((int)x[16 * r + j / PER]);

                sums[r][0] = multiply_add(sums[r][0], w0, v);
                sums[r][1] = multiply_add(sums[r][1], w1, v);
            }
        }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        if (r < n_rows)
            avx512_add_row(t, first + r, sums[r], o, n_cols, k == 0);
}

static void multiply_panel(const struct cpu_task *t, const struct panel *panel, int o, int n_cols,
                           int k, int n)
{
    for (int first = 0; first < t->n_rows; first += ROWS) {
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;

        if (rows > 8)
            multiply_strip(t, panel->w, first, rows, o, n_cols, k, n, 12);
        else if (rows > 4)
            multiply_strip(t, panel->w, first, rows, o, n_cols, k, n, 8);
        else
            multiply_strip(t, panel->w, first, rows, o, n_cols, k, n, 4);
    }
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;

    for (int k = 0; k < t->w->n_in; k += BLOCK)
        for (int o = begin; o < end; o += COLS) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

            unpack(panel, t->w, o, n_cols, k, n);
            multiply_panel(t, panel, o, n_cols, k, n);
        }
}

#endif
