/* device/cpu/few_avx512.h: x as few_avx512.c reads it.
 *
 * A unit has 64 numbers, or 32 where groups have no more, or where that is enough for the end of a
 * row. A piece is blocks of the same unit, up to PIECE numbers. Prepared, x is strips of up to ROWS
 * rows. A strip is pieces, each of them blocks
 *
 *     int8 q [unit / 8][2][ROWS][16][4]
 *     float steps [2 ROWS 16]
 *     int32 begin [ROWS][16]
 *
 * and behind them, for its groups,
 *
 *     float sums [piece_groups / 16][2 ROWS 16]
 *     bf16 halves [piece_groups / 32][2 ROWS 16][2]
 *
 * where q has of every 8 numbers of a unit those at even places, then those at odd ones, as nibbles
 * come out of 32 bits; x = step q, and a sum is that of a group's x as rounded; place says where
 * those of a row are. Biases of bf16 meet halves, sums as bf16. What these leave meets MIDDLE
 * scales, which biases are but for a fraction where codes go about zero: it is what integer sums
 * begin with.
 *
 * Which unit a lane has is what transposing leaves least to do for: unit_order.
 */
#ifndef DEVICE_CPU_FEW_AVX512_H
#define DEVICE_CPU_FEW_AVX512_H

#include "device/cpu/matmul_avx512.h"

#define ROWS 8
#define PIECE 2048
#define MAX_STRIPS 2
#define PREPARED 4 /* rows of x at a time */
#define LINE 64
#define MIDDLE 8 /* codes */

_Static_assert(MAX_STRIPS *ROWS == AVX512_FEW_ROWS, "there are accumulators for all rows");

/* The unit that a lane has. */
static const int32_t order_64[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
static const int32_t order_32[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

INLINE const int32_t *unit_order(int unit)
{
    return unit == 64 ? order_64 : order_32;
}

/* The other way round. */
INLINE int unit_lane(int unit, int i)
{
    return unit == 64 ? i / 8 * 8 + i % 2 * 4 + i % 8 / 2 : i % 4 * 4 + i / 4;
}

/* Of the block that begins at a number of a row. */
INLINE int unit_at(int k, int n_in, int group_size)
{
    return group_size < 64 || n_in - k <= 512 ? 32 : 64;
}

struct piece {
    int begin, end; /* numbers of a row */
    int unit, n_blocks;
};

static inline struct piece piece_at(int k, int n_in, int group_size)
{
    struct piece p = {.begin = k, .end = k, .unit = unit_at(k, n_in, group_size)};

    do {
        p.n_blocks++;
        p.end += 16 * p.unit;
    } while (p.end < n_in && p.end - k < PIECE && unit_at(p.end, n_in, group_size) == p.unit);
    p.end = p.end < n_in ? p.end : n_in;
    return p;
}

INLINE size_t block_bytes(const int unit)
{
    return ROWS * 16 * ((size_t)unit + 2 * sizeof(float) + sizeof(int32_t));
}

/* Where number i of row r is, of 16: in every 128 bits of sums are those of two outputs by row r,
 * then by row r + 1. It is there twice. */
INLINE int place(int r, int i)
{
    return ((r / 2 * 4 + i % 4) * 4 + i / 4) * 4 + r % 2 * 2;
}

/* There is room for so many, a multiple of 32. */
INLINE int piece_groups(int group_size)
{
    return group_size < 64 ? PIECE / 32 : PIECE / 64;
}

INLINE size_t piece_bytes(const struct piece *p, int group_size)
{
    return (size_t)p->n_blocks * block_bytes(p->unit) +
           ROWS * (size_t)piece_groups(group_size) * (2 * sizeof(float) + sizeof(float));
}

/* Rows are shared out among the strips evenly: so many come before strip s. */
INLINE int rows_before(int s, int n_rows)
{
    return s * n_rows / ((n_rows + ROWS - 1) / ROWS);
}

/* Bytes of a strip of n_in numbers. */
size_t avx512_few_strip_bytes(int n_in, int group_size);

/* As of struct cpu_product: x comes PREPARED rows at a time, so that two threads have something to
 * do where there is but one strip; three times this are two strips. */
size_t avx512_few_prepared_bytes(int n_in, int group_size);
void avx512_few_prepare(void *part, const struct cpu_task *t, int first, int n);

#endif
