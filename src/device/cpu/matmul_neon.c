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

/* 8 e4m3 values by a scale, rounded to bf16. As f16 they are 2^8 too small: the bias of the
 * exponent is 7 here and 15 there. */
INLINE void fp8_8(float *out, const uint8_t *p, float scale)
{
    uint16x8_t v = vmovl_u8(vld1_u8(p)), magnitude = vandq_u16(v, vdupq_n_u16(0x7F));
    uint16x8_t nan = vceqq_u16(magnitude, vdupq_n_u16(0x7F));
    uint16x8_t half =
        vorrq_u16(vshlq_n_u16(magnitude, 7), vshlq_n_u16(vbicq_u16(v, vdupq_n_u16(0x7F)), 8));

    half = vorrq_u16(half, vandq_u16(nan, vdupq_n_u16(0x7E00)));
    for (int i = 0; i < 2; i++) {
        uint16x4_t part = i ? vget_high_u16(half) : vget_low_u16(half);
        float32x4_t f = vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(part)), 256);
        uint32x4_t bits = vreinterpretq_u32_f32(vmulq_n_f32(f, scale));
        uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));

        bits = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
        vst1q_f32(out + 4 * i, vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xFFFF0000))));
    }
}

static void fp8(float *out, const struct weight *w, int o, int k, int n)
{
    const uint8_t *p = neon_data(w, o, 0) + k, *scales = weight_fp8_scales(w, o);

    for (int i = 0; i < n;) {
        int g = (k + i) / w->group_size;
        int64_t group_end = ((int64_t)g + 1) * w->group_size - k;
        int end = group_end < n ? (int)group_end : n;
        float scale = bits_f32(load_le32(scales + 4 * (size_t)g));

        for (; i + 8 <= end; i += 8)
            fp8_8(out + i, p + i, scale);
        if (i < end) {
            uint8_t last[8] = {0};
            float values[8];

            memcpy(last, p + i, (size_t)(end - i));
            fp8_8(values, last, scale);
            memcpy(out + i, values, (size_t)(end - i) * sizeof *out);
            i = end;
        }
    }
}

/* out[i] = w[o, k + i]; dense formats and fp8 in vectors, the others by their definition. */
static void dequantise(float *out, const struct weight *w, int o, int k, int n)
{
    struct cpu_matmul_kernels scalar;
    const uint8_t *p = neon_data(w, o, 0) + (size_t)k * (w->format == WEIGHT_F32 ? 4 : 2);
    int i = 0;

    if (w->format == WEIGHT_FP8) {
        fp8(out, w, o, k, n);
        return;
    }
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
    return exact || w->format <= WEIGHT_BF16 || weight_is_e4m3(w) ? &neon_product_f32
                                                                  : &neon_product_i8;
}

void cpu_matmul_kernels_neon(struct cpu_matmul_kernels *k)
{
    cpu_matmul_kernels_scalar(k);
    k->dequantise = dequantise;
    k->choose = choose;
}
