/* generate/generate.h: one prompt to a stream of tokens and text. */
#ifndef GENERATE_GENERATE_H
#define GENERATE_GENERATE_H

#include "engine/prefix_index.h"
#include "generate/sampler.h"
#include "generate/speculation.h"
#include "parse/stop.h"
#include "tokenizer/tokenizer.h"

/* One token as it comes. Text that a later token may still change, or that may still become a stop,
 * comes with that one; with the last token comes all that is left. End tokens and stops have no
 * text of their own. */
struct generated {
    int32_t token;
    bool from_draft; /* a drafter has foreseen it */
    float logprob;   /* see struct sample, as for top [n_top] */
    const clm_token_logprob *top;
    int n_top;
    const char *text; /* [size], not NUL-terminated; valid during the call */
    size_t size;
    bool last; /* no more will come */
};

enum finish_reason {
    FINISH_STOP,      /* an end token, or a stop */
    FINISH_LENGTH,    /* max_tokens, or the context is full */
    FINISH_CANCELLED, /* a callback said so, or request_cancel */
    FINISH_TIMEOUT,   /* the time is over */
    FINISH_ERROR
};

/* What is pointed to must last as long as the generation. */
struct generate_options {
    int max_tokens;                      /* >= 1 */
    int prefill_step_size;               /* prompt tokens of one step; 0: as many as a step takes */
    double timeout;                      /* seconds from the beginning; 0: none */
    const struct token_list *end_tokens; /* may be NULL */
    const struct stop_set *stops;        /* may be NULL */
    /* For generate(): where the text goes on from what earlier ones began with, and is kept for
     * later ones. May be NULL. */
    prefix_index *prefixes;
    /* What guesses tokens, to be checked several at once; NULL: nothing. All requests of one
     * scheduler that have one have the same. */
    speculation *speculation;
    void *ctx; /* of all callbacks; each may be NULL */
    /* Prompt tokens done, after each step of the prompt; not those that were cached. */
    void (*progress)(void *ctx, int done, int total);
    /* Asked between steps; true ends the text with the token at hand. */
    bool (*interrupted)(void *ctx);
    /* May change the logits [vocab_size] of the next token before biases and penalties do;
     * history [n] is all of the text so far. -1 with *err ends the text. */
    int (*process)(void *ctx, float *logits, int vocab_size, const int32_t *history, size_t n,
                   clm_error *err);
    /* false ends at once, with no further call. */
    bool (*token)(void *ctx, const struct generated *g);
};

struct generate_result {
    enum finish_reason finish;
    int prompt_tokens, generated_tokens; /* an end token counts */
    int cached_tokens;                   /* of the prompt, that were evaluated for others */
    int draft_tokens;                    /* of the generated ones that a drafter has foreseen */
    int drafted_tokens;                  /* it has guessed, these and others */
    double prompt_seconds;               /* until the first token was chosen */
    double generation_seconds;           /* from then until the last */
};

/**
 * Append prompt [n] to a sequence and generate from there. All generated tokens but the last are
 * appended too. With seq NULL the sequence is generate's own. Penalties and processors see what the
 * sequence held before as a part of the prompt. It is the loop of generate/scheduler.h with one
 * request.
 *
 * Errors: CLM_ERR_ARG (an empty prompt, max_tokens below 1), CLM_ERR_FULL (the prompt does not fit
 * the model's context) before anything is evaluated; otherwise what engine, sampler and tokenizer
 * report, *r then says how far it came.
 */
int generate(engine *e, kv_seq *seq, sampler *s, const tokenizer *t, const int32_t *prompt,
             size_t n, const struct generate_options *o, struct generate_result *r, clm_error *err);

/* "stop", "length", "cancelled", "timeout", "error" */
const char *finish_reason_name(enum finish_reason reason);

#endif
