/* device/cpu/few_avx512.h: x as few_avx512.c reads it.
 *
 * A unit has 64 numbers, or 32 where groups have no more. Where rows lie so that the same numbers
 * of 16 of them are in one set of the first cache, which has 8 or 12 ways, those of 8 outputs are
 * read in two places, their halves; else there is one place. Prepared, x is strips of up to ROWS
 * rows, each of them units
 *
 *     int8 q [unit / 4][ROWS][places][4]
 *     float steps [ROWS][places]
 *     int32 begin [ROWS][places]
 *
 * and behind them, for groups, of which there is room for a multiple of CHUNK,
 *
 *     float sums [groups][ROWS][places]
 *     bf16 halves [groups / 2][ROWS][places][2]
 *
 * where q has of every 8 numbers those at even places, then those at odd ones, as nibbles come out
 * of 32 bits; x = step q, and a sum is that of a group's x as rounded. Biases of bf16 meet halves,
 * sums as bf16. What these leave meets MIDDLE scales, which biases are but for a fraction where
 * codes go about zero: it is what integer sums begin with.
 *
 * Weights meet one or two strips at a time. Two threads that wrote to the same one would wait for
 * each other's lines.
 */
#ifndef DEVICE_CPU_FEW_AVX512_H
#define DEVICE_CPU_FEW_AVX512_H

#include "device/cpu/matmul_avx512.h"

#define ROWS 4
#define CHUNK 8 /* groups, whose scales are read at a time */
#define LINE 64
#define MIDDLE 8      /* codes */
#define SAME_SET 4096 /* bytes: lines so far apart are in the same set of the first cache */

/* How x of a number of inputs lies. */
struct few_x {
    int unit, places;
    int n_units, n_groups; /* in a place */
    int per_group;         /* units */
    size_t unit_bytes, sums_offset, halves_offset, bytes;
};

static inline struct few_x few_x_of(int n_in, int group_size)
{
    struct few_x x = {
        .unit = group_size < 64 ? 32 : 64,
        .places = n_in % (2 * SAME_SET) == 0 ? 2 : 1,
    };
    size_t columns, room;

    x.per_group = group_size / x.unit;
    x.n_groups = n_in / group_size / x.places;
    x.n_units = x.n_groups * x.per_group;
    columns = ROWS * (size_t)x.places;
    room = columns * (((size_t)x.n_groups + CHUNK - 1) / CHUNK * CHUNK);
    x.unit_bytes = columns * ((size_t)x.unit + sizeof(float) + sizeof(int32_t));
    x.sums_offset = (size_t)x.n_units * x.unit_bytes;
    x.halves_offset = x.sums_offset + room * sizeof(float);
    x.bytes = (x.halves_offset + room * sizeof(uint16_t) + LINE - 1) / LINE * LINE;
    return x;
}

/* As of struct cpu_product. */
size_t avx512_few_strip_bytes(int n_in, int group_size);
void avx512_few_prepare(void *strip, const struct cpu_task *t, int first, int n);

#endif
