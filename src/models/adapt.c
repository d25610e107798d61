/* models/adapt.c: what an adapter adds to each place.
 *
 * Either form comes down to A [rank, n_in] and B [n_out, rank], the latter times the adapter's
 * scale: y = W x + B A x. DoRA then gives row o of W + B A the length m[o]: all of y but its bias
 * is multiplied by m[o] / |W[o] + B[o] A|, which is known once W is in its place. arXiv:2106.09685,
 * 2402.09353
 */
#include "models/adapt.h"

#include <string.h>

#include "models/bind.h"
#include "models/low_rank.h"
#include "models/stacks.h"

/* --- leading -----------------------------------------------------------------------------------
 */

/* Layers that the file numbers: those that are others over again have no numbers of their own. */
static int own_layers(const struct spec *s)
{
    int n = 0;

    for (int i = 0; i < s->n_layers; i++)
        n += !s->layers[i].same_as;
    return n;
}

/* Of all, be it one of those that have names of their own. */
static int layer_of(const struct binder *b, const struct tensor_place *place)
{
    bool second = place->layer >= 0 && place->to.second;

    return place->layer + (second ? b->m->spec->second_layers : 0);
}

/* What a tensor of the adapter is for; module gets the name of what it adapts. */
static int find_place(const struct binder *b, const struct checkpoint_tensor *t,
                      struct tensor_place *place, char *module, size_t size)
{
    *place = adapter_place(b->m->family, b->m->spec, t->name, module, size);
    if (place->to.kind != TARGET_NONE || !is_addition(place->part))
        return 0;
    return stack_find(b, t, place, module, size);
}

int adapt_scale(const struct binder *b, const struct checkpoint_tensor *t, int rank, double *scale)
{
    char module[512];
    struct tensor_place place;

    if (find_place(b, t, &place, module, sizeof module))
        return -1;
    return adapter_scale(b->adapter, module, rank, scale, b->err);
}

static int lead_one(struct binder *b, const struct checkpoint_tensor *t)
{
    char module[512];
    struct tensor_place place;
    bool tied;

    if (find_place(b, t, &place, module, sizeof module))
        return -1;
    tied = place.to.kind == TARGET_SLOTS && place.to.first == ROLE_LM_HEAD &&
           b->m->spec->tie_word_embeddings;
    if (place.to.kind == TARGET_IGNORE)
        return 0; /* of what is not run, as towers of pictures */
    if (place.to.kind == TARGET_NONE || tied)
        return binder_unused(b, t);
    if (is_addition(place.part) && adapter_check_module(b->adapter, module, layer_of(b, &place),
                                                        own_layers(b->m->spec), b->err))
        return -1;
    stack_note(b, t, &place);
    return binder_lead(b, t, place);
}

static bool same_rows(const struct piece *a, const struct piece *b)
{
    return a->rows == b->rows && a->row == b->row && a->block == b->block &&
           a->stride == b->stride && a->stacked == b->stacked && a->transposed == b->transposed &&
           a->turned == b->turned;
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
        merged.turned = add->turned;
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

/* What y is multiplied by, or the inputs where gains are of columns: NULL without DoRA. */
static int find_gain(const struct binder *b, float **gain, const struct weight *w,
                     const struct nn_slot *s, const struct piece *p, const struct low_rank *l)
{
    device *d = b->dev;
    size_t n = (size_t)(l->by_column ? l->n_in : l->n_out);
    int32_t *order = NULL;
    int rc = -1;

    *gain = NULL;
    if (!l->magnitude)
        return 0;
    if (s->rotation && s->rotation->signs)
        return cannot_adapt(b, p->part[PART_MAGNITUDE]);
    *gain = mem_alloc(n * sizeof **gain);
    if (s->order && *s->order)
        order = mem_alloc((size_t)l->n_in * sizeof *order);
    if (!*gain || (s->order && *s->order && !order)) {
        low_rank_no_memory(b, s);
    } else {
        if (order)
            d->ops->download(d, order, *s->order, (size_t)l->n_in * sizeof *order);
        rc = dora_gain(d, *gain, w, l, order, b->err);
    }
    mem_free(order);
    return rc;
}

/* Gains of rows go into B too, as y is multiplied by them before B A x is added. */
static void gain_into_b(struct low_rank *l, const float *gain)
{
    for (int o = 0; gain && !l->by_column && o < l->n_out; o++)
        for (int r = 0; r < l->rank; r++)
            l->b[(size_t)o * (size_t)l->rank + (size_t)r] *= gain[o];
}

static int place_vector(const struct binder *b, const float **to, const float *numbers, size_t n)
{
    *to = binder_place(b, numbers, n * sizeof *numbers);
    return *to ? 0 : -1;
}

/* A table of rows: what its ids look up, and what serves where it is the head too, which in PEFT's
 * form is never adapted along. */
static int place_table(struct binder *b, const struct nn_slot *s, struct low_rank *l,
                       const float *gain)
{
    struct nn_lora *table = new_lora(b, 1), *head = table ? new_lora(b, 1) : NULL;
    float *a = head ? transpose_of(l->a, l->rank, l->n_in) : NULL;
    int rc = -1;

    if (!a)
        return head ? low_rank_no_memory(b, s) : -1;
    if (gain && place_vector(b, l->by_column ? &table->in_gain : &table->gain, gain,
                             (size_t)(l->by_column ? l->n_in : l->n_out)))
        goto cleanup;
    if (place_matrix(b, table->a, l->b, l->n_out, l->rank) ||
        place_matrix(b, table->b, a, l->n_in, l->rank))
        goto cleanup;
    *s->lora = table;
    if (s->role == ROLE_EMBED_TOKENS && !b->adapter->peft && b->m->spec->tie_word_embeddings) {
        /* It may be on another device. */
        b->dev = nn_part_of(b->m->nn, -1, ROLE_LM_HEAD)->dev;
        head->gain = table->gain;
        if (gain && nn_tied_apart(b->m->nn) && place_vector(b, &head->gain, gain, (size_t)l->n_out))
            goto cleanup;
        gain_into_b(l, gain);
        if (place_matrix(b, head->a, l->a, l->rank, l->n_in) ||
            place_matrix(b, head->b, l->b, l->n_out, l->rank))
            goto cleanup;
        b->m->nn->tied_lora = head;
    }
    rc = 0;

cleanup:
    mem_free(a);
    return rc;
}

static int place_linear(struct binder *b, const struct nn_slot *s, struct low_rank *l,
                        const float *gain)
{
    struct nn_lora *lora = new_lora(b, 1);

    gain_into_b(l, gain);
    if (!lora || place_matrix(b, lora->a, l->a, l->rank, l->n_in) ||
        place_matrix(b, lora->b, l->b, l->n_out, l->rank) ||
        (gain && place_vector(b, &lora->gain, gain, (size_t)l->n_out)) ||
        (l->bias && place_vector(b, &lora->bias, l->bias, (size_t)l->n_out)))
        return -1;
    *s->lora = lora;
    return 0;
}

static int adapt_linear(struct binder *b, const struct nn_slot *s, const struct piece *p)
{
    struct low_rank l = {0};
    float *gain = NULL;
    int rc = -1;

    if (low_rank_read(b, &l, p, s, 0) == 0 && find_gain(b, &gain, s->weight, s, p, &l) == 0)
        rc = weight_role_is_table(s->role) ? place_table(b, s, &l, gain)
                                           : place_linear(b, s, &l, gain);
    low_rank_release(&l);
    mem_free(gain);
    return rc;
}

/* --- experts -----------------------------------------------------------------------------------
 */

/* Vectors of all experts, [n_experts, n], where any has one. */
struct stacked {
    float *numbers;
    int n;
};

/* The place for those of one expert, all others being fill so far; NULL: no memory. */
static float *stacked_at(struct stacked *v, const struct nn_slot *s, int n, int expert, float fill)
{
    size_t all = (size_t)s->n_experts * (size_t)n;

    if (!v->numbers) {
        v->n = n;
        v->numbers = mem_alloc(all * sizeof(float));
        for (size_t i = 0; v->numbers && i < all; i++)
            v->numbers[i] = fill;
    }
    return v->numbers ? v->numbers + (size_t)expert * (size_t)n : NULL;
}

struct stack {
    struct low_rank *l; /* [n_experts] */
    int rank;           /* the largest */
    bool by_column;
    struct stacked gains, biases;
};

/* One expert's numbers, the gains of its rows within B. */
static int read_expert(const struct binder *b, struct stack *k, const struct piece *p,
                       const struct nn_slot *s, int e)
{
    struct low_rank *l = &k->l[e];
    size_t n;
    float *gain, *to;
    int rc = 0;

    if (low_rank_read(b, l, p, s, e) || find_gain(b, &gain, &s->weight[e], s, p, l))
        return -1;
    k->rank = l->rank > k->rank ? l->rank : k->rank;
    k->by_column = l->by_column;
    n = (size_t)(l->by_column ? l->n_in : l->n_out);
    if (gain) {
        gain_into_b(l, gain);
        to = stacked_at(&k->gains, s, (int)n, e, 1);
        rc = to ? 0 : low_rank_no_memory(b, s);
        if (to)
            memcpy(to, gain, n * sizeof *to);
    }
    mem_free(gain);
    if (rc == 0 && l->bias) {
        to = stacked_at(&k->biases, s, l->n_out, e, 0);
        rc = to ? 0 : low_rank_no_memory(b, s);
        if (to)
            memcpy(to, l->bias, (size_t)l->n_out * sizeof *to);
    }
    return rc;
}

/* One expert with rows and columns of zeros up to the rank of all. */
static int place_expert(const struct binder *b, struct nn_lora *lora, int expert,
                        const struct low_rank *l, const struct nn_slot *s, int rank)
{
    float *a = mem_zeroed((size_t)rank * (size_t)s->n_in, sizeof *a);
    float *up = mem_zeroed((size_t)rank * (size_t)s->n_out, sizeof *up);
    int rc = -1;

    if (!a || !up) {
        low_rank_no_memory(b, s);
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

static int place_experts(struct binder *b, const struct nn_slot *s, const struct stack *k)
{
    struct nn_lora *lora = new_lora(b, s->n_experts);
    int rc = lora ? 0 : -1;

    for (int e = 0; rc == 0 && e < s->n_experts; e++)
        rc = place_expert(b, lora, e, &k->l[e], s, k->rank);
    if (rc == 0 && k->gains.numbers)
        rc = place_vector(b, k->by_column ? &lora->in_gain : &lora->gain, k->gains.numbers,
                          (size_t)s->n_experts * (size_t)k->gains.n);
    if (rc == 0 && k->biases.numbers)
        rc = place_vector(b, &lora->bias, k->biases.numbers,
                          (size_t)s->n_experts * (size_t)k->biases.n);
    if (rc == 0)
        *s->lora = lora;
    return rc;
}

static int adapt_experts(struct binder *b, const struct nn_slot *s, const struct piece *pieces)
{
    struct stack k = {.l = mem_zeroed((size_t)s->n_experts, sizeof *k.l)};
    int rc = k.l ? 0 : low_rank_no_memory(b, s);

    for (int e = 0; rc == 0 && e < s->n_experts; e++) {
        const struct piece *p = &pieces[pieces[0].stacked ? 0 : e];

        if (is_adapted(p))
            rc = read_expert(b, &k, p, s, e);
    }
    if (rc == 0)
        rc = place_experts(b, s, &k);
    for (int e = 0; k.l && e < s->n_experts; e++)
        low_rank_release(&k.l[e]);
    mem_free(k.l);
    mem_free(k.gains.numbers);
    mem_free(k.biases.numbers);
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
    if (!s->lora || (s->role == ROLE_POSITIONS && b->m->spec->position_offset))
        return cannot_adapt(b, some->part[PART_LORA_A]      ? some->part[PART_LORA_A]
                               : some->part[PART_LORA_B]    ? some->part[PART_LORA_B]
                               : some->part[PART_LORA_BIAS] ? some->part[PART_LORA_BIAS]
                                                            : some->part[PART_MAGNITUDE]);
    b->path = b->adapter->path;
    rc = s->n_experts ? adapt_experts(b, s, additions) : adapt_linear(b, s, additions);
    b->path = path;
    b->m->n_adapted += rc == 0;
    return rc;
}
