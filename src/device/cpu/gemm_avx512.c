/* device/cpu/gemm_avx512.c: integer weights by many rows with VNNI: as gemm_avx2.c, but products of
 * bytes are added in 32 bits at once, which takes codes of any number of bits up to 8.
 */
#define ROWS 12
#define COLS 32
#define X_UNIT 64
#include "device/cpu/panels_avx2.h"
#include "device/cpu/vnni_avx512.h"

#define BLOCK 1024 /* numbers in a panel: 32 KB of codes, which come from the second cache */

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

        avx512_prefetch_rows(t, first, rows, o);
        if (rows > 8)
            multiply_part(panel, &part, n, g, unit, 12);
        else if (rows > 4)
            multiply_part(panel, &part, n, g, unit, 8);
        else
            multiply_part(panel, &part, n, g, unit, 4);
        add_tile(t, panel->tile, first, rows, o, n_cols, k == 0);
    }
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;
    const struct weight *w = t->w;

    for (int k = 0; k < w->n_in; k += BLOCK)
        for (int o = begin; o < end; o += COLS) {
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
