/* generate/logits.h: what is asked of a row of logits before anything is sampled from it. */
#ifndef GENERATE_LOGITS_H
#define GENERATE_LOGITS_H

#include <stdbool.h>
#include <stdint.h>

/* The index of the largest of x [n], n >= 1, the first on ties; -1 when a NaN or +inf is among them
 * or all are -inf. */
int32_t logits_argmax(const float *x, int n);

/* log(sum(exp(x))) of x [n] with max its largest, finite number; summed in f64. */
double logits_log_sum_exp(const float *x, int n, float max);

#endif
