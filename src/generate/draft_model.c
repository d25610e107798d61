/* Drafts of a smaller model. Each text has a sequence on its engine, whose end may hold earlier
 * guesses that came to nothing: they are trimmed, and the text's own tokens fed, when it is asked
 * next. All texts that are asked at once share each step.
 *
 * To see what its guesses are worth a text's last tokens are enough. So the sequence may begin
 * anywhere in the text, until all of it is asked for.
 */
#include <limits.h>

#include "base/memory.h"
#include "generate/drafter.h"

#define TAIL 24 /* tokens to guess from at least, of a longer text */

struct draft_text {
    kv_seq *seq;
    int from;                 /* the token of the text that the sequence begins with */
    sampler *sampler;         /* like that of the text */
    struct token_list tokens; /* of the text, then guessed */
    int n_ids;                /* of the text */
    bool failed;              /* guesses no more */
};

struct model_drafter {
    drafter drafter;
    engine *engine;
    int vocab_size; /* ids that both models have */
    struct engine_input *inputs;
    draft_text **guessing; /* those of the inputs that give logits */
    int capacity;          /* of both */
};

static struct model_drafter *of_model(drafter *d)
{
    return (struct model_drafter *)d;
}

static void give_up(draft_text *t)
{
    kv_seq_close(t->seq);
    t->seq = NULL;
    token_list_release(&t->tokens);
    t->failed = true;
}

/* Tokens of a text that are neither in its sequence nor before it. */
static int unread(const draft_text *t, const struct draft_job *job)
{
    int end = t->from + kv_seq_length(t->seq);

    return job->n_ids > end ? job->n_ids - end : 0;
}

/* Tokens to read for a guess if not all of the text is wanted: those that came since the last one,
 * unless they are many beside what was read until then. */
static int tail(const draft_text *t, const struct draft_job *job)
{
    int n = unread(t, job), few = kv_seq_length(t->seq) / 4;

    return n <= TAIL || n <= few ? n : TAIL;
}

/* Begin the sequence anew where what is wanted is not what has been read. */
static bool choose_begin(draft_text *t, const struct draft_job *job)
{
    if (job->whole ? t->from == 0 : unread(t, job) == tail(t, job))
        return true;
    t->from = job->whole ? 0 : job->n_ids - TAIL;
    return kv_seq_trim(t->seq, 0, NULL) == 0;
}

/* Make tokens those of the text, without guesses, and the sequence some of them on from its first.
 */
static bool take_text(const struct model_drafter *d, draft_text *t, const struct draft_job *job)
{
    const int32_t *in_seq;
    int common, length, most;

    if (!choose_begin(t, job))
        return false;
    common = t->n_ids > t->from ? t->n_ids - t->from : 0;
    length = kv_seq_length(t->seq);
    most = job->n_ids - t->from - 1;
    t->tokens.count = (size_t)t->n_ids;
    for (; t->n_ids < job->n_ids; t->n_ids++) {
        int32_t id = job->ids[t->n_ids];

        if (id < 0 || id >= d->vocab_size)
            return false;
        token_list_add(&t->tokens, id);
    }
    if (t->tokens.failed)
        return false;
    in_seq = kv_seq_tokens(t->seq);
    common = common < length ? common : length;
    while (common < length && common < most && in_seq[common] == job->ids[t->from + common])
        common++;
    common = common < most ? common : most;
    return length <= common || kv_seq_trim(t->seq, kv_seq_trim_point(t->seq, common), NULL) == 0;
}

static void draft_model_look(drafter *d, struct draft_job *job)
{
    int length = engine_model(of_model(d)->engine)->spec->context_length;

    if (job->text->failed)
        return;
    job->tail = tail(job->text, job);
    job->behind = job->text->from > 0 ? job->n_ids : unread(job->text, job);
    job->possible = MAX_DRAFT_TOKENS;
    if (length > 0 && length - job->n_ids < job->possible)
        job->possible = length > job->n_ids ? length - job->n_ids : 0;
}

static bool reserve(struct model_drafter *d, int n)
{
    if (n <= d->capacity)
        return true;
    mem_free(d->inputs);
    mem_free(d->guessing);
    d->inputs = mem_zeroed((size_t)n, sizeof *d->inputs);
    d->guessing = mem_zeroed((size_t)n, sizeof(draft_text *));
    d->capacity = d->inputs && d->guessing ? n : 0;
    return d->capacity > 0;
}

/* What a text has still to evaluate before its next guess, as far as there are rows for it. */
static struct engine_input input_of(draft_text *t, int rows)
{
    int end = t->from + kv_seq_length(t->seq), pending = (int)t->tokens.count - end;
    int n = pending < rows ? pending : rows;

    return (struct engine_input){t->seq, t->tokens.ids + end, n, .n_logits = n == pending};
}

static bool guess(draft_text *t, const float *logits)
{
    struct sample sample;

    if (sampler_next(t->sampler, logits, t->tokens.ids, t->tokens.count, &sample, NULL))
        return false;
    token_list_add(&t->tokens, sample.token);
    return !t->tokens.failed;
}

/* One step for all that want more: parts of what they have missed, and guesses of those that have
 * missed nothing. False: none want more, or it failed. */
static bool step(struct model_drafter *d, struct draft_job *const *jobs, int n)
{
    int rows = engine_max_rows(d->engine), n_inputs = 0, n_guesses = 0;
    size_t stride = (size_t)engine_model(d->engine)->spec->vocab_size;
    const float *logits;

    for (int i = 0; i < n && rows > 0; i++) {
        draft_text *t = jobs[i]->text;
        struct engine_input in;

        if (t->failed || (int)t->tokens.count >= t->n_ids + jobs[i]->n_drafts)
            continue;
        in = input_of(t, rows);
        rows -= in.n_tokens;
        d->inputs[n_inputs++] = in;
        if (in.n_logits)
            d->guessing[n_guesses++] = t;
    }
    if (n_inputs == 0 || engine_step(d->engine, d->inputs, n_inputs, &logits, NULL))
        return false;
    for (int i = 0; i < n_guesses; i++)
        if (!guess(d->guessing[i], logits + (size_t)i * stride))
            give_up(d->guessing[i]);
    return true;
}

static void draft_model_propose(drafter *base, struct draft_job *const *jobs, int n)
{
    struct model_drafter *d = of_model(base);
    bool room = reserve(d, n);

    for (int i = 0; i < n; i++) {
        draft_text *t = jobs[i]->text;

        if (!t->failed && !(room && take_text(d, t, jobs[i])))
            give_up(t);
        sampler_follow(t->sampler, jobs[i]->sampler);
    }
    while (step(d, jobs, n))
        ;
    for (int i = 0; i < n; i++) {
        draft_text *t = jobs[i]->text;
        int guessed = t->failed ? 0 : (int)t->tokens.count - t->n_ids;

        /* After an error of the engine: what it was about is not known, so all do without. */
        if (guessed < jobs[i]->n_drafts && !t->failed)
            give_up(t);
        for (int k = 0; k < guessed; k++)
            jobs[i]->drafts[k] = t->tokens.ids[t->n_ids + k];
        jobs[i]->n_drafts = guessed;
    }
}

static void draft_model_close_text(drafter *d, draft_text *t)
{
    (void)d;
    give_up(t);
    sampler_close(t->sampler);
    mem_free(t);
}

static draft_text *draft_model_open_text(drafter *base, const sampler *s, clm_error *err)
{
    struct model_drafter *d = of_model(base);
    draft_text *t = mem_zeroed(1, sizeof *t);

    if (!t)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for drafts");
    t->sampler = sampler_open_like(s, d->vocab_size, err);
    t->seq = kv_seq_open(engine_cache(d->engine), err);
    if (t->seq)
        kv_seq_keep_steps(t->seq);
    if (!t->sampler || !t->seq) {
        draft_model_close_text(base, t);
        return NULL;
    }
    return t;
}

static void draft_model_close(drafter *base)
{
    struct model_drafter *d = of_model(base);

    mem_free(d->inputs);
    mem_free(d->guessing);
    mem_free(d);
}

drafter *drafter_open_model(engine *e, int vocab_size, clm_error *err)
{
    struct model_drafter *d = mem_zeroed(1, sizeof *d);
    int own = engine_model(e)->spec->vocab_size;

    if (!d)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for drafts");
    d->drafter = (drafter){
        .open_text = draft_model_open_text,
        .close_text = draft_model_close_text,
        .look = draft_model_look,
        .propose = draft_model_propose,
        .close = draft_model_close,
    };
    d->engine = e;
    d->vocab_size = own < vocab_size ? own : vocab_size;
    return &d->drafter;
}
