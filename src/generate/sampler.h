/* generate/sampler.h: from logits to a token: penalties, filters, temperature, a draw.
 *
 * The order and the meaning of everything are those of mlx_lm.sample_utils 0.32
 * (make_logits_processors and make_sampler): biases and penalties change the logits; of their
 * log-softmax top-p, min-p, XTC and top-k leave a part; the temperature is applied last, to what is
 * left. The random numbers are clm's own.
 */
#ifndef GENERATE_SAMPLER_H
#define GENERATE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct logit_bias {
    int32_t token;
    float bias;
};

/* A penalty looks at the last `context` tokens of prompt and generated text; 0: at all of them. */
struct penalty {
    double value; /* 0: none */
    int context;
};

struct sampler_options {
    double temp;            /* 0: the most likely token, whatever the filters say */
    double top_p;           /* in (0, 1): filters; 0 and 1: does not */
    double min_p;           /* 0: does not filter */
    int min_tokens_to_keep; /* of min_p */
    int top_k;              /* 0: does not filter */
    double xtc_probability, xtc_threshold;
    const int32_t *xtc_special; /* never removed by XTC */
    int n_xtc_special;
    const struct logit_bias *logit_bias; /* tokens must differ */
    int n_logit_bias;
    struct penalty
        repetition; /* negative logits are multiplied by it, others divided; once a token */
    struct penalty presence;  /* subtracted once a token */
    struct penalty frequency; /* subtracted for every occurrence */
    uint64_t seed;
    bool logprobs; /* struct sample says the log-probability of greedy tokens too */
};

/* mlx-lm's defaults: greedy, no filters, contexts of 20 tokens. */
struct sampler_options sampler_defaults(void);

/* -1 with CLM_ERR_ARG, naming the option, unless every number is in its range. */
int sampler_check(const struct sampler_options *o, int vocab_size, clm_error *err);

/* Keeps copies of all it needs. One thread at a time. */
typedef struct sampler sampler;

sampler *sampler_open(const struct sampler_options *o, int vocab_size, clm_error *err);
void sampler_close(sampler *s); /* NULL is fine */

struct sample {
    int32_t token;
    float logprob; /* after penalties, before filters and temperature; NaN when not asked for */
};

/**
 * Choose the next token.
 *
 * logits   [vocab_size], left as they are.
 * history  [n_history] prompt and generated tokens, for the penalties; may be NULL without any.
 *
 * Errors: CLM_ERR_FORMAT when the logits are not finite, as damaged weights make them.
 */
int sampler_next(sampler *s, const float *logits, const int32_t *history, size_t n_history,
                 struct sample *out, clm_error *err);

/* The parts of sampler_next that are worth testing alone. */
struct candidates;

/* Biases and penalties; seen [vocab_size], all 0, is left so. */
void sampler_process(const struct sampler_options *o, float *logits, int vocab_size,
                     const int32_t *history, size_t n_history, uint8_t *seen);

/* Every filter that o asks for, in order; xtc says how the draw for XTC came out. */
void sampler_filter(const struct sampler_options *o, struct candidates *c, bool xtc);

#endif
