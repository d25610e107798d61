/* generate/perplexity.h: how well a model foretells a text. */
#ifndef GENERATE_PERPLEXITY_H
#define GENERATE_PERPLEXITY_H

#include "engine/engine.h"

struct perplexity {
    long long predictions;
    double nll;            /* mean of -log p, in nats a token */
    double perplexity;     /* exp(nll) */
    double standard_error; /* of the perplexity: perplexity * deviation of -log p /
                              sqrt(predictions) */
};

/**
 * Cut tokens [n] into windows of `window` predictions without overlap: each window starts a
 * sequence of its own with the last token of the one before, so that every token but the very first
 * is predicted once, from at most `window` tokens before it.
 *
 * progress, when not NULL, is told the predictions done; it returns false to stop:
 * CLM_ERR_CANCELLED.
 *
 * Errors: CLM_ERR_ARG (n < 2, window < 1 or beyond the model's context); those of engine_step.
 */
int perplexity_measure(struct perplexity *p, engine *e, const int32_t *tokens, size_t n, int window,
                       bool (*progress)(void *ctx, int done, int total), void *ctx, clm_error *err);

#endif
