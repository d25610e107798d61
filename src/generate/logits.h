/* generate/logits.h: what is asked of a row of logits, and of the numbers made of it.
 *
 * Every function is a few plain loops over blocks of a fixed size that a compiler vectorises; sums
 * keep a fixed number of parts, so that the result does not depend on the instruction set.
 */
#ifndef GENERATE_LOGITS_H
#define GENERATE_LOGITS_H

#include <stdbool.h>
#include <stdint.h>

#include "clm/clm.h"

/* The index of the largest of x [n], n >= 1, the first on ties; -1 when a NaN or +inf is among them
 * or all are -inf. */
int32_t logits_argmax(const float *x, int n);

float logits_max(const float *x, int n); /* n >= 1, no NaN */

/* The sum of x [n], its parts of some hundred in f32, these in f64. */
double logits_sum(const float *x, int n);

/**
 * out[i] = exp((x[i] - max) / temp) and their sum, within 2 units in the last place; what is below
 * exp(-87) is 0. max is not below any x[i], which may be -inf; temp > 0. out may be NULL, or x.
 */
double logits_exp(float *out, const float *x, int n, float max, double temp);

/* log(sum(exp(x))) of x [n] with max its largest, finite number. */
double logits_log_sum_exp(const float *x, int n, float max);

/* The k largest of x [n] less shift, k <= n, from the largest down, the lower index first on ties.
 */
void logits_top(clm_token_logprob *top, int k, const float *x, int n, float shift);

#endif
