/* device/cpu/attention_int.h: how attention in whole numbers lays out and rounds what it reads. */
#ifndef DEVICE_CPU_ATTENTION_INT_H
#define DEVICE_CPU_ATTENTION_INT_H

#include <math.h>

#include "device/cpu/vector_kernels.h"

enum {
    INT_ROWS = CPU_INT_ROWS,
    INT_COLS = CPU_INT_COLS,
    INT_BLOCK = CPU_INT_BLOCK,
    INT_ZERO = 64,        /* the code of a key's number that lies in the middle; others are +-63 */
    INT_QUERY_MAX = 127,  /* so two products of a query and a key fit in 16 bits, */
    INT_LANE_MAX = 512,   /* and 63 times the sum of 16 numbers of a query, 8 of it by rounding */
    INT_VALUE_MAX = 4095, /* 64 products with weights of up to 2^13 fit in 32 bits */
    INT_WEIGHT_BITS = 13
};
#define INT_WEIGHT_UNIT 0x1p-13f
#define INT_TINY 1e-30f /* what is smaller counts as nothing, so that no reciprocal overflows */

_Static_assert((INT_ZERO - 1) * (INT_LANE_MAX + 8) < 1 << 15, "a block's sums of scores");
_Static_assert(2 * INT_QUERY_MAX * (2 * INT_ZERO - 1) < 1 << 15, "two products of bytes");
_Static_assert((INT_VALUE_MAX << INT_WEIGHT_BITS) <= INT32_MAX / CPU_ATTEND_CHUNK,
               "sums of values");

static inline int int_blocks(int dim)
{
    return (dim + INT_BLOCK - 1) / INT_BLOCK;
}

/* Numbers of a size of at most limit steps; returns 1 / step. poison: 0, or NaN where some number
 * is none or infinite, and then the step is too. */
static inline float int_inverse(float limit, float largest, float poison, float *step)
{
    if (isnan(poison) || largest < INT_TINY) {
        *step = poison;
        return 0;
    }
    *step = largest / limit;
    return limit / largest;
}

/* The same for a query, of whose |numbers| one lane of a block adds up at most lane. */
static inline float int_query_inverse(float largest, float lane, float poison, float *step)
{
    return int_inverse(1, fmaxf(largest / INT_QUERY_MAX, lane / INT_LANE_MAX), poison, step);
}

#endif
