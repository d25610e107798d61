/* models/repack.c: matrices that other tools pack, as MLX affine ones of the same codes.
 *
 * (code - zero) * scale is code * scale + bias with bias = -zero * scale, so no code changes. Where
 * they already lie as MLX has them, in words along the row, they stay in the mapped file; all
 * others are put in order once, tile by tile over the threads. Inputs that GPTQ took in another
 * order (act-order) are stored group after group, and the activations follow. What has no affine
 * form (a group of 16, a row of 24) becomes numbers.
 */
#include <string.h>

#include "base/number.h"
#include "device/weight.h"
#include "models/bind.h"
#include "models/foreign.h"
#include "models/packed.h"

#define TILE 64 /* rows that are unpacked together, so that each word read serves several */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

bool is_packed(const struct piece *p)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT], *s = p->part[PART_SCALES];

    if (ends_with(t->name, ".qweight"))
        return true;
    if (ends_with(t->name, ".weight_packed"))
        return t->type == DTYPE_I32 || t->type == DTYPE_U32;
    return s && (t->type == DTYPE_I8 || t->type == DTYPE_U8) && dtype_size(s->type) > 1;
}

/* The last two dimensions; -1 of what a tensor has not got. */
static int64_t dim_of(const struct checkpoint_tensor *t, int from_last)
{
    return t->n_dims > from_last ? t->shape[t->n_dims - 1 - from_last] : -1;
}

static int unknown_packing(const struct binder *b, const struct checkpoint_tensor *t, int64_t rows,
                           int n_in)
{
    return fail(b->err, CLM_ERR_FORMAT,
                "%s: tensor %s, %s [%lld, %lld], is no packing of %lld x %d numbers that clm knows",
                b->path, t->name, dtype_name(t->type), (long long)dim_of(t, 1),
                (long long)dim_of(t, 0), (long long)rows, n_in);
}

/* What a qweight is follows from its shape. */
static int read_qweight(const struct binder *b, struct packed *m, const struct checkpoint_tensor *t)
{
    int64_t first = dim_of(t, 1), second = dim_of(t, 0);
    static const int known[] = {2, 3, 4, 8};

    m->kind = PACK_GPTQ;
    if (first == m->n_in && second * 8 == m->rows) {
        m->kind = PACK_AWQ;
        m->bits = 4;
        return 0;
    }
    for (size_t i = 0; i < COUNT(known) && second == m->rows; i++)
        if (first * 32 == (int64_t)m->n_in * known[i] && m->rows * known[i] % 32 == 0)
            m->bits = known[i];
    return m->bits ? 0 : unknown_packing(b, t, m->rows, m->n_in);
}

static int read_weight_packed(const struct binder *b, struct packed *m,
                              const struct checkpoint_tensor *t)
{
    static const int known[] = {8, 6, 5, 3, 2, 4};

    m->kind = PACK_ROWS;
    for (size_t i = 0; i < COUNT(known) && dim_of(t, 1) == m->rows; i++)
        if (dim_of(t, 0) == ((int64_t)m->n_in * known[i] + 31) / 32 &&
            (!m->bits || m->bits != b->foreign.likely_bits))
            m->bits = known[i];
    return m->bits ? 0 : unknown_packing(b, t, m->rows, m->n_in);
}

static int read_codes(const struct binder *b, struct packed *m, const struct piece *p,
                      const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_WEIGHT];
    int rc = 0;

    if (has_levels(b, p, s))
        m->kind = PACK_LEVELS;
    else if (ends_with(t->name, ".qweight"))
        rc = read_qweight(b, m, t);
    else if (ends_with(t->name, ".weight_packed"))
        rc = read_weight_packed(b, m, t);
    else
        m->kind = t->type == DTYPE_I8 ? PACK_INT8 : PACK_TERNARY;
    if (rc)
        return -1;
    if (m->kind == PACK_INT8)
        m->bits = 8;
    if (m->kind == PACK_TERNARY || m->kind == PACK_LEVELS)
        m->bits = 2;
    m->number_type = t->type;
    if (m->kind != PACK_LEVELS &&
        dtype_size(t->type) != (m->kind == PACK_INT8 || m->kind == PACK_TERNARY ? 1 : 4))
        return unknown_packing(b, t, m->rows, m->n_in);
    if (m->kind == PACK_INT8 || m->kind == PACK_LEVELS)
        m->codes = binder_plane(b, t, p, s, expert, m->rows, m->n_in);
    else if (m->kind == PACK_TERNARY)
        m->codes = binder_plane(b, t, p, s, expert, (m->rows + 3) / 4, m->n_in);
    else
        m->codes = binder_plane(b, t, p, s, expert, dim_of(t, 1), dim_of(t, 0));
    return m->codes ? 0 : -1;
}

/* Groups by the shape of the scales: of equal size, but for a last one that may be shorter where
 * config.json gives the size. */
static int read_groups(const struct binder *b, struct packed *m, const struct checkpoint_tensor *t,
                       int64_t n)
{
    int size = b->foreign.group_size;

    if (n < 1 || n > m->n_in)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s holds %lld groups of %d inputs", b->path,
                    t->name, (long long)n, m->n_in);
    m->n_groups = (int)n;
    if (n > 1 && size > 0 && (m->n_in + size - 1) / size == n)
        m->group_size = size;
    else if (m->n_in % n == 0)
        m->group_size = (int)(m->n_in / n);
    else
        return fail(
            b->err, CLM_ERR_FORMAT,
            "%s: tensor %s holds scales for %lld groups, which %d inputs do not divide into",
            b->path, t->name, (long long)n, m->n_in);
    return 0;
}

static int read_scales(const struct binder *b, struct packed *m, const struct piece *p,
                       const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_SCALES];
    bool by_group = m->kind == PACK_AWQ || m->kind == PACK_GPTQ;
    int64_t last = t ? dim_of(t, 0) : 0, one = p->stacked ? s->n_experts : 1;

    if (!t)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s is packed, but has no scales", b->path,
                    p->part[PART_WEIGHT]->name);
    if (t->type != DTYPE_F32 && t->type != DTYPE_F16 && t->type != DTYPE_BF16)
        return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s is %s; scales are F32, F16 or BF16",
                    b->path, t->name, dtype_name(t->type));
    m->scale_type = t->type;
    m->divides = m->kind == PACK_TERNARY && b->foreign.scales_divide;
    if (!by_group && t->size == dtype_size(t->type) * (size_t)one) { /* one for all */
        m->scales = (const uint8_t *)t->data + (p->stacked ? expert : 0) * dtype_size(t->type);
        return read_groups(b, m, t, 1);
    }
    if (!by_group && last == m->rows && t->n_dims == 1 + p->stacked)
        last = 1; /* one for each row, in a vector */
    if (read_groups(b, m, t, by_group ? dim_of(t, 1) : last))
        return -1;
    m->scale_row = by_group ? 1 : m->n_groups;
    m->scale_group = by_group ? m->rows : 1;
    if (t->n_dims == 1 + p->stacked)
        m->scales = binder_plane(b, t, p, s, expert, m->rows, 0);
    else
        m->scales = by_group ? binder_plane(b, t, p, s, expert, m->n_groups, m->rows)
                             : binder_plane(b, t, p, s, expert, m->rows, m->n_groups);
    return m->scales ? 0 : -1;
}

/* As of symmetric quantisation, where they may be stored all the same. */
static bool zeros_in_the_middle(const struct packed *m)
{
    for (int64_t row = 0; row < m->rows; row++)
        for (int g = 0; g < m->n_groups; g++)
            if (packed_zero(m, row, g) != 1 << (m->bits - 1))
                return false;
    return true;
}

static int read_zeros(const struct binder *b, struct packed *m, const struct piece *p,
                      const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_ZEROS];
    int64_t first = m->n_groups, second = m->rows * m->bits / 32;

    if (!t)
        return 0;
    if (m->kind == PACK_TERNARY)
        return binder_unused(b, t);
    if (m->kind == PACK_ROWS) {
        first = (m->rows * m->bits + 31) / 32;
        second = m->n_groups;
    } else if (m->kind == PACK_INT8) {
        first = m->rows;
        second = m->n_groups;
    }
    if (dtype_size(t->type) != (m->kind == PACK_INT8 ? 1 : 4))
        return unknown_packing(b, t, m->rows, m->n_groups);
    m->one_zero = m->kind == PACK_INT8 && t->size == (p->stacked ? (size_t)s->n_experts : 1);
    m->zeros = m->one_zero ? (const uint8_t *)t->data + (p->stacked ? expert : 0)
                           : binder_plane(b, t, p, s, expert, first, second);
    m->zero_add = m->kind == PACK_GPTQ ? b->foreign.zero_add : 0;
    if (!m->zeros)
        return -1;
    if (m->kind == PACK_GPTQ && !b->foreign.general && zeros_in_the_middle(m))
        m->zeros = NULL;
    return 0;
}

/* The groups of inputs that are not in order; an order that is none is dropped. */
static int read_order(const struct binder *b, struct packed *m, const struct piece *p,
                      const struct nn_slot *s, int expert)
{
    const struct checkpoint_tensor *t = p->part[PART_ORDER];
    bool in_order = true;

    if (!t)
        return 0;
    if (t->type != DTYPE_I32)
        return unknown_packing(b, t, 1, m->n_in);
    m->g_idx = binder_plane(b, t, p, s, expert, m->n_in, 0);
    if (!m->g_idx)
        return -1;
    for (int i = 0; i < m->n_in; i++) {
        uint32_t g = load_le32(m->g_idx + 4 * (size_t)i);

        if (g >= (uint32_t)m->n_groups)
            return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s puts input %d in group %ld of %d",
                        b->path, t->name, i, (long)(int32_t)g, m->n_groups);
        in_order &= (int)g == i / m->group_size;
    }
    if (in_order)
        m->g_idx = NULL;
    return 0;
}

int packed_open(const struct binder *b, struct packed *m, const struct piece *p,
                const struct nn_slot *s, int expert)
{
    *m = (struct packed){.rows = p->rows ? p->rows : s->n_out, .n_in = s->n_in};
    if (p->transposed)
        return fail(b->err, CLM_ERR_UNSUPPORTED, "%s: tensor %s is quantised and transposed",
                    b->path, p->part[PART_WEIGHT]->name);
    if (read_codes(b, m, p, s, expert) || (m->kind == PACK_LEVELS && levels_read(b, m, p)) ||
        (m->level == 0 && read_scales(b, m, p, s, expert)) || read_zeros(b, m, p, s, expert) ||
        read_order(b, m, p, s, expert))
        return -1;
    if (b->foreign.bits && b->foreign.bits != m->bits && m->kind != PACK_TERNARY &&
        m->kind != PACK_LEVELS)
        return fail(b->err, CLM_ERR_FORMAT, "%s: tensor %s holds %d bits; config.json says %d",
                    b->path, p->part[PART_WEIGHT]->name, m->bits, b->foreign.bits);
    return 0;
}

/* --- the affine form ---------------------------------------------------------------------------
 */

struct repacking {
    const struct packed *m;
    const struct piece *p;
    struct weight w;
    const int32_t *order; /* [n_in] which input lies at each place; NULL: as they are */
    uint8_t *data, *scales, *biases;
    uint8_t *codes; /* [threads, TILE, n_in] */
    float *numbers; /* [threads, n_in], of dense weights */
};

/* Codes to a stream of bits, in the order wanted; out is [n_in * bits / 8]. */
static void pack_row(uint8_t *out, const uint8_t *codes, const struct repacking *r)
{
    uint64_t bits = 0;
    int held = 0;

    for (int i = 0; i < r->w.n_in; i++) {
        bits |= (uint64_t)codes[r->order ? r->order[i] : i] << held;
        for (held += r->w.bits; held >= 8; held -= 8, bits >>= 8)
            *out++ = (uint8_t)bits;
    }
}

static void affine_scales(const struct repacking *r, int o)
{
    const struct packed *m = r->m;
    int groups = r->w.n_in / r->w.group_size;
    enum weight_format scales = r->w.scale_type == DTYPE_F32   ? WEIGHT_F32
                                : r->w.scale_type == DTYPE_F16 ? WEIGHT_F16
                                                               : WEIGHT_BF16;
    int64_t row = binder_source_row(r->p, r->w.n_out, o);

    for (int g = 0; g < groups; g++) {
        int from = (int)((int64_t)g * r->w.group_size / m->group_size);
        size_t at = (size_t)o * (size_t)groups + (size_t)g;
        float scale = packed_scale(m, row, from);

        if (r->scales)
            store_number(r->scales, at, scale, scales);
        store_number(r->biases, at, -(float)packed_zero(m, row, from) * scale, scales);
    }
}

static void repack_tile(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct repacking *r = ctx;
    size_t n_in = (size_t)r->w.n_in, row_bytes = weight_row_bytes(&r->w);
    uint8_t *codes = r->codes + (size_t)thread * TILE * n_in;
    int64_t rows[TILE];
    int n = (int)(end - begin);
    bool done = !r->data; /* codes lie right */

    for (int i = 0; i < n; i++)
        rows[i] = binder_source_row(r->p, r->w.n_out, (int)begin + i);
    if (!done && !r->order)
        done = packed_words(r->data + (size_t)begin * row_bytes, r->m, rows, n);
    if (!done)
        packed_codes(codes, r->m, rows, n);
    for (int i = 0; i < n; i++) {
        if (!done)
            pack_row(r->data + (size_t)(begin + i) * row_bytes, codes + (size_t)i * n_in, r);
        affine_scales(r, (int)begin + i);
    }
}

static void dense_tile(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct repacking *r = ctx;
    size_t n_in = (size_t)r->w.n_in;
    float *numbers = r->numbers + (size_t)thread * n_in;

    for (int64_t o = begin; o < end; o++) {
        packed_row_f32(numbers, r->m, binder_source_row(r->p, r->w.n_out, (int)o),
                       r->codes + (size_t)thread * TILE * n_in);
        for (size_t i = 0; i < n_in; i++)
            store_number(r->data, (size_t)o * n_in + i, numbers[i], r->w.format);
    }
}

/* Inputs group after group; false where groups are not of one size. */
static bool order_inputs(int32_t *order, const struct packed *m)
{
    int n = 0;

    for (int g = 0; g < m->n_groups; g++) {
        int first = n;

        for (int i = 0; i < m->n_in; i++)
            if (packed_group(m, i) == g)
                order[n++] = i;
        if (n - first != m->group_size)
            return false;
    }
    return true;
}

/* Codes that lie as MLX has them, rows that follow one another. */
static bool lies_right(const struct repacking *r)
{
    return r->m->kind == PACK_ROWS && !r->order && !r->p->stride;
}

static int no_memory(const struct binder *b, const struct piece *p)
{
    return fail(b->err, CLM_ERR_NOMEM, "%s: no memory to repack %s", b->path,
                p->part[PART_WEIGHT]->name);
}

static int make_affine(struct binder *b, struct repacking *r)
{
    size_t rows = (size_t)r->w.n_out, size = rows * weight_row_bytes(&r->w);
    size_t scales = rows * weight_scale_row_bytes(&r->w);
    bool mapped = lies_right(r);

    r->data = mapped ? NULL : binder_room(b, size);
    r->scales = binder_room(b, scales);
    r->biases = binder_room(b, scales);
    if ((!mapped && !r->data) || !r->scales || !r->biases) {
        binder_drop(b, r->data);
        binder_drop(b, r->scales);
        binder_drop(b, r->biases);
        return no_memory(b, r->p);
    }
    thread_pool_for(b->pool, r->w.n_out, TILE, repack_tile, r);
    if (mapped)
        r->w.data = b->dev->ops->map(
            b->dev, r->m->codes + (size_t)r->p->row * weight_row_bytes(&r->w), size, b->err);
    else
        r->w.data = binder_settle(b, r->data, size);
    r->w.scales = binder_settle(b, r->scales, scales);
    r->w.biases = binder_settle(b, r->biases, scales);
    return r->w.data && r->w.scales && r->w.biases ? 0 : -1;
}

static int make_dense(struct binder *b, struct repacking *r)
{
    size_t size = (size_t)r->w.n_out * weight_row_bytes(&r->w);

    r->numbers = mem_alloc((size_t)thread_pool_size(b->pool) * (size_t)r->w.n_in * sizeof(float));
    r->data = r->numbers ? binder_room(b, size) : NULL;
    if (r->data) {
        thread_pool_for(b->pool, r->w.n_out, TILE, dense_tile, r);
        r->w.data = binder_settle(b, r->data, size);
    } else {
        no_memory(b, r->p);
    }
    mem_free(r->numbers);
    return r->w.data ? 0 : -1;
}

/* The order of the inputs where they have one and an affine form: *order, for mem_free. */
static int find_order(const struct binder *b, struct repacking *r, const struct nn_slot *s,
                      int32_t **order)
{
    if (b->foreign.general == 2 && r->p->part[PART_ORDER])
        r->w.group_size = 0;
    if (!r->w.group_size || !r->m->g_idx)
        return 0;
    *order = mem_alloc((size_t)s->n_in * sizeof **order);
    if (!*order)
        return no_memory(b, r->p);
    r->order = *order;
    if (!s->order || !order_inputs(*order, r->m))
        r->w.group_size = 0;
    return 0;
}

static void show_progress(struct binder *b)
{
    int before = (int)(100.0 * b->n_repacked / b->n_packed);
    int now = (int)(100.0 * ++b->n_repacked / b->n_packed);

    if (b->n_repacked >= b->n_packed)
        log_say(b->log, LOG_PROGRESS, "%s", "");
    else if (now > before)
        log_say(b->log, LOG_PROGRESS, "Repacking weights: %d%%", now);
}

int set_packed(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s,
               int expert)
{
    struct packed m;
    struct repacking r = {.m = &m, .p = p, .w = {.n_out = s->n_out, .n_in = s->n_in}};
    int32_t *order = NULL;
    int rc = -1;

    if (packed_open(b, &m, p, s, expert) || binder_pool(b))
        return -1;
    show_progress(b);
    r.w.group_size = packed_affine_group(&m);
    r.codes = mem_alloc((size_t)thread_pool_size(b->pool) * TILE * (size_t)s->n_in);
    if (!r.codes)
        return no_memory(b, p);
    if (find_order(b, &r, s, &order))
        goto cleanup;
    if (r.w.group_size) {
        r.w.format = WEIGHT_AFFINE;
        r.w.bits = m.bits;
        r.w.scale_type = packed_bias_type(&m);
        rc = make_affine(b, &r);
    } else {
        r.w.format = packed_dense_format(&m);
        rc = make_dense(b, &r);
    }
    if (rc == 0 && r.w.group_size && order) {
        *s->order = binder_place(b, (const uint8_t *)order, (size_t)s->n_in * sizeof *order);
        rc = *s->order ? 0 : -1;
    }
    *w = r.w;

cleanup:
    mem_free(order);
    mem_free(r.codes);
    return rc ? -1 : weight_check(w, p->part[PART_WEIGHT]->name, b->err);
}
