/* device/cpu/few_avx512.h: x as few_avx512.c reads it.
 *
 * A unit has 64 numbers, or 32 where groups have no more. Where rows lie so that the same numbers
 * of 16 of them are in one set of the first cache, and it has 8 ways, those of 8 outputs are read
 * in two places, their halves; else there is one place. Prepared, x is strips of up to ROWS
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
#define MIDDLE 8 /* codes */

/* How x of a number of inputs lies. */
struct few_x {
    int unit, places;
    int n_units, n_groups; /* in a place */
    int per_group;         /* units */
    size_t unit_bytes, sums_offset, halves_offset, bytes;
};

struct few_x avx512_few_x(int n_in, int group_size);

/* As of struct cpu_product. */
size_t avx512_few_strip_bytes(int n_in, int group_size);
void avx512_few_prepare(void *strip, const struct cpu_task *t, int first, int n);

#endif
