/* device/cpu/gemm_f32_avx2.c: weights by many rows in f32: each weight becomes f32 once, in a panel
 * that lies in the cache, and is multiplied by all rows from there.
 *
 * A panel is [numbers, COLS outputs], a strip of x [numbers, ROWS rows]. A panel meets BLOCK
 * numbers of every strip: these lie side by side, so that they are read in a row and from the cache
 * again for the next panel.
 */
#include "device/cpu/matmul_avx2.h"

#define ROWS 6
#define COLS 16
#define BLOCK 256 /* numbers in a panel: 16 KB, half of the smallest L1 */

struct panel {
    float w[BLOCK * COLS];
    float rows[8 * BLOCK]; /* of weights, on their way there */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

static size_t strip_bytes(int n_in, int group_size)
{
    (void)group_size;
    return (ROWS * sizeof(float) * (size_t)n_in + 63) & ~(size_t)63;
}

/* What the strip that begins at row `first` has from number k on, a multiple of BLOCK. */
static float *strip_part(const struct cpu_task *t, int first, int k)
{
    size_t n_strips = (size_t)((t->n_rows + ROWS - 1) / ROWS);
    int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

    return (float *)t->prepared + ROWS * n_strips * (size_t)k + (size_t)first * (size_t)n;
}

static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)strip;
    for (int r = 0; r < n; r++) {
        const float *x = cpu_task_x(t, first + r);

        for (int k = 0; k < t->w->n_in; k += BLOCK) {
            int size = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;
            float *to = strip_part(t, first, k) + r;

            for (int i = 0; i < size; i++)
                to[i * ROWS] = x[k + i];
        }
    }
}

/* Outputs o to o + COLS (past the last: of that again), numbers k to k + n. */
static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    for (int half = 0; half < COLS; half += 8) {
        int i = 0;

        for (int c = 0; c < 8; c++)
            avx2_dequantise(panel->rows + c * BLOCK, w,
                            o + (half + c < n_cols ? half + c : n_cols - 1), k, n);
        for (; i + 8 <= n; i += 8) {
            __m256i v[8];

#pragma GCC unroll 8
            for (int c = 0; c < 8; c++)
                v[c] = _mm256_load_si256((const __m256i *)(panel->rows + c * BLOCK + i));
            transpose8(v);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                _mm256_store_si256((__m256i *)(panel->w + (i + j) * COLS + half), v[j]);
        }
        for (; i < n; i++)
            for (int c = 0; c < 8; c++)
                panel->w[i * COLS + half + c] = panel->rows[c * BLOCK + i];
    }
}

/* Sums of ROWS rows by COLS outputs: of row r, a_r of outputs 0 to 7 and b_r of 8 to 15. */
struct sums {
    __m256 a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5;
};

INLINE void multiply_strip(struct sums *sums, const float *w, const float *x, int n, const int rows)
{
    struct sums s;

#define CLEAR(r) s.a##r = s.b##r = _mm256_setzero_ps();
    EACH_ROW(rows, CLEAR);
#pragma GCC unroll 4
    for (int i = 0; i < n; i++, w += COLS, x += ROWS) {
        __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8);

#define ADD(r)                                                                                     \
    __m256 x##r = _mm256_broadcast_ss(x + r);                                                      \
    s.a##r = _mm256_fmadd_ps(w0, x##r, s.a##r);                                                    \
    s.b##r = _mm256_fmadd_ps(w1, x##r, s.b##r);
        EACH_ROW(rows, ADD);
    }
    *sums = s;
#undef CLEAR
#undef ADD
}

INLINE void multiply_rows(const struct cpu_task *t, const struct panel *panel, int first, int o,
                          int n_cols, int k, int n, const int rows)
{
    const float *bias = t->bias ? t->bias + o : NULL;
    struct sums s;

    for (int r = 0; r < rows; r++)
        _mm_prefetch((const char *)(cpu_task_y(t, first + r) + o), _MM_HINT_T0);
    multiply_strip(&s, panel->w, strip_part(t, first, k), n, rows);
#define ADD(r)                                                                                     \
    float *y##r = cpu_task_y(t, first + r) + o;                                                    \
    avx2_add_row(y##r, s.a##r, s.b##r, k > 0 ? y##r : bias, n_cols);
    EACH_ROW(rows, ADD);
#undef ADD
}

static void multiply_panel(const struct cpu_task *t, const struct panel *panel, int o, int n_cols,
                           int k, int n)
{
    for (int first = 0; first < t->n_rows; first += ROWS)
        switch (t->n_rows - first) {
        case 1:
            multiply_rows(t, panel, first, o, n_cols, k, n, 1);
            break;
        case 2:
            multiply_rows(t, panel, first, o, n_cols, k, n, 2);
            break;
        case 3:
            multiply_rows(t, panel, first, o, n_cols, k, n, 3);
            break;
        case 4:
            multiply_rows(t, panel, first, o, n_cols, k, n, 4);
            break;
        case 5:
            multiply_rows(t, panel, first, o, n_cols, k, n, 5);
            break;
        default:
            multiply_rows(t, panel, first, o, n_cols, k, n, 6);
            break;
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

const struct cpu_product avx2_gemm_f32 = {
    .name = "f32 panels by strips",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
