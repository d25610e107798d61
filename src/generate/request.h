/* generate/request.h: one text in the making, as the scheduler sees it.
 *
 * A request knows all its tokens, those of the prompt and those chosen. What is to be evaluated
 * next is always what lies beyond the length of its sequence: the rest of the prompt, the token
 * chosen last, or everything again after the sequence was given up. So its state is good whatever
 * happens to the sequence.
 */
#ifndef GENERATE_REQUEST_H
#define GENERATE_REQUEST_H

#include "generate/generate.h"

typedef struct request request;

struct request_options {
    const int32_t *prompt; /* [n_prompt], n_prompt >= 1, copied */
    size_t n_prompt;
    /* To be continued; stays the caller's, and holds all of the text but the last token when the
     * request ends with a token. NULL: one of the scheduler's own. */
    kv_seq *seq;
    sampler *sampler;           /* stays the caller's until the request is done */
    const tokenizer *tokenizer; /* NULL: tokens come without text */
    struct generate_options generate;
    /* Told once, when nothing more will come and the request is no more; err is NULL unless finish
     * is FINISH_ERROR. May be NULL. */
    void *ctx;
    void (*done)(void *ctx, const struct generate_result *r, const clm_error *err);
};

/* What a request has drawn on the device, in arrays that grow. */
struct request_draws {
    struct draw_rule *rules; /* [room] */
    int32_t *tokens;         /* [room] what was settled */
    int room;
    float *logits; /* [room_logits, vocab_size] of rows of which not all could be settled */
    int room_logits;
};

struct request {
    struct request_options o; /* its prompt is in ids */
    engine *engine;
    kv_seq *seq; /* NULL: none yet, or given up */
    uint64_t arrival;
    struct request *next;  /* in the queue */
    int rows;              /* tokens to evaluate in the step at hand */
    struct token_list ids; /* what seq held, prompt, chosen tokens; behind these the drafts */
    int n_drafts;
    struct request_draws draws;
    drafting *drafting; /* NULL: none */
    int n_past;         /* what o.seq held */
    int told;           /* prompt tokens that progress was told of */
    int cut;            /* a length at which its sequence is worth keeping; 0: none */
    bool recalled;      /* result.cached_tokens is set */
    size_t restarted;   /* ids that there were when it was given up though alone */
    struct detokenizer detokenizer;
    struct stop_matcher stops;
    struct strbuf segment, text; /* of the token at hand, before and behind the stops */
    float *logits;               /* [vocab_size] for o.generate.process */
    double begin;                /* of prompt or generation */
    double deadline;             /* 0: none */
    bool cancelled;
    bool ended; /* result and error are final */
    struct generate_result result;
    clm_error error;
};

/* CLM_ERR_ARG, CLM_ERR_FULL as generate() says; the request is not queued anywhere. */
request *request_open(engine *e, const struct request_options *o, clm_error *err);
void request_close(request *r); /* and its own sequence; NULL is fine */

/* Tokens beyond the sequence, without drafts. */
int request_pending(const request *r);

static inline bool request_has_begun(const request *r)
{
    return r->result.generated_tokens > 0;
}

/* A sequence for a request that has none, with as much of its text as the index keeps. */
int request_recall(request *r, prefix_index *x, clm_error *err);

/* How many of the tokens before its last one are those of another. */
int request_common(const request *r, const request *other);

/* After a step: keep the sequence where others may go on from it. */
void request_keep(const request *r, prefix_index *x);

/* After a step: say how far the prompt is. */
void request_tell_progress(request *r);

/* The request as its drafter sees it; and what that has guessed goes behind the ids. */
struct speculation_text request_speculation_text(const request *r);
void request_take_drafts(request *r, const int32_t *drafts, int n);

/* Whether request_choose can do with the most likely tokens in place of logits. */
bool request_wants_best(const request *r);

/* Whether another token is likely to follow the one that is chosen next. */
bool request_goes_on(const request *r);

/* The rules of the next n tokens if it can do with what the device draws by them, valid until the
 * next call; else NULL. */
const struct draw_rule *request_rules(request *r, int n);

/* After a step, before anything is chosen: rows [row, row + n) of it were drawn on the device by
 * the rules. *tokens [n] is what they settle, or NULL where they do not: then *logits [n,
 * vocab_size] has the rows. */
int request_settle(request *r, int row, int n, const int32_t **tokens, const float **logits,
                   clm_error *err);

/**
 * The rows after the last token and after each draft, by their logits, or, NULL, by the token of
 * each that is the most likely or settled: choose tokens as far as the drafts were right, tell
 * them, and take the sequence back to what has been chosen.
 */
void request_choose(request *r, const float *logits, const int32_t *tokens);

/* No more tokens. The first reason counts, and an error more than any. */
void request_end(request *r, enum finish_reason finish);
void request_fail(request *r, const clm_error *err);

/* Give the sequence's memory back; it is evaluated again later. False: this one cannot be. */
bool request_preempt(request *r);

#endif
