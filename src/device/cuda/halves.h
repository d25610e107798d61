/* device/cuda/halves.h: rows in bf16 beside those of f32, for the products of many rows that read
 * them next.
 *
 * An operation whose result such a product may take leaves a copy of it in bf16 in a place that all
 * share; the product takes that for x where nothing was launched in between. */
#ifndef DEVICE_CUDA_HALVES_H
#define DEVICE_CUDA_HALVES_H

#include "device/cuda/cuda.h"

/* Rows of numbers, and zeros up to the stride, which is a multiple of 8. NULL: no copy. */
struct cuda_halves {
    uint16_t *data;
    int64_t stride;
};

/* Where to leave the copy of y; NULL where no product would take it. */
struct cuda_halves cuda_halves_for(struct cuda_device *c, const tensor *y);

/* The same of what is made of x, whose copy must stay until then. */
struct cuda_halves cuda_halves_beside(struct cuda_device *c, const tensor *y,
                                      const struct cuda_halves *x);

/* The last launch has left it there. */
void cuda_halves_made(struct cuda_device *c, const tensor *y, const struct cuda_halves *at);

/* The copy of x: as the last operation left it, else made here. NULL after a failure. */
struct cuda_halves cuda_halves_of(struct cuda_device *c, const tensor *x);

/* Norms, of x += scale a where there is an a, and gates of many rows, with their copies. False
 * where they do not suit, and nothing is done. */
bool cuda_halves_norm(struct cuda_device *c, const tensor *y, const tensor *x, const tensor *a,
                      float scale, const float *w, float eps);
bool cuda_halves_glu(struct cuda_device *c, const tensor *y, const tensor *gate, const tensor *up,
                     enum activation act);

#endif
