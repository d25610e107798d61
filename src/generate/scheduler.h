/* generate/scheduler.h: many texts at once: one engine step after another for all that is asked.
 *
 * Requests come at any time. Each step takes one token of every answer that goes on, with the
 * drafts of those that have some, and parts of the prompts that wait, so that no answer stands
 * still while a prompt is read. When the cache is full, kept prefixes that no one uses go; then the
 * request that came last gives its memory back and is evaluated again later; when one alone does
 * not fit, it fails, and the others go on.
 * What a request gives depends on nothing but itself: in exact mode to the bit.
 */
#ifndef GENERATE_SCHEDULER_H
#define GENERATE_SCHEDULER_H

#include "generate/request.h"

typedef struct scheduler scheduler;

/* Zero in every field means the default. */
struct scheduler_options {
    int max_running; /* requests with a sequence at once; default 64, at most step_tokens */
    int step_tokens; /* tokens of one step at most; default: what the engine takes */
    /* Tokens of prompts in a step in which answers go on: the more, the sooner the prompts are done
     * and the longer the answers wait. Default 64. */
    int prompt_share;
    /* Where texts go on from what earlier ones began with, and are kept for later ones; of the same
     * engine, stays the caller's. Requests with a sequence of their own only add to it. NULL: none.
     */
    prefix_index *prefixes;
};

/* The engine is the caller's; between steps others may use it too. One thread at a time for the
 * scheduler and all its requests. */
scheduler *scheduler_open(engine *e, const struct scheduler_options *options, clm_error *err);

/* Requests that are still there are dropped without a word. NULL is fine. */
void scheduler_close(scheduler *s);

/**
 * Queue a request behind those that are there; may be called from a callback.
 *
 * Returns a handle that is good until done is told, or NULL with CLM_ERR_ARG (an empty prompt,
 * tokens outside the vocabulary, max_tokens below 1), CLM_ERR_FULL (the prompt does not fit the
 * model's context) or CLM_ERR_NOMEM.
 */
request *scheduler_submit(scheduler *s, const struct request_options *o, clm_error *err);

/* End a request at the next step, with FINISH_CANCELLED; may be called from a callback. */
void request_cancel(request *r);

/* One step. Whatever goes wrong is told to the requests that it concerns. False: none is left. */
bool scheduler_step(scheduler *s);

struct scheduler_load {
    int running, waiting;
    long long steps, preemptions; /* since it was opened */
};
struct scheduler_load scheduler_load(const scheduler *s);

#endif
