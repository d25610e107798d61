/* generate/perplexity.h: how well a model foretells a text, and how unlike another run it does. */
#ifndef GENERATE_PERPLEXITY_H
#define GENERATE_PERPLEXITY_H

#include "engine/engine.h"
#include "generate/divergence.h"

/* How a text is cut into windows, each of which starts a sequence of its own.
 *
 * A window has window + 1 tokens at most and begins stride tokens after the one before. All its
 * tokens but the first are foretold; those count that no window before has foretold, and that come
 * after the first skip of them. */
struct perplexity_windows {
    int window; /* >= 1 */
    int stride; /* 1 .. window + 1 */
    int skip;   /* 0 .. window - 1 */
    /* A token that stands in for the first of each window; -1: none. Windows must not overlap then:
     * stride is window + 1. */
    int32_t begin_token;
    bool whole_only; /* a last window that is not full is left out */
};

struct perplexity_options {
    struct perplexity_windows windows;
    const char *save;                /* file for what the model says; NULL: none, logprob_file.h */
    const struct logprob_file *base; /* of another run, to be compared with; may be NULL */
    /* Told the predictions done after each step; false stops: CLM_ERR_CANCELLED. May be NULL. */
    bool (*progress)(void *ctx, int done, int total);
    void *ctx;
};

struct perplexity {
    long long predictions;
    double nll;               /* mean of -log p, in nats a token */
    double perplexity;        /* exp(nll) */
    double standard_error;    /* of the perplexity: perplexity * deviation of -log p /
                                 sqrt(predictions) */
    struct divergence unlike; /* from base, where there is one */
};

/**
 * Measure how tokens [n] are foretold. Of windows with stride = window every token but the very
 * first is, from at most window tokens before it. Windows of max_length - 1 with any stride are
 * those of the guide to perplexity in transformers' documentation; those of windows (C - 1),
 * stride C, skip C / 2, whole ones only and with the begin token, llama.cpp's of --ctx-size C.
 *
 * Errors: CLM_ERR_ARG (nothing to foretell, windows that contradict themselves or are beyond the
 * model's context), CLM_ERR_FORMAT (base is of other tokens or windows), CLM_ERR_IO; those of
 * score_texts.
 */
int perplexity_measure(struct perplexity *p, engine *e, const int32_t *tokens, size_t n,
                       const struct perplexity_options *o, clm_error *err);

#endif
