/* device/cpu/matmul_neon.c: products in f32 with NEON, exact for every format, and which kernel for
 * which product.
 *
 * One order of summation for all: the numbers of a row are cut into blocks of BLOCK; in a block,
 * lane l of 8 sums the products l, l + 8, ... by fused operations, then the lanes are summed, and
 * the blocks one after another.
 */
#include "device/cpu/matmul_neon.h"

#define BLOCK 512
#define COLS 4
#define ROWS 2

/* out[i] = w[o, k + i]; dense formats in vectors, the others by their definition. */
static void dequantise(float *out, const struct weight *w, int o, int k, int n)
{
    struct cpu_matmul_kernels scalar;
    const uint8_t *p = neon_data(w, o, 0) + (size_t)k * (w->format == WEIGHT_F32 ? 4 : 2);
    int i = 0;

    if (w->format == WEIGHT_BF16)
        for (; i + 4 <= n; i += 4)
            vst1q_f32(out + i, vreinterpretq_f32_u32(
                                   vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p + 2 * i)), 16)));
    else if (w->format == WEIGHT_F16)
        for (; i + 4 <= n; i += 4)
            vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 2 * i))));
    if (w->format == WEIGHT_BF16 || w->format == WEIGHT_F16) {
        for (; i < n; i++) {
            uint16_t h = load_le16(p + 2 * i);

            out[i] = w->format == WEIGHT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
        }
        return;
    }
    cpu_matmul_kernels_scalar(&scalar);
    scalar.dequantise(out, w, o, k, n);
}

/* sums[r][c] = the sum over n numbers of row r of x and row c of the panel w. */
INLINE void block_sums(float sums[ROWS][COLS], const float *const x[ROWS], const float *w, int n,
                       const int rows)
{
    float32x4_t acc[ROWS][COLS][2];
    int whole = n / 8 * 8;

    for (int r = 0; r < rows; r++)
        for (int c = 0; c < COLS; c++)
            acc[r][c][0] = acc[r][c][1] = vdupq_n_f32(0);
    for (int i = 0; i < whole; i += 8)
        for (int r = 0; r < rows; r++) {
            float32x4_t x0 = vld1q_f32(x[r] + i), x1 = vld1q_f32(x[r] + i + 4);

            for (int c = 0; c < COLS; c++) {
                acc[r][c][0] = vfmaq_f32(acc[r][c][0], x0, vld1q_f32(w + c * BLOCK + i));
                acc[r][c][1] = vfmaq_f32(acc[r][c][1], x1, vld1q_f32(w + c * BLOCK + i + 4));
            }
        }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < COLS; c++) {
            sums[r][c] = vaddvq_f32(vaddq_f32(acc[r][c][0], acc[r][c][1]));
            for (int i = whole; i < n; i++)
                sums[r][c] = __builtin_fmaf(x[r][i], w[c * BLOCK + i], sums[r][c]);
        }
}

static void multiply_panel(const struct cpu_task *t, const float *panel, int o, int n_cols, int k,
                           int n)
{
    for (int first = 0; first < t->n_rows; first += ROWS) {
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;
        const float *x[ROWS];
        float sums[ROWS][COLS];

        for (int r = 0; r < rows; r++)
            x[r] = cpu_task_x(t, first + r) + k;
        if (rows == 2)
            block_sums(sums, x, panel, n, 2);
        else
            block_sums(sums, x, panel, n, 1);
        for (int r = 0; r < rows; r++) {
            float *y = cpu_task_y(t, first + r) + o;

            for (int c = 0; c < n_cols; c++)
                y[c] = (k > 0 ? y[c] : t->bias ? t->bias[o + c] : 0) + sums[r][c];
        }
    }
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    float *panel = scratch; /* [COLS, BLOCK] */

    for (int o = begin; o < end; o += COLS)
        for (int k = 0; k < t->w->n_in; k += BLOCK) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

            for (int c = 0; c < COLS; c++)
                dequantise(panel + c * BLOCK, t->w, o + (c < n_cols ? c : n_cols - 1), k, n);
            multiply_panel(t, panel, o, n_cols, k, n);
        }
}

const struct cpu_product neon_product_f32 = {
    .name = "f32 panels",
    .panel_cols = COLS,
    .multiply = multiply,
};

static const struct cpu_product *choose(const struct weight *w, int n_rows, bool exact)
{
    (void)n_rows;
    return exact || w->format <= WEIGHT_BF16 || w->format == WEIGHT_MXFP8 ? &neon_product_f32
                                                                          : &neon_product_i8;
}

void cpu_matmul_kernels_neon(struct cpu_matmul_kernels *k)
{
    cpu_matmul_kernels_scalar(k);
    k->dequantise = dequantise;
    k->choose = choose;
}
