/* device/cpu/rows.h: the rows of f32 tensors, and how much work is worth a thread.
 *
 * Waking the pool and meeting again costs some microseconds. An operation is cut into pieces of at
 * least LIGHT or HEAVY numbers, each worth about ten of them, so that a single row of most models
 * stays on the caller.
 */
#ifndef DEVICE_CPU_ROWS_H
#define DEVICE_CPU_ROWS_H

#include "device/device.h"

enum {
    LIGHT = 32768, /* a multiplication or so per number */
    HEAVY = 8192   /* an exponential or so */
};

static inline float *row_of(const tensor *x, int64_t row)
{
    return (float *)x->data + row * x->stride;
}

/* Items per piece. */
static inline int64_t grain(int64_t work, int64_t numbers_per_item)
{
    return numbers_per_item >= work ? 1 : work / (numbers_per_item > 0 ? numbers_per_item : 1);
}

#endif
