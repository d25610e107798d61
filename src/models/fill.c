/* models/fill.c: from the tensors that reached a place to its weight. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"

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

/* The product of the dimensions from the given one on; blocks of a row may have one of their own.
 */
static int64_t row_numbers(const struct checkpoint_tensor *t, int from)
{
    int64_t n = 1;

    for (int i = from; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

/* One expert of a tensor whose last two dimensions are rows and cols (cols 0: the last one is
 * rows), after checking that it is [experts,] rows[, cols], or cols, rows for transposed ones.
 * NULL: *err. */
static const uint8_t *expert_of(const struct binder *b, const struct checkpoint_tensor *t,
                                const struct piece *p, const struct nn_slot *s, int expert,
                                int64_t cols)
{
    int64_t rows = p->rows ? p->rows : s->n_out;
    bool turned = p->transposed && cols > 0;
    int64_t first = turned ? cols : rows, second = turned ? rows : cols;
    int at = p->stacked, n_dims = at + 1 + (cols > 0);
    size_t bytes = dtype_size(t->type) * (size_t)rows * (size_t)(cols > 0 ? cols : 1);
    char expected[96];

    if (cols == 0 && !at && t->size == bytes)
        return t->data; /* a vector, however it is folded */
    if (cols == 0 && at && t->size == bytes * (size_t)s->n_experts)
        return (const uint8_t *)t->data + (size_t)expert * bytes;
    if (at && cols > 0 && t->n_dims == 2 && t->shape[0] == s->n_experts * first &&
        t->shape[1] == second)
        return (const uint8_t *)t->data + (size_t)expert * bytes; /* a stack folded into rows */
    if (t->n_dims >= n_dims && (cols > 0 || t->n_dims == n_dims) &&
        (!at || t->shape[0] == s->n_experts) && t->shape[at] == first &&
        (cols == 0 || row_numbers(t, at + 1) == second))
        return (const uint8_t *)t->data + (size_t)(at ? expert : 0) * bytes;
    if (at)
        snprintf(expected, sizeof expected, cols ? "[%d, %lld, %lld]" : "[%d, %lld]", s->n_experts,
                 (long long)first, (long long)second);
    else
        snprintf(expected, sizeof expected, cols ? "[%lld, %lld]" : "[%lld]", (long long)first,
                 (long long)second);
    wrong_shape(b, t, expected);
    return NULL;
}

const uint8_t *binder_plane(const struct binder *b, const struct checkpoint_tensor *t,
                            const struct piece *p, const struct nn_slot *s, int expert,
                            int64_t rows, int64_t cols)
{
    int at = p->stacked;
    int64_t shape[3] = {s->n_experts, rows, cols};
    const int64_t *want = shape + 1 - at;
    int n_dims = at + 1 + (cols > 0);
    bool fits = t->n_dims == n_dims;
    char expected[96];

    if (at && cols > 0 && t->n_dims == 2 && t->shape[0] == s->n_experts * rows &&
        t->shape[1] == cols) /* a stack folded into rows */
        return (const uint8_t *)t->data + (size_t)expert * (t->size / (size_t)s->n_experts);

    for (int i = 0; fits && i < n_dims; i++)
        fits = t->shape[i] == want[i];
    if (fits)
        return (const uint8_t *)t->data +
               (at ? (size_t)expert * (t->size / (size_t)s->n_experts) : 0);
    snprintf(expected, sizeof expected,
             n_dims == 3   ? "[%lld, %lld, %lld]"
             : n_dims == 2 ? "[%lld, %lld]"
                           : "[%lld]",
             (long long)want[0], (long long)want[n_dims > 1], (long long)want[n_dims > 2 ? 2 : 0]);
    wrong_shape(b, t, expected);
    return NULL;
}

int64_t binder_source_row(const struct piece *p, int n_out, int o)
{
    int64_t block = p->stride ? p->block : n_out;

    return p->row + o / block * p->stride + o % block;
}

const void *binder_place(const struct binder *b, const void *from, size_t size)
{
    void *to = model_alloc(b->m, b->dev, size, b->err);

    if (to)
        b->dev->ops->upload(b->dev, to, from, size);
    return to;
}

uint8_t *binder_room(const struct binder *b, size_t size)
{
    uint8_t *room;

    if (b->dev->ops->reads_host)
        return model_alloc(b->m, b->dev, size, b->err);
    room = mem_alloc(size);
    return room ? room : fail_null(b->err, CLM_ERR_NOMEM, "%s: no memory", b->path);
}

const void *binder_settle(const struct binder *b, uint8_t *room, size_t size)
{
    const void *place = b->dev->ops->reads_host ? room : binder_place(b, room, size);

    binder_drop(b, room);
    return place;
}

void binder_drop(const struct binder *b, uint8_t *room)
{
    if (!b->dev->ops->reads_host)
        mem_free(room);
}

void store_number(uint8_t *numbers, size_t i, float f, enum weight_format format)
{
    uint16_t h = format == WEIGHT_F16 ? f32_to_f16(f) : f32_to_bf16(f);

    if (format == WEIGHT_F32)
        memcpy(numbers + 4 * i, &f, 4);
    else
        memcpy(numbers + 2 * i, &h, 2);
}

int binder_pool(struct binder *b)
{
    if (!b->pool)
        b->pool = thread_pool_open(0, b->err);
    return b->pool ? 0 : -1;
}

/* Copy the place's rows, each of row_bytes, from where they lie scattered. */
static void gather(uint8_t *to, const uint8_t *from, const struct piece *p, int n_out,
                   size_t row_bytes)
{
    int64_t block = p->stride ? p->block : n_out;

    for (int64_t done = 0, at = p->row; done < n_out; done += block, at += p->stride)
        memcpy(to + (size_t)done * row_bytes, from + (size_t)at * row_bytes,
               (size_t)block * row_bytes);
}

/* The same from a matrix [n_in, rows]: number i of output row o is number o of stored row i. */
static void transpose(uint8_t *to, const uint8_t *from, const struct piece *p, int n_out, int n_in,
                      size_t size)
{
    size_t rows = (size_t)(p->rows ? p->rows : n_out);

    for (int o = 0; o < n_out; o++) {
        size_t row = (size_t)binder_source_row(p, n_out, o);

        for (int i = 0; i < n_in; i++)
            memcpy(to + ((size_t)o * (size_t)n_in + (size_t)i) * size,
                   from + ((size_t)i * rows + row) * size, size);
    }
}

/* A view of rows as they lie, with those of all experts of a stack in one: a view for each would
 * take to a device that keeps its memory to itself in as many small pieces. */
static const void *map_rows(const struct binder *b, const struct checkpoint_tensor *t,
                            const struct piece *p, const struct nn_slot *s, const uint8_t *from,
                            size_t size)
{
    enum { ALIGNMENT = 16 };
    size_t at = (size_t)(from - (const uint8_t *)t->data);
    const uint8_t *all;

    if (!p->stacked || t->size / (size_t)s->n_experts % ALIGNMENT || at % ALIGNMENT)
        return b->dev->ops->map(b->dev, from, size, b->err);
    all = b->dev->ops->map(b->dev, t->data, t->size, b->err);
    return all ? all + at : NULL;
}

const void *binder_rows(const struct binder *b, const struct checkpoint_tensor *t,
                        const struct piece *p, const struct nn_slot *s, int expert, int64_t cols)
{
    const uint8_t *from = expert_of(b, t, p, s, expert, cols);
    device *d = b->dev;
    size_t row_bytes = dtype_size(t->type) * (size_t)cols, size = row_bytes * (size_t)s->n_out;
    void *to;
    uint8_t *copy;

    if (!from)
        return NULL;
    if (!p->stride && !p->transposed)
        return map_rows(b, t, p, s, from + (size_t)p->row * row_bytes, size);
    to = model_alloc(b->m, b->dev, size, b->err);
    copy = to ? mem_alloc(size) : NULL;
    if (!copy)
        return fail_null(b->err, CLM_ERR_NOMEM, "%s: no memory to put %s together", b->path,
                         t->name);
    if (p->transposed)
        transpose(copy, from, p, s->n_out, s->n_in, dtype_size(t->type));
    else
        gather(copy, from, p, s->n_out, row_bytes);
    d->ops->upload(d, to, copy, size);
    mem_free(copy);
    return to;
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
    if (!entry)
        return config_done(all, b->err);
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

int set_quantised(const struct binder *b, struct weight *w, const struct piece *p,
                  const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *q = p->part[PART_WEIGHT], *biases = p->part[PART_BIASES];
    int64_t words, groups;

    if (read_quantised(b, w, p))
        return -1;
    if (p->transposed)
        return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s is quantised and transposed",
                    b->path, q->name);
    words = (int64_t)w->n_in * w->bits / 8 / (int64_t)dtype_size(q->type);
    groups = w->n_in / w->group_size;
    if (w->format == WEIGHT_AFFINE) {
        if (!biases)
            return missing(b, s, expert, "quantisation biases");
        if (biases->type != w->scale_type)
            return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is %s, its scales are %s", b->path,
                        biases->name, dtype_name(biases->type), dtype_name(w->scale_type));
        w->biases = binder_rows(b, biases, p, s, expert, groups);
    }
    w->data = binder_rows(b, q, p, s, expert, words);
    w->scales = binder_rows(b, p->part[PART_SCALES], p, s, expert, groups);
    if (!w->data || !w->scales || (w->format == WEIGHT_AFFINE && !w->biases))
        return -1;
    return weight_check(w, q->name, b->err) || check_entry(b, w, q) ? -1 : 0;
}

int read_dense(const struct binder *b, struct weight *w, const struct checkpoint_tensor *t)
{
    if (weight_set_dense(w, t->type))
        return 0;
    return fail(b->err, CLM_ERR_UNSUPPORTED,
                "%s: tensor %s is %s; clm reads F32, F16, BF16 and MLX quantised matrices", b->path,
                t->name, dtype_name(t->type));
}

int set_dense(const struct binder *b, struct weight *w, const struct piece *p,
              const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT];

    if (read_dense(b, w, t))
        return -1;
    w->data = binder_rows(b, t, p, s, expert, s->n_in);
    return w->data ? 0 : -1;
}

/* One matrix of a slot. */
static int set_one(struct binder *b, struct weight *w, const struct piece *p,
                   const struct nn_slot *s, int expert)
{
    if (p->turned)
        return set_turned(b, w, p, s);
    if (b->foreign.general == 3 && !p->stacked && !p->transposed)
        return set_numbers(b, w, p, s);
    if (is_normed_head(b->m->spec, s, p))
        return set_normed(b, w, p, s);
    if (is_packed(p) || has_levels(b, p, s))
        return set_packed(b, w, p, s, expert);
    if (is_fp8(p))
        return set_fp8(b, w, p, s, expert);
    if (is_fp4(p))
        return set_fp4(b, w, p, s, expert);
    if (p->part[PART_SCALES])
        return set_quantised(b, w, p, s, expert);
    if (b->foreign.levels == LEVELS_FOUND && s->layer >= 0)
        return fail(b->err, CLM_ERR_UNSUPPORTED,
                    "%s: tensor %s: of such matrices clm does not find the levels of BitNet "
                    "(quantization_mode online)",
                    b->path, p->part[PART_WEIGHT]->name);
    return set_dense(b, w, p, s, expert);
}

static bool weights_alike(const struct weight *a, const struct weight *b)
{
    return a->format == b->format && a->bits == b->bits && a->group_size == b->group_size &&
           a->scale_type == b->scale_type && a->scale_rows == b->scale_rows;
}

/* The matrices of a slot, and how many there are before the first that is unlike the others. */
static int set_all(struct binder *b, const struct nn_slot *s, const struct piece *pieces, int *n)
{
    size_t before = b->m->weight_bytes;

    for (int e = 0; e < *n; e++) {
        const struct piece *p = &pieces[pieces[0].stacked ? 0 : e];
        struct weight *w = &s->weight[e];
        struct nn_slot own = *s;

        own.n_out += e * s->growth;
        if (!p->part[PART_WEIGHT])
            return missing(b, s, e, "weight");
        *w = (struct weight){.n_out = own.n_out, .n_in = s->n_in};
        if (set_one(b, w, p, &own, e))
            return -1;
        if (!weights_alike(w, s->weight)) {
            b->m->weight_bytes = before;
            *n = e;
            return 0;
        }
        b->m->weight_bytes += weight_bytes(w);
    }
    return 0;
}

static int set_matrix(struct binder *b, const struct nn_slot *s, const struct piece *pieces)
{
    int all = s->n_experts ? s->n_experts : 1, n = 0, rc = 0;

    for (int general = 0; general <= 3 && rc == 0 && n < all; general++) {
        n = all;
        b->foreign.general = general;
        rc = set_all(b, s, pieces, &n);
    }
    b->foreign.general = 0;
    if (rc)
        return -1;
    if (n < all)
        return fail(b->err, CLM_ERR_UNSUPPORTED,
                    "%s: tensor %s is stored unlike the other experts of its layer", b->path,
                    pieces[pieces[0].stacked ? 0 : n].part[PART_WEIGHT]->name);
    if (!pieces[0].part[PART_SIGNS])
        return 0;
    return s->rotation ? binder_rotate(b, s->rotation, pieces[0].part[PART_SIGNS], s->n_in)
                       : binder_unused(b, pieces[0].part[PART_SIGNS]);
}

/* The numbers of one expert's vector, side by side. NULL: *err. */
static const uint8_t *vector_of(struct binder *b, const struct checkpoint_tensor *t,
                                const struct piece *p, const struct nn_slot *s, int expert)
{
    size_t size = dtype_size(t->type);
    const uint8_t *from;
    uint8_t *copy;

    if (p->rows > s->n_out && !p->stacked && t->size == (size_t)s->n_out * size)
        return t->data; /* a bias of its own beside a weight that is a part of a tensor */
    from = expert_of(b, t, p, s, expert, 0);
    if (!from || !p->stride)
        return from ? from + (size_t)p->row * size : NULL;
    copy = arena_zeroed(b->memory, (size_t)s->n_out, size);
    if (!copy)
        return fail_null(b->err, CLM_ERR_NOMEM, "%s: no memory for %s", b->path, t->name);
    gather(copy, from, p, s->n_out, size);
    return copy;
}

/* What the model keeps out of the file: an offset, another form, and bounds. */
static void finish_vector(float *values, size_t n, const struct nn_slot *s)
{
    for (size_t i = 0; s->offset != 0 && i < n; i++)
        values[i] += s->offset;
    for (size_t i = 0; s->form == VECTOR_MINUS_EXP && i < n; i++)
        values[i] = -expf(values[i]);
    for (size_t i = 0; s->form == VECTOR_SOFTPLUS && i < n; i++)
        values[i] = fmaxf(values[i], 0) + log1pf(expf(-fabsf(values[i])));
    for (size_t i = 0; s->limit > 0 && i < n; i++)
        values[i] = fminf(fmaxf(values[i], -s->limit), s->limit);
}

/* From the last run on, so that none is overwritten before it is copied. */
static void repeat_runs(float *values, size_t n, const struct nn_slot *s)
{
    size_t run = (size_t)s->run, copies = (size_t)s->copies;

    for (size_t i = n / run; i-- > 0;)
        for (size_t j = copies; j-- > 0;)
            memmove(values + (i * copies + j) * run, values + i * run, run * sizeof *values);
}

/* A vector of n_out numbers (of each expert) as f32 on the device. */
static int set_vector(struct binder *b, const struct nn_slot *s, const struct piece *pieces,
                      enum tensor_part part, const float **vector)
{
    int n_experts = s->n_experts ? s->n_experts : 1;
    size_t n = (size_t)s->n_out, total = n * (size_t)n_experts;
    size_t copies = part == PART_WEIGHT && s->copies > 1 ? (size_t)s->copies : 1;
    size_t mark = arena_mark(b->memory);
    float *values = arena_array(b->memory, float, total *copies);
    void *on_device;

    if (!values)
        return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for %zu numbers", b->path, total);
    for (int e = 0; e < n_experts; e++) {
        const struct piece *p = &pieces[pieces[0].stacked ? 0 : e];
        const struct checkpoint_tensor *t = p->part[part];
        const uint8_t *data;

        if (!t)
            return missing(b, s, e, part == PART_BIAS ? "bias" : "weight");
        data = vector_of(b, t, p, s, e);
        if (!data)
            return -1;
        if ((t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16) ||
            !dtype_to_f32(values + (size_t)e * n, data, t->type, n))
            return fail(b->err, CLM_ERR_UNSUPPORTED,
                        "%s: tensor %s is %s; clm reads F32, F16 and BF16 vectors", b->path,
                        t->name, dtype_name(t->type));
    }
    if (part == PART_WEIGHT)
        finish_vector(values, total, s);
    if (copies > 1)
        repeat_runs(values, total, s);
    total *= copies;
    on_device = model_alloc(b->m, b->dev, total * sizeof(float), b->err);
    if (!on_device)
        return -1;
    b->dev->ops->upload(b->dev, on_device, values, total * sizeof(float));
    b->m->weight_bytes += total * sizeof(float);
    *vector = on_device;
    arena_rewind(b->memory, mark);
    return 0;
}

/* AutoGPTQ gave every matrix a bias, of zeros where the model has none. */
static bool adds_nothing(const struct piece *p)
{
    return p->part[PART_WEIGHT] && is_packed(p) && is_zero(p->part[PART_BIAS]);
}

/* No tensor may have reached a place that has no use for it. */
static int check_parts(const struct binder *b, const struct nn_slot *s, const struct piece *p)
{
    if (p->part[PART_BIAS] && !s->bias && !adds_nothing(p))
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is there; config.json says no bias",
                    b->path, p->part[PART_BIAS]->name);
    if (p->part[PART_SCALES] && !s->n_in)
        return binder_unused(b, p->part[PART_SCALES]);
    if (p->part[PART_BIASES] && !p->part[PART_SCALES])
        return binder_unused(b, p->part[PART_BIASES]);
    if (p->part[PART_SIGNS] && !s->n_in)
        return binder_unused(b, p->part[PART_SIGNS]);
    for (int i = PART_ZEROS; i <= PART_ORDER; i++)
        if (p->part[i] && (!p->part[PART_WEIGHT] || !is_packed(p)))
            return binder_unused(b, p->part[i]);
    return 0;
}

int binder_fill(struct binder *b, const struct nn_slot *s, const struct piece *pieces)
{
    int n = s->n_experts ? s->n_experts : 1;
    struct nn_slot bias = *s;

    if (s->optional && !pieces[0].part[PART_WEIGHT])
        return 0;

    for (int e = 0; e < n; e++)
        if (check_parts(b, s, &pieces[e]))
            return -1;
    bias.n_out = s->n_bias ? s->n_bias : s->n_out;
    if (s->bias && set_vector(b, &bias, pieces, PART_BIAS, s->bias))
        return -1;
    if (s->n_in)
        return set_matrix(b, s, pieces);
    return set_vector(b, s, pieces, PART_WEIGHT, s->vector);
}
