/* device/cpu/gemm_avx512.c: integer weights by many rows with VNNI: as gemm_avx2.c, but products of
 * bytes are added in 32 bits at once, which takes codes of any number of bits up to 8.
 */
#define ROWS 12
#define COLS 32
#define X_UNIT 64
#include "device/cpu/matmul_avx512.h"
#include "device/cpu/panels_avx2.h"

#define BLOCK 512 /* numbers in a panel: 16 KB of codes, half of the smallest L1 */

struct panel {
    uint8_t codes[BLOCK * COLS];
    float scales[BLOCK / 16 * COLS]; /* [n / group, COLS] */
    float biases[BLOCK / 16 * COLS]; /* [n / group, COLS] */
    float tile[ROWS * COLS];         /* what it and a strip sum up to */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");
_Static_assert(BLOCK / 16 <= PANEL_GROUPS, "the groups of a panel fit");

static size_t strip_bytes(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 1);
}

/* Rows that are not there are zeros, so that the kernels need to know only fours of rows. */
static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    if (n % 4)
        memset(strip, 0, strip_bytes(t->w->n_in, t->w->group_size));
    for (int r = 0; r < n; r++)
        prepare_row(strip, r, cpu_task_x(t, first + r), t->w->n_in, t->w->group_size, 1);
}

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

/* A unit of numbers: tile += scale step sum q xq. */
INLINE void multiply_unit(float *tile, const uint8_t *codes, const int32_t *x, const float *scales,
                          const float *steps, const int unit, const int rows)
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

            sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], w0, v);
            sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], w1, v);
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

/* panel->tile = the panel times a part of a strip. */
INLINE void multiply_part(struct panel *panel, const struct part *part, int n, int group_size,
                          const int unit, const int rows)
{
    int group_shift =
        __builtin_ctz((unsigned)(group_size / unit)); /* 2^group_shift units a group */

    begin_tile(panel->tile, panel->biases, part->sums, n / group_size, rows);
    for (int u = 0; u < n / unit; u++)
        multiply_unit(panel->tile, panel->codes + u * unit * COLS, part->x + u * unit / 4 * ROWS,
                      panel->scales + (u >> group_shift) * COLS, part->steps + u * ROWS, unit,
                      rows);
}

/* All rows of the task by a panel. */
INLINE void multiply_panel(const struct cpu_task *t, struct panel *panel, int o, int n_cols, int k,
                           int n, const int unit)
{
    const int g = t->w->group_size, n_in = t->w->n_in;
    const uint8_t *strip = t->prepared;

    for (int first = 0; first < t->n_rows; first += ROWS, strip += strip_bytes(n_in, g)) {
        struct part part = strip_part(strip, n_in, g, 1, k);
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;

        if (rows > 8)
            multiply_part(panel, &part, n, g, unit, 12);
        else if (rows > 4)
            multiply_part(panel, &part, n, g, unit, 8);
        else
            multiply_part(panel, &part, n, g, unit, 4);
        for (int r = 0; r < rows; r++) {
            const float *tile = panel->tile + r * COLS;
            __m512 sums[2] = {_mm512_load_ps(tile), _mm512_load_ps(tile + 16)};

            avx512_add_row(t, first + r, sums, o, n_cols, k == 0);
        }
    }
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;
    const struct weight *w = t->w;

    for (int o = begin; o < end; o += COLS)
        for (int k = 0; k < w->n_in; k += BLOCK) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = w->n_in - k < BLOCK ? w->n_in - k : BLOCK;

            unpack_scales(panel->scales, panel->biases, w, o, n_cols, k, n);
            unpack_format(panel->codes, w, o, n_cols, k, n, 1);
            if (w->group_size == 16)
                multiply_panel(t, panel, o, n_cols, k, n, 16);
            else if (w->group_size == 32)
                multiply_panel(t, panel, o, n_cols, k, n, 32);
            else
                multiply_panel(t, panel, o, n_cols, k, n, 64);
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
