/* engine/engine.c: from a ragged batch to one forward pass. */
#include "engine/engine.h"

#include <stdatomic.h>
#include <string.h>

#include "base/thread.h"
#include "nn/nn.h"

#define DEFAULT_MAX_ROWS 512

/* A host array that grows and is kept. */
struct buffer {
    void *data;
    size_t size;
};

struct engine {
    struct model *model;
    kv_cache *cache;
    int n_shares; /* devices that compute the model together; 1: there is but one model */
    struct pass_memory *memories[DEVICE_MAX_GROUP][NN_MAX_PARTS]; /* of each share, by part */
    thread_pool *threads; /* one for each share; NULL: of one */
    int max_rows;
    bool exact;
    struct buffer tokens, past, positions, logit_rows, sequences, batches, states, logits, pieces;
};

/* What a device computes, where several do it together, or the model. */
static const struct nn_model *share_of(const struct model *m, int share)
{
    return m->n_shares ? m->shares[share] : m->nn;
}

static void *buffer_need(struct buffer *b, size_t count, size_t size, clm_error *err)
{
    size_t need;
    void *grown;

    if (!size_mul(count, size, &need))
        return fail_null(err, CLM_ERR_NOMEM, "engine: %zu items of %zu bytes are too many", count,
                         size);
    if (need <= b->size && b->data)
        return b->data;
    grown = mem_resize(b->data, need + need / 2 + 64);
    if (!grown)
        return fail_null(err, CLM_ERR_NOMEM, "engine: no memory for %zu bytes", need);
    b->data = grown;
    b->size = need + need / 2 + 64;
    return grown;
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

engine *engine_open(struct model *m, const struct engine_options *options, clm_error *err)
{
    struct engine_options o = options ? *options : (struct engine_options){0};
    engine *e = mem_zeroed(1, sizeof *e);

    if (!e)
        return fail_null(err, CLM_ERR_NOMEM, "engine: no memory");
    e->model = m;
    e->max_rows = o.max_rows > 0 ? o.max_rows : DEFAULT_MAX_ROWS;
    e->exact = o.exact;
    e->n_shares = m->n_shares ? m->n_shares : 1;
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
    for (int s = 0; s < DEVICE_MAX_GROUP; s++)
        for (int i = 0; i < NN_MAX_PARTS; i++)
            pass_memory_close(e->memories[s][i]);
    kv_cache_close(e->cache);
    mem_free(e->tokens.data);
    mem_free(e->past.data);
    mem_free(e->positions.data);
    mem_free(e->logit_rows.data);
    mem_free(e->sequences.data);
    mem_free(e->batches.data);
    mem_free(e->states.data);
    mem_free(e->logits.data);
    mem_free(e->pieces.data);
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

int engine_max_rows(const engine *e)
{
    return e->max_rows;
}

/* What a step is made of, counted and checked. */
struct step {
    const struct engine_input *inputs;
    int n_inputs, n_rows, n_logits;
};

static int n_past(const engine *e)
{
    return e->model->spec->ngram.n > 1 ? e->model->spec->ngram.n - 1 : 0;
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

static int check_input(const engine *e, const struct engine_input *in, clm_error *err)
{
    const struct spec *spec = e->model->spec;
    int vocab_size = spec->vocab_size;
    int room = spec->n_positions ? spec->n_positions - spec->position_offset : INT32_MAX;

    if (!in->seq || in->n_tokens < 1 || in->n_logits < 0 || in->n_logits > in->n_tokens)
        return fail(err, CLM_ERR_ARG, "engine: an input of %d tokens with logits of %d",
                    in->n_tokens, in->n_logits);
    if (in->n_tokens > room - kv_seq_length(in->seq))
        return fail(err, CLM_ERR_FULL,
                    "engine: a sequence of more than %d tokens; the model has no more positions",
                    room);
    for (int i = 0; i < in->n_tokens; i++)
        if (in->tokens[i] < 0 || in->tokens[i] >= vocab_size)
            return fail(err, CLM_ERR_ARG, "engine: token %d is outside the vocabulary of %d",
                        in->tokens[i], vocab_size);
    if (kv_seq_check(in->seq, err))
        return -1;
    return check_known(in->seq, kv_seq_length(in->seq) - n_past(e), kv_seq_length(in->seq), err);
}

static int check_step(const engine *e, struct step *s, clm_error *err)
{
    for (int i = 0; i < s->n_inputs; i++) {
        const struct engine_input *in = &s->inputs[i];

        if (check_input(e, in, err))
            return -1;
        for (int j = 0; j < i; j++)
            if (s->inputs[j].seq == in->seq)
                return fail(err, CLM_ERR_ARG, "engine: inputs %d and %d are of one sequence", j, i);
        if (in->n_tokens > e->max_rows - s->n_rows)
            return fail(err, CLM_ERR_ARG, "engine: a step of more than %d tokens", e->max_rows);
        s->n_rows += in->n_tokens;
        s->n_logits += in->n_logits;
    }
    return s->n_rows > 0 ? 0 : fail(err, CLM_ERR_ARG, "engine: a step without tokens");
}

/* Room in the cache for every input; on failure what was reserved is given back. */
static int reserve(const struct step *s, clm_error *err)
{
    for (int i = 0; i < s->n_inputs; i++) {
        if (kv_seq_reserve(s->inputs[i].seq, s->inputs[i].n_tokens, err)) {
            for (int j = 0; j < i; j++)
                kv_seq_commit(s->inputs[j].seq, NULL, 0);
            return -1;
        }
    }
    return 0;
}

/* The host arrays of a step. Those that name device memory are there for each share. */
struct rows {
    int32_t *tokens, *past, *positions, *logit_rows;
    struct kv_batch *batches;      /* [shares, groups] */
    struct kv_sequence *sequences; /* [shares, groups, n_inputs] */
    struct state_sequence *states; /* [shares or parts, n_inputs] */
};

/* Groups of cache layers; one where there are none. */
static size_t n_batches(const engine *e)
{
    int groups = kv_cache_groups(e->cache);

    return groups ? (size_t)groups : 1;
}

/* The tokens before each of an input's, the nearest first. */
static void lay_out_past(const engine *e, const struct engine_input *in, int32_t *past)
{
    const int32_t *earlier = kv_seq_tokens(in->seq);
    int position = kv_seq_length(in->seq), n = n_past(e);

    for (int t = 0; t < in->n_tokens; t++)
        for (int i = 1; i <= n; i++)
            past[(size_t)t * (size_t)n + (size_t)i - 1] = t >= i ? in->tokens[t - i]
                                                          : position + t >= i
                                                              ? earlier[position + t - i]
                                                              : 0;
}

/* Row lists of input i, whose rows begin at row. */
static void lay_out_input(const engine *e, const struct step *s, struct rows *r, int i, int row)
{
    const struct engine_input *in = &s->inputs[i];
    size_t n_lists = n_batches(e) * (size_t)e->n_shares, n_inputs = (size_t)s->n_inputs;
    int position = kv_seq_length(in->seq);
    int n_states = e->n_shares > 1 ? e->n_shares : NN_MAX_PARTS;

    for (int p = 0; p < n_states; p++) {
        struct kv_state state = e->n_shares > 1 ? kv_seq_share_state(in->seq, p)
                                : p             ? kv_seq_rest_state(in->seq)
                                                : kv_seq_state(in->seq);

        r->states[(size_t)p * n_inputs + (size_t)i] = (struct state_sequence){
            .row = row, .n_rows = in->n_tokens, .from = state.from, .to = state.to};
    }
    for (size_t g = 0; g < n_lists; g++)
        r->sequences[g * n_inputs + (size_t)i] =
            (struct kv_sequence){.row = row, .n_rows = in->n_tokens, .position = position};
    memcpy(r->tokens + row, in->tokens, (size_t)in->n_tokens * sizeof(int32_t));
    lay_out_past(e, in, r->past + (size_t)row * (size_t)n_past(e));
    for (int t = 0; t < in->n_tokens; t++)
        r->positions[row + t] = position + t;
}

static int lay_out(engine *e, const struct step *s, struct rows *r, clm_error *err)
{
    size_t n_lists = n_batches(e) * (size_t)e->n_shares, n_inputs = (size_t)s->n_inputs;
    int row = 0, logit = 0;

    r->tokens = buffer_need(&e->tokens, (size_t)s->n_rows, sizeof(int32_t), err);
    r->past = buffer_need(&e->past, (size_t)s->n_rows * (size_t)n_past(e), sizeof(int32_t), err);
    r->positions = buffer_need(&e->positions, (size_t)s->n_rows, sizeof(int32_t), err);
    r->logit_rows = buffer_need(&e->logit_rows, (size_t)s->n_logits, sizeof(int32_t), err);
    r->batches = buffer_need(&e->batches, n_lists, sizeof(struct kv_batch), err);
    r->sequences = buffer_need(&e->sequences, n_lists * n_inputs, sizeof(struct kv_sequence), err);
    r->states = buffer_need(&e->states, n_inputs * (size_t)(NN_MAX_PARTS + e->n_shares),
                            sizeof(struct state_sequence), err);
    if (!r->tokens || !r->past || !r->positions || !r->logit_rows || !r->batches || !r->sequences ||
        !r->states)
        return -1;
    for (int i = 0; i < s->n_inputs; i++) {
        lay_out_input(e, s, r, i, row);
        row += s->inputs[i].n_tokens;
        for (int l = s->inputs[i].n_logits; l > 0; l--)
            r->logit_rows[logit++] = row - l;
    }
    for (size_t g = 0; g < n_lists; g++)
        r->batches[g] = (struct kv_batch){.sequences = r->sequences + g * n_inputs,
                                          .n_sequences = s->n_inputs,
                                          .n_rows = s->n_rows};
    return 0;
}

/* Block tables go to the device of the part with the pass. */
static void upload_tables(const engine *e, const struct step *s, const struct rows *r, pass *p)
{
    size_t first = n_batches(e) * (size_t)p->model->share;

    for (int g = 0; g < kv_cache_groups(e->cache); g++) {
        if (e->n_shares == 1 && kv_cache_group_device(e->cache, g) != p->dev)
            continue;
        for (int i = 0; i < s->n_inputs; i++) {
            struct kv_table table = kv_seq_table(s->inputs[i].seq, g);
            struct kv_sequence *seq =
                &r->sequences[(first + (size_t)g) * (size_t)s->n_inputs + (size_t)i];

            seq->n_kept = table.n_kept;
            seq->n_gone = table.n_gone;
            seq->n_mapped = table.n_mapped;
            seq->mapped = table.mapped;
            seq->blocks = pass_upload(p, table.blocks, (size_t)table.n_blocks * sizeof(int32_t));
        }
    }
}

/* What a part of the model asks of the step, on its device. */
static void upload_rows(const engine *e, const struct step *s, const struct rows *r, pass *p)
{
    size_t bytes = (size_t)s->n_rows * sizeof(int32_t);
    int states = e->n_shares > 1 ? p->model->share : p->part;

    p->rows = (struct pass_rows){
        .tokens = pass_upload(p, r->tokens, bytes),
        .past = pass_upload(p, r->past, bytes * (size_t)n_past(e)),
        .positions = pass_upload(p, r->positions, bytes),
        .n_rows = s->n_rows,
        .kv = r->batches + n_batches(e) * (size_t)p->model->share,
        .states = {.sequences = r->states + (size_t)states * (size_t)s->n_inputs,
                   .n_sequences = s->n_inputs,
                   .n_rows = s->n_rows},
    };
    upload_tables(e, s, r, p);
}

/* The pass of a share; logits [n_logits, those of its head]. */
static int run_share(engine *e, const struct step *s, const struct rows *r, int share,
                     float *logits, clm_error *err)
{
    const struct nn_model *m = share_of(e->model, share);
    pass p;
    tensor *out;

    pass_init(&p, m, e->cache, e->memories[share], err);
    for (int i = m->n_parts; i-- > 0;) {
        pass_enter(&p, i);
        upload_rows(e, s, r, &p);
        p.part_rows[i] = p.rows;
    }
    out = nn_forward(&p, r->logit_rows, s->n_logits);
    /* Before pass_done, so that the device is waited for once. */
    if (out && !p.failed)
        p.ops->download(p.dev, logits, out->data,
                        (size_t)out->rows * (size_t)out->cols * sizeof(float));
    return pass_done(&p);
}

/* A step of several devices. */
struct joint_step {
    engine *e;
    const struct step *step;
    const struct rows *rows;
    float *pieces, *logits; /* [n_logits] times each share's; and all, [n_logits, vocab_size] */
    _Atomic int failed;     /* 1 + the first share that did, which is why others then do; 0: none */
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

static void run_in_thread(void *ctx, int share, int n_shares)
{
    struct joint_step *j = ctx;
    const struct nn_model *m = j->e->model->shares[share];
    float *piece = j->pieces + (size_t)m->first_logit * (size_t)j->step->n_logits;
    device *d = m->parts[0].dev;
    int none = 0;

    (void)n_shares;
    if (run_share(j->e, j->step, j->rows, share, piece, &j->errors[share]) == 0) {
        join_logits(j, share, piece);
        return;
    }
    atomic_compare_exchange_strong(&j->failed, &none, share + 1);
    d->ops->leave(d);
}

static int run_jointly(engine *e, const struct step *s, const struct rows *r, float *logits,
                       clm_error *err)
{
    struct joint_step j = {.e = e, .step = s, .rows = r, .logits = logits};
    device *d = share_of(e->model, 0)->parts[0].dev;
    int failed;

    j.pieces = buffer_need(&e->pieces, (size_t)s->n_logits * (size_t)e->model->spec->vocab_size,
                           sizeof(float), err);
    if (!j.pieces || d->ops->rejoin(d, err))
        return -1;
    thread_pool_run(e->threads, run_in_thread, &j);
    failed = atomic_load(&j.failed);
    return failed ? fail(err, j.errors[failed - 1].code, "%s", j.errors[failed - 1].message) : 0;
}

static int run(engine *e, const struct step *s, const struct rows *r, float *logits, clm_error *err)
{
    return e->n_shares > 1 ? run_jointly(e, s, r, logits, err) : run_share(e, s, r, 0, logits, err);
}

int engine_step(engine *e, const struct engine_input *inputs, int n_inputs, const float **logits,
                clm_error *err)
{
    struct step s = {.inputs = inputs, .n_inputs = n_inputs};
    struct rows r;
    float *out;

    if (check_step(e, &s, err) || reserve(&s, err))
        return -1;
    out = buffer_need(&e->logits, (size_t)s.n_logits * (size_t)e->model->spec->vocab_size,
                      sizeof(float), err);
    if (!out || lay_out(e, &s, &r, err) || run(e, &s, &r, out, err)) {
        for (int i = 0; i < n_inputs; i++)
            kv_seq_commit(inputs[i].seq, NULL, 0);
        return -1;
    }
    for (int i = 0; i < n_inputs; i++)
        kv_seq_commit(inputs[i].seq, inputs[i].tokens, inputs[i].n_tokens);
    if (logits)
        *logits = out;
    return 0;
}

int engine_trim(engine *e, kv_seq *seq, int n, clm_error *err)
{
    int point = n >= 0 && n <= kv_seq_length(seq) ? kv_seq_trim_point(seq, n) : n;
    int rest = n - point;
    int32_t *tokens = NULL;
    int rc;

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
