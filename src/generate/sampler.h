/* generate/sampler.h: from logits to a token: penalties, filters, temperature, a draw.
 *
 * The order and the meaning of what mlx_lm.sample_utils 0.32 has are those of its
 * make_logits_processors and make_sampler: biases and penalties change the logits; of their
 * log-softmax top-p, min-p, XTC and top-k leave a part; the temperature is applied last, to what is
 * left. What llama.cpp has beyond that stands where it does not change any of this: DRY after the
 * penalties, top-n-sigma and then typical-p before top-p, the dynamic temperature for the plain
 * one. Mirostat 2 takes the place of all filters. docs/sampling.md says it for users. The random
 * numbers are clm's own.
 */
#ifndef GENERATE_SAMPLER_H
#define GENERATE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "device/draw.h"
#include "generate/dry.h"

/* Most candidates that logprobs are told of. */
#define MAX_TOP_LOGPROBS 1000

/* A penalty looks at the last `context` tokens of prompt and generated text; 0: at all of them. */
struct penalty {
    double value; /* 0: none */
    int context;
};

struct sampler_options {
    double temp; /* 0, without dynatemp_range: the most likely token, whatever the filters say */
    /* The temperature is temp -+ range, as the entropy says; range 0: it is temp. */
    double dynatemp_range, dynatemp_exponent;
    double top_n_sigma;     /* 0 and below: does not filter */
    double typical_p;       /* in (0, 1): filters; 0 and 1: does not */
    double top_p;           /* in (0, 1): filters; 0 and 1: does not */
    double min_p;           /* 0: does not filter */
    int min_tokens_to_keep; /* of min_p */
    int top_k;              /* 0: does not filter */
    double xtc_probability, xtc_threshold;
    const int32_t *xtc_special; /* never removed by XTC */
    int n_xtc_special;
    const clm_logit_bias *logit_bias; /* tokens must differ */
    int n_logit_bias;
    struct penalty
        repetition; /* negative logits are multiplied by it, others divided; once a token */
    struct penalty presence;  /* subtracted once a token */
    struct penalty frequency; /* subtracted for every occurrence */
    struct dry_options dry;
    int mirostat;                      /* 2, or 0: off */
    double mirostat_tau, mirostat_eta; /* surprise to hold, in bits; how fast it is corrected */
    uint64_t seed;
    bool logprobs;    /* struct sample says the log-probability of greedy tokens too */
    int top_logprobs; /* and of how many of the most likely tokens */
};

/* mlx-lm's defaults: greedy, no filters, contexts of 20 tokens; of the rest llama.cpp's, off. */
struct sampler_options sampler_defaults(void);

/* -1 with CLM_ERR_ARG, naming the option, unless every number is in its range. */
int sampler_check(const struct sampler_options *o, int vocab_size, clm_error *err);

/* Whether anything is drawn at all; else the most likely token is taken. */
bool sampler_draws(const struct sampler_options *o);

/* Keeps copies of all it needs, and all state of one request: its draws depend on its seed, its
 * logits, its history and how many tokens it has chosen, not on what else is sampled. One thread at
 * a time. */
typedef struct sampler sampler;

sampler *sampler_open(const struct sampler_options *o, int vocab_size, clm_error *err);
void sampler_close(sampler *s); /* NULL is fine */

struct sample {
    int32_t token;
    float logprob; /* after penalties, before filters and temperature; may be NaN when not asked for
                    */
    /* [n_top] the same of the most likely tokens, from the top; valid until the next call. */
    const clm_token_logprob *top;
    int n_top; /* top_logprobs, or the size of a smaller vocabulary */
};

/**
 * Choose the next token.
 *
 * logits   [vocab_size], left as they are.
 * history  [n_history] prompt and generated tokens, for penalties and DRY; may be NULL without any.
 *
 * Errors: CLM_ERR_FORMAT when the logits are not finite, as damaged weights make them;
 * CLM_ERR_NOMEM, in DRY only.
 */
int sampler_next(sampler *s, const float *logits, const int32_t *history, size_t n_history,
                 struct sample *out, clm_error *err);

/* Whether the most likely token is all that it asks of logits, so that sampler_take will do. */
bool sampler_wants_best(const sampler *s);

/* Whether a race on the device can tell its next tokens: then the rules of the next n, else false.
 * See settle(). */
bool sampler_rules(const sampler *s, struct draw_rule *rules, int n);

/* Choose a token that is known to be the one that sampler_next would choose: the most likely where
 * sampler_wants_best, or one that was settled. token: -1 where the logits are not finite, which is
 * CLM_ERR_FORMAT. Its log-probability is not told. */
int sampler_take(sampler *s, int32_t token, struct sample *out, clm_error *err);

/* One with the options of another, without log-probabilities, for logits of vocab_size tokens:
 * those of another model. */
sampler *sampler_open_like(const sampler *s, int vocab_size, clm_error *err);

/* Make s, opened with the options of leader, choose next with the random numbers and the mirostat
 * that leader will choose with next. Leader is left as it is. */
void sampler_follow(sampler *s, const sampler *leader);

/* The parts of sampler_next that are worth testing alone. */
struct candidates;
struct cut;

/* Biases and penalties, without DRY; seen [vocab_size], all 0, is left so. */
void sampler_process(const struct sampler_options *o, float *logits, int vocab_size,
                     const int32_t *history, size_t n_history, uint8_t *seen);

/* What of these filters can be told beforehand; false: nothing. */
bool sampler_cut(const struct sampler_options *o, bool xtc, int vocab_size, struct cut *cut);

/* Every filter that o asks for, in order; xtc says how the draw for XTC came out. */
void sampler_filter(const struct sampler_options *o, struct candidates *c, bool xtc);

/* What the candidates that are left are weighed by. */
double sampler_temperature(const struct sampler_options *o, const struct candidates *c);

#endif
