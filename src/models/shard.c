/* models/shard.c: the shares of a model on the devices that compute it together: a spec and a
 * structure for each, and its weights, made of those of the whole model.
 *
 * A device that reads host memory shares with the whole model what lies together there: all but
 * columns, which are put together anew.
 */
#include <string.h>

#include "base/memory.h"
#include "device/weight.h"
#include "models/bind.h"
#include "models/share.h"

#define ALIGNMENT 256 /* of numbers that are put together on a device */

/* One device's share on its way. */
struct shard {
    struct model *m;
    const struct share_plan *plan;
    device *dev;
    int rank;
    struct nn_model *nn;
    struct nn_slot *whole; /* the places of the whole model, in the order of a walk */
    int next;              /* of them the one that the walk is at */
    uint8_t *host;         /* what is on its way to the device */
    size_t host_size;
    clm_error *err;
};

/* Specs */

static void share_branch(struct branch_spec *b, const struct branch_share *s)
{
    if (b->op == OP_ATTENTION && s->heads_cut) {
        b->attention.n_heads = s->heads.n;
        b->attention.n_kv_heads = s->kv_heads.n;
        if (b->attention.slopes)
            b->attention.slopes += s->heads.first;
    }
    if (b->op == OP_MLA && s->heads_cut)
        b->mla.n_heads = s->heads.n;
    if (b->op == OP_DELTA && s->heads_cut) {
        b->delta.n_heads = s->heads.n;
        b->delta.n_key_heads = s->kv_heads.n;
    }
    if (b->op == OP_MLP && s->inner_cut)
        b->mlp.intermediate_size = s->inner.n;
    if (b->op == OP_MOE && s->inner_cut)
        b->moe.expert.intermediate_size = s->inner.n;
    if (b->op == OP_MOE && s->shared_cut)
        b->moe.shared.intermediate_size = s->shared.n;
}

/* The tokens that never come, of those whose logits are the device's, counted from the first. */
static int share_never(struct spec *spec, const struct spec *whole, struct range logits, arena *a)
{
    int *never = arena_array(a, int, whole->n_never + 1);

    if (!never)
        return -1;
    spec->never = never;
    spec->n_never = 0;
    for (int i = 0; i < whole->n_never; i++) {
        int token = whole->never[i] - logits.first;

        if (token >= 0 && token < logits.n)
            never[spec->n_never++] = token;
    }
    return 0;
}

static struct spec *share_spec(const struct shard *s)
{
    const struct spec *whole = s->m->spec;
    struct spec *spec = arena_array(s->m->memory, struct spec, 1);

    if (!spec)
        return NULL;
    *spec = *whole;
    spec->layers = arena_array(s->m->memory, struct layer_spec, whole->n_layers);
    if (!spec->layers || share_never(spec, whole, share_of_logits(s->plan, s->rank), s->m->memory))
        return NULL;
    for (int i = 0; i < whole->n_layers; i++) {
        spec->layers[i] = whole->layers[i];
        for (int b = 0; b < whole->layers[i].n_branches; b++) {
            struct branch_share share = share_of_branch(s->plan, i, b, s->rank);

            share_branch(&spec->layers[i].branches[b], &share);
        }
    }
    return spec;
}

/* Whose results are to be summed. */
static void mark_branch(struct nn_branch *b, const struct branch_share *s)
{
    if (b->spec->op == OP_ATTENTION)
        b->attention.is_share = s->heads_cut;
    if (b->spec->op == OP_MLA)
        b->mla.is_share = s->heads_cut;
    if (b->spec->op == OP_DELTA)
        b->delta.is_share = s->heads_cut;
    if (b->spec->op == OP_MLP)
        b->mlp.is_share = s->inner_cut;
    if (b->spec->op == OP_MOE) {
        b->moe.is_share = s->inner_cut;
        b->moe.shared.is_share = s->shared_cut;
    }
}

/* Numbers */

static uint8_t *host_room(struct shard *s, size_t size)
{
    uint8_t *grown;

    if (size <= s->host_size)
        return s->host;
    grown = mem_resize(s->host, size);
    if (!grown)
        return fail_null(s->err, CLM_ERR_NOMEM, "weights for several devices: no memory");
    s->host = grown;
    s->host_size = size;
    return grown;
}

/* Host memory that stays as device memory. */
static const void *place(struct shard *s, const void *from, size_t size)
{
    void *to;

    if (s->dev->ops->reads_host)
        return from;
    to = model_alloc(s->m, s->dev, size, s->err);
    if (to)
        s->dev->ops->upload(s->dev, to, from, size);
    return to;
}

/* Rows of n bytes that lie stride bytes apart, together at to. */
static int pack_rows(struct shard *s, uint8_t *to, const void *from, size_t rows, size_t n,
                     size_t stride)
{
    uint8_t *host;

    if (n == stride) {
        s->dev->ops->upload(s->dev, to, from, rows * n);
        return 0;
    }
    host = host_room(s, rows * n);
    if (!host)
        return -1;
    for (size_t i = 0; i < rows; i++)
        memcpy(host + i * n, (const uint8_t *)from + i * stride, n);
    s->dev->ops->upload(s->dev, to, host, rows * n);
    return 0;
}

static size_t aligned(size_t n)
{
    return (n + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

/* Bytes of a matrix that is put together. */
static size_t packed_bytes(const struct weight *w)
{
    size_t scales = weight_scale_rows(w) * weight_scale_row_bytes(w);

    return aligned((size_t)w->n_out * weight_row_bytes(w)) + aligned(w->scales ? scales : 0) +
           aligned(w->biases ? scales : 0);
}

/* w, whose rows lie as far apart as those of whole, put together at to. */
static int pack_matrix(struct shard *s, struct weight *w, const struct weight *whole, uint8_t *to)
{
    size_t n = weight_row_bytes(w), rows = (size_t)w->n_out;
    size_t scale_n = weight_scale_row_bytes(w), scale_rows = weight_scale_rows(w);
    size_t stride = weight_row_bytes(whole), scale_stride = weight_scale_row_bytes(whole);
    uint8_t *scales = to + aligned(rows * n), *biases = scales + aligned(scale_rows * scale_n);

    if (pack_rows(s, to, w->data, rows, n, stride) ||
        (w->scales && pack_rows(s, scales, w->scales, scale_rows, scale_n, scale_stride)) ||
        (w->biases && pack_rows(s, biases, w->biases, scale_rows, scale_n, scale_stride)))
        return -1;
    w->data = to;
    w->scales = w->scales ? scales : NULL;
    w->biases = w->biases ? biases : NULL;
    return 0;
}

/* The part of one matrix of a place, where it lies in the whole. */
static struct weight part_of(const struct weight *w, const struct share_cut *c)
{
    if (c->kind == CUT_ROWS)
        return weight_rows(w, c->range.first, c->range.n);
    if (c->kind == CUT_COLUMNS)
        return weight_columns(w, c->range.first, c->range.n);
    return *w;
}

/* The part of n_parts matrices, in one piece of memory where they are put together. */
static int share_matrices(struct shard *s, struct weight *to, const struct weight *from,
                          int n_parts, const struct share_cut *c)
{
    int n = c->kind == CUT_PARTS ? c->range.n : n_parts;
    size_t size = 0;
    uint8_t *memory;

    if (c->kind == CUT_PARTS)
        from += c->range.first;
    for (int e = 0; e < n; e++) {
        to[e] = part_of(&from[e], c);
        size += packed_bytes(&to[e]);
    }
    if (c->kind != CUT_COLUMNS && s->dev->ops->reads_host)
        return 0;
    memory = model_alloc(s->m, s->dev, size, s->err);
    for (int e = 0; e < n && memory; e++) {
        size_t bytes = packed_bytes(&to[e]);

        if (pack_matrix(s, &to[e], &from[e], memory))
            return -1;
        memory += bytes;
    }
    return memory ? 0 : -1;
}

/* The part of n_parts vectors of n f32 numbers each, one after another. */
static int share_vector(struct shard *s, const float **to, const float *from, size_t n_parts,
                        size_t n, const struct share_cut *c)
{
    size_t first = (size_t)c->range.first, count = (size_t)c->range.n;
    void *memory;

    *to = NULL;
    if (!from)
        return 0;
    if (c->kind == CUT_PARTS) {
        *to = place(s, from + first * n, count * n * sizeof(float));
    } else if (c->kind != CUT_ROWS) {
        *to = place(s, from, n_parts * n * sizeof(float));
    } else if (n_parts == 1) {
        *to = place(s, from + first, count * sizeof(float));
    } else {
        memory = model_alloc(s->m, s->dev, n_parts * count * sizeof(float), s->err);
        if (memory && pack_rows(s, memory, from + first, n_parts, count * sizeof(float),
                                n * sizeof(float)) == 0)
            *to = memory;
    }
    return *to ? 0 : -1;
}

/* What goes along with a matrix: its bias, once for all devices where they sum what it gives; and
 * the order and rotation of its inputs. */
static int share_company(struct shard *s, const struct nn_slot *to, const struct nn_slot *whole,
                         const struct share_cut *c)
{
    size_t n_parts = whole->n_experts ? (size_t)whole->n_experts : 1;
    size_t inputs = (size_t)(c->kind == CUT_COLUMNS ? c->range.n : whole->n_in);
    size_t first = c->kind == CUT_COLUMNS ? (size_t)c->range.first : 0;

    if (whole->bias && (c->kind != CUT_COLUMNS || s->rank == 0) &&
        share_vector(s, to->bias, *whole->bias, n_parts, (size_t)whole->n_out, c))
        return -1;
    if (whole->order && *whole->order) {
        *to->order = place(s, *whole->order, inputs * sizeof(int32_t));
        if (!*to->order)
            return -1;
    }
    if (whole->rotation && whole->rotation->signs) {
        *to->rotation = *whole->rotation;
        to->rotation->signs = place(s, whole->rotation->signs + first, inputs * sizeof(float));
        if (!to->rotation->signs)
            return -1;
    }
    return 0;
}

/* What an adapter adds to n_parts products of n_in numbers, n_out each: of y = gain W x + b (a x) +
 * bias rows, or, of columns, what their inputs give, and the bias once. NULL with the error. */
static struct nn_lora *share_lora(struct shard *s, const struct nn_lora *from, int n_parts,
                                  int n_out, int n_in, const struct share_cut *c)
{
    static const struct share_cut all = {CUT_NONE, {0, 0}};
    const struct share_cut *outputs = c->kind == CUT_COLUMNS ? &all : c;
    const struct share_cut *inputs = c->kind == CUT_ROWS ? &all : c;
    struct share_cut in_numbers = {c->kind == CUT_COLUMNS ? CUT_ROWS : inputs->kind, inputs->range};
    size_t parts = (size_t)n_parts, n = c->kind == CUT_PARTS ? (size_t)c->range.n : parts;
    struct nn_lora *l = arena_array(s->m->memory, struct nn_lora, 1);

    if (l) {
        l->a = arena_array(s->m->memory, struct weight, n);
        l->b = arena_array(s->m->memory, struct weight, n);
    }
    if (!l || !l->a || !l->b)
        return fail_null(s->err, CLM_ERR_NOMEM, "an adapter for several devices: no memory");
    if (share_matrices(s, l->a, from->a, n_parts, inputs) ||
        share_matrices(s, l->b, from->b, n_parts, outputs) ||
        share_vector(s, &l->gain, from->gain, parts, (size_t)n_out, outputs) ||
        share_vector(s, &l->in_gain, from->in_gain, parts, (size_t)n_in, &in_numbers))
        return NULL;
    if ((c->kind != CUT_COLUMNS || s->rank == 0) &&
        share_vector(s, &l->bias, from->bias, parts, (size_t)n_out, outputs))
        return NULL;
    return l;
}

static int share_slot(void *ctx, const struct nn_slot *to)
{
    struct shard *s = ctx;
    const struct nn_slot *whole = &s->whole[s->next++];
    struct share_cut c = share_cut_of(s->plan, whole, s->rank);
    size_t copies = whole->copies > 1 ? (size_t)whole->copies : 1;
    int n_parts = whole->n_experts ? whole->n_experts : 1;

    if (whole->lora && *whole->lora) {
        *to->lora = share_lora(s, *whole->lora, n_parts, whole->n_out, whole->n_in, &c);
        if (!*to->lora)
            return -1;
    }
    if (whole->n_in)
        return share_matrices(s, to->weight, whole->weight, n_parts, &c) ||
                       share_company(s, to, whole, &c)
                   ? -1
                   : 0;
    if (whole->bias && share_vector(s, to->bias, *whole->bias, (size_t)n_parts,
                                    (size_t)(whole->n_bias ? whole->n_bias : whole->n_out), &c))
        return -1;
    return share_vector(s, to->vector, *whole->vector, (size_t)n_parts,
                        (size_t)whole->n_out * copies, &c);
}

/* The head's part of what is not a place of its own. */
static int share_head(struct shard *s)
{
    const struct nn_model *whole = s->m->nn;
    const struct spec *spec = s->m->spec;
    struct range logits = share_of_logits(s->plan, s->rank);
    struct share_cut rows = {CUT_ROWS, logits}, all = {0};

    s->nn->first_logit = logits.first;
    if (whole->tied_lora) {
        s->nn->tied_lora =
            share_lora(s, whole->tied_lora, 1, spec->vocab_size, whole->embed_tokens.w.n_in, &rows);
        if (!s->nn->tied_lora)
            return -1;
    }
    nn_model_share(s->nn);
    if (spec->tie_word_embeddings)
        s->nn->lm_head.w = weight_rows(&s->nn->embed_tokens.w, logits.first, logits.n);
    return share_vector(s, &s->nn->head_scale, whole->head_scale, 1, (size_t)spec->hidden_size,
                        &all);
}

static int fill_shard(struct shard *s)
{
    struct spec *spec = share_spec(s);

    s->nn = spec ? nn_model_new(spec, s->m->memory, s->err) : NULL;
    if (!s->nn)
        return fail(s->err, CLM_ERR_NOMEM, "a model for several devices: no memory");
    s->nn->share = s->rank;
    s->m->shares[s->m->n_shares++] = s->nn;
    for (int i = 0; i < spec->n_layers; i++)
        for (int b = 0; b < spec->layers[i].n_branches; b++) {
            struct branch_share share = share_of_branch(s->plan, i, b, s->rank);

            mark_branch(&s->nn->layers[i].branches[b], &share);
        }
    if (nn_model_place(s->nn, s->dev, NULL, 0, s->err) || nn_slots(s->nn, share_slot, s))
        return -1;
    return share_head(s) || s->dev->ops->sync(s->dev, s->err) ? -1 : 0;
}

/* The whole model's places */

static int count_slot(void *ctx, const struct nn_slot *slot)
{
    (void)slot;
    ++*(int *)ctx;
    return 0;
}

static int keep_slot(void *ctx, const struct nn_slot *slot)
{
    struct shard *s = ctx;

    s->whole[s->next++] = *slot;
    return 0;
}

static int collect_slots(struct shard *s)
{
    int n = 0;

    nn_slots(s->m->nn, count_slot, &n);
    s->whole = mem_zeroed((size_t)n + 1, sizeof *s->whole);
    if (!s->whole)
        return fail(s->err, CLM_ERR_NOMEM, "a list of %d weights: no memory", n);
    return nn_slots(s->m->nn, keep_slot, s);
}

/* What is cut, and what is not */

struct counts {
    int attention, attention_cut, feed_forward, feed_forward_cut, others;
};

static void count_branch(struct counts *c, const struct branch_spec *b,
                         const struct branch_share *s)
{
    bool shared = b->op == OP_MOE && b->moe.shared.intermediate_size;

    if (b->op == OP_ATTENTION || b->op == OP_MLA || b->op == OP_DELTA) {
        c->attention++;
        c->attention_cut += s->heads_cut;
    } else if (b->op == OP_MLP || b->op == OP_MOE) {
        c->feed_forward++;
        c->feed_forward_cut += s->inner_cut && (!shared || s->shared_cut);
    } else {
        c->others += branch_state_bytes(b) > 0 || b->op == OP_POOLED;
    }
}

static int check_plan(const struct model *m, const struct share_plan *p, const struct log *log,
                      clm_error *err)
{
    struct counts c = {0};

    for (int i = 0; i < m->spec->n_layers; i++)
        for (int b = 0; b < m->spec->layers[i].n_branches; b++) {
            struct branch_share share = share_of_branch(p, i, b, 0);

            count_branch(&c, &m->spec->layers[i].branches[b], &share);
        }
    if (c.attention_cut + c.feed_forward_cut == 0 || share_of_logits(p, 0).n == 0)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: a model of type %s cannot be shared by %d devices: neither its attention "
                    "nor its feed-forward blocks can be cut into so many parts",
                    config_path(m->config), m->spec->model_type, p->n);
    if (c.attention_cut < c.attention || c.feed_forward_cut < c.feed_forward || c.others)
        log_say(log, LOG_INFO,
                "of %d devices each has its share of %d of %d attention blocks and of %d of %d "
                "feed-forward blocks; the others, and %d mixers, are whole on every one",
                p->n, c.attention_cut, c.attention, c.feed_forward_cut, c.feed_forward, c.others);
    return 0;
}

int model_share_out(struct model *m, device *const *ds, int n, const struct log *log,
                    clm_error *err)
{
    struct share_plan plan = share_plan_of(m->nn, n);
    struct shard s = {.m = m, .plan = &plan, .err = err};
    int rc = -1;

    if (check_plan(m, &plan, log, err))
        return -1;
    m->shares = arena_array(m->memory, struct nn_model *, n);
    if (!m->shares)
        return fail(err, CLM_ERR_NOMEM, "a model for %d devices: no memory", n);
    if (collect_slots(&s))
        goto cleanup;
    for (s.rank = 0; s.rank < n; s.rank++) {
        s.dev = ds[s.rank];
        s.next = 0;
        if (fill_shard(&s))
            goto cleanup;
    }
    rc = 0;

cleanup:
    mem_free(s.whole);
    mem_free(s.host);
    return rc;
}
