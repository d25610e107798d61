/* models/bind.c: from tensors by name to weights by place.
 *
 * First every tensor is led by its name to the places it serves (a fused projection serves several,
 * a stack of experts one); then every place is made from the tensors that reached it, and must be
 * full.
 */
#include "models/bind.h"

#include <stdio.h>
#include <string.h>

#include "models/adapt.h"
#include "models/foreign.h"

static size_t index_of(int layer, int branch, int role)
{
    return ((size_t)(layer + 1) * (LAYER_MAX_BRANCHES + 1) + (size_t)(branch + 1)) * ROLE_COUNT +
           (size_t)role;
}

static int count_slot(void *ctx, const struct nn_slot *slot)
{
    (void)slot;
    ++*(int *)ctx;
    return 0;
}

static int add_slot(void *ctx, const struct nn_slot *slot)
{
    struct binder *b = ctx;
    int n = slot->n_experts ? slot->n_experts : 1;

    b->pieces[b->n_slots] = arena_array(b->memory, struct piece, n);
    b->additions[b->n_slots] = b->adapter ? arena_array(b->memory, struct piece, n) : NULL;
    if (!b->pieces[b->n_slots] || (b->adapter && !b->additions[b->n_slots]))
        return -1;
    b->slots[b->n_slots] = *slot;
    b->index[index_of(slot->layer, slot->branch, slot->role)] = b->n_slots++;
    return 0;
}

static int collect_slots(struct binder *b)
{
    size_t places = index_of(b->m->spec->n_layers, 0, 0);
    int n = 0;

    nn_slots(b->m->nn, count_slot, &n);
    b->slots = arena_array(b->memory, struct nn_slot, n);
    b->pieces = arena_array(b->memory, struct piece *, n);
    b->additions = arena_array(b->memory, struct piece *, n);
    b->index = arena_array(b->memory, int, places);
    if (!b->slots || !b->pieces || !b->additions || !b->index)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for a table of %d weights", b->path, n);
    for (size_t i = 0; i < places; i++)
        b->index[i] = -1;
    if (nn_slots(b->m->nn, add_slot, b))
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for a table of %d weights", b->path, n);
    return 0;
}

int binder_unused(const struct binder *b, const struct checkpoint_tensor *t)
{
    if (t->size == 0) /* transformers writes shared experts of which there are none */
        return 0;
    return fail(b->err, CLM_ERR_FORMAT,
                "%s: tensor %s has no place in a model of type %s as config.json describes it",
                b->path, t->name, b->m->spec->model_type);
}

bool is_zero(const struct checkpoint_tensor *t)
{
    const uint8_t *data = t->data;

    for (size_t i = 0; i < t->size; i++)
        if (data[i] != 0)
            return false;
    return true;
}

/* The tensor that is already where the part of a slot would go: that of the same expert, the stack
 * of all, or, for a stack, that of any. */
static const struct checkpoint_tensor *rival(const struct binder *b, int slot, int expert, int part)
{
    const struct piece *pieces = b->pieces[slot];
    int n = b->slots[slot].n_experts;

    if (expert >= 0 || !n)
        return pieces[0].stacked ? pieces[0].part[part]
                                 : pieces[expert < 0 ? 0 : expert].part[part];
    for (int e = 0; e < n; e++)
        if (pieces[e].part[part])
            return pieces[e].part[part];
    return NULL;
}

/* Layers that read the cache of another may have keys and values in the file, which nobody reads.
 */
static bool reads_other_cache(const struct binder *b, const struct tensor_place *place, int role)
{
    const struct branch_spec *branch;

    if (place->layer < 0 || (role != ROLE_K_PROJ && role != ROLE_V_PROJ && role != ROLE_K_NORM))
        return false;
    branch = &b->m->spec->layers[place->layer].branches[place->to.branch];
    return branch->op == OP_ATTENTION && branch->attention.cache_of;
}

/* Experts that return their input have weights in transformers' files, which nobody reads. */
static bool is_zero_expert(const struct binder *b, const struct tensor_place *place)
{
    const struct branch_spec *branch;

    if (place->layer < 0 || place->to.branch < 0)
        return false;
    branch = &b->m->spec->layers[place->layer].branches[place->to.branch];
    return branch->op == OP_MOE && place->expert < branch->moe.router.n_experts;
}

/* The slot of a role; -1: none. Names of a feed-forward are of the expert that every token goes to
 * where the branch has experts. */
static int slot_of(const struct binder *b, const struct tensor_place *place, int role)
{
    int slot = b->index[index_of(place->layer, place->to.branch, role)];

    if (slot < 0 && role >= ROLE_GATE_PROJ && role <= ROLE_DOWN_PROJ)
        slot = b->index[index_of(place->layer, place->to.branch,
                                 role - ROLE_GATE_PROJ + ROLE_SHARED_GATE)];
    return slot;
}

/* Whether a layer without experts holds a norm that those with experts have, and has no use for it.
 */
static bool is_spare(const struct binder *b, const struct tensor_place *place)
{
    const struct spec *s = b->m->spec;

    if (!place->to.spare || s->layers[place->layer].branches[place->to.branch].op == OP_MOE)
        return false;
    for (int i = 0; i < s->n_layers; i++) {
        const struct branch_spec *branch = &s->layers[i].branches[place->to.branch];

        if (branch->op == OP_MOE && branch->post_norm.kind != NORM_NONE)
            return true;
    }
    return false;
}

/* The other stack of the same experts: down_proj of gate_up_proj, or the reverse. NULL: none. */
static const struct checkpoint_tensor *other_stack(const struct binder *b,
                                                   const struct checkpoint_tensor *t, bool *is_down)
{
    const char *dot = strrchr(t->name, '.');
    int n = dot ? (int)(dot + 1 - t->name) : 0;
    char name[512];

    *is_down = dot && strcmp(dot, ".gate_up_proj") == 0;
    if (!dot || (!*is_down && strcmp(dot, ".down_proj") != 0))
        return NULL;
    snprintf(name, sizeof name, "%.*s%s", n, t->name, *is_down ? "down_proj" : "gate_up_proj");
    return checkpoint_find(b->m->weights, name);
}

/* Some stacks lie either way: Qwen3-VL's are published [experts, n_in, rows], and written by
 * transformers 5 as any other. A square one lies as the other of its experts does. */
static bool lies_turned(const struct binder *b, const struct checkpoint_tensor *t,
                        const struct nn_slot *s)
{
    const struct checkpoint_tensor *other;
    bool is_down;

    if (t->n_dims != 3 || t->shape[2] != s->n_in)
        return true;
    if (t->shape[1] != s->n_in)
        return false;
    other = other_stack(b, t, &is_down);
    return !other || other->n_dims != 3 || other->shape[is_down ? 1 : 2] != s->n_in;
}

/* The tensor goes to one place. */
static int reach(struct binder *b, const struct checkpoint_tensor *t,
                 const struct tensor_place *place, int role, struct piece rows)
{
    int slot = slot_of(b, place, role);
    const struct checkpoint_tensor *other;
    struct piece *piece;
    int expert = place->expert < 0 ? 0 : place->expert;

    if (slot < 0 && (is_spare(b, place) || reads_other_cache(b, place, role)))
        return 0;
    if (slot < 0 || (place->expert >= 0) > (b->slots[slot].n_experts > 0))
        return binder_unused(b, t);
    if (expert >= (b->slots[slot].n_experts ? b->slots[slot].n_experts : 1) &&
        (place->to.leads || is_zero_expert(b, place)))
        return 0;
    if (expert >= (b->slots[slot].n_experts ? b->slots[slot].n_experts : 1))
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is of expert %d; config.json says %d experts", b->path, t->name,
                    expert, b->slots[slot].n_experts);
    other = rival(b, slot, place->expert, (int)place->part);
    if (other)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensors %s and %s are the same weight", b->path,
                    other->name, t->name);
    piece = &b->pieces[slot][expert];
    if (place->part == PART_BIAS && !rows.rows)
        rows = *piece; /* a bias of its own says nothing of how the weight lies */
    memcpy(rows.part, piece->part, sizeof rows.part);
    rows.transposed = place->part == PART_WEIGHT || is_addition(place->part)
                          ? place->to.transposed && lies_turned(b, t, &b->slots[slot])
                          : piece->transposed;
    *piece = rows;
    piece->part[place->part] = t;
    piece->stacked = b->slots[slot].n_experts > 0 && place->expert < 0;
    return 0;
}

/* How many heads a tensor of TARGET_GROUPED goes by. */
static int64_t heads_of(const struct binder *b, const struct tensor_place *place)
{
    const struct branch_spec *s = &b->m->spec->layers[place->layer].branches[place->to.branch];

    if (s->op == OP_DELTA)
        return s->delta.n_key_heads;
    if (s->op == OP_MAMBA2)
        return s->mamba2.n_heads;
    if (s->op == OP_LIGHTNING)
        return s->lightning.n_heads;
    if (s->attention.qkv_apart)
        return 1;
    return place->to.step ? s->attention.n_heads : s->attention.n_kv_heads;
}

/* Where the rows of part i of a fused tensor lie, when it has n of all rows and the parts before it
 * have the given ones. */
static struct piece fused_rows(const struct binder *b, const struct tensor_place *place, int i,
                               int64_t n, int64_t before, int64_t all)
{
    int64_t heads;

    if (place->to.kind == TARGET_INTERLEAVED)
        return (struct piece){.rows = all, .row = i, .block = 1, .stride = place->to.n};
    if (place->to.kind == TARGET_QVK_QUARTERS)
        return (struct piece){.rows = all,
                              .row = all / 12 * (i == 0 ? 0 : 3 - i),
                              .block = all / 12,
                              .stride = all / 4};
    if (place->to.kind != TARGET_GROUPED)
        return (struct piece){.rows = all, .row = before};
    heads = heads_of(b, place);
    return (struct piece){
        .rows = all, .row = before / heads, .block = n / heads, .stride = all / heads};
}

/* The role of part i of a fused tensor. */
static int role_of(const struct weight_target *to, int i)
{
    if (to->roles)
        return (int)to->roles[i];
    int step = to->step ? to->step : 1;

    return (int)to->first + step * (to->kind == TARGET_SPLIT_BACK ? to->n - 1 - i : i);
}

static int64_t numbers_of(const struct checkpoint_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

/* A fused tensor: its rows belong to several roles. */
static int reach_parts(struct binder *b, const struct checkpoint_tensor *t,
                       const struct tensor_place *place)
{
    int64_t all = 0, before = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < place->to.n; i++) {
            int role = role_of(&place->to, i);
            int slot = slot_of(b, place, role);
            int64_t n;

            if (slot < 0)
                return binder_unused(b, t);
            n = b->slots[slot].n_out;
            if (pass == 0) {
                all += place->to.leads ? numbers_of(t) : n;
                continue;
            }
            if (reach(b, t, place, role, fused_rows(b, place, i, n, before, all)))
                return -1;
            before += n;
        }
    }
    return 0;
}

/* kv_b_proj: of each head the rows that make its key, whose transpose takes queries to latents,
 * then those that make its value. */
static int reach_latent(struct binder *b, const struct checkpoint_tensor *t,
                        struct tensor_place place)
{
    int slot = b->index[index_of(place.layer, place.to.branch, ROLE_MLA_EMBED_Q)];
    const struct mla_spec *s;
    int64_t rows;

    if (place.part == PART_BIAS && is_zero(t))
        return 0;
    if (slot < 0 || place.part == PART_BIAS)
        return binder_unused(b, t);
    s = &b->m->spec->layers[place.layer].branches[place.to.branch].mla;
    rows = s->nope_dim + s->v_dim;
    for (place.expert = 0; place.expert < s->n_heads; place.expert++) {
        struct piece key = {.rows = rows * s->n_heads, .row = rows * place.expert, .turned = true};
        struct piece value = {.rows = key.rows, .row = key.row + s->nope_dim};

        if (reach(b, t, &place, ROLE_MLA_EMBED_Q, key) ||
            reach(b, t, &place, ROLE_MLA_UNEMBED, value))
            return -1;
    }
    return 0;
}

const struct nn_slot *binder_slot(const struct binder *b, const struct tensor_place *place,
                                  int64_t *rows)
{
    bool one = place->to.kind == TARGET_SLOTS;
    const struct nn_slot *first = NULL;

    *rows = 0;
    if (place->layer >= b->m->spec->n_layers || place->to.second)
        return NULL;
    for (int i = 0; i < (one ? 1 : place->to.n); i++) {
        int role = one ? (int)place->to.first + place->alternative : role_of(&place->to, i);
        int slot = slot_of(b, place, role);

        if (slot < 0)
            return NULL;
        *rows += b->slots[slot].n_out;
        first = first ? first : &b->slots[slot];
    }
    return first;
}

int binder_lead(struct binder *b, const struct checkpoint_tensor *t, struct tensor_place place)
{
    struct piece rows = {0};

    if (place.part == PART_OTHER)
        place.part = place.to.bias ? PART_BIAS
                     : place.to.scales
                         ? PART_SCALES
                         : PART_WEIGHT; /* stacked experts carry no ".weight" in some checkpoints */
    if (place.layer >= 0 && place.to.second)
        place.layer += b->m->spec->second_layers;
    if (place.layer >= b->m->spec->n_layers && b->m->spec->more_layers)
        return 0;
    if (place.layer >= b->m->spec->n_layers)
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is of layer %d; config.json says %d layers", b->path, t->name,
                    place.layer, b->m->spec->n_layers);
    if (place.to.kind == TARGET_LATENT)
        return reach_latent(b, t, place);
    if (place.to.kind != TARGET_SLOTS)
        return reach_parts(b, t, &place);
    if (place.to.first == ROLE_EMBED_TOKENS && t->n_dims > 0 &&
        t->shape[0] == b->m->spec->embed_rows)
        rows.rows = b->m->spec->embed_rows;
    return reach(b, t, &place, (int)place.to.first + place.alternative, rows);
}

/* Does the adapter part the head from the embedding that it was tied to? */
static bool unties(const struct binder *b)
{
    return b->adapter && b->adapter->unties;
}

static int lead_tensor(struct binder *b, const struct checkpoint_tensor *t)
{
    struct tensor_place place = tensor_place(b->m->family, b->m->spec, t->name);

    if (place.to.kind == TARGET_IGNORE || place.part == PART_UNUSED)
        return 0;
    if (place.to.kind == TARGET_NONE)
        return binder_unused(b, t);
    b->n_signs += place.part == PART_SIGNS;
    if (place.to.first == ROLE_LM_HEAD && place.part != PART_BIAS && unties(b))
        return 0; /* the embedding serves, apart from what the adapter makes of it */
    if (place.to.first == ROLE_EMBED_TOKENS && unties(b)) {
        struct tensor_place head = place;

        head.to.first = ROLE_LM_HEAD;
        if (binder_lead(b, t, head))
            return -1;
    }
    if (place.to.first == ROLE_LM_HEAD && b->m->spec->tie_word_embeddings) {
        if (place.part != PART_BIAS)
            return 0; /* the embedding serves */
        place.to.first = ROLE_HEAD_BIAS;
        place.part = PART_WEIGHT;
    }
    return binder_lead(b, t, place);
}

bool checkpoint_has_head(const struct family *f, const checkpoint *c)
{
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        struct tensor_place place = tensor_place(f, NULL, checkpoint_at(c, i)->name);

        if (place.to.kind == TARGET_SLOTS && place.to.first == ROLE_LM_HEAD &&
            place.part != PART_BIAS)
            return true;
    }
    return false;
}

/* How many matrices are to be repacked. */
static void count_packed(struct binder *b)
{
    for (int i = 0; i < b->n_slots; i++)
        for (int e = 0; e < (b->slots[i].n_experts ? b->slots[i].n_experts : 1); e++) {
            const struct piece *p = &b->pieces[i][b->pieces[i][0].stacked ? 0 : e];

            b->n_packed += p->part[PART_WEIGHT] && (is_packed(p) || has_levels(b, p, &b->slots[i]));
        }
}

/* The embedding once more, as the head on another device. */
static int fill_tied_head(struct binder *b)
{
    int slot = b->index[index_of(-1, -1, ROLE_EMBED_TOKENS)];
    struct nn_slot head = b->slots[slot];

    head.weight = &b->m->nn->lm_head.w;
    head.rotation = &b->m->nn->lm_head.rotation;
    b->dev = nn_part_of(b->m->nn, -1, ROLE_LM_HEAD)->dev;
    return binder_fill(b, &head, b->pieces[slot]);
}

/* Three tensors, one after another, as one. NULL with the error. */
static const struct checkpoint_tensor *joined(const struct binder *b, struct piece *const parts[3])
{
    struct checkpoint_tensor *whole = arena_array(b->memory, struct checkpoint_tensor, 1);
    uint8_t *data = NULL;
    size_t size = 0;

    for (int i = 0; i < 3; i++)
        size += parts[i]->part[PART_WEIGHT]->size;
    if (whole)
        data = arena_array(b->memory, uint8_t, size);
    if (!data)
        return fail_null(b->err, CLM_ERR_NOMEM, "%s: no memory for convolutions", b->path);
    *whole = *parts[0]->part[PART_WEIGHT];
    whole->shape[0] = 0;
    whole->size = 0;
    for (int i = 0; i < 3; i++) {
        const struct checkpoint_tensor *t = parts[i]->part[PART_WEIGHT];

        memcpy(data + whole->size, t->data, t->size);
        whole->size += t->size;
        whole->shape[0] += t->shape[0];
    }
    whole->data = data;
    return whole;
}

/* transformers cuts what it has joined into equal parts: the convolutions of queries, keys and
 * values of a layer, whose values are of another size. */
static int join_convolutions(struct binder *b, int layer)
{
    const struct nn_slot *slots[3];
    struct piece *parts[3];
    int64_t wanted = 0, there = 0, before = 0;
    bool fits = true;

    for (int i = 0; i < 3; i++) {
        int slot = b->index[index_of(layer, 0, (int)ROLE_DELTA_CONV_Q + i)];
        const struct checkpoint_tensor *t = slot < 0 ? NULL : b->pieces[slot][0].part[PART_WEIGHT];

        if (!t || b->pieces[slot][0].rows || t->n_dims != 3)
            return 0;
        slots[i] = &b->slots[slot];
        parts[i] = b->pieces[slot];
        if (t->type != parts[0]->part[PART_WEIGHT]->type)
            return 0;
        wanted += slots[i]->n_out;
        there += numbers_of(t);
        fits &= numbers_of(t) == slots[i]->n_out;
    }
    if (!fits && wanted == there) {
        const struct checkpoint_tensor *whole = joined(b, parts);

        if (!whole)
            return -1;
        for (int i = 0; i < 3; before += slots[i++]->n_out)
            *parts[i] =
                (struct piece){.part = {[PART_WEIGHT] = whole}, .rows = there, .row = before};
    }
    return 0;
}

/* While weights go to a device that keeps its memory to itself. Repacking tells of itself. */
static void show_loading(const struct binder *b, int i)
{
    int now = (int)(100.0 * i / b->n_slots);

    if (b->dev->ops->reads_host || b->n_packed > 0)
        return;
    if (i == b->n_slots)
        log_say(b->log, LOG_PROGRESS, "%s", "");
    else if (i == 0 || now > (int)(100.0 * (i - 1) / b->n_slots))
        log_say(b->log, LOG_PROGRESS, "Loading weights: %d%%", now);
}

int model_bind(struct model *m, const char *path, struct adapter *adapter, const struct log *log,
               clm_error *err)
{
    struct binder b = {
        .m = m, .path = path, .adapter = adapter, .log = log, .err = err, .memory = arena_open(0)};
    int rc = -1;

    if (!b.memory) {
        fail(err, CLM_ERR_NOMEM, "%s: no memory", path);
        goto cleanup;
    }
    if (foreign_read(&b) || collect_slots(&b))
        goto cleanup;
    for (size_t i = 0; i < checkpoint_count(m->weights); i++)
        if (lead_tensor(&b, checkpoint_at(m->weights, i)))
            goto cleanup;
    if (b.adapter && adapt_lead(&b))
        goto cleanup;
    if (binder_check_rotations(&b))
        goto cleanup;
    for (int i = 0; i < m->spec->n_layers; i++)
        if (m->spec->layers[i].branches[0].op == OP_DELTA && join_convolutions(&b, i))
            goto cleanup;
    count_packed(&b);
    for (int i = 0; i < b.n_slots; i++) {
        b.dev = nn_part_of(m->nn, b.slots[i].layer, b.slots[i].role)->dev;
        show_loading(&b, i);
        if (binder_fill(&b, &b.slots[i], b.pieces[i]) ||
            (b.adapter && adapt_fill(&b, &b.slots[i], b.additions[i])))
            goto cleanup;
    }
    show_loading(&b, b.n_slots);
    if (nn_tied_apart(m->nn) && fill_tied_head(&b))
        goto cleanup;
    rc = config_done(m->config, err); /* of the entries that were read on the way */

cleanup:
    if (rc)
        log_say(log, LOG_PROGRESS, "%s", "");
    thread_pool_close(b.pool);
    arena_close(b.memory);
    return rc;
}
