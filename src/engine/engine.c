/* engine/engine.c: from a ragged batch to one forward pass. */
#include "engine/engine.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/thread.h"
#include "engine/rows.h"
#include "nn/nn.h"

/* A step under way behind the last one, of the token that this one chooses: of which sequence, how
 * long it was, and the token once the host knows it, else -1. */
struct ahead {
    kv_seq *seq; /* NULL: there is none */
    int length;
    int32_t token;
};

struct engine {
    struct model *model;
    kv_cache *cache;
    int n_shares;                                                 /* as of rows */
    struct pass_memory *memories[DEVICE_MAX_GROUP][NN_MAX_PARTS]; /* of each share, by part */
    thread_pool *threads; /* one for each share; NULL: of one */
    int max_rows;
    bool exact;
    struct rows rows; /* of the last step */
    struct buffer logits, pieces, found, best, rules, drawn;
    struct device_mail *mail; /* of mail_size bytes; NULL: none so far */
    size_t mail_size;
    device *mail_dev;
    int32_t *chosen; /* on that device: the most likely token, where a step asks for it alone */
    bool mailed;     /* what came of the last step comes so */
    struct ahead ahead;
    tensor head;      /* the logits of the last step, where they lie on */
    device *head_dev; /* this device; NULL: nowhere */
};

/* What a device computes, where several do it together, or the model. */
static const struct nn_model *share_of(const struct model *m, int share)
{
    return m->n_shares ? m->shares[share] : m->nn;
}

static struct kv_cache_options cache_options(const struct model *m, const struct engine_options *o)
{
    const struct nn_part *parts = share_of(m, 0)->parts;
    struct kv_rest rest = {0};

    if (share_of(m, 0)->n_parts > 1)
        rest = (struct kv_rest){parts[1].dev, parts[1].first_cache, parts[1].state_bytes};
    return (struct kv_cache_options){
        .type = o->cache_type_set ? o->cache_type
                : o->exact        ? DTYPE_F32
                                  : DTYPE_F16,
        .bits = o->kv_bits,
        .group_size = o->kv_group_size ? o->kv_group_size : ENGINE_KV_GROUP_SIZE,
        .quantised_from = o->quantized_kv_start,
        .max_tokens = o->max_kv_size,
        .n_first = !o->max_kv_size     ? 0
                   : o->n_first_tokens ? o->n_first_tokens
                                       : ENGINE_FIRST_TOKENS,
        .state_bytes = parts[0].state_bytes,
        .rest = rest,
        .max_bytes = o->cache_bytes,
    };
}

/* One layer of the cache for each attention, in the order of the model. */
static void describe_layers(struct kv_layer_spec *layers, const struct nn_model *m)
{
    for (int i = 0; i < m->spec->n_layers; i++) {
        for (int b = 0; b < m->layers[i].n_branches; b++) {
            const struct nn_branch *branch = &m->layers[i].branches[b];
            struct kv_layer_spec kept[NN_MAX_CACHES];
            int n_kept = nn_branch_caches(branch->spec, kept);
            int first = branch->spec->op == OP_MLA      ? branch->mla.cache_layer
                        : branch->spec->op == OP_POOLED ? branch->pooled.cache_layer
                                                        : branch->attention.cache_layer;

            for (int k = 0; k < n_kept; k++)
                layers[first + k] = kept[k];
        }
    }
}

static kv_cache *open_cache(const struct model *m, int n_shares, const struct engine_options *o,
                            clm_error *err)
{
    size_t n = (size_t)m->nn->n_cache_layers;
    struct kv_layer_spec *layers = mem_zeroed(n * (size_t)n_shares + 1, sizeof *layers);
    struct kv_cache_options options = cache_options(m, o);
    struct kv_share shares[DEVICE_MAX_GROUP];
    kv_cache *cache;

    if (!layers)
        return fail_null(err, CLM_ERR_NOMEM, "engine: no memory");
    for (int i = 0; i < n_shares; i++) {
        const struct nn_part *part = &share_of(m, i)->parts[0];

        describe_layers(layers + (size_t)i * n, share_of(m, i));
        if (i > 0)
            shares[i - 1] = (struct kv_share){part->dev, layers + (size_t)i * n, part->state_bytes};
    }
    options.shares = shares;
    options.n_shares = n_shares - 1;
    cache = kv_cache_open(share_of(m, 0)->parts[0].dev, layers, (int)n, &options, err);
    mem_free(layers);
    return cache;
}

static int open_parts(engine *e, int share, clm_error *err)
{
    const struct nn_model *nn = share_of(e->model, share);

    for (int i = 0; i < nn->n_parts; i++) {
        device *d = nn->parts[i].dev;

        d->ops->set_exact(d, e->exact);
        e->memories[share][i] = pass_memory_open(d, err);
        if (!e->memories[share][i])
            return -1;
    }
    return 0;
}

static int open_shares(engine *e, clm_error *err)
{
    for (int i = 0; i < e->n_shares; i++)
        if (open_parts(e, i, err))
            return -1;
    if (e->n_shares > 1)
        e->threads = thread_pool_open(e->n_shares, err);
    return e->n_shares == 1 || e->threads ? 0 : -1;
}

/* Products of a GPU gain by more rows than those of a processor do. */
static int default_max_rows(const struct model *m)
{
    return share_of(m, 0)->parts[0].dev->ops->reads_host ? 512 : 2048;
}

engine *engine_open(struct model *m, const struct engine_options *options, clm_error *err)
{
    struct engine_options o = options ? *options : (struct engine_options){0};
    engine *e = mem_zeroed(1, sizeof *e);

    if (!e)
        return fail_null(err, CLM_ERR_NOMEM, "engine: no memory");
    e->model = m;
    e->max_rows = o.max_rows > 0 ? o.max_rows : default_max_rows(m);
    e->exact = o.exact;
    e->n_shares = m->n_shares ? m->n_shares : 1;
    e->rows.n_shares = e->n_shares;
    e->rows.n_past = m->spec->ngram.n > 1 ? m->spec->ngram.n - 1 : 0;
    e->cache = open_cache(m, e->n_shares, &o, err);
    if (!e->cache || open_shares(e, err)) {
        engine_close(e);
        return NULL;
    }
    return e;
}

void engine_close(engine *e)
{
    if (!e)
        return;
    thread_pool_close(e->threads);
    if (e->mail_dev) {
        e->mail_dev->ops->mail_close(e->mail_dev, e->mail);
        e->mail_dev->ops->free(e->mail_dev, e->chosen);
    }
    for (int s = 0; s < DEVICE_MAX_GROUP; s++)
        for (int i = 0; i < NN_MAX_PARTS; i++)
            pass_memory_close(e->memories[s][i]);
    kv_cache_close(e->cache);
    rows_release(&e->rows);
    buffer_release(&e->logits);
    buffer_release(&e->pieces);
    buffer_release(&e->found);
    buffer_release(&e->best);
    buffer_release(&e->rules);
    buffer_release(&e->drawn);
    mem_free(e);
}

kv_cache *engine_cache(engine *e)
{
    return e->cache;
}

struct model *engine_model(engine *e)
{
    return e->model;
}

bool engine_is_exact(const engine *e)
{
    return e->exact;
}

int engine_context(const engine *e)
{
    const struct spec *s = e->model->spec;
    int positions = s->n_positions ? s->n_positions - s->position_offset : INT32_MAX;
    bool bounded = kv_cache_kind(e->cache)->max_tokens > 0;

    return !bounded && s->context_length > 0 && s->context_length < positions ? s->context_length
                                                                              : positions;
}

size_t engine_activation_peak(const engine *e)
{
    size_t peak = 0;

    for (int s = 0; s < e->n_shares; s++)
        for (int i = 0; i < share_of(e->model, s)->n_parts; i++)
            peak += pass_memory_peak(e->memories[s][i]);
    return peak;
}

const int32_t *engine_best(const engine *e)
{
    return e->best.data;
}

bool engine_keeps_logits(const engine *e)
{
    const struct nn_model *m = share_of(e->model, 0);

    return e->n_shares == 1 && !m->parts[m->n_parts - 1].dev->ops->reads_host;
}

const struct drawn *engine_drawn(const engine *e)
{
    return e->drawn.data;
}

int engine_fetch(engine *e, int row, int n, float *logits, clm_error *err)
{
    device *d = e->head_dev;
    size_t cols = (size_t)e->head.cols;

    if (!d || row < 0 || n < 0 || n > e->head.rows - row)
        return fail(err, CLM_ERR_ARG, "engine: the logits of rows %d to %d are not there", row,
                    row + n);
    d->ops->download(d, logits, (const float *)e->head.data + (size_t)row * cols,
                     (size_t)n * cols * sizeof *logits);
    return d->ops->sync(d, err);
}

int engine_max_rows(const engine *e)
{
    return e->max_rows;
}

/* Of a sequence that came from a file some tokens may be unknown. */
static int check_known(const kv_seq *seq, int first, int n, clm_error *err)
{
    const int32_t *tokens = kv_seq_tokens(seq);

    for (int i = first > 0 ? first : 0; i < n; i++)
        if (tokens[i] < 0)
            return fail(err, CLM_ERR_ARG,
                        "engine: token %d of the sequence is needed, but not known; the file that "
                        "the sequence came from does not tell",
                        i);
    return 0;
}

static int check_input(const engine *e, const struct step *s, const struct engine_input *in,
                       clm_error *err)
{
    const struct spec *spec = e->model->spec;
    int vocab_size = spec->vocab_size;
    int room = spec->n_positions ? spec->n_positions - spec->position_offset : INT32_MAX;

    if (in->rules && !engine_keeps_logits(e))
        return fail(err, CLM_ERR_ARG, "engine: logits that the host has are not drawn from there");
    if (!in->seq || in->n_tokens < 1 || in->n_logits < 0 || in->n_logits > in->n_tokens)
        return fail(err, CLM_ERR_ARG, "engine: an input of %d tokens with logits of %d",
                    in->n_tokens, in->n_logits);
    if (in->n_tokens > room - kv_seq_length(in->seq))
        return fail(err, CLM_ERR_FULL,
                    "engine: a sequence of more than %d tokens; the model has no more positions",
                    room);
    for (int i = 0; i < in->n_tokens && !s->chosen; i++)
        if (in->tokens[i] < 0 || in->tokens[i] >= vocab_size)
            return fail(err, CLM_ERR_ARG, "engine: token %d is outside the vocabulary of %d",
                        in->tokens[i], vocab_size);
    if (kv_seq_check(in->seq, err))
        return -1;
    return check_known(in->seq, kv_seq_length(in->seq) - e->rows.n_past, kv_seq_length(in->seq),
                       err);
}

static int check_step(const engine *e, struct step *s, clm_error *err)
{
    for (int i = 0; i < s->n_inputs; i++) {
        const struct engine_input *in = &s->inputs[i];

        if (check_input(e, s, in, err))
            return -1;
        for (int j = 0; j < i; j++)
            if (s->inputs[j].seq == in->seq)
                return fail(err, CLM_ERR_ARG, "engine: inputs %d and %d are of one sequence", j, i);
        if (in->n_tokens > e->max_rows - s->n_rows)
            return fail(err, CLM_ERR_ARG, "engine: a step of more than %d tokens", e->max_rows);
        s->n_rows += in->n_tokens;
        s->n_logits += in->n_logits;
        s->n_best += in->best ? in->n_logits : 0;
        s->n_drawn += in->rules ? in->n_logits : 0;
    }
    return s->n_rows > 0 ? 0 : fail(err, CLM_ERR_ARG, "engine: a step without tokens");
}

/* The sequences have the tokens, or give back what was reserved for them. */
static void commit(const struct engine_input *inputs, int n, bool done)
{
    for (int i = 0; i < n; i++)
        kv_seq_commit(inputs[i].seq, done ? inputs[i].tokens : NULL, done ? inputs[i].n_tokens : 0);
}

/* Room in the cache for every input; on failure what was reserved is given back. */
static int reserve(const struct step *s, clm_error *err)
{
    for (int i = 0; i < s->n_inputs; i++)
        if (kv_seq_reserve(s->inputs[i].seq, s->inputs[i].n_tokens, err)) {
            commit(s->inputs, i, false);
            return -1;
        }
    return 0;
}

/* Does any row of a step of several devices ask for more than its most likely token? */
static bool wants_logits(const struct step *s)
{
    return s->n_best < s->n_logits;
}

static int reserve_results(engine *e, const struct step *s, clm_error *err)
{
    bool any = s->n_best + s->n_drawn < s->n_logits || (e->n_shares > 1 && wants_logits(s));
    size_t vocab_size = any ? (size_t)e->model->spec->vocab_size : 0;

    return buffer_need(&e->logits, (size_t)s->n_logits * vocab_size, sizeof(float), err) &&
                   buffer_need(&e->best, (size_t)s->n_logits, sizeof(int32_t), err) &&
                   buffer_need(&e->rules, (size_t)s->n_logits, sizeof(struct draw_rule), err) &&
                   buffer_need(&e->drawn, (size_t)s->n_logits,
                               sizeof(struct drawn) + sizeof(int32_t), err)
               ? 0
               : -1;
}

/* Logits to the host, but for those of which tokens alone are asked for, unless all are to be. */
static bool is_whole(const struct engine_input *in, bool all)
{
    return all || !(in->best || in->rules);
}

static void fetch_logits(const struct step *s, pass *p, const tensor *out, float *logits, bool all)
{
    size_t row = (size_t)out->cols;

    for (int i = 0, at = 0, n = 0; i < s->n_inputs; i++, at += n) {
        n = s->inputs[i].n_logits;
        if (!is_whole(&s->inputs[i], all))
            continue;
        for (; i + 1 < s->n_inputs && is_whole(&s->inputs[i + 1], all); i++)
            n += s->inputs[i + 1].n_logits;
        p->ops->download(p->dev, logits + (size_t)at * row,
                         (const float *)out->data + (size_t)at * row,
                         (size_t)n * row * sizeof *logits);
    }
}

/* The rules of all rows of logits, on the device; of those that have none, any. */
struct rules {
    struct draw_rule *all; /* NULL: nothing is drawn */
    bool filtered;
};

static bool is_filtered(const struct draw_rule *r)
{
    return r->floor > -INFINITY || r->top_p < 1 || r->top_k < INT32_MAX;
}

static struct rules upload_rules(struct draw_rule *host, const struct step *s, pass *p)
{
    static const struct draw_rule any = {
        .per_temp = 1, .floor = -INFINITY, .top_p = 1, .top_k = INT32_MAX};
    size_t size = (size_t)s->n_logits * sizeof *host;
    struct rules r = {pass_bytes(p, size), false};
    int at = 0;

    if (!r.all)
        return r;
    for (int i = 0; i < s->n_inputs; i++)
        for (int j = 0; j < s->inputs[i].n_logits; j++) {
            host[at] = s->inputs[i].rules ? s->inputs[i].rules[j] : any;
            r.filtered |= is_filtered(&host[at++]);
        }
    p->ops->upload(p->dev, r.all, host, size);
    return r;
}

/* Mail for so many bytes; NULL: the device has none. */
static struct device_mail *mail_for(engine *e, const pass *p, size_t size)
{
    clm_error ignored = {0};

    if (!p->ops->mail_open || p->model->n_parts > 1)
        return NULL;
    if (e->mail_size < size) {
        e->mail_dev = p->dev;
        p->ops->mail_close(p->dev, e->mail);
        e->mail = p->ops->mail_open(p->dev, 2 * size, &ignored);
        e->mail_size = e->mail ? 2 * size : 0;
    }
    if (e->mail && !e->chosen)
        e->chosen = p->ops->alloc(p->dev, sizeof *e->chosen, &ignored);
    return e->chosen ? e->mail : NULL;
}

/* Bytes of drawn of n rows, which lie before the most likely tokens. */
static size_t drawn_size(const struct step *s)
{
    return s->n_drawn > 0 ? (size_t)s->n_logits * sizeof(struct drawn) : 0;
}

static size_t results_size(const struct step *s)
{
    return drawn_size(s) + (size_t)s->n_logits * sizeof(int32_t);
}

/* The most likely tokens, and what is drawn, to the host: on their way if e->mailed. */
static void fetch_tokens(engine *e, const struct step *s, pass *p, const tensor *out,
                         const struct rules *r)
{
    size_t size = results_size(s);
    struct device_mail *mail = mail_for(e, p, size);
    char *room = mail && size == sizeof *e->chosen ? (char *)e->chosen : pass_bytes(p, size);
    int32_t *ids;

    if (!room)
        return;
    ids = (int32_t *)(room + drawn_size(s));
    p->ops->argmax(p->dev, ids, out);
    if (r->all)
        p->ops->draw(p->dev, (struct drawn *)room, out, ids, r->all, r->filtered);
    if (!mail)
        p->ops->download(p->dev, e->drawn.data, room, size);
    else if (p->ops->mail_send(p->dev, mail, room, size, p->err))
        p->failed = true;
    else
        e->mailed = true;
}

/* What a share finds for a row of logits: the most likely of its own tokens, or -1, and that logit;
 * where there is none -inf if all of them are, else infinity. */
struct found {
    int32_t token;
    float logit;
};

static void *host_room(pass *p, size_t size)
{
    void *room = arena_zeroed(p->host, size, 1);

    p->failed |= !room;
    if (!room)
        fail(p->err, CLM_ERR_NOMEM, "engine: no memory for %zu bytes of results", size);
    return room;
}

static float none_of(pass *p, const float *row, int n)
{
    float *x = host_room(p, (size_t)n * sizeof *x), most = -INFINITY;

    if (x)
        p->ops->download(p->dev, x, row, (size_t)n * sizeof *x);
    for (int i = 0; x && i < n; i++)
        most = x[i] == -INFINITY ? most : INFINITY;
    return most;
}

static const float *logits_at(const tensor *out, int row)
{
    return (const float *)out->data + row * out->stride;
}

static void fetch_found(const struct step *s, pass *p, const tensor *out, struct found *found)
{
    size_t size = (size_t)s->n_logits * sizeof(int32_t);
    int32_t *ids = pass_bytes(p, size), *tokens = host_room(p, size);
    float *logits = pass_bytes(p, size), *most = host_room(p, size);

    if (p->failed)
        return;
    p->ops->argmax(p->dev, ids, out);
    p->ops->download(p->dev, tokens, ids, size);
    for (int i = 0; i < s->n_logits; i++)
        p->ops->copy(p->dev, logits + i, logits_at(out, i) + (tokens[i] > 0 ? tokens[i] : 0),
                     sizeof *logits);
    p->ops->download(p->dev, most, logits, size);
    for (int i = 0; i < s->n_logits && !p->failed; i++)
        found[i] = (struct found){
            tokens[i], tokens[i] < 0 ? none_of(p, logits_at(out, i), out->cols) : most[i]};
}

/* The pass of a share; logits [n_logits, those of its head]. found NULL: it is the model, and what
 * the inputs ask for goes to the engine; else what it finds goes there if any token is asked for,
 * and if any logits are there are those of all inputs. */
static int run_share(engine *e, const struct step *s, int share, float *logits, struct found *found,
                     clm_error *err)
{
    const struct nn_model *m = share_of(e->model, share);
    bool alone = !found;
    struct rules rules = {0};
    pass p;
    tensor *out;

    pass_init(&p, m, e->cache, e->memories[share], err);
    for (int i = m->n_parts; i-- > 0;) {
        pass_enter(&p, i);
        rows_upload(&e->rows, s, &p);
        if (alone && s->n_drawn > 0 && i == m->n_parts - 1)
            rules = upload_rules(e->rules.data, s, &p);
    }
    out = nn_forward(&p);
    /* Before pass_done, so that the device is waited for once. */
    if (out && !p.failed && (alone || wants_logits(s)))
        fetch_logits(s, &p, out, logits, !alone);
    if (out && !p.failed && !alone && s->n_best > 0)
        fetch_found(s, &p, out, found);
    if (out && !p.failed && alone && s->n_best + s->n_drawn > 0)
        fetch_tokens(e, s, &p, out, &rules);
    if (alone && out && !p.failed && s->n_drawn > 0) {
        e->head = *out;
        e->head_dev = p.dev;
    }
    return alone && e->mailed ? 0 : pass_done(&p);
}

/* A step of several devices. */
struct joint_step {
    engine *e;
    const struct step *step;
    /* [n_logits] times each share's; and all, [n_logits, vocab_size]; if any are asked for */
    float *pieces, *logits;
    struct found *found; /* [n_shares, n_logits] */
    _Atomic int failed;  /* 1 + the first share that did, which is why others then do; 0: none */
    clm_error errors[DEVICE_MAX_GROUP];
};

/* Each piece has a range of the columns. */
static void join_logits(const struct joint_step *j, int share, const float *piece)
{
    const struct nn_model *m = j->e->model->shares[share];
    size_t n = (size_t)m->lm_head.w.n_out, all = (size_t)j->e->model->spec->vocab_size;

    for (size_t i = 0; i < (size_t)j->step->n_logits; i++)
        memcpy(j->logits + i * all + m->first_logit, piece + i * n, n * sizeof *piece);
}

/* By what each share has found, the first of several; -1 as argmax has it. */
static int32_t likeliest(const struct joint_step *j, int row)
{
    struct found best = {-1, -INFINITY};

    for (int share = 0; share < j->e->n_shares; share++) {
        struct found f = j->found[share * j->step->n_logits + row];

        if (f.token < 0 && f.logit > 0)
            return -1;
        if (f.token >= 0 && f.logit > best.logit)
            best = (struct found){j->e->model->shares[share]->first_logit + f.token, f.logit};
    }
    return best.token;
}

static void run_in_thread(void *ctx, int share, int n_shares)
{
    struct joint_step *j = ctx;
    const struct nn_model *m = j->e->model->shares[share];
    float *piece = j->pieces + (size_t)m->first_logit * (size_t)j->step->n_logits;
    struct found *found = j->found + share * j->step->n_logits;
    device *d = m->parts[0].dev;
    int none = 0;

    (void)n_shares;
    if (run_share(j->e, j->step, share, piece, found, &j->errors[share]) == 0) {
        if (wants_logits(j->step))
            join_logits(j, share, piece);
        return;
    }
    atomic_compare_exchange_strong(&j->failed, &none, share + 1);
    d->ops->leave(d);
}

static int run_jointly(engine *e, const struct step *s, clm_error *err)
{
    struct joint_step j = {.e = e, .step = s, .logits = e->logits.data};
    size_t n = (size_t)s->n_logits, n_pieces = wants_logits(s) ? n : 0;
    device *d = share_of(e->model, 0)->parts[0].dev;
    int32_t *best = e->best.data;
    int failed;

    j.pieces =
        buffer_need(&e->pieces, n_pieces * (size_t)e->model->spec->vocab_size, sizeof(float), err);
    j.found = buffer_need(&e->found, (size_t)e->n_shares * n, sizeof *j.found, err);
    if (!j.pieces || !j.found || d->ops->rejoin(d, err))
        return -1;
    thread_pool_run(e->threads, run_in_thread, &j);
    failed = atomic_load(&j.failed);
    if (failed)
        return fail(err, j.errors[failed - 1].code, "%s", j.errors[failed - 1].message);
    for (int i = 0; s->n_best > 0 && i < s->n_logits; i++)
        best[i] = likeliest(&j, i);
    return 0;
}

/* Evaluates again what the states of a sequence have lost to a step that failed; when this fails
 * the sequence is as it was. */
static int catch_up(engine *e, kv_seq *seq, clm_error *err)
{
    kv_seq *whole = kv_seq_is_whole(seq) ? NULL : engine_fork_whole(e, seq, err);

    if (!whole)
        return kv_seq_is_whole(seq) ? 0 : -1;
    kv_seq_swap(seq, whole);
    kv_seq_close(whole);
    return 0;
}

/* Puts a step on its way that is checked. */
static int begin(engine *e, const struct step *s, clm_error *err)
{
    for (int i = 0; i < s->n_inputs; i++)
        if (catch_up(e, s->inputs[i].seq, err))
            return -1;
    if (reserve(s, err))
        return -1;
    if (reserve_results(e, s, err) || rows_lay_out(&e->rows, s, e->cache, err)) {
        commit(s->inputs, s->n_inputs, false);
        return -1;
    }
    e->mailed = false;
    if ((e->n_shares > 1 ? run_jointly(e, s, err)
                         : run_share(e, s, 0, e->logits.data, NULL, err)) == 0)
        return 0;
    for (int i = 0; i < s->n_inputs; i++)
        kv_seq_fail(s->inputs[i].seq);
    return -1;
}

/* Does it ask for one token, the most likely one, and nothing else? */
static bool wants_one(const struct engine_input *in)
{
    return in->n_logits == 1 && in->best && !in->rules;
}

/* Puts the step on its way that goes on with the token that the last one chooses, if one can: not
 * where a step in vain may write states where they are read. */
static void go_ahead(engine *e, const struct engine_input *in)
{
    struct engine_input next = {.seq = in->seq, .n_tokens = 1, .n_logits = 1, .best = true};
    struct step s = {.inputs = &next, .n_inputs = 1, .chosen = e->chosen};
    clm_error ignored = {0};

    if (!e->mailed || !wants_one(in) || e->model->spec->ngram.n || e->mail_dev->ops->states_stay)
        return;
    if (check_step(e, &s, &ignored) == 0 && begin(e, &s, &ignored) == 0)
        e->ahead = (struct ahead){in->seq, kv_seq_length(in->seq), -1};
    e->mailed = true;
}

/* Is this the step that was put on its way ahead? */
static bool is_ahead(const engine *e, const struct engine_input *in, int n_inputs)
{
    const struct ahead *a = &e->ahead;

    return a->seq && a->token >= 0 && n_inputs == 1 && in->seq == a->seq &&
           kv_seq_length(in->seq) == a->length && in->n_tokens == 1 && in->tokens[0] == a->token &&
           wants_one(in);
}

void engine_drop(engine *e)
{
    if (e->ahead.seq)
        kv_seq_commit(e->ahead.seq, NULL, 0);
    e->ahead.seq = NULL;
}

/* What has come of a step in place of logits. */
static int take_results(engine *e, const struct step *s, clm_error *err)
{
    if (e->mailed) {
        const void *letter = e->mail_dev->ops->mail_await(e->mail_dev, e->mail, e->ahead.seq, err);

        if (!letter)
            return -1;
        memcpy(e->drawn.data, letter, results_size(s));
    }
    if (e->n_shares == 1 && s->n_best + s->n_drawn > 0)
        memcpy(e->best.data, (char *)e->drawn.data + drawn_size(s),
               (size_t)s->n_logits * sizeof(int32_t));
    if (e->ahead.seq)
        e->ahead.token = ((int32_t *)e->best.data)[0];
    return 0;
}

int engine_step(engine *e, const struct engine_input *inputs, int n_inputs, const float **logits,
                clm_error *err)
{
    struct step s = {.inputs = inputs, .n_inputs = n_inputs};
    bool begun = is_ahead(e, inputs, n_inputs);

    e->head_dev = NULL;
    if (!begun)
        engine_drop(e);
    e->ahead.seq = NULL;
    if (check_step(e, &s, err) || (!begun && begin(e, &s, err))) {
        if (begun)
            commit(inputs, n_inputs, false);
        return -1;
    }
    commit(inputs, n_inputs, true);
    if (n_inputs == 1 && inputs->goes_on)
        go_ahead(e, inputs);
    if (take_results(e, &s, err)) {
        engine_drop(e);
        return -1;
    }
    if (logits)
        *logits = e->logits.data;
    return 0;
}

int engine_trim(engine *e, kv_seq *seq, int n, clm_error *err)
{
    int point = n >= 0 && n <= kv_seq_length(seq) ? kv_seq_trim_point(seq, n) : n;
    int rest = n - point;
    int32_t *tokens = NULL;
    int rc;

    engine_drop(e);
    if (rest > 0 && check_known(seq, point, n, err))
        return -1;
    if (rest > 0) {
        tokens = mem_alloc((size_t)rest * sizeof *tokens);
        if (!tokens)
            return fail(err, CLM_ERR_NOMEM, "engine: no memory for %d tokens", rest);
        memcpy(tokens, kv_seq_tokens(seq) + point, (size_t)rest * sizeof *tokens);
    }
    rc = kv_seq_trim(seq, point, err);
    if (!rc && rest > 0)
        rc = engine_prefill(e, seq, tokens, rest, 0, NULL, NULL, NULL, err);
    mem_free(tokens);
    return rc;
}

kv_seq *engine_fork_whole(engine *e, const kv_seq *seq, clm_error *err)
{
    kv_seq *fork = kv_seq_fork(seq, err);

    if (fork && engine_trim(e, fork, kv_seq_length(fork), err)) {
        kv_seq_close(fork);
        return NULL;
    }
    return fork;
}

int engine_prefill(engine *e, kv_seq *seq, const int32_t *tokens, int n_tokens, int chunk,
                   bool (*progress)(void *ctx, int done, int total), void *ctx,
                   const float **logits, clm_error *err)
{
    if (n_tokens < 1)
        return fail(err, CLM_ERR_ARG, "engine: a prompt without tokens");
    if (chunk < 1 || chunk > e->max_rows)
        chunk = e->max_rows;
    for (int done = 0; done < n_tokens;) {
        int n = n_tokens - done < chunk ? n_tokens - done : chunk;
        struct engine_input in = {.seq = seq,
                                  .tokens = tokens + done,
                                  .n_tokens = n,
                                  .n_logits = logits && done + n == n_tokens};

        if (engine_step(e, &in, 1, logits, err))
            return -1;
        done += n;
        if (progress && !progress(ctx, done, n_tokens) && done < n_tokens)
            return fail(err, CLM_ERR_CANCELLED, "prompt: stopped after %d of %d tokens", done,
                        n_tokens);
    }
    return 0;
}
