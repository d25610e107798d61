/* generate/divergence.h: how far one model's predictions are from another's. */
#ifndef GENERATE_DIVERGENCE_H
#define GENERATE_DIVERGENCE_H

#include <stdint.h>

#include "base/error.h"

/* Of D = sum_i p_i log(p_i / q_i), p what the base says of each token i, q what the model says,
 * over all predictions. In nats. */
struct divergence {
    double mean, standard_error;
    double median, p99, max; /* 99 of 100 are not above p99 */
    double same_top;         /* share of predictions with the same most probable token */
    double same_top_error;   /* standard error of it */
    double base_nll;         /* mean of the base's -log p of the text */
    double log_ratio;        /* of the perplexities: nll - base_nll, */
    double log_ratio_error;  /* its error from pairs of predictions */
};

/* Gathers predictions; NULL with *err when there is no memory for n of them. */
struct divergences *divergences_open(long long n, int vocab_size, clm_error *err);
void divergences_close(struct divergences *d); /* NULL is fine */

/* base [vocab_size]: -log p up to a constant as logprob_file_row gives it, logits what the model
 * says, best the largest of it, log_sum the logarithm of the sum of exp(logits), token what came.
 */
void divergences_add(struct divergences *d, const float *base, const float *logits, int32_t best,
                     double log_sum, int32_t token);
void divergences_result(struct divergences *d, struct divergence *out);

#endif
