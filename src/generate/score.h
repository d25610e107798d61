/* generate/score.h: what a model says of given texts, many of them in one ragged batch. */
#ifndef GENERATE_SCORE_H
#define GENERATE_SCORE_H

#include "engine/engine.h"

/* Tokens [n], of which those from number first on are foretold, each from all before it; 1 <= first
 * <= n, n >= 1. */
struct score_text {
    const int32_t *tokens;
    int n, first;
};

struct score_sink {
    void *ctx;
    /* What the model foretells as token i of a text: logits [vocab_size], finite but for -infinity,
     * of which best is the largest. Token after token, text after text. -1 with *err ends it. */
    int (*row)(void *ctx, size_t text, int i, const float *logits, int32_t best, clm_error *err);
    /* After each step; false ends it: CLM_ERR_CANCELLED. May be NULL. */
    bool (*go_on)(void *ctx);
};

/* CLM_ERR_ARG: the model cannot evaluate such a text. */
int score_check(engine *e, const struct score_text *t, clm_error *err);

/**
 * Evaluate texts [n], each as a sequence of its own: as many in a step as the engine takes rows,
 * and a long one in several steps. What is not foretold costs no logits, and what texts that follow
 * one another begin with, before any token that is foretold, is evaluated once.
 *
 * Errors: those of score_check, CLM_ERR_FORMAT (logits that are not finite), those of engine_step
 * and the sink's.
 */
int score_texts(engine *e, const struct score_text *texts, size_t n, const struct score_sink *sink,
                clm_error *err);

#endif
