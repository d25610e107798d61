/* models/bind.c: from tensors by name to weights by place.
 *
 * First every tensor is led by its name to the places it serves (a fused projection serves several,
 * a stack of experts one); then every place is made from the tensors that reached it, and must be
 * full.
 */
#include "models/bind.h"

#include <stdio.h>
#include <string.h>

#include "device/weight.h"
#include "models/names.h"

#define N_PARTS 4

/* What has reached one place, or one expert of it: rows [row, row + n_out) of each tensor. */
struct piece {
    const struct checkpoint_tensor *part[N_PARTS];
    int64_t row;  /* of a fused tensor, where this place's rows begin */
    int64_t rows; /* rows of the whole tensor; 0: those of the place */
    bool stacked; /* the tensors hold all experts, outermost */
};

struct binder {
    struct model *m;
    const char *path;
    struct nn_slot *slots;
    struct piece **pieces; /* [slots][max(1, n_experts)] */
    int n_slots;
    int *index; /* [(layer + 1), branch + 1, role] -> slot, -1: none */
    arena *memory;
    clm_error *err;
};

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
    if (!b->pieces[b->n_slots])
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
    b->index = arena_array(b->memory, int, places);
    if (!b->slots || !b->pieces || !b->index)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for a table of %d weights", b->path, n);
    for (size_t i = 0; i < places; i++)
        b->index[i] = -1;
    if (nn_slots(b->m->nn, add_slot, b))
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for a table of %d weights", b->path, n);
    return 0;
}

/* "[2, 3]" into out. */
static const char *shape_text(char *out, size_t size, const struct checkpoint_tensor *t)
{
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < t->n_dims && used + 24 < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "",
                                 (long long)t->shape[i]);
    return out;
}

static int wrong_shape(const struct binder *b, const struct checkpoint_tensor *t,
                       const char *expected)
{
    char have[128];

    return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s has shape [%s]; config.json asks for %s",
                b->path, t->name, shape_text(have, sizeof have, t), expected);
}

static int unused(const struct binder *b, const struct checkpoint_tensor *t)
{
    return fail(b->err, CLM_ERR_FORMAT,
                "%s: tensor %s has no place in a model of type %s as config.json describes it",
                b->path, t->name, b->m->spec->model_type);
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

/* The tensor goes to one place. */
static int reach(struct binder *b, const struct checkpoint_tensor *t,
                 const struct tensor_place *place, int role, int64_t row, int64_t rows)
{
    int slot = b->index[index_of(place->layer, place->to.branch, role)];
    const struct checkpoint_tensor *other;
    struct piece *piece;
    int expert = place->expert < 0 ? 0 : place->expert;

    if (slot < 0 || (place->expert >= 0) > (b->slots[slot].n_experts > 0))
        return unused(b, t);
    if (expert >= (b->slots[slot].n_experts ? b->slots[slot].n_experts : 1))
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is of expert %d; config.json says %d experts", b->path, t->name,
                    expert, b->slots[slot].n_experts);
    other = rival(b, slot, place->expert, (int)place->part);
    if (other)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensors %s and %s are the same weight", b->path,
                    other->name, t->name);
    piece = &b->pieces[slot][expert];
    piece->part[place->part] = t;
    piece->row = row;
    piece->rows = rows;
    piece->stacked = b->slots[slot].n_experts > 0 && place->expert < 0;
    return 0;
}

/* A fused tensor: its rows belong to consecutive roles. */
static int reach_parts(struct binder *b, const struct checkpoint_tensor *t,
                       const struct tensor_place *place)
{
    int64_t rows = 0, row = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < place->to.n; i++) {
            int role = (int)place->to.first + i;
            int slot = b->index[index_of(place->layer, place->to.branch, role)];

            if (slot < 0)
                return unused(b, t);
            if (pass == 0) {
                rows += b->slots[slot].n_out;
                continue;
            }
            if (reach(b, t, place, role, row, rows))
                return -1;
            row += b->slots[slot].n_out;
        }
    }
    return 0;
}

static int lead_tensor(struct binder *b, const struct checkpoint_tensor *t)
{
    struct tensor_place place = tensor_place(b->m->family, t->name);

    if (place.to.kind == TARGET_IGNORE)
        return 0;
    if (place.to.kind == TARGET_NONE)
        return unused(b, t);
    if (place.to.first == ROLE_LM_HEAD && b->m->spec->tie_word_embeddings)
        return 0; /* the embedding serves */
    if (place.part == PART_OTHER)
        place.part = PART_WEIGHT; /* stacked experts carry no ".weight" in some checkpoints */
    if (place.layer >= b->m->spec->n_layers)
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s: tensor %s is of layer %d; config.json says %d layers", b->path, t->name,
                    place.layer, b->m->spec->n_layers);
    if (place.to.kind == TARGET_SPLIT)
        return reach_parts(b, t, &place);
    return reach(b, t, &place, (int)place.to.first + place.alternative, 0, 0);
}

static int missing(const struct binder *b, const struct nn_slot *s, int expert, const char *part)
{
    const char *pattern = pattern_of(b->m->family, s->branch, s->role);
    char where[64] = "";

    if (s->layer >= 0 && s->n_experts)
        snprintf(where, sizeof where, " of layer %d, expert %d", s->layer, expert);
    else if (s->layer >= 0)
        snprintf(where, sizeof where, " of layer %d", s->layer);
    return fail(b->err, CLM_ERR_FORMAT, "%s: no tensor holds the %s of %s%s (%s)", b->path, part,
                weight_role_name(s->role), where,
                pattern ? pattern : "this layout has no name for it");
}

/* The bytes of rows [first, first + n) of one expert of a tensor whose last two dimensions are rows
 * and cols (cols 0: the last one is rows), after checking that it is [experts,] rows[, cols]. NULL:
 * *err. */
static const void *slice(const struct binder *b, const struct checkpoint_tensor *t,
                         const struct piece *p, const struct nn_slot *s, int expert, int64_t cols)
{
    int64_t rows = p->rows ? p->rows : s->n_out;
    int at = p->stacked, n_dims = at + 1 + (cols > 0);
    size_t row_bytes = dtype_size(t->type) * (size_t)(cols > 0 ? cols : 1);
    char expected[96];

    if (t->n_dims == n_dims && (!at || t->shape[0] == s->n_experts) && t->shape[at] == rows &&
        (cols == 0 || t->shape[at + 1] == cols))
        return (const uint8_t *)t->data +
               ((size_t)(at ? expert : 0) * (size_t)rows + (size_t)p->row) * row_bytes;
    if (at)
        snprintf(expected, sizeof expected, cols ? "[%d, %lld, %lld]" : "[%d, %lld]", s->n_experts,
                 (long long)rows, (long long)cols);
    else
        snprintf(expected, sizeof expected, cols ? "[%lld, %lld]" : "[%lld]", (long long)rows,
                 (long long)cols);
    wrong_shape(b, t, expected);
    return NULL;
}

/* Bits and groups follow from the shapes, since n_in is known. */
static int read_quantised(const struct binder *b, struct weight *w, const struct piece *p)
{
    const struct checkpoint_tensor *q = p->part[PART_WEIGHT], *s = p->part[PART_SCALES];
    int64_t words = q->n_dims ? q->shape[q->n_dims - 1] : 0;
    int64_t groups = s->n_dims ? s->shape[s->n_dims - 1] : 0;

    if (q->type != DTYPE_U32)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is %s; with scales it must be U32",
                    b->path, q->name, dtype_name(q->type));
    if (words <= 0 || groups <= 0 || words > w->n_in || 32 * words % w->n_in || w->n_in % groups)
        return fail(
            b->err, CLM_ERR_FORMAT,
            "%s: tensor %s packs %lld words and %lld groups in a row; config.json says %d inputs",
            b->path, q->name, (long long)words, (long long)groups, w->n_in);
    w->bits = (int)(32 * words / w->n_in);
    w->group_size = (int)(w->n_in / groups);
    w->scale_type = s->type;
    if (s->type != DTYPE_U8) {
        w->format = WEIGHT_AFFINE;
        return 0;
    }
    w->format = w->bits == 8 ? WEIGHT_MXFP8 : w->group_size == 16 ? WEIGHT_NVFP4 : WEIGHT_MXFP4;
    return 0;
}

static const char *mode_name(enum weight_format format)
{
    switch (format) {
    case WEIGHT_MXFP4:
        return "mxfp4";
    case WEIGHT_NVFP4:
        return "nvfp4";
    case WEIGHT_MXFP8:
        return "mxfp8";
    default:
        return "affine";
    }
}

/* What config.json says of this very tensor must agree with what it is. */
static int check_entry(const struct binder *b, const struct weight *w,
                       const struct checkpoint_tensor *t)
{
    config *all = config_object(b->m->config, "quantization");
    size_t n = strlen(t->name) > 7 ? strlen(t->name) - 7 : 0; /* without ".weight" */
    char *module = arena_strndup(b->memory, t->name, n);
    config *entry;
    int bits, group_size;
    const char *mode;

    if (!module)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory", b->path);
    if (!all || config_kind(all, module) != CONFIG_OBJECT)
        return 0;
    entry = config_object(all, module);
    bits = config_int_or(entry, "bits", w->bits);
    group_size = config_int_or(entry, "group_size", w->group_size);
    mode = config_string_or(entry, "mode", mode_name(w->format));
    if (bits == w->bits && group_size == w->group_size && strcmp(mode, mode_name(w->format)) == 0)
        return 0;
    return fail(
        b->err, CLM_ERR_FORMAT,
        "%s: %s holds %s %d-bit groups of %d; its entry in config.json says %s %d-bit groups of %d",
        b->path, t->name, mode_name(w->format), w->bits, w->group_size, mode, bits, group_size);
}

static int set_quantised(const struct binder *b, struct weight *w, const struct piece *p,
                         const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *q = p->part[PART_WEIGHT], *biases = p->part[PART_BIASES];
    device *d = b->m->dev;
    int64_t words, groups;

    if (read_quantised(b, w, p))
        return -1;
    words = (int64_t)w->n_in * w->bits / 32;
    groups = w->n_in / w->group_size;
    w->data = slice(b, q, p, s, expert, words);
    w->scales = slice(b, p->part[PART_SCALES], p, s, expert, groups);
    if (!w->data || !w->scales)
        return -1;
    if (w->format == WEIGHT_AFFINE) {
        if (!biases)
            return missing(b, s, expert, "quantisation biases");
        if (biases->type != w->scale_type)
            return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is %s, its scales are %s", b->path,
                        biases->name, dtype_name(biases->type), dtype_name(w->scale_type));
        w->biases = slice(b, biases, p, s, expert, groups);
        if (!w->biases)
            return -1;
    }
    if (weight_check(w, q->name, b->err) || check_entry(b, w, q))
        return -1;
    if (w->format == WEIGHT_AFFINE)
        w->biases = d->ops->map(d, w->biases, weight_scale_row_bytes(w) * (size_t)w->n_out, b->err);
    w->scales = d->ops->map(d, w->scales, weight_scale_row_bytes(w) * (size_t)w->n_out, b->err);
    w->data = d->ops->map(d, w->data, weight_row_bytes(w) * (size_t)w->n_out, b->err);
    return w->data && w->scales && (w->format != WEIGHT_AFFINE || w->biases) ? 0 : -1;
}

static int set_dense(const struct binder *b, struct weight *w, const struct piece *p,
                     const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT];
    device *d = b->m->dev;

    switch (t->type) {
    case DTYPE_F32:
        w->format = WEIGHT_F32;
        break;
    case DTYPE_F16:
        w->format = WEIGHT_F16;
        break;
    case DTYPE_BF16:
        w->format = WEIGHT_BF16;
        break;
    default:
        return fail(b->err, CLM_ERR_UNSUPPORTED,
                    "%s: tensor %s is %s; clm reads F32, F16, BF16 and MLX quantised matrices",
                    b->path, t->name, dtype_name(t->type));
    }
    w->data = slice(b, t, p, s, expert, s->n_in);
    if (!w->data)
        return -1;
    w->data = d->ops->map(d, w->data, weight_row_bytes(w) * (size_t)w->n_out, b->err);
    return w->data ? 0 : -1;
}

static int set_matrix(struct binder *b, const struct nn_slot *s, const struct piece *pieces)
{
    int n = s->n_experts ? s->n_experts : 1;

    for (int e = 0; e < n; e++) {
        const struct piece *p = &pieces[pieces[0].stacked ? 0 : e];
        struct weight *w = &s->weight[e];

        if (!p->part[PART_WEIGHT])
            return missing(b, s, e, "weight");
        *w = (struct weight){.n_out = s->n_out, .n_in = s->n_in};
        if (p->part[PART_SCALES] ? set_quantised(b, w, p, s, e) : set_dense(b, w, p, s, e))
            return -1;
        if (w->format != s->weight[0].format || w->bits != s->weight[0].bits ||
            w->group_size != s->weight[0].group_size || w->scale_type != s->weight[0].scale_type)
            return fail(b->err, CLM_ERR_UNSUPPORTED,
                        "%s: tensor %s is stored unlike the other experts of its layer", b->path,
                        p->part[PART_WEIGHT]->name);
        b->m->weight_bytes += weight_bytes(w);
    }
    return 0;
}

/* A vector of n_out numbers (of each expert) as f32 on the device, offset added. */
static int set_vector(struct binder *b, const struct nn_slot *s, const struct piece *pieces,
                      enum tensor_part part, float offset, const float **vector)
{
    int n_experts = s->n_experts ? s->n_experts : 1;
    size_t n = (size_t)s->n_out, total = n * (size_t)n_experts;
    size_t mark = arena_mark(b->memory);
    float *values = arena_array(b->memory, float, total);
    void *on_device;

    if (!values)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for %zu numbers", b->path, total);
    for (int e = 0; e < n_experts; e++) {
        const struct piece *p = &pieces[pieces[0].stacked ? 0 : e];
        const struct checkpoint_tensor *t = p->part[part];
        const void *data;

        if (!t)
            return missing(b, s, e, part == PART_BIAS ? "bias" : "weight");
        data = slice(b, t, p, s, e, 0);
        if (!data)
            return -1;
        if ((t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16) ||
            !dtype_to_f32(values + (size_t)e * n, data, t->type, n))
            return fail(b->err, CLM_ERR_UNSUPPORTED,
                        "%s: tensor %s is %s; clm reads F32, F16 and BF16 vectors", b->path,
                        t->name, dtype_name(t->type));
    }
    for (size_t i = 0; offset != 0 && i < total; i++)
        values[i] += offset;
    on_device = model_alloc(b->m, total * sizeof(float), b->err);
    if (!on_device)
        return -1;
    b->m->dev->ops->upload(b->m->dev, on_device, values, total * sizeof(float));
    b->m->weight_bytes += total * sizeof(float);
    *vector = on_device;
    arena_rewind(b->memory, mark);
    return 0;
}

/* No tensor may have reached a place that has no use for it. */
static int check_parts(const struct binder *b, const struct nn_slot *s, const struct piece *p)
{
    if (p->part[PART_BIAS] && !s->bias)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is there; config.json says no bias",
                    b->path, p->part[PART_BIAS]->name);
    if (p->part[PART_SCALES] && !s->n_in)
        return unused(b, p->part[PART_SCALES]);
    if (p->part[PART_BIASES] && !p->part[PART_SCALES])
        return unused(b, p->part[PART_BIASES]);
    return 0;
}

static int set_slot(struct binder *b, const struct nn_slot *s, const struct piece *pieces)
{
    int n = s->n_experts ? s->n_experts : 1;

    for (int e = 0; e < n; e++)
        if (check_parts(b, s, &pieces[e]))
            return -1;
    if (s->bias && set_vector(b, s, pieces, PART_BIAS, 0, s->bias))
        return -1;
    if (s->n_in)
        return set_matrix(b, s, pieces);
    return set_vector(b, s, pieces, PART_WEIGHT, s->offset, s->vector);
}

/* Quantised by other tools: what mlx-lm's converter did not write. */
static int check_quantisation(const struct binder *b)
{
    config *q = config_object(b->m->config, "quantization_config");
    const char *method = q ? config_string_or(q, "quant_method", NULL) : NULL;

    if (method)
        return fail(b->err, CLM_ERR_UNSUPPORTED,
                    "%s: weights quantised by \"%s\" are not supported; use an MLX or unquantised "
                    "checkpoint",
                    b->path, method);
    return 0;
}

bool checkpoint_has_head(const struct family *f, const checkpoint *c)
{
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        struct tensor_place place = tensor_place(f, checkpoint_at(c, i)->name);

        if (place.to.kind == TARGET_SLOTS && place.to.first == ROLE_LM_HEAD)
            return true;
    }
    return false;
}

int model_bind(struct model *m, const char *path, clm_error *err)
{
    struct binder b = {.m = m, .path = path, .err = err, .memory = arena_open(0)};
    int rc = -1;

    if (!b.memory) {
        fail(err, CLM_ERR_NOMEM, "%s: no memory", path);
        goto cleanup;
    }
    if (check_quantisation(&b) || collect_slots(&b))
        goto cleanup;
    for (size_t i = 0; i < checkpoint_count(m->weights); i++)
        if (lead_tensor(&b, checkpoint_at(m->weights, i)))
            goto cleanup;
    for (int i = 0; i < b.n_slots; i++)
        if (set_slot(&b, &b.slots[i], b.pieces[i]))
            goto cleanup;
    rc = config_done(m->config, err); /* of the entries that were read on the way */

cleanup:
    arena_close(b.memory);
    return rc;
}
