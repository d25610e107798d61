/* generate/race.h: a draw as a race of all candidates, each with a random number of its own.
 *
 * Candidate i arrives after -log(u_i) / weight_i; the first one is drawn, with a probability that
 * is its part of all weights, since arrivals are exponential (arXiv:1611.00712 has the same as
 * Gumbel noise). The number u_i hangs on the key and on the id alone. So two draws with the same
 * key from two distributions that are nearly the same nearly always give the same id, which is what
 * lets a draft be right about a sampled token.
 */
#ifndef GENERATE_RACE_H
#define GENERATE_RACE_H

#include <stdint.h>

/**
 * The place of the candidate drawn.
 *
 * ids      [n] in [0, 2^31), all different, n >= 1; NULL: 0, 1, ...
 * weights  [n] in [0, 1], at least one of them above 0; what weighs 0 is never drawn.
 * key      any number; draws with different keys are independent.
 */
int race(const int32_t *ids, const float *weights, int n, uint64_t key);

#endif
