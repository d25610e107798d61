#include "generate/scheduler.h"

#include "base/clock.h"
#include "base/memory.h"

#define DEFAULT_RUNNING 64
#define DEFAULT_PROMPT_SHARE 64

/* Tokens of a prompt that another one is about to evaluate that it is worth waiting for. */
#define MIN_SHARED 32

/* What a request chooses from, one of the two. */
struct answer {
    const float *logits;
    const int32_t *tokens;
};

struct scheduler {
    engine *engine;
    struct scheduler_options o;
    uint64_t arrivals;
    struct request *queue;    /* by arrival */
    struct request **running; /* [n_running] of o.max_running */
    int n_running;
    int first; /* of those running, whose turn is first when not all find room in a step */
    /* The cache was full: none is let in until one is done, or nothing runs. */
    bool held;
    int widest; /* tokens of one request in the step at hand */
    /* The step at hand: [n_planned] */
    struct request **planned;
    struct engine_input *inputs;
    struct answer *found;
    int n_planned;
    /* Those of them whose answers go on: [n_answers] */
    struct request **answers;
    struct speculation_text *texts;
    int n_answers;
    speculation *speculation; /* which has planned drafts; NULL: none has */
    bool plain;               /* there was no room with drafts */
    struct scheduler_load load;
};

scheduler *scheduler_open(engine *e, const struct scheduler_options *options, clm_error *err)
{
    struct scheduler_options o = options ? *options : (struct scheduler_options){0};
    scheduler *s = mem_zeroed(1, sizeof *s);
    size_t n;

    if (!s)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a scheduler");
    if (o.step_tokens < 1 || o.step_tokens > engine_max_rows(e))
        o.step_tokens = engine_max_rows(e);
    if (o.max_running < 1)
        o.max_running = DEFAULT_RUNNING;
    if (o.max_running > o.step_tokens)
        o.max_running = o.step_tokens;
    if (o.prompt_share < 1)
        o.prompt_share = DEFAULT_PROMPT_SHARE;
    n = (size_t)o.max_running;
    s->engine = e;
    s->o = o;
    s->running = mem_zeroed(n, sizeof(struct request *));
    s->planned = mem_zeroed(n, sizeof(struct request *));
    s->inputs = mem_zeroed(n, sizeof *s->inputs);
    s->found = mem_zeroed(n, sizeof *s->found);
    s->answers = mem_zeroed(n, sizeof(struct request *));
    s->texts = mem_zeroed(n, sizeof *s->texts);
    if (s->running && s->planned && s->inputs && s->found && s->answers && s->texts)
        return s;
    scheduler_close(s);
    return fail_null(err, CLM_ERR_NOMEM, "no memory for a scheduler of %zu requests", n);
}

void scheduler_close(scheduler *s)
{
    if (!s)
        return;
    engine_drop(s->engine);
    while (s->n_running > 0)
        request_close(s->running[--s->n_running]);
    while (s->queue) {
        struct request *r = s->queue;

        s->queue = r->next;
        request_close(r);
    }
    mem_free(s->running);
    mem_free(s->planned);
    mem_free(s->inputs);
    mem_free(s->found);
    mem_free(s->answers);
    mem_free(s->texts);
    mem_free(s);
}

static void enqueue(scheduler *s, struct request *r)
{
    struct request **at = &s->queue;

    while (*at && (*at)->arrival < r->arrival)
        at = &(*at)->next;
    r->next = *at;
    *at = r;
    s->load.waiting++;
}

static struct request *dequeue(scheduler *s, struct request **at)
{
    struct request *r = *at;

    *at = r->next;
    s->load.waiting--;
    return r;
}

request *scheduler_submit(scheduler *s, const struct request_options *o, clm_error *err)
{
    struct request *r = request_open(s->engine, o, err);

    if (!r)
        return NULL;
    r->arrival = s->arrivals++;
    enqueue(s, r);
    return r;
}

void request_cancel(request *r)
{
    r->cancelled = true;
}

struct scheduler_load scheduler_load(const scheduler *s)
{
    struct scheduler_load load = s->load;

    load.running = s->n_running;
    return load;
}

/* Coming and going */

/* Tell the end of a request that is in no list any more. */
static void finish(scheduler *s, struct request *r)
{
    struct request_options o = r->o;
    struct generate_result result = r->result;
    clm_error err = r->error;

    engine_drop(s->engine);
    if (s->o.prefixes && r->seq && result.finish != FINISH_ERROR)
        request_keep(r, s->o.prefixes);
    request_close(r);
    if (o.done)
        o.done(o.ctx, &result, result.finish == FINISH_ERROR ? &err : NULL);
}

static struct request *leave(scheduler *s, int i)
{
    struct request *r = s->running[i];

    s->n_running--;
    for (; i < s->n_running; i++)
        s->running[i] = s->running[i + 1];
    return r;
}

/* Requests that have ended go, which may make others come. */
static void retire(scheduler *s)
{
    for (int i = 0; i < s->n_running;) {
        if (s->running[i]->ended) {
            s->held = false;
            finish(s, leave(s, i));
        } else {
            i++;
        }
    }
}

/* An answer that goes on sees for itself whether its time is over, with its next token. */
static void check_end(struct request *r, double now, bool waits)
{
    if (r->cancelled)
        request_end(r, FINISH_CANCELLED);
    else if (r->deadline > 0 && now >= r->deadline && (waits || !request_has_begun(r)))
        request_end(r, FINISH_TIMEOUT);
}

static void end_some(scheduler *s)
{
    double now = clock_seconds();

    for (int i = 0; i < s->n_running; i++)
        check_end(s->running[i], now, false);
    retire(s);
    for (struct request **at = &s->queue; *at;) {
        check_end(*at, now, true);
        if ((*at)->ended) {
            finish(s, dequeue(s, at));
            at = &s->queue; /* a callback may have added some */
        } else {
            at = &(*at)->next;
        }
    }
}

/* The sequence of a request whose turn has come. */
static int open_sequence(scheduler *s, struct request *r, clm_error *err)
{
    /* Without memory for drafts it goes on without them. */
    if (r->o.generate.speculation && !r->drafting)
        r->drafting = speculation_begin(r->o.generate.speculation, r->o.sampler, NULL);
    if (!r->seq && !r->o.seq && s->o.prefixes)
        return request_recall(r, s->o.prefixes, err);
    if (!r->seq)
        r->seq = r->o.seq ? r->o.seq : kv_seq_open(engine_cache(s->engine), err);
    return r->seq ? 0 : -1;
}

/* Is a prompt being read that begins as this one does? It will be kept at the point where they
 * part. */
static bool is_being_read(scheduler *s, const struct request *r)
{
    bool found = false;

    for (int i = 0; s->o.prefixes && i < s->n_running; i++) {
        struct request *o = s->running[i];
        int length = kv_seq_length(o->seq), common;

        if (request_has_begun(o))
            continue;
        common = request_common(r, o);
        if (common <= length || common - o->result.cached_tokens < MIN_SHARED)
            continue;
        if (o->cut <= length || o->cut > common)
            o->cut = common;
        found = true;
    }
    return found;
}

static void admit(scheduler *s)
{
    struct request **at = &s->queue;
    int places = s->o.max_running - s->n_running;

    /* Those that wait for another keep their places. */
    for (; *at && places > 0 && (!s->held || s->n_running == 0); places--) {
        struct request *r;
        clm_error err = {0};

        if (is_being_read(s, *at)) {
            at = &(*at)->next;
            continue;
        }
        r = dequeue(s, at);
        if (open_sequence(s, r, &err)) {
            request_fail(r, &err);
            finish(s, r);
        } else {
            s->running[s->n_running++] = r;
        }
    }
}

/* What a step is made of */

/* Tokens of a request that may come into this step besides those that do. */
static int missing(const scheduler *s, const struct request *r)
{
    int most = request_pending(r), chunk = r->o.generate.prefill_step_size;
    int to_cut = r->cut - kv_seq_length(r->seq);

    if (to_cut > 0 && to_cut < most)
        most = to_cut;
    if (chunk > 0 && chunk < most)
        most = chunk;
    if (s->widest < most)
        most = s->widest;
    return most - r->rows;
}

static int give(const scheduler *s, struct request *r, int rows)
{
    int n = missing(s, r);

    if (rows < n)
        n = rows;
    r->rows += n;
    return n;
}

/* Who came first, or who needs least, of those that could take more; NULL: none. */
static struct request *oldest(const scheduler *s)
{
    struct request *found = NULL;

    for (int i = 0; i < s->n_running; i++) {
        struct request *r = s->running[i];

        if (missing(s, r) > 0 && (!found || r->arrival < found->arrival))
            found = r;
    }
    return found;
}

static struct request *shortest(const scheduler *s)
{
    struct request *found = NULL;

    for (int i = 0; i < s->n_running; i++) {
        struct request *r = s->running[i];

        if (missing(s, r) > 0 && (!found || request_pending(r) < request_pending(found)))
            found = r;
    }
    return found;
}

/* Half of the room to the prompt that came first, so that it cannot starve; the rest to those of
 * which least is left, so that a short one need not wait for a long one. */
static void share(scheduler *s, int room)
{
    struct request *r = oldest(s);

    if (r)
        room -= give(s, r, (room + 1) / 2);
    while (room > 0 && (r = shortest(s)))
        room -= give(s, r, room);
}

/* One token of each, the rest for prompts. */
static void share_out(scheduler *s)
{
    int room = s->o.step_tokens, prompts = 0, i = 0;
    bool answers = false;

    for (; i < s->n_running; i++)
        s->running[i]->rows = 0;
    for (i = 0; i < s->n_running && room > 0; i++) {
        struct request *r = s->running[(s->first + i) % s->n_running];

        room -= give(s, r, 1);
        if (request_pending(r) > 1)
            prompts++;
        else
            answers |= request_has_begun(r);
    }
    s->first = i < s->n_running ? (s->first + i) % s->n_running : 0;
    if (answers && room > s->o.prompt_share - prompts)
        room = s->o.prompt_share - prompts;
    if (room > 0)
        share(s, room);
}

/* Find the answers that go on; who guesses for them. */
static speculation *find_answers(scheduler *s)
{
    speculation *found = NULL;

    s->n_answers = 0;
    for (int i = 0; i < s->n_planned; i++) {
        struct request *r = s->planned[i];

        if (!request_has_begun(r) || r->rows < request_pending(r))
            continue;
        s->answers[s->n_answers++] = r;
        if (r->drafting)
            found = r->o.generate.speculation;
    }
    return found;
}

/* In a step that has not been found too large. */
static void plan_drafts(scheduler *s)
{
    int prompt_rows = 0;

    s->speculation = s->plain ? NULL : find_answers(s);
    if (!s->speculation)
        return;
    for (int i = 0; i < s->n_planned; i++)
        prompt_rows += s->planned[i]->rows;
    for (int i = 0; i < s->n_answers; i++) {
        prompt_rows -= s->answers[i]->rows;
        s->texts[i] = request_speculation_text(s->answers[i]);
        if (s->answers[i]->o.generate.speculation != s->speculation)
            s->texts[i].drafting = NULL;
    }
    speculation_plan(s->speculation, s->texts, s->n_answers, prompt_rows, s->o.step_tokens);
    for (int i = 0; i < s->n_answers; i++)
        request_take_drafts(s->answers[i], s->texts[i].drafts, s->texts[i].n_drafts);
}

static void plan(scheduler *s)
{
    bool alone = s->n_running == 1 && !s->queue;

    s->n_planned = 0;
    share_out(s);
    for (int i = 0; i < s->n_running; i++) {
        s->running[i]->n_drafts = 0;
        if (s->running[i]->rows > 0)
            s->planned[s->n_planned++] = s->running[i];
    }
    plan_drafts(s);
    for (int i = 0; i < s->n_planned; i++) {
        struct request *r = s->planned[i];
        int pending = request_pending(r);

        s->inputs[i] = (struct engine_input){
            .seq = r->seq,
            .tokens = r->ids.ids + kv_seq_length(r->seq),
            .n_tokens = r->rows + r->n_drafts,
            .n_logits = r->rows < pending ? 0 : 1 + r->n_drafts,
            .best = request_wants_best(r),
            .goes_on = alone && request_goes_on(r),
        };
        if (!s->inputs[i].best)
            s->inputs[i].rules = request_rules(r, s->inputs[i].n_logits);
    }
}

/* What comes of a step */

/* row: its first of those that came of the step */
static struct answer answer_of(scheduler *s, int i, const float *logits, size_t row)
{
    size_t vocab_size = (size_t)engine_model(s->engine)->spec->vocab_size;
    const struct engine_input *in = &s->inputs[i];
    struct answer a = {0};
    clm_error err = {0};

    if (in->best)
        a.tokens = engine_best(s->engine) + row;
    else if (!in->rules)
        a.logits = logits + row * vocab_size;
    else if (request_settle(s->planned[i], (int)row, in->n_logits, &a.tokens, &a.logits, &err))
        request_fail(s->planned[i], &err);
    return a;
}

static void take_rows(scheduler *s, int i, struct answer a)
{
    struct request *r = s->planned[i];

    if (s->o.prefixes)
        request_keep(r, s->o.prefixes);
    request_tell_progress(r);
    if (!r->ended && s->inputs[i].n_logits > 0)
        request_choose(r, a.logits, a.tokens);
}

/* All answers are there before any is taken: what a request does with its own may be another step.
 */
static void take_step(scheduler *s, const float *logits)
{
    size_t row = 0;

    s->load.steps++;
    for (int i = 0; i < s->n_planned; i++) {
        s->found[i] = answer_of(s, i, logits, row);
        row += (size_t)s->inputs[i].n_logits;
    }
    for (int i = 0; i < s->n_planned; i++)
        take_rows(s, i, s->found[i]);
}

/* What has come of the drafts in a step of so many seconds, after it. */
static void learn_drafts(scheduler *s, double seconds)
{
    for (int i = 0; s->speculation && i < s->n_answers; i++) {
        const struct generate_result *r = &s->answers[i]->result;

        s->texts[i].n_tokens = r->generated_tokens - s->texts[i].n_tokens;
        s->texts[i].n_right = r->draft_tokens - s->texts[i].n_right;
    }
    if (s->speculation)
        speculation_learn(s->speculation, s->texts, s->n_answers, seconds);
}

/* One of the planned requests is at fault: each by itself shows which. */
static void step_each(scheduler *s)
{
    for (int i = 0; i < s->n_planned; i++) {
        const float *logits = NULL;
        clm_error err = {0};

        if (engine_step(s->engine, &s->inputs[i], 1, &logits, &err))
            request_fail(s->planned[i], &err);
        else
            take_rows(s, i, answer_of(s, i, logits, 0));
    }
}

static void fail_all(scheduler *s, const clm_error *err)
{
    for (int i = 0; i < s->n_planned; i++)
        request_fail(s->planned[i], err);
}

/* The step without drafts; false: it has none. */
static bool undraft(scheduler *s)
{
    bool any = false;

    for (int i = 0; i < s->n_planned; i++)
        any |= s->planned[i]->n_drafts > 0;
    s->plain = true;
    return any;
}

/* A request gives up its memory and waits. */
static bool preempt(scheduler *s, int i)
{
    engine_drop(s->engine);
    if (!request_preempt(s->running[i]))
        return false;
    enqueue(s, leave(s, i));
    s->held = true;
    s->load.preemptions++;
    return true;
}

static bool preempt_last(scheduler *s)
{
    int last = -1;

    for (int i = 0; i < s->n_running; i++)
        if (last < 0 || s->running[i]->arrival > s->running[last]->arrival)
            last = i;
    return s->n_running > 1 && preempt(s, last);
}

/* Of a request that is alone what it only has to go back. */
static bool thin(scheduler *s)
{
    return s->n_running == 1 && kv_seq_thin(s->running[0]->seq);
}

/* The blocks of a request that is alone may lie one by one in slabs that it shared with others, of
 * which none can be given to another pool: a long window may hold as many as it has blocks. It is
 * evaluated anew, and so fits whenever it would have fitted without the others. Once at each
 * length. */
static bool restart(scheduler *s)
{
    struct request *r = s->running[0];

    if (s->n_running > 1 || r->restarted == r->ids.count)
        return false;
    r->restarted = r->ids.count;
    return preempt(s, 0);
}

/* Less of each request in one step; false: it cannot be less. */
static bool narrow(scheduler *s)
{
    int widest = 0;

    for (int i = 0; i < s->n_planned; i++)
        widest = s->inputs[i].n_tokens > widest ? s->inputs[i].n_tokens : widest;
    s->widest = widest / 2;
    return widest > 1;
}

/* A step found no room: make some, or need less, or do without the request that came last. */
static void make_room(scheduler *s, const clm_error *err)
{
    struct request *last = s->planned[0];

    if (s->o.prefixes && prefix_index_evict(s->o.prefixes, 1))
        return;
    if (undraft(s) || preempt_last(s) || narrow(s) || thin(s) || restart(s))
        return;
    for (int i = 1; i < s->n_planned; i++)
        if (s->planned[i]->arrival > last->arrival)
            last = s->planned[i];
    request_fail(last, err);
    retire(s);
}

/* Evaluate what is planned; false: to be tried again, with another plan. */
static bool run(scheduler *s)
{
    const float *logits = NULL;
    clm_error err = {0};
    double begin;

    plan(s);
    begin = clock_seconds();
    if (engine_step(s->engine, s->inputs, s->n_planned, &logits, &err) == 0) {
        double seconds = clock_seconds() - begin;

        take_step(s, logits);
        learn_drafts(s, seconds);
    } else if (err.code == CLM_ERR_FULL || err.code == CLM_ERR_NOMEM) {
        make_room(s, &err);
        return false;
    } else if (err.code == CLM_ERR_DEVICE || s->n_planned == 1) {
        fail_all(s, &err);
    } else {
        step_each(s);
    }
    return true;
}

bool scheduler_step(scheduler *s)
{
    end_some(s);
    admit(s);
    s->widest = s->o.step_tokens;
    s->plain = false;
    while (s->n_running > 0 && !run(s))
        ;
    retire(s);
    return s->n_running > 0 || s->queue;
}
