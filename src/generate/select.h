/* generate/select.h: order statistics without sorting. */
#ifndef GENERATE_SELECT_H
#define GENERATE_SELECT_H

#include "generate/filter.h"

/**
 * Going down from the largest of keys [n], the key at which the sum of weights first reaches the
 * given part of their whole; the smallest when it never does. n >= 1, scratch [n].
 */
float select_by_weight(const float *keys, const float *weights, int n, double part,
                       struct weighted *scratch);

/* What at least k of x [n] are not below, and few others; 1 <= k <= n; scratch [n]. */
float select_bound(const float *x, int n, int k, struct weighted *scratch);

/* The k-th largest of x [n], 1 <= k <= n; scratch [n]. */
float select_largest(const float *x, int n, int k, struct weighted *scratch);

#endif
