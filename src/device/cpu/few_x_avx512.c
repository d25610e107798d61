/* device/cpu/few_x_avx512.c: rows of x for few_avx512.c. */
#include "device/cpu/few_avx512.h"

#include "base/number.h"

size_t avx512_few_strip_bytes(int n_in, int group_size)
{
    size_t size = 0;

    for (int k = 0; k < n_in;) {
        struct piece p = piece_at(k, n_in, group_size);

        size += piece_bytes(&p, group_size);
        k = p.end;
    }
    return size;
}

/* What a row of a block begins with behind q. */
INLINE float *block_steps(uint8_t *block, int unit)
{
    return (float *)(void *)(block + 16 * ROWS * unit);
}

INLINE int32_t *block_begin(uint8_t *block, int unit, int r)
{
    return (int32_t *)(void *)(block_steps(block, unit) + 2 * ROWS * 16) + 16 * r;
}

/* x from number k on, of which n there are, as row r of a block; sums, steps [16]: of the units. */
static void prepare_block(uint8_t *block, int r, float *sums, float *steps, const float *x, int n,
                          int unit)
{
    float *to_steps = block_steps(block, unit);
    int8_t q[16][64] __attribute__((aligned(64)));
    const uint8_t *lanes[16];

    for (int i = 0; i < 16; i++) {
        if (i * unit < n) {
            sums[i] = avx2_quantise_i8(q[i], x + i * unit, unit, steps + i);
            avx2_order_bytes(q[i], unit);
        } else {
            memset(q[i], 0, sizeof q[i]);
            sums[i] = steps[i] = 0;
        }
    }
    for (int lane = 0; lane < 16; lane++) {
        float *to = to_steps + place(r, lane);

        lanes[lane] = (const uint8_t *)q[unit_order(unit)[lane]];
        to[0] = to[1] = steps[unit_order(unit)[lane]];
    }
    for (int at = 0; at < unit; at += 32) {
        __m512i v[8];

        avx512_load_transposed(v, lanes, at);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            _mm512_store_si512(block + 16 * ROWS * (at + 4 * j) + 64 * r, v[j]);
    }
    memset(block_begin(block, unit, r), 0, 16 * sizeof(int32_t));
}

/* What sums begin with, so that biases of -MIDDLE scales meet what is left of the sum of a group of
 * units: it goes to the unit of the greatest step. */
static void begin_group(uint8_t *blocks, int r, float left, const float *steps, int first, int n,
                        int unit)
{
    int best = first;

    for (int i = first + 1; i < first + n; i++)
        best = steps[i] > steps[best] ? i : best;
    if (!(fabsf(left) < 1e4f * steps[best])) /* or one is not a number */
        return;
    block_begin(blocks + (size_t)(best / 16) * block_bytes(unit), unit,
                r)[unit_lane(unit, best % 16)] = (int32_t)lrintf(-MIDDLE * left / steps[best]);
}

/* Row r of a strip. */
static void prepare_row(uint8_t *strip, int r, const float *x, int n_in, int group_size)
{
    int room = piece_groups(group_size);

    for (int k = 0; k < n_in;) {
        struct piece p = piece_at(k, n_in, group_size);
        float units[PIECE / 32], steps[PIECE / 32];
        float *sums = (float *)(void *)(strip + (size_t)p.n_blocks * block_bytes(p.unit));
        uint16_t *halves = (uint16_t *)(sums + 2 * ROWS * room);
        int per_group = group_size / p.unit;

        for (int b = 0; b < p.n_blocks; b++, k += 16 * p.unit)
            prepare_block(strip + (size_t)b * block_bytes(p.unit), r, units + 16 * b,
                          steps + 16 * b, x + k, n_in - k, p.unit);
        for (int g = 0; g < room; g++) {
            float sum = 0, *to = sums + g / 16 * 2 * ROWS * 16 + place(r, g % 16);
            uint16_t *half = halves + g / 32 * 4 * ROWS * 16 + 2 * place(r, g % 32 / 2) + g % 2;
            int first = g * per_group, n = 0;

            for (; n < per_group && first + n < 16 * p.n_blocks; n++)
                sum += units[first + n];
            to[0] = to[1] = sum;
            half[0] = half[2] = f32_to_bf16(sum);
            if (n > 0)
                begin_group(strip, r, sum - bf16_to_f32(half[0]), steps, first, n, p.unit);
        }
        strip += piece_bytes(&p, group_size);
        k = p.end;
    }
}

size_t avx512_few_prepared_bytes(int n_in, int group_size)
{
    return (avx512_few_strip_bytes(n_in, group_size) / 3 * 2 + 2 * LINE) / LINE * LINE;
}

void avx512_few_prepare(void *part, const struct cpu_task *t, int first, int n)
{
    int n_in = t->w->n_in, g = t->w->group_size;
    uint8_t *x = (uint8_t *)part - (size_t)(first / PREPARED) * avx512_few_prepared_bytes(n_in, g);

    for (int row = first; row < first + n; row++) {
        int s = row >= rows_before(1, t->n_rows);

        prepare_row(x + (size_t)s * avx512_few_strip_bytes(n_in, g),
                    row - rows_before(s, t->n_rows), cpu_task_x(t, row), n_in, g);
    }
}
