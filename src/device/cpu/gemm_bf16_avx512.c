/* device/cpu/gemm_bf16_avx512.c: bf16 weights by many rows, x rounded to bf16, sums in f32.
 *
 * Two numbers of an output, or of a row, are 32 bits: panels are [n / 2, COLS] of them, strips
 * [n / 2, ROWS]. An odd last number gets a zero beside it.
 */
#include "device/cpu/matmul_avx512.h"

#define ROWS 12
#define COLS 32
#define BLOCK 256 /* numbers in a panel: 16 KB, half of the smallest L1 */

struct panel {
    uint32_t w[BLOCK / 2 * COLS];
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

static size_t strip_bytes(int n_in, int group_size)
{
    (void)group_size;
    return (ROWS * sizeof(uint32_t) * ((size_t)n_in + 1) / 2 + 63) & ~(size_t)63;
}

/* To nearest, ties to even; not a number stays that. */
INLINE uint32_t round_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000)
        return bits >> 16 | 0x40;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

/* Rows that are not there are zeros, so that the kernels need to know only fours of rows. */
static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    int n_in = t->w->n_in;
    uint32_t *to = strip;

    if (n % 4)
        memset(strip, 0, strip_bytes(n_in, 0));
    for (int r = 0; r < n; r++) {
        const float *x = cpu_task_x(t, first + r);

        for (int i = 0; i < n_in; i += 2)
            to[i / 2 * ROWS + r] =
                round_bf16(x[i]) | (i + 1 < n_in ? round_bf16(x[i + 1]) << 16 : 0);
    }
}

/* Outputs o to o + COLS (past the last: of that again), numbers k to k + n. */
static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    for (int part = 0; part < COLS; part += 8) {
        const uint8_t *rows[8];

        for (int c = 0; c < 8; c++)
            rows[c] =
                weight_data(w, o + (part + c < n_cols ? part + c : n_cols - 1)) + 2 * (size_t)k;
        for (int i = 0; i < n; i += 16) {
            uint8_t last[8][32] = {0};
            __m256i v[8];

            for (int c = 0; c < 8; c++) {
                const uint8_t *p = rows[c] + 2 * i;

                if (n - i < 16)
                    p = memcpy(last[c], p, 2 * (size_t)(n - i));
                v[c] = _mm256_loadu_si256((const __m256i *)p);
            }
            transpose8(v);
            for (int j = 0; j < 8 && i + 2 * j < n; j++)
                _mm256_store_si256((__m256i *)(panel->w + (i / 2 + j) * COLS + part), v[j]);
        }
    }
}

INLINE __m512bh as_bf16(__m512i v)
{
    return (__m512bh)v;
}

/* Rows of y from the first on by a panel; there are rows of x in the strip, n_rows of them real. */
INLINE void multiply_strip(const struct cpu_task *t, const struct panel *panel, int first,
                           int n_rows, int o, int n_cols, int k, int n, const int rows)
{
    const uint32_t *x =
        (const uint32_t *)(const void *)((const uint8_t *)t->prepared +
                                         (size_t)(first / ROWS) * strip_bytes(t->w->n_in, 0)) +
        k / 2 * ROWS;
    const uint32_t *w = panel->w;
    __m512 sums[ROWS][2];

#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 2, w += COLS, x += ROWS) {
        __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 16);

#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512i v = _mm512_set1_epi32((int)x[r]);

            sums[r][0] = _mm512_dpbf16_ps(sums[r][0], as_bf16(w0), as_bf16(v));
            sums[r][1] = _mm512_dpbf16_ps(sums[r][1], as_bf16(w1), as_bf16(v));
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        if (r < n_rows)
            avx512_add_row(t, first + r, sums[r], o, n_cols, k == 0);
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;

    for (int o = begin; o < end; o += COLS)
        for (int k = 0; k < t->w->n_in; k += BLOCK) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

            unpack(panel, t->w, o, n_cols, k, n);
            for (int first = 0; first < t->n_rows; first += ROWS) {
                int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;

                if (rows > 8)
                    multiply_strip(t, panel, first, rows, o, n_cols, k, n, 12);
                else if (rows > 4)
                    multiply_strip(t, panel, first, rows, o, n_cols, k, n, 8);
                else
                    multiply_strip(t, panel, first, rows, o, n_cols, k, n, 4);
            }
        }
}

const struct cpu_product avx512_gemm_bf16 = {
    .name = "bf16 panels",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
