/* device/cpu/gemm_avx512.c: integer weights by many rows with VNNI: as gemm_avx2.c, but products of
 * bytes are added in 32 bits at once, which takes codes of any number of bits up to 8.
 */
#include "device/cpu/vnni_avx512.h"

#define BLOCK 2048 /* numbers in a panel, 64 KB of codes that come from the second cache */

/* Numbers that share a step at most. 64 would be 8 % faster, and what divergence rounding x costs
 * half as much again. */
#define X_UNIT 32

struct panel {
    uint8_t codes[BLOCK * COLS];
    float scales[PANEL_GROUPS * COLS]; /* [n / group, COLS] */
    float biases[PANEL_GROUPS * COLS]; /* [n / group, COLS] */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

static int x_unit(int group_size)
{
    return group_size < X_UNIT ? group_size : X_UNIT;
}

static size_t strip_bytes(int n_in, int group_size)
{
    return strip_size(n_in, x_unit(group_size), group_size);
}

/* Rows that are not there are zeros, so that the kernels need to know only pairs of rows. */
static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    const int n_in = t->w->n_in, g = t->w->group_size, unit = x_unit(g);

    if (n % 2)
        memset(strip, 0, strip_bytes(n_in, g));
    for (int r = 0; r < n; r++) {
        const float *x = cpu_task_x(t, first + r);
        struct part to = strip_row(strip, r, n_in, unit, g);

        for (int k = 0; k < n_in; k += g) {
            float sum = 0;

            for (int i = k; i < k + g; i += unit) {
                float *step = (float *)to.steps + i / unit * ROWS;
                int32_t q = quantise((int8_t *)to.x + ROWS * (i & ~63) + i % 64, x + i, unit, step);

                sum += *step * (float)q;
            }
            ((float *)to.sums)[k / g * ROWS] = sum;
        }
    }
}

/* tile += the biases of a group times what x sums up to in it. */
INLINE void add_biases(__m512 tile[ROWS][2], const float *biases, const float *sums, const int rows)
{
    __m512 b0 = _mm512_load_ps(biases), b1 = _mm512_load_ps(biases + 16);

#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m512 v = _mm512_set1_ps(sums[r]);

        tile[r][0] = _mm512_fmadd_ps(b0, v, tile[r][0]);
        tile[r][1] = _mm512_fmadd_ps(b1, v, tile[r][1]);
    }
}

/* tile += scale step sum q xq, of a unit of numbers. */
INLINE void add_unit(__m512 tile[ROWS][2], const uint8_t *codes, const int8_t *x,
                     const float *scales, const float *steps, const int unit, const int rows)
{
    __m512i sums[ROWS][2];

#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_si512();
    add_products(sums, codes, x, unit, rows);

    __m512 s0 = _mm512_load_ps(scales), s1 = _mm512_load_ps(scales + 16);

#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m512 step = _mm512_set1_ps(steps[r]);

        tile[r][0] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][0]), _mm512_mul_ps(s0, step), tile[r][0]);
        tile[r][1] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][1]), _mm512_mul_ps(s1, step), tile[r][1]);
    }
}

/* Rows of y from the first on by a panel; there are rows of x in the strip, n_rows of them real. */
INLINE void multiply_strip(const struct cpu_task *t, const struct panel *panel, struct part p,
                           int first, int n_rows, int o, int n_cols, int k, int n, const int unit,
                           const int rows)
{
    const int g = t->w->group_size;
    __m512 tile[ROWS][2];

    avx512_prefetch_rows(t, first, n_rows, o);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        tile[r][0] = tile[r][1] = _mm512_setzero_ps();
    for (int i = 0, group = 0; i < n; group++) {
        add_biases(tile, panel->biases + group * COLS, p.sums + group * ROWS, rows);
        for (int end = i + g; i < end; i += unit)
            add_unit(tile, panel->codes + i * COLS, p.x + ROWS * (i & ~63) + i % 64,
                     panel->scales + group * COLS, p.steps + i / unit * ROWS, unit, rows);
    }
    add_tile(t, tile, first, n_rows, o, n_cols, k == 0, rows);
}

/* All rows of the task by a panel. */
INLINE void multiply_panel(const struct cpu_task *t, const struct panel *panel, int o, int n_cols,
                           int k, int n, const int unit)
{
    const int g = t->w->group_size, n_in = t->w->n_in;
    const uint8_t *strip = t->prepared;

    for (int first = 0; first < t->n_rows; first += ROWS, strip += strip_bytes(n_in, g)) {
        struct part part = strip_part(strip, n_in, unit, g, k);
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;

        if (rows > 4)
            multiply_strip(t, panel, part, first, rows, o, n_cols, k, n, unit, 6);
        else if (rows > 2)
            multiply_strip(t, panel, part, first, rows, o, n_cols, k, n, unit, 4);
        else
            multiply_strip(t, panel, part, first, rows, o, n_cols, k, n, unit, 2);
    }
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;
    const struct weight *w = t->w;
    const int most = PANEL_GROUPS * w->group_size, block = most < BLOCK ? most : BLOCK;

    for (int k = 0; k < w->n_in; k += block)
        for (int o = begin; o < end; o += COLS) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = w->n_in - k < block ? w->n_in - k : block;

            unpack_scales(panel->scales, panel->biases, w, o, n_cols, k, n);
            unpack_format(panel->codes, w, o, n_cols, k, n, 1);
            if (w->group_size == 16)
                multiply_panel(t, panel, o, n_cols, k, n, 16);
            else
                multiply_panel(t, panel, o, n_cols, k, n, X_UNIT);
        }
}

const struct cpu_product avx512_gemm_i8 = {
    .name = "i8 panels, VNNI",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
