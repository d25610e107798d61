/* device/cpu/gemm_runs_avx512.c: weights of 4 bits, affine or mxfp4, by many rows, with VNNI: as
 * gemm_avx512.c, but runs of SCALE_RUN numbers of an output get one scale and no bias.
 *
 * Scaling the sum of 64 products and adding the bias takes three operations, 16 such products take
 * one each. Codes of 4 bits leave room in a byte: what the groups of a run stand for is rounded to
 * 254 steps,
 *
 *     w = scale (u - 128),    u = round((s q + b) / scale) + 128,    scale = max |s q + b| / 127
 *
 * So sums of integers begin with -128 times what x sums up to; those of RUN_SIZE numbers, which
 * share a step of x, are multiplied by that step and added up; and the tile is multiplied by a
 * scale where a run ends.
 */
#include "device/cpu/vnni_avx512.h"

#define BLOCK 2048 /* numbers in a panel, 64 KB of codes that come from the second cache */
#define SCALE_RUN 512

struct panel {
    uint8_t codes[BLOCK * COLS];
    float scales[PANEL_GROUPS * COLS];       /* [n / group, COLS] */
    float biases[PANEL_GROUPS * COLS];       /* [n / group, COLS] */
    float changes[BLOCK / SCALE_RUN * COLS]; /* [run, COLS]: its scale by that of the run before */
    float last[COLS];                        /* the scale of the last run */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");
_Static_assert(BLOCK / 32 <= PANEL_GROUPS, "the groups of a panel fit");

static size_t strip_bytes(int n_in, int group_size)
{
    (void)group_size;
    return strip_size(n_in, RUN_SIZE, RUN_SIZE);
}

/* Rows that are not there are zeros, so that the kernels need to know only pairs of rows. */
static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    const int n_in = t->w->n_in;

    if (n % 2)
        memset(strip, 0, strip_bytes(n_in, 0));
    for (int r = 0; r < n; r++) {
        const float *x = cpu_task_x(t, first + r);
        struct part to = strip_row(strip, r, n_in, RUN_SIZE, RUN_SIZE);

        for (int i = 0; i < n_in; i += RUN_SIZE) {
            int at = i / RUN_SIZE * ROWS;
            int32_t q =
                quantise((int8_t *)to.x + ROWS * i, x + i, RUN_SIZE, (float *)to.steps + at);

            /* Where numbers are not finite q is anything, and their step not a number. */
            ((int32_t *)(void *)to.sums)[at] = (int32_t)(-128u * (uint32_t)q);
        }
    }
}

/* --- weights */

/* The largest magnitude of 16 outputs in a run of n_groups groups, codes from 0 to most. As
 * integers NaN > infinity > all numbers. */
INLINE __m512 largest(const float *scales, const float *biases, int n_groups, float most)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i largest = _mm512_setzero_si512();

    for (int g = 0; g < n_groups; g++) {
        __m512 b = _mm512_load_ps(biases + g * COLS);
        __m512 end = _mm512_fmadd_ps(_mm512_load_ps(scales + g * COLS), _mm512_set1_ps(most), b);

        largest = _mm512_max_epi32(
            largest, _mm512_max_epi32(_mm512_and_si512(magnitude, _mm512_castps_si512(b)),
                                      _mm512_and_si512(magnitude, _mm512_castps_si512(end))));
    }
    return _mm512_castsi512_ps(largest);
}

/* v rounded, in both halves of 32 bits. */
INLINE __m512i in_halves(__m512 v)
{
    __m512i i = _mm512_cvtps_epi32(v);

    return _mm512_or_si512(_mm512_slli_epi32(i, 16),
                           _mm512_and_si512(i, _mm512_set1_epi32(0xFFFF)));
}

/* 256 u of 16 outputs is q times what the scales of groups become plus what the biases become, 16
 * bits each, with half a unit of u to round it. Steps that do not get to 1e-30 are taken for zeros.
 */
INLINE void join_groups(float *scales, float *biases, int n_groups, __m512 scale)
{
    __m512 inverse = _mm512_div_ps(_mm512_set1_ps(256), scale);

    for (int g = 0; g < n_groups; g++) {
        __m512 s = _mm512_load_ps(scales + g * COLS), b = _mm512_load_ps(biases + g * COLS);

        _mm512_store_si512(scales + g * COLS, in_halves(_mm512_mul_ps(s, inverse)));
        _mm512_store_si512(biases + g * COLS,
                           in_halves(_mm512_fmadd_ps(b, inverse, _mm512_set1_ps(128.5f * 256))));
    }
}

/* No run gets a scale that is nothing beside that of another, by which it may be divided. */
static void join_scales(struct panel *panel, int group_size, int n, float most)
{
    for (int half = 0; half < COLS; half += 16) {
        __m512 sizes[BLOCK / SCALE_RUN], all = _mm512_set1_ps(1e-20f), before = _mm512_set1_ps(1);

        for (int i = 0; i < n; i += SCALE_RUN) {
            int n_groups = (n - i < SCALE_RUN ? n - i : SCALE_RUN) / group_size;
            int at = i / group_size * COLS + half;

            sizes[i / SCALE_RUN] = largest(panel->scales + at, panel->biases + at, n_groups, most);
            all = _mm512_max_ps(all, sizes[i / SCALE_RUN]);
        }
        for (int i = 0; i < n; i += SCALE_RUN) {
            int n_groups = (n - i < SCALE_RUN ? n - i : SCALE_RUN) / group_size;
            int at = i / group_size * COLS + half;
            __m512 least = _mm512_mul_ps(all, _mm512_set1_ps(1e-8f));
            __m512 scale = _mm512_mul_ps(_mm512_max_ps(least, sizes[i / SCALE_RUN]),
                                         _mm512_set1_ps(1 / 127.0f));

            join_groups(panel->scales + at, panel->biases + at, n_groups, scale);
            _mm512_store_ps(panel->changes + i / SCALE_RUN * COLS + half,
                            _mm512_div_ps(before, scale));
            before = scale;
        }
        _mm512_store_ps(panel->last + half, before);
    }
}

/* u of 64 codes, bytes with nothing above their 4 bits: those at even places and at odd ones each
 * fill a byte in steps of 1/256. */
INLINE __m512i levels(__m512i q, __m512i scale, __m512i bias)
{
    const __m512i low = _mm512_set1_epi16(0xFF);
    __m512i even = _mm512_mullo_epi16(_mm512_and_si512(q, low), scale);
    __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(q, 8), scale);

    even = _mm512_srli_epi16(_mm512_add_epi16(even, bias), 8);
    odd = _mm512_add_epi16(odd, bias);
    return _mm512_or_si512(even, _mm512_andnot_si512(low, odd));
}

/* 64 numbers of 16 outputs into their places in the panel, of which to is the first. */
INLINE void unpack_square_of_runs(uint8_t *to, const uint8_t *const rows[16], int at,
                                  const float *scales, const float *biases, int group_size,
                                  const bool e2m1)
{
    const __m512i mask = _mm512_set1_epi8(0x0F);
    __m512i v[8];

    avx512_load_transposed(v, rows, at / 2);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int group = 8 * i / group_size;
        __m512i scale = _mm512_load_si512(scales + group * COLS);
        __m512i bias = _mm512_load_si512(biases + group * COLS);
        __m512i low = _mm512_and_si512(v[i], mask);
        __m512i high = _mm512_and_si512(_mm512_srli_epi16(v[i], 4), mask);

        if (e2m1) {
            low = avx512_e2m1(low);
            high = avx512_e2m1(high);
        }
        _mm512_store_si512(to + (2 * i) * 4 * COLS, levels(low, scale, bias));
        _mm512_store_si512(to + (2 * i + 1) * 4 * COLS, levels(high, scale, bias));
    }
}

/* Outputs o to o + COLS (past the last: of that again), numbers k to k + n. */
INLINE void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n,
                   const bool e2m1)
{
    const int g = w->group_size;
    size_t next = COLS * weight_row_bytes(w);

    unpack_scales(panel->scales, panel->biases, w, o, n_cols, k, n);
    join_scales(panel, g, n, e2m1 ? 2 * E2M1_ZERO : 15);
    for (int half = 0; half < COLS; half += 16) {
        const uint8_t *rows[16];

        for (int c = 0; c < 16; c++)
            rows[c] = weight_data(w, o + (half + c < n_cols ? half + c : n_cols - 1)) + k / 2;
        for (int i = 0; i < n; i += 64) {
            int at = i / g * COLS + half;

            if (i % RUN_SIZE == 0)
                for (int c = 0; c < 16; c++)
                    _mm_prefetch((const char *)rows[c] + i / 2 + next, _MM_HINT_T1);
            unpack_square_of_runs(panel->codes + (i * COLS + half * 4), rows, i, panel->scales + at,
                                  panel->biases + at, g, e2m1);
        }
    }
}

/* --- products */

/* tile += step (sum u xq - 128 sum xq), of RUN_SIZE numbers. */
INLINE void add_run(__m512 tile[ROWS][2], const uint8_t *codes, const int8_t *x, const float *begin,
                    const float *steps, const int rows)
{
    __m512i sums[ROWS][2];

#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        sums[r][0] = sums[r][1] = _mm512_set1_epi32(((const int32_t *)(const void *)begin)[r]);
    for (int i = 0; i < RUN_SIZE; i += 64)
        add_products(sums, codes + i * COLS, x + i * ROWS, 64, rows);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        __m512 step = _mm512_set1_ps(steps[r]);

        tile[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][0]), step, tile[r][0]);
        tile[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][1]), step, tile[r][1]);
    }
}

INLINE void scale_tile(__m512 tile[ROWS][2], const float *scales, const int rows)
{
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        tile[r][0] = _mm512_mul_ps(tile[r][0], _mm512_load_ps(scales));
        tile[r][1] = _mm512_mul_ps(tile[r][1], _mm512_load_ps(scales + 16));
    }
}

/* Rows of y from the first on by a panel; there are rows of x in the strip, n_rows of them real. */
INLINE void multiply_strip(const struct cpu_task *t, const struct panel *panel, struct part p,
                           int first, int n_rows, int o, int n_cols, int k, int n, const int rows)
{
    __m512 tile[ROWS][2];

    avx512_prefetch_rows(t, first, n_rows, o);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        tile[r][0] = tile[r][1] = _mm512_setzero_ps();
    for (int i = 0; i < n; i += RUN_SIZE) {
        int at = i / RUN_SIZE * ROWS;

        if (i && i % SCALE_RUN == 0)
            scale_tile(tile, panel->changes + i / SCALE_RUN * COLS, rows);
        add_run(tile, panel->codes + i * COLS, p.x + i * ROWS, p.sums + at, p.steps + at, rows);
    }
    scale_tile(tile, panel->last, rows);
    add_tile(t, tile, first, n_rows, o, n_cols, k == 0, rows);
}

/* All rows of the task by a panel. */
static void multiply_panel(const struct cpu_task *t, const struct panel *panel, int o, int n_cols,
                           int k, int n)
{
    const int n_in = t->w->n_in;
    const uint8_t *strip = t->prepared;

    for (int first = 0; first < t->n_rows; first += ROWS, strip += strip_bytes(n_in, 0)) {
        struct part part = strip_part(strip, n_in, RUN_SIZE, RUN_SIZE, k);
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;

        if (rows > 4)
            multiply_strip(t, panel, part, first, rows, o, n_cols, k, n, 6);
        else if (rows > 2)
            multiply_strip(t, panel, part, first, rows, o, n_cols, k, n, 4);
        else
            multiply_strip(t, panel, part, first, rows, o, n_cols, k, n, 2);
    }
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;

    for (int k = 0; k < t->w->n_in; k += BLOCK)
        for (int o = begin; o < end; o += COLS) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

            if (t->w->format == WEIGHT_MXFP4)
                unpack(panel, t->w, o, n_cols, k, n, true);
            else
                unpack(panel, t->w, o, n_cols, k, n, false);
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
