/* models/adapt.c: what an adapter adds to each place, from its tensors to what a product takes.
 *
 * Either form comes down to A [rank, n_in] and B [n_out, rank], the latter times the adapter's
 * scale: y = W x + B A x. DoRA then gives row o of W + B A the length m[o]: all of y but its bias
 * is multiplied by m[o] / |W[o] + B[o] A|, which is known once W is in its place. arXiv:2106.09685,
 * 2402.09353
 */
#include "models/adapt.h"

#include <math.h>
#include <string.h>

#include "models/bind.h"

#define NORM_ROWS 256 /* of a weight whose lengths are taken at a time */

/* Of one matrix, in host memory. */
struct low_rank {
    int rank, n_out, n_in;
    float *a;         /* [rank, n_in] */
    float *b;         /* [n_out, rank], scale included */
    float *magnitude; /* [n_out] or NULL */
};

static void low_rank_release(struct low_rank *l)
{
    mem_free(l->a);
    mem_free(l->b);
    mem_free(l->magnitude);
    *l = (struct low_rank){0};
}

static int no_memory(const struct binder *b, const struct nn_slot *s)
{
    return fail(b->err, CLM_ERR_NOMEM, "%s: no memory to adapt %s", b->adapter->path,
                weight_role_name(s->role));
}

/* --- leading -----------------------------------------------------------------------------------
 */

static int cannot_adapt(const struct binder *b, const struct checkpoint_tensor *t)
{
    return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s adapts what clm cannot adapt",
                b->adapter->path, t->name);
}

static int lead_one(struct binder *b, const struct checkpoint_tensor *t)
{
    char module[512];
    struct tensor_place place =
        adapter_place(b->m->family, b->m->spec, t->name, module, sizeof module);
    bool adapts = place.part >= PART_LORA_A && place.part <= PART_MAGNITUDE;
    bool tied = place.to.kind == TARGET_SLOTS && place.to.first == ROLE_LM_HEAD &&
                b->m->spec->tie_word_embeddings;

    if (place.to.kind == TARGET_NONE || place.to.kind == TARGET_IGNORE || tied)
        return binder_unused(b, t);
    if (adapts && place.to.kind == TARGET_LATENT)
        return cannot_adapt(b, t);
    if (adapts &&
        adapter_check_module(b->adapter, module, place.layer, b->m->spec->n_layers, b->err))
        return -1;
    return binder_lead(b, t, place);
}

static bool same_rows(const struct piece *a, const struct piece *b)
{
    return a->rows == b->rows && a->row == b->row && a->block == b->block &&
           a->stride == b->stride && a->stacked == b->stacked && a->transposed == b->transposed;
}

/* Whole tensors of the adapter take the places of the checkpoint's. */
static int replace(const struct binder *b, struct piece *base, struct piece *add)
{
    struct piece merged = *base;
    const struct checkpoint_tensor *first = NULL;
    bool left = false;

    for (int i = PART_WEIGHT; add->part[PART_WEIGHT] && i < PART_LORA_A; i++)
        if (i != PART_BIAS)
            merged.part[i] = NULL; /* what made numbers of the weight that goes */
    for (int i = PART_WEIGHT; i < PART_LORA_A; i++) {
        if (add->part[i])
            merged.part[i] = first = add->part[i];
        else
            left |= merged.part[i] != NULL;
    }
    if (!first)
        return 0;
    if (left && !same_rows(base, add))
        return fail(b->err, CLM_ERR_UNSUPPORTED,
                    "%s: tensor %s replaces a part of what the checkpoint stores in another layout",
                    b->adapter->path, first->name);
    if (!left) {
        merged.rows = add->rows;
        merged.row = add->row;
        merged.block = add->block;
        merged.stride = add->stride;
        merged.stacked = add->stacked;
        merged.transposed = add->transposed;
    }
    *base = merged;
    return 0;
}

int adapt_lead(struct binder *b)
{
    struct piece **base = b->pieces;
    const char *path = b->path;
    int rc = 0;

    b->pieces = b->additions;
    b->path = b->adapter->path;
    for (size_t i = 0; rc == 0 && i < checkpoint_count(b->adapter->weights); i++)
        rc = lead_one(b, checkpoint_at(b->adapter->weights, i));
    b->pieces = base;
    b->path = path;
    for (int i = 0; rc == 0 && i < b->n_slots; i++)
        for (int e = 0; rc == 0 && e < (b->slots[i].n_experts ? b->slots[i].n_experts : 1); e++)
            rc = replace(b, &base[i][e], &b->additions[i][e]);
    return rc;
}

/* --- reading -----------------------------------------------------------------------------------
 */

/* A tensor [n_experts of the slot,] rows, cols (0: a vector) as f32; NULL with the error. */
static float *read_numbers(const struct binder *b, const struct checkpoint_tensor *t,
                           const struct piece *p, const struct nn_slot *s, int expert, int64_t rows,
                           int64_t cols)
{
    const uint8_t *data = binder_plane(b, t, p, s, expert, rows, cols);
    size_t n = (size_t)rows * (size_t)(cols ? cols : 1);
    float *out = data ? mem_alloc(n * sizeof *out) : NULL;

    if (data && !out)
        no_memory(b, s);
    if (out && !((t->type == DTYPE_F32 || t->type == DTYPE_F16 || t->type == DTYPE_BF16) &&
                 dtype_to_f32(out, data, t->type, n))) {
        fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s is %s; clm reads F32, F16 and BF16",
             b->path, t->name, dtype_name(t->type));
        mem_free(out);
        out = NULL;
    }
    return out;
}

/* out[i, j] = in[j, i], which has rows rows. */
static float *turned(float *in, size_t rows, size_t cols)
{
    float *out = in ? mem_alloc(rows * cols * sizeof *out) : NULL;

    for (size_t i = 0; out && i < cols; i++)
        for (size_t j = 0; j < rows; j++)
            out[i * rows + j] = in[j * cols + i];
    mem_free(in);
    return out;
}

/* The rows of b that are the place's, times the scale. */
static float *rows_of_place(float *all, const struct piece *p, const struct low_rank *l,
                            double scale)
{
    size_t rank = (size_t)l->rank;
    float *out = all ? mem_alloc((size_t)l->n_out * rank * sizeof *out) : NULL;

    for (int o = 0; out && o < l->n_out; o++)
        for (size_t r = 0; r < rank; r++)
            out[(size_t)o * rank + r] =
                (float)scale * all[(size_t)binder_source_row(p, l->n_out, o) * rank + r];
    mem_free(all);
    return out;
}

static int check_pair(const struct binder *b, const struct piece *p, int64_t rank)
{
    const struct checkpoint_tensor *a = p->part[PART_LORA_A], *other = p->part[PART_LORA_B];
    bool dora = b->adapter->kind == ADAPTER_DORA;

    if (!a || !other || (dora && !p->part[PART_MAGNITUDE]))
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is there without the others of its module", b->path,
                    a       ? a->name
                    : other ? other->name
                            : p->part[PART_MAGNITUDE]->name);
    if (!dora && p->part[PART_MAGNITUDE])
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is there; adapter_config.json says no DoRA", b->path,
                    p->part[PART_MAGNITUDE]->name);
    if (rank < 1 || rank > 1 << 20)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is of rank %lld", b->path, a->name,
                    (long long)rank);
    return 0;
}

static int scale_of(const struct binder *b, const struct checkpoint_tensor *a, int rank,
                    double *scale)
{
    char module[512];

    adapter_place(b->m->family, b->m->spec, a->name, module, sizeof module);
    return adapter_scale(b->adapter, module, rank, scale, b->err);
}

/* One matrix; of an embedding, whose rows are looked up, A and B change places. */
static int read_low_rank(const struct binder *b, struct low_rank *l, const struct piece *p,
                         const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *ta = p->part[PART_LORA_A], *tb = p->part[PART_LORA_B];
    bool table = s->role == ROLE_EMBED_TOKENS, rank_first = b->adapter->peft || s->n_experts;
    int64_t rows = p->rows ? p->rows : s->n_out, rank = 0, in = table ? rows : s->n_in;
    int64_t out = table ? s->n_in : rows;
    double scale;

    if (ta && ta->n_dims >= 2)
        rank = ta->shape[ta->n_dims - (rank_first ? 2 : 1)];
    if (check_pair(b, p, rank) || scale_of(b, ta, (int)rank, &scale))
        return -1;
    *l = (struct low_rank){.rank = (int)rank, .n_out = s->n_out, .n_in = s->n_in};
    l->a = rank_first ? read_numbers(b, ta, p, s, expert, rank, in)
                      : read_numbers(b, ta, p, s, expert, in, rank);
    l->b = !l->a        ? NULL
           : rank_first ? read_numbers(b, tb, p, s, expert, out, rank)
                        : read_numbers(b, tb, p, s, expert, rank, out);
    if (!l->b)
        return -1;
    if (table == rank_first) { /* [rank, vocabulary] and [hidden_size, rank], or [n_in, rank] .. */
        l->a = turned(l->a, (size_t)(table ? rank : in), (size_t)(table ? in : rank));
        l->b = turned(l->b, (size_t)(table ? out : rank), (size_t)(table ? rank : out));
    }
    if (table) {
        float *swap = l->a;

        l->a = l->b;
        l->b = swap;
    }
    l->b = rows_of_place(l->b, p, l, scale);
    return l->a && l->b ? 0 : no_memory(b, s);
}

static int read_magnitude(const struct binder *b, struct low_rank *l, const struct piece *p,
                          const struct nn_slot *s)
{
    const struct checkpoint_tensor *t = p->part[PART_MAGNITUDE];
    int64_t rows = p->rows ? p->rows : s->n_out;
    float *all;

    if (!t)
        return 0;
    if (s->n_experts || (b->adapter->peft && s->role == ROLE_EMBED_TOKENS))
        return cannot_adapt(b, t);
    all = read_numbers(b, t, p, s, 0, rows, 0);
    if (!all)
        return -1;
    l->magnitude = mem_alloc((size_t)l->n_out * sizeof(float));
    for (int o = 0; l->magnitude && o < l->n_out; o++)
        l->magnitude[o] = all[binder_source_row(p, l->n_out, o)];
    mem_free(all);
    return l->magnitude ? 0 : no_memory(b, s);
}

/* --- DoRA --------------------------------------------------------------------------------------
 */

/* What the lengths of rows of W + B A are computed with, on the device. */
struct lengths {
    device *d;
    int32_t *ids; /* [NORM_ROWS] */
    float *rows;  /* [NORM_ROWS, n_in], on the host as well */
    float *delta;
    float *b; /* [NORM_ROWS, rank] */
    float *a; /* [n_in, rank] */
    float *host;
};

static int lengths_open(struct lengths *s, device *d, const struct low_rank *l, clm_error *err)
{
    size_t n = (size_t)l->n_in * sizeof(float), rank = (size_t)l->rank;

    s->d = d;
    s->host = mem_alloc((size_t)NORM_ROWS * n);
    s->ids = d->ops->alloc(d, NORM_ROWS * sizeof(int32_t), err);
    s->rows = s->ids ? d->ops->alloc(d, NORM_ROWS * n, err) : NULL;
    s->delta = s->rows ? d->ops->alloc(d, NORM_ROWS * n, err) : NULL;
    s->b = s->delta ? d->ops->alloc(d, NORM_ROWS * rank * sizeof(float), err) : NULL;
    s->a = s->b ? d->ops->alloc(d, n * rank, err) : NULL;
    if (!s->host)
        return fail(err, CLM_ERR_NOMEM, "lengths of rows: no memory");
    return s->a ? 0 : -1;
}

static void lengths_close(struct lengths *s)
{
    void *all[] = {s->ids, s->rows, s->delta, s->b, s->a};

    for (size_t i = 0; s->d && i < COUNT(all); i++)
        if (all[i])
            s->d->ops->free(s->d, all[i]);
    mem_free(s->host);
}

/* gain[o] = m[o] / |W[o] + B[o] A| for n rows from first on. */
static void gain_rows(struct lengths *s, float *gain, const struct weight *w,
                      const struct low_rank *l, int first, int n)
{
    const struct device_ops *ops = s->d->ops;
    tensor rows = {s->rows, DTYPE_F32, n, l->n_in, l->n_in}, delta = rows;
    tensor b = {s->b, DTYPE_F32, n, l->rank, l->rank};
    struct weight a = {.format = WEIGHT_F32, .n_out = l->n_in, .n_in = l->rank, .data = s->a};
    struct matmul_job job = {.y = &delta, .w = &a};
    int32_t ids[NORM_ROWS];

    delta.data = s->delta;
    for (int i = 0; i < n; i++)
        ids[i] = first + i;
    ops->upload(s->d, s->ids, ids, (size_t)n * sizeof *ids);
    ops->upload(s->d, s->b, l->b + (size_t)first * (size_t)l->rank,
                (size_t)n * (size_t)l->rank * sizeof(float));
    ops->embed(s->d, &rows, w, s->ids, 1);
    ops->matmul(s->d, &job, 1, &b);
    ops->add(s->d, &rows, &delta, 1);
    ops->download(s->d, s->host, s->rows, (size_t)n * (size_t)l->n_in * sizeof(float));
    for (int i = 0; i < n; i++) {
        const float *row = s->host + (size_t)i * (size_t)l->n_in;
        double sum = 0;

        for (int k = 0; k < l->n_in; k++)
            sum += (double)row[k] * (double)row[k];
        gain[first + i] = (float)((double)l->magnitude[first + i] / sqrt(sum));
    }
}

/* gain [n_out], in host memory. */
static int find_gain(const struct binder *b, float *gain, const struct weight *w,
                     const struct low_rank *l)
{
    struct lengths s = {0};
    float *a = mem_alloc((size_t)l->n_in * (size_t)l->rank * sizeof *a);
    int rc = -1;

    if (!a)
        fail(b->err, CLM_ERR_NOMEM, "lengths of rows: no memory");
    if (!a || lengths_open(&s, b->m->dev, l, b->err))
        goto cleanup;
    for (int r = 0; r < l->rank; r++)
        for (int i = 0; i < l->n_in; i++)
            a[(size_t)i * (size_t)l->rank + (size_t)r] =
                l->a[(size_t)r * (size_t)l->n_in + (size_t)i];
    s.d->ops->upload(s.d, s.a, a, (size_t)l->n_in * (size_t)l->rank * sizeof *a);
    for (int first = 0; first < l->n_out; first += NORM_ROWS)
        gain_rows(&s, gain, w, l, first,
                  l->n_out - first < NORM_ROWS ? l->n_out - first : NORM_ROWS);
    rc = s.d->ops->sync(s.d, b->err);

cleanup:
    lengths_close(&s);
    mem_free(a);
    return rc;
}

/* --- placing -----------------------------------------------------------------------------------
 */

static int place_matrix(const struct binder *b, struct weight *w, const float *numbers, int n_out,
                        int n_in)
{
    *w = (struct weight){.format = WEIGHT_F32, .n_out = n_out, .n_in = n_in};
    w->data = binder_place(b, numbers, (size_t)n_out * (size_t)n_in * sizeof(float));
    b->m->weight_bytes += w->data ? (size_t)n_out * (size_t)n_in * sizeof(float) : 0;
    return w->data ? 0 : -1;
}

static struct nn_lora *new_lora(const struct binder *b, int n)
{
    struct nn_lora *l = arena_array(b->m->memory, struct nn_lora, 1);

    if (l) {
        l->a = arena_array(b->m->memory, struct weight, n);
        l->b = arena_array(b->m->memory, struct weight, n);
    }
    if (!l || !l->a || !l->b)
        return fail_null(b->err, CLM_ERR_NOMEM, "%s: no memory", b->adapter->path);
    return l;
}

/* The gain goes into B, as y is multiplied by it before B A x is added. */
static void gain_into_b(struct low_rank *l, const float *gain)
{
    for (int o = 0; gain && o < l->n_out; o++)
        for (int r = 0; r < l->rank; r++)
            l->b[(size_t)o * (size_t)l->rank + (size_t)r] *= gain[o];
}

/* A table of rows: what its ids look up, and what serves where it is the head too. */
static int place_table(struct binder *b, const struct nn_slot *s, struct low_rank *l,
                       const float *gain, const float *gain_on_device)
{
    struct nn_lora *table = new_lora(b, 1), *head = table ? new_lora(b, 1) : NULL;
    size_t n = (size_t)l->n_in * (size_t)l->rank;
    float *a = head ? mem_alloc(n * sizeof *a) : NULL;
    int rc = -1;

    if (!a)
        return head ? no_memory(b, s) : -1;
    memcpy(a, l->a, n * sizeof *a);
    a = turned(a, (size_t)l->rank, (size_t)l->n_in);
    if (a && place_matrix(b, table->a, l->b, l->n_out, l->rank) == 0 &&
        place_matrix(b, table->b, a, l->n_in, l->rank) == 0) {
        table->gain = head->gain = gain_on_device;
        *s->lora = table;
        rc = 0;
    }
    mem_free(a);
    /* PEFT adapts the table alone, also where the head is tied to it. */
    if (rc || b->adapter->peft || !b->m->spec->tie_word_embeddings)
        return rc;
    gain_into_b(l, gain);
    if (place_matrix(b, head->a, l->a, l->rank, l->n_in) ||
        place_matrix(b, head->b, l->b, l->n_out, l->rank))
        return -1;
    b->m->nn->tied_lora = head;
    return 0;
}

static int adapt_linear(struct binder *b, const struct nn_slot *s, const struct piece *p)
{
    struct low_rank l = {0};
    struct nn_lora *lora = NULL;
    const float *on_device = NULL;
    float *gain = NULL;
    int rc = -1;

    if (read_low_rank(b, &l, p, s, 0) || read_magnitude(b, &l, p, s))
        goto cleanup;
    if (l.magnitude) {
        if (s->order && *s->order) {
            cannot_adapt(b, p->part[PART_MAGNITUDE]);
            goto cleanup;
        }
        gain = mem_alloc((size_t)l.n_out * sizeof *gain);
        if (!gain)
            no_memory(b, s);
        if (!gain || find_gain(b, gain, s->weight, &l))
            goto cleanup;
        on_device = binder_place(b, gain, (size_t)l.n_out * sizeof *gain);
        if (!on_device)
            goto cleanup;
    }
    if (s->role == ROLE_EMBED_TOKENS) {
        rc = place_table(b, s, &l, gain, on_device);
        goto cleanup;
    }
    lora = new_lora(b, 1);
    gain_into_b(&l, gain);
    if (!lora || place_matrix(b, lora->a, l.a, l.rank, l.n_in) ||
        place_matrix(b, lora->b, l.b, l.n_out, l.rank))
        goto cleanup;
    lora->gain = on_device;
    *s->lora = lora;
    rc = 0;

cleanup:
    low_rank_release(&l);
    mem_free(gain);
    return rc;
}

static bool is_adapted(const struct piece *p)
{
    return p->part[PART_LORA_A] || p->part[PART_LORA_B] || p->part[PART_MAGNITUDE];
}

/* One expert with rows and columns of zeros up to the rank of all. */
static int place_expert(const struct binder *b, struct nn_lora *lora, int expert,
                        const struct low_rank *l, const struct nn_slot *s, int rank)
{
    float *a = mem_zeroed((size_t)rank * (size_t)s->n_in, sizeof *a);
    float *up = mem_zeroed((size_t)rank * (size_t)s->n_out, sizeof *up);
    int rc = -1;

    if (!a || !up) {
        no_memory(b, s);
        goto cleanup;
    }
    if (l->rank)
        memcpy(a, l->a, (size_t)l->rank * (size_t)s->n_in * sizeof *a);
    for (int o = 0; l->rank && o < s->n_out; o++)
        memcpy(up + (size_t)o * (size_t)rank, l->b + (size_t)o * (size_t)l->rank,
               (size_t)l->rank * sizeof *up);
    rc = place_matrix(b, &lora->a[expert], a, rank, s->n_in) ||
                 place_matrix(b, &lora->b[expert], up, s->n_out, rank)
             ? -1
             : 0;

cleanup:
    mem_free(a);
    mem_free(up);
    return rc;
}

static int adapt_experts(struct binder *b, const struct nn_slot *s, const struct piece *pieces)
{
    struct nn_lora *lora = new_lora(b, s->n_experts);
    struct low_rank *l = mem_zeroed((size_t)s->n_experts, sizeof *l);
    int rank = 0, rc = lora && l ? 0 : -1;

    if (!l)
        no_memory(b, s);
    for (int e = 0; rc == 0 && e < s->n_experts; e++) {
        const struct piece *p = &pieces[pieces[0].stacked ? 0 : e];

        if (!is_adapted(p))
            continue;
        rc = read_low_rank(b, &l[e], p, s, e) || read_magnitude(b, &l[e], p, s) ? -1 : 0;
        rank = l[e].rank > rank ? l[e].rank : rank;
    }
    for (int e = 0; rc == 0 && e < s->n_experts; e++)
        rc = place_expert(b, lora, e, &l[e], s, rank);
    for (int e = 0; l && e < s->n_experts; e++)
        low_rank_release(&l[e]);
    mem_free(l);
    if (rc == 0)
        *s->lora = lora;
    return rc;
}

int adapt_fill(struct binder *b, const struct nn_slot *s, const struct piece *additions)
{
    const struct piece *some = NULL;
    const char *path = b->path;
    int rc;

    for (int e = 0; e < (s->n_experts ? s->n_experts : 1) && !some; e++)
        if (is_adapted(&additions[e]))
            some = &additions[e];
    if (!some)
        return 0;
    if (!s->lora)
        return cannot_adapt(b, some->part[PART_LORA_A]   ? some->part[PART_LORA_A]
                               : some->part[PART_LORA_B] ? some->part[PART_LORA_B]
                                                         : some->part[PART_MAGNITUDE]);
    b->path = b->adapter->path;
    rc = s->n_experts ? adapt_experts(b, s, additions) : adapt_linear(b, s, additions);
    b->path = path;
    b->m->n_adapted += rc == 0;
    return rc;
}
