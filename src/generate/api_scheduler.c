/* generate/api_scheduler.c: the public interface to many texts at once. */
#include <limits.h>
#include <string.h>

#include "base/memory.h"
#include "generate/api.h"
#include "generate/scheduler.h"

struct clm_scheduler {
    clm_engine *engine;
    scheduler *scheduler;
    speculation *speculation; /* NULL: none */
    clm_request *requests;    /* that are not done */
};

struct clm_request {
    clm_scheduler *owner;
    clm_request *next, **at; /* in the owner's list */
    request *request;
    clm_sampler *sampler;
    struct stop_set stops;
    clm_request_options o;
};

clm_request_options clm_request_defaults(void)
{
    return (clm_request_options){.sampler = clm_sampler_defaults()};
}

/* What guesses, if anything is to. */
static int open_speculation(clm_scheduler *s, const clm_scheduler_options *o, clm_error *err)
{
    const clm_engine *small = o->draft_engine;
    struct speculation_options options = {.max_drafts = o->max_drafts};
    drafter *d;

    if (small && o->prompt_lookup)
        return fail(err, CLM_ERR_ARG, "a draft engine and prompt lookup; give one of them");
    if (!small && !o->prompt_lookup)
        return 0;
    if (small &&
        drafter_check_tokenizers(s->engine->model->tokenizer, small->model->tokenizer, err))
        return -1;
    d = small ? drafter_open_model(small->engine, engine_model(s->engine->engine)->spec->vocab_size,
                                   err)
              : drafter_open_lookup(err);
    if (d)
        s->speculation = speculation_open(d, &options, err);
    return s->speculation ? 0 : -1;
}

clm_scheduler *clm_scheduler_open(clm_engine *e, const clm_scheduler_options *options,
                                  clm_error *err)
{
    clm_scheduler_options given = options ? *options : (clm_scheduler_options){0};
    struct scheduler_options o = {
        .max_running = given.max_running,
        .step_tokens = given.step_tokens,
        .prompt_share = given.prompt_share,
        .prefixes = given.prefixes ? given.prefixes->index : NULL,
    };
    clm_scheduler *s;

    if (given.max_running < 0 || given.step_tokens < 0 || given.prompt_share < 0 ||
        given.max_drafts < 0)
        return fail_null(err, CLM_ERR_ARG, "options of a scheduler must be 0 or more");
    if (given.prefixes && given.prefixes->owner != e)
        return fail_null(err, CLM_ERR_ARG, "a prefix index of another engine than the scheduler");
    s = mem_zeroed(1, sizeof *s);
    if (!s)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a scheduler");
    s->engine = e;
    if (open_speculation(s, &given, err) == 0)
        s->scheduler = scheduler_open(e->engine, &o, err);
    if (s->scheduler)
        return s;
    clm_scheduler_close(s);
    return NULL;
}

static void request_release(clm_request *r)
{
    if (r->at) {
        *r->at = r->next;
        if (r->next)
            r->next->at = r->at;
    }
    clm_sampler_close(r->sampler);
    stop_set_release(&r->stops);
    mem_free(r);
}

void clm_scheduler_close(clm_scheduler *s)
{
    if (!s)
        return;
    scheduler_close(s->scheduler);
    while (s->requests)
        request_release(s->requests);
    speculation_close(s->speculation);
    mem_free(s);
}

static void pass_progress(void *ctx, int done, int total)
{
    const clm_request *r = ctx;

    r->o.progress(r->o.ctx, done, total);
}

static int pass_logits(void *ctx, float *logits, int vocab_size, const int32_t *history, size_t n,
                       clm_error *err)
{
    const clm_request *r = ctx;

    return r->o.process(r->o.ctx, logits, vocab_size, history, n, err);
}

static bool pass_token(void *ctx, const struct generated *g)
{
    const clm_request *r = ctx;
    clm_token t = {
        .token = g->token,
        .logprob = g->logprob,
        .top = g->top,
        .n_top = g->n_top,
        .text = g->text,
        .size = g->size,
        .last = g->last,
        .from_draft = g->from_draft,
    };

    return r->o.token(r->o.ctx, &t);
}

static void pass_end(void *ctx, const struct generate_result *result, const clm_error *err)
{
    static const clm_finish reasons[] = {
        [FINISH_STOP] = CLM_FINISH_STOP,           [FINISH_LENGTH] = CLM_FINISH_LENGTH,
        [FINISH_CANCELLED] = CLM_FINISH_CANCELLED, [FINISH_TIMEOUT] = CLM_FINISH_TIMEOUT,
        [FINISH_ERROR] = CLM_FINISH_ERROR,
    };
    clm_request *r = ctx;
    clm_request_options o = r->o;
    clm_result out = {
        .finish = reasons[result->finish],
        .prompt_tokens = result->prompt_tokens,
        .generated_tokens = result->generated_tokens,
        .cached_tokens = result->cached_tokens,
        .prompt_seconds = result->prompt_seconds,
        .generation_seconds = result->generation_seconds,
        .drafted_tokens = result->drafted_tokens,
        .draft_tokens = result->draft_tokens,
    };

    request_release(r);
    if (o.done)
        o.done(o.ctx, &out, err);
}

static int collect_stops(struct stop_set *out, const clm_request_options *o, clm_error *err)
{
    bool failed = false;

    for (int i = 0; i < o->n_stops; i++) {
        if (!o->stops || !o->stops[i] || !*o->stops[i])
            return fail(err, CLM_ERR_ARG, "stop %d is empty; give a text", i);
        failed |= stop_set_add_text(out, o->stops[i], strlen(o->stops[i])) != 0;
    }
    return failed || stop_set_build(out) ? fail(err, CLM_ERR_NOMEM, "no memory for stops") : 0;
}

static int submit(clm_request *r, clm_error *err)
{
    const clm_model *m = r->owner->engine->model;
    const clm_request_options *given = &r->o;
    struct request_options o = {
        .prompt = given->prompt,
        .n_prompt = given->n_prompt,
        .tokenizer = m->tokenizer,
        .generate = {.max_tokens = given->max_tokens ? given->max_tokens : INT_MAX,
                     .timeout = given->timeout,
                     .end_tokens = given->ignore_end_tokens ? NULL : &m->end_tokens,
                     .stops = &r->stops,
                     .speculation = r->owner->speculation,
                     .ctx = r,
                     .progress = given->progress ? pass_progress : NULL,
                     .process = given->process ? pass_logits : NULL,
                     .token = given->token ? pass_token : NULL},
        .ctx = r,
        .done = pass_end,
    };

    if (collect_stops(&r->stops, given, err))
        return -1;
    r->sampler = clm_sampler_open(m, &given->sampler, err);
    if (!r->sampler)
        return -1;
    o.sampler = r->sampler->sampler;
    r->request = scheduler_submit(r->owner->scheduler, &o, err);
    return r->request ? 0 : -1;
}

clm_request *clm_scheduler_submit(clm_scheduler *s, const clm_request_options *options,
                                  clm_error *err)
{
    clm_request *r;

    if (!options)
        return fail_null(err, CLM_ERR_ARG, "a request has no options; it needs a prompt");
    r = mem_zeroed(1, sizeof *r);
    if (!r)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a request");
    r->owner = s;
    r->o = *options;
    if (submit(r, err)) {
        request_release(r);
        return NULL;
    }
    r->next = s->requests;
    r->at = &s->requests;
    if (r->next)
        r->next->at = &r->next;
    s->requests = r;
    return r;
}

void clm_request_cancel(clm_request *r)
{
    request_cancel(r->request);
}

bool clm_scheduler_step(clm_scheduler *s)
{
    return scheduler_step(s->scheduler);
}
