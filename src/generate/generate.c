#include "generate/generate.h"

#include "generate/clock.h"
#include "generate/end_tokens.h"

struct generation {
    engine *engine;
    kv_seq *seq;
    sampler *sampler;
    const struct generate_options *o;
    struct generate_result *r;
    struct detokenizer detokenizer;
    struct token_list history; /* prompt and generated tokens */
    struct strbuf text;        /* of the token at hand */
    double begin;              /* of prompt or generation */
    bool interrupted;
};

static bool prefill_progress(void *ctx, int done, int total)
{
    struct generation *g = ctx;

    if (g->o->progress)
        g->o->progress(g->o->ctx, done, total);
    g->interrupted = g->o->interrupted && g->o->interrupted(g->o->ctx);
    return !g->interrupted;
}

static bool context_is_full(const struct generation *g)
{
    int length = engine_model(g->engine)->spec->context_length;

    return length > 0 && kv_seq_length(g->seq) >= length;
}

/* What the token at hand adds to the text; with the last one, all that was kept back. */
static int detokenize(struct generation *g, int32_t token, bool end, bool last, clm_error *err)
{
    strbuf_clear(&g->text);
    if (!end && detokenizer_add(&g->detokenizer, token, &g->text, err))
        return -1;
    if (last && detokenizer_finish(&g->detokenizer, &g->text, err))
        return -1;
    return g->text.failed ? fail(err, CLM_ERR_NOMEM, "no memory for text") : 0;
}

/* Take a sampled token; *last says whether it is the last one. */
static int take_token(struct generation *g, const struct sample *sample, bool *last, clm_error *err)
{
    const struct generate_options *o = g->o;
    bool end = o->end_tokens && end_tokens_have(o->end_tokens, sample->token);
    struct generated out = {
        .token = sample->token,
        .logprob = sample->logprob,
        .top = sample->top,
        .n_top = sample->n_top,
    };

    g->r->generated_tokens++;
    g->interrupted = o->interrupted && o->interrupted(o->ctx);
    *last = end || g->interrupted || g->r->generated_tokens == o->max_tokens || context_is_full(g);
    g->r->finish = end ? FINISH_STOP : g->interrupted ? FINISH_CANCELLED : FINISH_LENGTH;
    if (detokenize(g, sample->token, end, *last, err))
        return -1;
    out.text = g->text.data ? g->text.data : "";
    out.size = g->text.size;
    out.last = *last;
    if (o->token && !o->token(o->ctx, &out)) {
        g->r->finish = FINISH_CANCELLED;
        *last = true;
    }
    token_list_add(&g->history, sample->token);
    return g->history.failed ? fail(err, CLM_ERR_NOMEM, "no memory for more tokens") : 0;
}

static int next_sample(struct generation *g, const float *logits, struct sample *sample,
                       clm_error *err)
{
    return sampler_next(g->sampler, logits, g->history.ids, g->history.count, sample, err);
}

static int run_prompt(struct generation *g, struct sample *sample, clm_error *err)
{
    const float *logits;
    int rc;

    g->begin = clock_seconds();
    rc = engine_prefill(g->engine, g->seq, g->history.ids, (int)g->history.count,
                        g->o->prefill_step_size, prefill_progress, g, &logits, err);
    if (rc == 0)
        rc = next_sample(g, logits, sample, err);
    g->r->prompt_seconds = clock_seconds() - g->begin;
    g->begin += g->r->prompt_seconds;
    return rc;
}

static int run_generation(struct generation *g, struct sample sample, clm_error *err)
{
    for (;;) {
        struct engine_input input = {g->seq, &sample.token, 1, 1};
        const float *logits;
        bool last;

        if (take_token(g, &sample, &last, err))
            return -1;
        if (last)
            return 0;
        if (engine_step(g->engine, &input, 1, &logits, err) || next_sample(g, logits, &sample, err))
            return -1;
        g->r->generation_seconds = clock_seconds() - g->begin;
    }
}

static int check_request(const struct generation *g, size_t n, clm_error *err)
{
    int length = engine_model(g->engine)->spec->context_length;
    size_t past = (size_t)kv_seq_length(g->seq);

    if (g->o->max_tokens < 1)
        return fail(err, CLM_ERR_ARG, "max_tokens must be 1 or more, not %d", g->o->max_tokens);
    if (n == 0)
        return fail(err, CLM_ERR_ARG, "the prompt is empty; give at least one token");
    if (n > INT32_MAX - past || (length > 0 && n > (size_t)length - past))
        return fail(err, CLM_ERR_FULL,
                    "the prompt of %zu tokens is longer than the model's context of %d; shorten it",
                    past + n, length);
    return 0;
}

int generate(engine *e, kv_seq *seq, sampler *s, const tokenizer *t, const int32_t *prompt,
             size_t n, const struct generate_options *o, struct generate_result *r, clm_error *err)
{
    struct generation g = {.engine = e, .seq = seq, .sampler = s, .o = o, .r = r};
    struct sample sample;
    clm_error inner = {0};
    int rc = -1;

    *r = (struct generate_result){0};
    if (check_request(&g, n, err) || detokenizer_init(&g.detokenizer, t, false, err))
        return -1;
    for (size_t i = 0; i < n; i++)
        token_list_add(&g.history, prompt[i]);
    if (g.history.failed) {
        fail(err, CLM_ERR_NOMEM, "no memory for %zu tokens", n);
        goto cleanup;
    }
    r->prompt_tokens = (int)n;
    rc = run_prompt(&g, &sample, &inner);
    if (rc && inner.code == CLM_ERR_CANCELLED) {
        r->finish = FINISH_CANCELLED;
        rc = 0;
    } else if (rc) {
        fail(err, inner.code, "%s", inner.message);
    } else {
        rc = run_generation(&g, sample, err);
    }

cleanup:
    detokenizer_release(&g.detokenizer);
    token_list_release(&g.history);
    strbuf_release(&g.text);
    return rc;
}

const char *finish_reason_name(enum finish_reason reason)
{
    static const char *const names[] = {"stop", "length", "cancelled"};

    return names[reason];
}
