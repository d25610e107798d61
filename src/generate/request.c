#include "generate/request.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "generate/end_tokens.h"
#include "generate/settle.h"

static int check_prompt(engine *e, const struct request_options *o, clm_error *err)
{
    int vocab_size = engine_model(e)->spec->vocab_size;
    size_t past = o->seq ? (size_t)kv_seq_length(o->seq) : 0;
    size_t context = (size_t)engine_context(e);

    if (o->generate.max_tokens < 1)
        return fail(err, CLM_ERR_ARG, "max_tokens must be 1 or more, not %d",
                    o->generate.max_tokens);
    if (!(o->generate.timeout >= 0))
        return fail(err, CLM_ERR_ARG, "timeout must be 0 or more seconds, not %g",
                    o->generate.timeout);
    if (o->n_prompt == 0 || !o->prompt)
        return fail(err, CLM_ERR_ARG, "the prompt is empty; give at least one token");
    if (past > context || o->n_prompt > context - past)
        return fail(
            err, CLM_ERR_FULL,
            "the prompt of %zu tokens is longer than the model's context of %zu; shorten it",
            past + o->n_prompt, context);
    for (size_t i = 0; i < o->n_prompt; i++)
        if (o->prompt[i] < 0 || o->prompt[i] >= vocab_size)
            return fail(err, CLM_ERR_ARG, "token %d is outside the vocabulary of %d", o->prompt[i],
                        vocab_size);
    return 0;
}

static void add_ids(struct token_list *list, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        token_list_add(list, ids[i]);
}

/* What a request owns. */
static int allocate(request *r, clm_error *err)
{
    const struct request_options *o = &r->o;
    int vocab_size = engine_model(r->engine)->spec->vocab_size;

    if (o->tokenizer && detokenizer_init(&r->detokenizer, o->tokenizer, false, err))
        return -1;
    if (o->seq)
        add_ids(&r->ids, kv_seq_tokens(o->seq), (size_t)r->n_past);
    add_ids(&r->ids, o->prompt, o->n_prompt);
    if (o->generate.process)
        r->logits = mem_zeroed((size_t)vocab_size, sizeof *r->logits);
    if (r->ids.failed || (o->generate.process && !r->logits))
        return fail(err, CLM_ERR_NOMEM, "no memory for a prompt of %zu tokens", o->n_prompt);
    return 0;
}

request *request_open(engine *e, const struct request_options *o, clm_error *err)
{
    static const struct stop_set no_stops;
    request *r;

    if (check_prompt(e, o, err))
        return NULL;
    r = mem_zeroed(1, sizeof *r);
    if (!r)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a request");
    r->o = *o;
    r->engine = e;
    r->n_past = o->seq ? kv_seq_length(o->seq) : 0;
    r->result.prompt_tokens = (int)o->n_prompt;
    stop_start(&r->stops, o->generate.stops ? o->generate.stops : &no_stops);
    if (allocate(r, err)) {
        request_close(r);
        return NULL;
    }
    r->o.prompt = NULL;
    r->begin = clock_seconds();
    r->deadline = o->generate.timeout > 0 ? r->begin + o->generate.timeout : 0;
    return r;
}

void request_close(request *r)
{
    if (!r)
        return;
    if (r->seq != r->o.seq)
        kv_seq_close(r->seq);
    speculation_end(r->drafting);
    detokenizer_release(&r->detokenizer);
    stop_release(&r->stops);
    token_list_release(&r->ids);
    strbuf_release(&r->segment);
    strbuf_release(&r->text);
    mem_free(r->logits);
    mem_free(r->draws.rules);
    mem_free(r->draws.tokens);
    mem_free(r->draws.logits);
    mem_free(r);
}

int request_pending(const request *r)
{
    return (int)r->ids.count - (r->seq ? kv_seq_length(r->seq) : 0);
}

int request_recall(request *r, prefix_index *x, clm_error *err)
{
    r->seq = prefix_index_lookup(x, r->ids.ids, (int)r->ids.count, &r->cut, err);
    if (!r->seq)
        return -1;
    if (!r->recalled)
        r->result.cached_tokens = kv_seq_length(r->seq);
    r->recalled = true;
    return 0;
}

int request_common(const request *r, const request *other)
{
    size_t n = r->ids.count - 1, i = 0;

    if (other->ids.count < n)
        n = other->ids.count;
    while (i < n && r->ids.ids[i] == other->ids.ids[i])
        i++;
    return (int)i;
}

/* Without memory for it, others evaluate what they need. */
void request_keep(const request *r, prefix_index *x)
{
    int length = kv_seq_length(r->seq);

    if (length == r->cut || length == r->n_past + r->result.prompt_tokens || r->ended)
        prefix_index_insert(x, r->seq, NULL);
}

void request_end(request *r, enum finish_reason finish)
{
    if (!r->ended)
        r->result.finish = finish;
    r->ended = true;
}

void request_fail(request *r, const clm_error *err)
{
    r->error = *err;
    r->result.finish = FINISH_ERROR;
    r->ended = true;
}

static bool is_interrupted(const request *r)
{
    const struct generate_options *o = &r->o.generate;

    return o->interrupted && o->interrupted(o->ctx);
}

void request_tell_progress(request *r)
{
    const struct generate_options *o = &r->o.generate;
    int cached = r->result.cached_tokens;
    int done = kv_seq_length(r->seq) - r->n_past - cached;

    if (request_has_begun(r) || done <= r->told)
        return;
    r->told = done;
    if (o->progress)
        o->progress(o->ctx, done, r->result.prompt_tokens - cached);
    if (is_interrupted(r))
        request_end(r, FINISH_CANCELLED);
}

/* Ends the request where the token at hand, already among the ids, is the last one. */
static void end_at_token(request *r, bool end_token)
{
    if (end_token)
        request_end(r, FINISH_STOP);
    if (is_interrupted(r))
        request_end(r, FINISH_CANCELLED);
    if (r->deadline > 0 && clock_seconds() >= r->deadline)
        request_end(r, FINISH_TIMEOUT);
    if (r->result.generated_tokens == r->o.generate.max_tokens ||
        r->ids.count > (size_t)engine_context(r->engine))
        request_end(r, FINISH_LENGTH);
}

/* What the token at hand adds to the text; with the last one, all that was kept back. */
static int add_text(request *r, int32_t token, bool end_token, clm_error *err)
{
    strbuf_clear(&r->segment);
    strbuf_clear(&r->text);
    if (!r->o.tokenizer)
        return 0;
    if (!end_token && detokenizer_add(&r->detokenizer, token, &r->segment, err))
        return -1;
    if (r->ended && detokenizer_finish(&r->detokenizer, &r->segment, err))
        return -1;
    if (stop_text(&r->stops, r->segment.data ? r->segment.data : "", r->segment.size, &r->text)) {
        r->ended = true;
        r->result.finish = FINISH_STOP;
    } else if (r->ended) {
        stop_flush(&r->stops, &r->text);
    }
    if (r->segment.failed || r->text.failed || r->stops.held.failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for text");
    return 0;
}

static int take_token(request *r, const struct sample *sample, bool from_draft, clm_error *err)
{
    const struct generate_options *o = &r->o.generate;
    bool end_token = (o->end_tokens && end_tokens_have(o->end_tokens, sample->token)) ||
                     stop_id(&r->stops, sample->token);
    struct generated out = {
        .token = sample->token,
        .from_draft = from_draft,
        .logprob = sample->logprob,
        .top = sample->top,
        .n_top = sample->n_top,
    };

    token_list_add(&r->ids, sample->token);
    if (r->ids.failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for more tokens");
    r->result.generated_tokens++;
    r->result.draft_tokens += from_draft;
    end_at_token(r, end_token);
    if (add_text(r, sample->token, end_token, err))
        return -1;
    out.text = r->text.data ? r->text.data : "";
    out.size = r->text.size;
    out.last = r->ended;
    if (o->token && !o->token(o->ctx, &out)) {
        r->ended = true;
        r->result.finish = FINISH_CANCELLED;
    }
    return 0;
}

static int next_sample(request *r, const float *logits, struct sample *sample, clm_error *err)
{
    const struct generate_options *o = &r->o.generate;
    int vocab_size = engine_model(r->engine)->spec->vocab_size;

    if (o->process) {
        memcpy(r->logits, logits, (size_t)vocab_size * sizeof *logits);
        if (o->process(o->ctx, r->logits, vocab_size, r->ids.ids, r->ids.count, err))
            return fail(err, CLM_ERR_CANCELLED, "a logits processor failed without saying why");
        logits = r->logits;
    }
    return sampler_next(r->o.sampler, logits, r->ids.ids, r->ids.count, sample, err);
}

/* Both times end with the token that was chosen last. */
static void take_time(request *r, double now)
{
    if (request_has_begun(r)) {
        r->result.generation_seconds = now - r->begin;
    } else {
        r->result.prompt_seconds = now - r->begin;
        r->begin = now;
    }
}

/* Forget rejected drafts. What else is forgotten on the way to a point that the sequence can go
 * back to is evaluated again with the next step; the caller of a finished one gets it whole. */
static int take_back(request *r, clm_error *err)
{
    int length = (int)r->ids.count - 1;

    if (kv_seq_length(r->seq) <= length)
        return 0;
    if (r->ended && r->seq == r->o.seq)
        return engine_trim(r->engine, r->seq, length, err);
    return r->ended ? 0 : kv_seq_trim(r->seq, kv_seq_trim_point(r->seq, length), err);
}

struct speculation_text request_speculation_text(const request *r)
{
    int tokens = r->o.generate.max_tokens - r->result.generated_tokens;
    int context = engine_context(r->engine) - (int)r->ids.count;

    return (struct speculation_text){
        .drafting = r->drafting,
        .ids = r->ids.ids,
        .n_ids = (int)r->ids.count,
        .rows = r->rows,
        .n_tokens = r->result.generated_tokens,
        .n_right = r->result.draft_tokens,
        .max_drafts = tokens - 1 < context ? tokens - 1 : context,
    };
}

void request_take_drafts(request *r, const int32_t *drafts, int n)
{
    size_t count = r->ids.count;

    add_ids(&r->ids, drafts, (size_t)n);
    r->n_drafts = r->ids.failed ? 0 : n;
    r->ids.count = count;
    r->ids.failed = false; /* it can do without */
    r->result.drafted_tokens += r->n_drafts;
}

bool request_wants_best(const request *r)
{
    return !r->o.generate.process && sampler_wants_best(r->o.sampler);
}

bool request_goes_on(const request *r)
{
    return !r->cancelled && !r->drafting &&
           r->result.generated_tokens + 1 < r->o.generate.max_tokens &&
           r->ids.count < (size_t)engine_context(r->engine);
}

const struct draw_rule *request_rules(request *r, int n)
{
    struct request_draws *d = &r->draws;

    if (r->o.generate.process || n == 0 || !engine_keeps_logits(r->engine))
        return NULL;
    if (n > d->room) {
        struct draw_rule *rules = mem_resize(d->rules, (size_t)n * sizeof *rules);
        int32_t *tokens;

        if (!rules)
            return NULL;
        d->rules = rules;
        tokens = mem_resize(d->tokens, (size_t)n * sizeof *tokens);
        if (!tokens)
            return NULL;
        d->tokens = tokens;
        d->room = n;
    }
    return sampler_rules(r->o.sampler, d->rules, n) ? d->rules : NULL;
}

/* Rows of logits of which the device could not tell what is drawn. */
static int fetch_rows(request *r, int row, int n, clm_error *err)
{
    size_t vocab_size = (size_t)engine_model(r->engine)->spec->vocab_size;
    struct request_draws *d = &r->draws;

    if (n > d->room_logits) {
        float *logits = mem_resize(d->logits, (size_t)n * vocab_size * sizeof *logits);

        if (!logits)
            return fail(err, CLM_ERR_NOMEM, "no memory for the logits of %d tokens", n);
        d->logits = logits;
        d->room_logits = n;
    }
    return engine_fetch(r->engine, row, n, d->logits, err);
}

int request_settle(request *r, int row, int n, const int32_t **tokens, const float **logits,
                   clm_error *err)
{
    const struct drawn *drawn = engine_drawn(r->engine) + row;
    struct request_draws *d = &r->draws;
    bool settled = true;

    *tokens = NULL;
    *logits = NULL;
    for (int i = 0; settled && i < n; i++) {
        d->tokens[i] = settle(&drawn[i], &d->rules[i]);
        settled = d->tokens[i] >= 0;
    }
    if (settled)
        *tokens = d->tokens;
    else if (fetch_rows(r, row, n, err))
        return -1;
    else
        *logits = d->logits;
    return 0;
}

void request_choose(request *r, const float *logits, const int32_t *tokens)
{
    size_t vocab_size = (size_t)engine_model(r->engine)->spec->vocab_size;
    bool hit = true;
    clm_error err = {0};
    int rc = 0;

    for (size_t i = 0; hit && !r->ended && rc == 0; i++) {
        struct sample sample;

        rc = logits ? next_sample(r, logits + i * vocab_size, &sample, &err)
                    : sampler_take(r->o.sampler, tokens[i], &sample, &err);
        if (rc)
            break;
        take_time(r, clock_seconds());
        /* The first draft lies where the chosen token is about to be added. */
        hit = r->n_drafts > 0 && r->ids.ids[r->ids.count] == sample.token;
        r->n_drafts = hit ? r->n_drafts - 1 : 0;
        rc = take_token(r, &sample, hit, &err);
    }
    r->n_drafts = 0;
    if (take_back(r, &err) || rc)
        request_fail(r, &err);
}

/* A sequence that came from a file may have tokens that no one knows. */
static bool is_known(const request *r)
{
    for (int i = 0; i < r->n_past; i++)
        if (r->ids.ids[i] < 0)
            return false;
    return true;
}

bool request_preempt(request *r)
{
    if (r->seq == r->o.seq)
        return is_known(r) && kv_seq_trim(r->seq, 0, NULL) == 0;
    kv_seq_close(r->seq);
    r->seq = NULL;
    return true;
}
