/* tests/device/gaps.h: tensors with gaps between their rows, which must stay as they are. */
#ifndef GAPS_H
#define GAPS_H

#include "base/memory.h"
#include "device/device.h"

#include "testing.h"

enum { GAP = 5 };
#define CANARY 12345.678f

/* Random numbers and canaries; its data is to be freed with mem_free_aligned. */
static inline tensor new_tensor(int rows, int cols)
{
    tensor t = {NULL, DTYPE_F32, rows, cols, cols + GAP};
    size_t n = (size_t)rows * (size_t)(cols + GAP) + 1;
    float *x = mem_alloc_aligned(n * sizeof *x);

    assert_non_null(x);
    random_floats(x, n);
    for (int r = 0; r < rows; r++)
        for (int i = cols; i < cols + GAP; i++)
            x[(size_t)r * (size_t)(cols + GAP) + (size_t)i] = CANARY;
    t.data = x;
    return t;
}

#endif
