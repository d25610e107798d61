/* generate/drafter.h: cheap guesses of the tokens that a text goes on with.
 *
 * A drafter serves many texts at once and remembers something of each. It may be wrong at no harm
 * but time: a guess only counts when the model's own sampler chooses the same token. So a drafter
 * that runs out of memory just has no guesses.
 */
#ifndef GENERATE_DRAFTER_H
#define GENERATE_DRAFTER_H

#include "engine/engine.h"
#include "generate/sampler.h"
#include "tokenizer/tokenizer.h"

/* As far as sequences with sliding windows can go back. */
#define MAX_DRAFT_TOKENS KV_BLOCK_TOKENS

/* How good a guess looks before it is tried, 0 to DRAFT_TRUSTS - 1, in a measure of the drafter's
 * own: guesses of one trust are right about equally often. */
#define DRAFT_TRUSTS 4

typedef struct drafter drafter;
typedef struct draft_text draft_text; /* what a drafter remembers of one text */

/* A text and what is guessed of it. Tokens only ever come on behind. */
struct draft_job {
    draft_text *text;
    const int32_t *ids; /* [n_ids] prompt and chosen tokens, n_ids >= 1; -1: unknown */
    int n_ids;
    const sampler *sampler; /* that will choose the next token */
    int trust, possible;    /* set by drafter_look */
    int behind;             /* too: tokens that must be read before it can guess */
    int tail;               /* too: those at the text's end that will do, at most behind */
    bool whole;             /* wanted: that all of them are read */
    int n_drafts;           /* wanted, at most possible; then given */
    int32_t drafts[MAX_DRAFT_TOKENS];
};

struct drafter {
    /* NULL with *err: no memory. */
    draft_text *(*open_text)(drafter *d, const sampler *s, clm_error *err);
    void (*close_text)(drafter *d, draft_text *t);
    void (*look)(drafter *d, struct draft_job *job);
    void (*propose)(drafter *d, struct draft_job *const *jobs, int n);
    void (*close)(drafter *d);
};

/* The text that s chooses the tokens of. NULL with CLM_ERR_NOMEM. */
draft_text *drafter_open_text(drafter *d, const sampler *s, clm_error *err);
void drafter_close_text(drafter *d, draft_text *t); /* NULL is fine */

/* Say how many tokens could be guessed, maybe 0, and what to think of them; costs next to nothing.
 */
void drafter_look(drafter *d, struct draft_job *job);

/* Guess the n_drafts tokens of each of jobs [n], all of which want some; fewer may come. */
void drafter_propose(drafter *d, struct draft_job *const *jobs, int n);

void drafter_close(drafter *d); /* after its texts; NULL is fine */

/**
 * Prompt lookup: a text goes on as it did after the last place where it had the same few tokens.
 * Needs no model; a token costs some hash table entries, whatever the length of the text.
 * arXiv:2304.04487
 */
drafter *drafter_open_lookup(clm_error *err);

/**
 * A smaller model with the same vocabulary guesses. It draws with the random numbers that the
 * sampler of the text will use, so that sampled tokens too are guessed as often as can be.
 *
 * e           an engine of the smaller model's; stays the caller's.
 * vocab_size  of the model that is helped.
 */
drafter *drafter_open_model(engine *e, int vocab_size, clm_error *err);

/* CLM_ERR_ARG, saying what differs, unless the ids of both tokenizers mean the same. */
int drafter_check_tokenizers(const tokenizer *model, const tokenizer *draft, clm_error *err);

#endif
