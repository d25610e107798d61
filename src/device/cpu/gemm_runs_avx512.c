/* device/cpu/gemm_runs_avx512.c: weights of 4 bits, affine or mxfp4, by many rows, with VNNI: as
 * gemm_avx512.c, but runs of 128 numbers of an output get one scale.
 *
 * Scaling the sum of 64 products and adding the bias takes four operations, 16 such products take
 * one each. Codes of 4 bits leave room in a byte: what the groups of a run stand for is rounded to
 * 256 steps of what all of them range over, a seventeenth of the largest group's own step,
 *
 *     w = low + scale u,    u = round((s_g q + b_g - low) / scale)
 *
 * of which a table for each group says u for every q. x has a step for each run.
 */
#define ROWS 12
#define COLS 32
#define X_UNIT 128
#include <math.h>

#include "device/cpu/panels_avx2.h"
#include "device/cpu/vnni_avx512.h"

#define BLOCK 1024 /* numbers in a panel: 32 KB of codes, which come from the second cache */

struct panel {
    uint8_t codes[BLOCK * COLS];
    float scales[BLOCK / 32 * COLS]; /* of groups, then what q is multiplied by for u */
    float biases[BLOCK / 32 * COLS]; /* and what is added */
    float run_scales[BLOCK / RUN_SIZE * COLS];
    float lows[BLOCK / RUN_SIZE * COLS];
    float tile[ROWS * COLS]; /* what it and a strip sum up to */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

static size_t strip_bytes(int n_in, int group_size)
{
    (void)group_size;
    return strip_size(n_in, RUN_SIZE, 1);
}

/* Rows that are not there are zeros, so that the kernels need to know only fours of rows. */
static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    if (n % 4)
        memset(strip, 0, strip_bytes(t->w->n_in, 0));
    for (int r = 0; r < n; r++)
        prepare_row(strip, r, cpu_task_x(t, first + r), t->w->n_in, RUN_SIZE, 1);
}

/* --- weights */

/* 16 outputs of a run: its scale and low from those of its groups, which become what makes u of q,
 * numbers from 0 to most. */
INLINE void join_groups(float *run_scale, float *run_low, float *scales, float *biases,
                        int n_groups, float most)
{
    __m512 low = _mm512_set1_ps(INFINITY), high = _mm512_set1_ps(-INFINITY), scale, inverse;

    for (int g = 0; g < n_groups; g++) {
        __m512 b = _mm512_load_ps(biases + g * COLS);
        __m512 end = _mm512_fmadd_ps(_mm512_load_ps(scales + g * COLS), _mm512_set1_ps(most), b);

        low = _mm512_min_ps(low, _mm512_min_ps(b, end));
        high = _mm512_max_ps(high, _mm512_max_ps(b, end));
    }
    scale = _mm512_mul_ps(_mm512_sub_ps(high, low), _mm512_set1_ps(1 / 255.0f));
    inverse = _mm512_maskz_div_ps(_mm512_cmp_ps_mask(scale, _mm512_set1_ps(1e-30f), _CMP_GT_OQ),
                                  _mm512_set1_ps(1), scale);
    for (int g = 0; g < n_groups; g++) {
        __m512 above = _mm512_sub_ps(_mm512_load_ps(biases + g * COLS), low);
        __m512 s = _mm512_load_ps(scales + g * COLS);

        _mm512_store_ps(scales + g * COLS, _mm512_mul_ps(s, inverse));
        _mm512_store_ps(biases + g * COLS, _mm512_mul_ps(above, inverse));
    }
    _mm512_store_ps(run_scale, scale);
    _mm512_store_ps(run_low, low);
}

static void join_scales(struct panel *panel, int group_size, int n, float most)
{
    for (int run = 0; run < n / RUN_SIZE; run++)
        for (int half = 0; half < COLS; half += 16) {
            int at = run * (RUN_SIZE / group_size) * COLS + half;

            join_groups(panel->run_scales + run * COLS + half, panel->lows + run * COLS + half,
                        panel->scales + at, panel->biases + at, RUN_SIZE / group_size, most);
        }
}

/* u of the 16 codes of 4 bits, of output c in group g. */
INLINE __m128i table_of(const struct panel *panel, int g, int c, __m512 values)
{
    __m512 u = _mm512_fmadd_ps(values, _mm512_set1_ps(panel->scales[g * COLS + c]),
                               _mm512_set1_ps(panel->biases[g * COLS + c]));

    return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(u));
}

/* 64 numbers of 8 outputs into their places in the panel, of which to is the first. */
INLINE void unpack_square_of_runs(uint8_t *to, const uint8_t *const rows[8],
                                  const __m256i tables[8], int at)
{
    const __m256i mask = _mm256_set1_epi8(0x0F);
    __m256i low[8], high[8];

#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(rows[c] + at / 2));

        low[c] = _mm256_shuffle_epi8(tables[c], _mm256_and_si256(v, mask));
        high[c] = _mm256_shuffle_epi8(tables[c], _mm256_and_si256(_mm256_srli_epi16(v, 4), mask));
    }
    transpose8(low);
    transpose8(high);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        _mm256_store_si256((__m256i *)(to + (2 * i) * 4 * COLS), low[i]);
        _mm256_store_si256((__m256i *)(to + (2 * i + 1) * 4 * COLS), high[i]);
    }
}

/* Outputs o to o + COLS (past the last: of that again), numbers k to k + n. */
static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    const bool e2m1 = w->format == WEIGHT_MXFP4;
    const __m512 linear = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 doubled = /* and made positive: as unpack_scales has it */
        _mm512_setr_ps(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const int g = w->group_size;
    size_t next = COLS * weight_row_bytes(w);

    unpack_scales(panel->scales, panel->biases, w, o, n_cols, k, n);
    join_scales(panel, g, n, e2m1 ? 2 * E2M1_ZERO : 15);
    for (int part = 0; part < COLS; part += 8) {
        const uint8_t *rows[8];

        for (int c = 0; c < 8; c++)
            rows[c] = weight_data(w, o + (part + c < n_cols ? part + c : n_cols - 1)) + k / 2;
        for (int i = 0; i < n; i += 64) {
            __m256i tables[8];

            for (int c = 0; c < 8; c++) {
                __m128i a = table_of(panel, i / g, part + c, e2m1 ? doubled : linear);
                __m128i b =
                    g > 32 ? a : table_of(panel, i / g + 1, part + c, e2m1 ? doubled : linear);

                tables[c] = _mm256_set_m128i(b, a);
                if (i % RUN_SIZE == 0)
                    _mm_prefetch((const char *)rows[c] + i / 2 + next, _MM_HINT_T1);
            }
            unpack_square_of_runs(panel->codes + (i * COLS + part * 4), rows, tables, i);
        }
    }
}

/* --- products */

INLINE void multiply_part(struct panel *panel, const struct part *part, int n, const int rows)
{
    begin_tile(panel->tile, panel->lows, part->sums, n / RUN_SIZE, rows);
    for (int run = 0; run < n / RUN_SIZE; run++)
        multiply_unit(panel->tile, panel->codes + run * RUN_SIZE * COLS,
                      part->x + run * RUN_SIZE / 4 * ROWS, panel->run_scales + run * COLS,
                      part->steps + run * ROWS, RUN_SIZE, rows);
}

/* All rows of the task by a panel. */
static void multiply_panel(const struct cpu_task *t, struct panel *panel, int o, int n_cols, int k,
                           int n)
{
    const int n_in = t->w->n_in;
    const uint8_t *strip = t->prepared;

    for (int first = 0; first < t->n_rows; first += ROWS, strip += strip_bytes(n_in, 0)) {
        struct part part = strip_part(strip, n_in, RUN_SIZE, 1, k);
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;

        avx512_prefetch_rows(t, first, rows, o);
        if (rows > 8)
            multiply_part(panel, &part, n, 12);
        else if (rows > 4)
            multiply_part(panel, &part, n, 8);
        else
            multiply_part(panel, &part, n, 4);
        add_tile(t, panel->tile, first, rows, o, n_cols, k == 0);
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

const struct cpu_product avx512_gemm_runs = {
    .name = "i8 panels of runs, VNNI",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
