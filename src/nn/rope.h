/* nn/rope.h: the angular speeds of rotary positions under each kind of scaling. */
#ifndef NN_ROPE_H
#define NN_ROPE_H

#include "nn/spec.h"

/* inv_freq [dims / 2] (ROPE_PROPORTIONAL: [head_dim / 2] pairs, the last of them 0) for a sequence
 * of length tokens (only ROPE_DYNAMIC asks), in f32 the way the references compute it. */
void rope_inv_freq(float *inv_freq, const struct rope_spec *s, int length);

/* What multiplies cosines and sines. */
float rope_mscale(const struct rope_spec *s);

/* Numbers of a head that rotate pairwise: the length of inv_freq is half of it. */
int rope_turning(const struct rope_spec *s);

#endif
