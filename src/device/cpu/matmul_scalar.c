/* device/cpu/matmul_scalar.c: matrix products in plain C: every format, any processor. */
#include <string.h>

#include "base/number.h"
#include "device/cpu/four.h"
#include "device/cpu/matmul_kernels.h"

#define BLOCK 512 /* numbers of a row of weights that are dequantised at a time */
#define LANES 8   /* sums side by side */

static float dot(const float *x, const float *w, int n)
{
    float sums[LANES], sum = 0;
    four first = {0}, last = {0};
    int i = 0;

    for (; i + LANES <= n; i += LANES) {
        first += *four_at(x + i) * *four_at(w + i);
        last += *four_at(x + i + 4) * *four_at(w + i + 4);
    }
    memcpy(sums, &first, sizeof first);
    memcpy(sums + 4, &last, sizeof last);
    for (; i < n; i++)
        sums[i % LANES] += x[i] * w[i];
    for (int l = 0; l < LANES; l++)
        sum += sums[l];
    return sum;
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    float *w = scratch;
    int n_in = t->w->n_in;

    for (int o = begin; o < end; o++)
        for (int k = 0; k < n_in; k += BLOCK) {
            int n = n_in - k < BLOCK ? n_in - k : BLOCK;

            weight_piece_f32(w, t->w, o, k, n);
            for (int r = 0; r < t->n_rows; r++) {
                float *y = cpu_task_y(t, r) + o;
                float before = k > 0 ? *y : t->bias ? t->bias[o] : 0;

                *y = before + dot(cpu_task_x(t, r) + k, w, n);
            }
        }
}

static const struct cpu_product *choose(const struct weight *w, int n_rows, bool exact)
{
    static const struct cpu_product product = {
        .name = "scalar",
        .panel_cols = 1,
        .multiply = multiply,
    };

    (void)w;
    (void)n_rows;
    (void)exact;
    return &product;
}

static uint64_t read_all(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint64_t sums[4] = {0};

    for (size_t i = 0; i < size; i += 32)
        for (int l = 0; l < 4; l++)
            sums[l] ^= load_le64(p + i + 8 * l);
    return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

static double f32_burst(void)
{
    float sums[32] = {0};
    volatile float factor = 0.5f, sink;
    float f = *(volatile float *)&factor;
    const int n = 4000;

    for (int i = 0; i < n; i++)
        for (int l = 0; l < 32; l++)
            sums[l] = sums[l] * f + f;
    for (int l = 1; l < 32; l++)
        sums[0] += sums[l];
    sink = sums[0];
    (void)sink;
    return 2.0 * 32 * n;
}

void cpu_matmul_kernels_scalar(struct cpu_matmul_kernels *k)
{
    *k = (struct cpu_matmul_kernels){
        .dequantise = weight_piece_f32,
        .choose = choose,
        .read = read_all,
        .f32_burst = f32_burst,
    };
}
