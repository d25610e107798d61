/* generate/speculation.h: a drafter at work: what is guessed in which step, and what came of it.
 *
 * Before a step, speculation_plan says what is to be evaluated along with each text that goes on;
 * after it, speculation_learn is told how many drafts the samplers agreed with. Tokens never depend
 * on it, only time does.
 */
#ifndef GENERATE_SPECULATION_H
#define GENERATE_SPECULATION_H

#include "generate/drafter.h"

typedef struct speculation speculation;
typedef struct drafting drafting; /* what is remembered of one text */

/* Zero in every field means the default. */
struct speculation_options {
    int max_drafts; /* of a text in a step; default and most MAX_DRAFT_TOKENS */
    bool always;    /* as many as that and as can be had, whatever they cost */
};

/* Takes the drafter over, and closes it when it fails too. One thread at a time. */
speculation *speculation_open(drafter *d, const struct speculation_options *o, clm_error *err);
void speculation_close(speculation *s); /* NULL is fine */

/* A text that a sampler chooses the tokens of; to be ended before both. NULL: no memory. */
drafting *speculation_begin(speculation *s, const sampler *chooser, clm_error *err);
void speculation_end(drafting *d); /* NULL is fine */

/* A text that goes on in a step. */
struct speculation_text {
    drafting *drafting; /* NULL: it has no drafts, and counts for the time */
    const int32_t *ids; /* [n_ids] all its tokens; -1: unknown */
    int n_ids;
    int rows;       /* of the step that it has without drafts, >= 1 */
    int max_drafts; /* more could not be used */
    /* Tokens chosen, and drafts found right: when learning, those of the step. */
    int n_tokens, n_right;
    /* Set by speculation_plan; [n_drafts], valid until the next plan. */
    const int32_t *drafts;
    int n_drafts;
};

/* Find drafts for the texts [n] that go on in a step, which has so many rows of prompts besides,
 * and can have so many in all. */
void speculation_plan(speculation *s, struct speculation_text *texts, int n, int prompt_rows,
                      int most_rows);

/* The same texts after the step, which took so many seconds. */
void speculation_learn(speculation *s, const struct speculation_text *texts, int n, double seconds);

#endif
