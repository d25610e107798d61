/* device/cpu/product_i8_neon.c: integer weights by rows of 8 bits, with the dot product
 * instructions.
 *
 * x gets a step per 32 numbers (16 for nvfp4); codes of 8 bits are taken less 128, so that they are
 * signed too:
 *
 *     y = sum_units scale step sum (q - zero) xq + sum_groups (bias + zero scale) step sum xq
 *
 * Prepared, a row is: i8 [n_in], the steps [n_units] and the sums step sum xq [n_units], f32.
 */
#include <math.h>

#include "device/cpu/matmul_neon.h"

#define COLS 4 /* outputs and rows that a kernel has sums of in registers */
#define ROWS 2
#define CHUNK 1024 /* numbers unpacked at a time */
#define MAX_UNITS (CHUNK / 16)

struct panel {
    int8_t codes[COLS][CHUNK];
    float scales[COLS][MAX_UNITS];
    float biases[COLS][MAX_UNITS];
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

static int unit_of(int group_size)
{
    return group_size < 32 ? group_size : 32;
}

static size_t strip_bytes(int n_in, int group_size)
{
    size_t units = (size_t)(n_in / unit_of(group_size));

    return ((size_t)n_in + 2 * sizeof(float) * units + 63) & ~(size_t)63;
}

/* x = step q for n numbers, a multiple of 16; returns step times the sum of q. */
static float quantise(int8_t *q, const float *x, int n, float *step)
{
    uint32_t most = 0; /* as integers NaN > infinity > all numbers */
    int32_t sum = 0;
    float largest, inverse;

    for (int i = 0; i < n; i++) {
        uint32_t magnitude = f32_bits(x[i]) & 0x7FFFFFFF;

        most = magnitude > most ? magnitude : most;
    }
    largest = bits_f32(most);
    inverse = largest > 1e-30f ? 127 / largest : 0;
    *step = !(largest < INFINITY) ? NAN : largest > 1e-30f ? largest / 127 : 0;
    for (int i = 0; i < n; i += 8) {
        int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), inverse));
        int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), inverse));

        vst1_s8(q + i, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
        sum += vaddvq_s32(a) + vaddvq_s32(b);
    }
    return *step * (float)sum;
}

static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    int n_in = t->w->n_in, unit = unit_of(t->w->group_size);
    int8_t *q = strip;
    float *steps = (float *)(void *)(q + n_in), *sums = steps + n_in / unit;
    const float *x = cpu_task_x(t, first);

    (void)n;
    for (int i = 0; i < n_in; i += unit)
        sums[i / unit] = quantise(q + i, x + i, unit, steps + i / unit);
}

/* --- weights */

/* 16 nibbles of 8 bytes, in order. */
INLINE uint8x16_t nibbles(const uint8_t *p)
{
    uint8x8_t v = vld1_u8(p);

    return vcombine_u8(vzip1_u8(vand_u8(v, vdup_n_u8(15)), vshr_n_u8(v, 4)),
                       vzip2_u8(vand_u8(v, vdup_n_u8(15)), vshr_n_u8(v, 4)));
}

/* 8 values of some bits are as many bytes. */
INLINE void unpack8(int8_t *to, const uint8_t *p, int bits)
{
    uint64_t run = 0;

    for (int b = 0; b < bits; b++)
        run |= (uint64_t)p[b] << 8 * b;
    for (int i = 0; i < 8; i++, run >>= bits)
        to[i] = (int8_t)(run & ((1u << bits) - 1));
}

static void unpack_codes(int8_t *to, const struct weight *w, const uint8_t *p, int n)
{
    static const int8_t e2m1_doubled[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};
    const int8x16_t table = vld1q_s8(e2m1_doubled);

    if (w->format != WEIGHT_AFFINE)
        for (int i = 0; i < n; i += 16)
            vst1q_s8(to + i, vqtbl1q_s8(table, nibbles(p + i / 2)));
    else if (w->bits == 4)
        for (int i = 0; i < n; i += 16)
            vst1q_s8(to + i, vreinterpretq_s8_u8(nibbles(p + i / 2)));
    else if (w->bits == 8)
        for (int i = 0; i < n; i += 16)
            vst1q_s8(to + i, vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p + i), vdupq_n_u8(0x80))));
    else
        for (int i = 0; i < n; i += 8)
            unpack8(to + i, p + i / 8 * w->bits, w->bits);
}

/* Numbers k to k + n of output o as column c of a panel. */
static void unpack(struct panel *panel, int c, const struct weight *w, int o, int k, int n)
{
    int unit = unit_of(w->group_size);
    float zero = w->bits == 8 ? 128 : 0;

    unpack_codes(panel->codes[c], w, neon_data(w, o, k), n);
    for (int i = 0; i < n; i += unit) {
        float scale = neon_scale(w, w->scales, o, k + i);

        if (w->format == WEIGHT_AFFINE) {
            panel->scales[c][i / unit] = scale;
            panel->biases[c][i / unit] = neon_scale(w, w->biases, o, k + i) + zero * scale;
        } else {
            panel->scales[c][i / unit] = 0.5f * scale; /* values were doubled */
            panel->biases[c][i / unit] = 0;
        }
    }
}

/* --- products */

/* sums[r][c] += the chunk of x[r] by column c. */
INLINE void multiply_chunk(float sums[ROWS][COLS], const struct panel *panel,
                           const int8_t *const x[ROWS], const float *const steps[ROWS],
                           const float *const xsums[ROWS], int n, const int unit, const int rows)
{
    float32x4_t acc[ROWS][COLS];

    for (int r = 0; r < rows; r++)
        for (int c = 0; c < COLS; c++)
            acc[r][c] = vdupq_n_f32(0);
    for (int i = 0, u = 0; i < n; i += unit, u++)
        for (int r = 0; r < rows; r++) {
            int8x16_t x0 = vld1q_s8(x[r] + i), x1 = vld1q_s8(x[r] + i + unit - 16);

            for (int c = 0; c < COLS; c++) {
                const int8_t *q = panel->codes[c] + i;
                int32x4_t products = vdotq_s32(vdupq_n_s32(0), vld1q_s8(q), x0);

                if (unit == 32)
                    products = vdotq_s32(products, vld1q_s8(q + 16), x1);
                acc[r][c] = vfmaq_n_f32(acc[r][c], vcvtq_f32_s32(products),
                                        panel->scales[c][u] * steps[r][u]);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < COLS; c++) {
            float bias = 0;

            for (int u = 0; u < n / unit; u++)
                bias += panel->biases[c][u] * xsums[r][u];
            sums[r][c] = vaddvq_f32(acc[r][c]) + bias;
        }
}

/* All rows by a panel: numbers k to k + n of n_cols outputs from o on. */
static void multiply_panel(const struct cpu_task *t, const struct panel *panel, int o, int n_cols,
                           int k, int n)
{
    int n_in = t->w->n_in, group_size = t->w->group_size, unit = unit_of(group_size);
    size_t strip = strip_bytes(n_in, group_size);

    for (int first = 0; first < t->n_rows; first += ROWS) {
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;
        const int8_t *x[ROWS];
        const float *steps[ROWS], *xsums[ROWS];
        float sums[ROWS][COLS];

        for (int r = 0; r < rows; r++) {
            x[r] = (const int8_t *)t->prepared + (size_t)(first + r) * strip;
            steps[r] = (const float *)(const void *)(x[r] + n_in) + k / unit;
            xsums[r] = steps[r] + n_in / unit;
            x[r] += k;
        }
        if (unit < 32)
            multiply_chunk(sums, panel, x, steps, xsums, n, 16, rows);
        else if (rows == 2)
            multiply_chunk(sums, panel, x, steps, xsums, n, 32, 2);
        else
            multiply_chunk(sums, panel, x, steps, xsums, n, 32, 1);
        for (int r = 0; r < rows; r++) {
            float *y = cpu_task_y(t, first + r) + o;

            for (int c = 0; c < n_cols; c++)
                y[c] = (k > 0 ? y[c] : t->bias ? t->bias[o + c] : 0) + sums[r][c];
        }
    }
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;

    for (int o = begin; o < end; o += COLS)
        for (int k = 0; k < t->w->n_in; k += CHUNK) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < CHUNK ? t->w->n_in - k : CHUNK;

            for (int c = 0; c < COLS; c++)
                unpack(panel, c, t->w, o + (c < n_cols ? c : n_cols - 1), k, n);
            multiply_panel(t, panel, o, n_cols, k, n);
        }
}

const struct cpu_product neon_product_i8 = {
    .name = "i8 dot products",
    .panel_cols = COLS,
    .strip_rows = 1,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
