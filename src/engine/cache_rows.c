#include "engine/cache_rows.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "device/kv_layout.h"
#include "device/weight.h"

/* Reading */

struct reading {
    struct cache_rows *rows;
    const struct cache_source *source;
    const struct source_leaf *from;
    clm_error *err;
};

static int damaged(const struct reading *r, const char *what)
{
    return fail(r->err, CLM_ERR_FORMAT, "%s: cache %s of class %s is damaged: %s", r->source->name,
                r->from->prefix, r->from->class, what);
}

/* [1, heads, size, columns] with the rows' heads and size, which the first one sets. */
static int check_array(const struct reading *r, const struct checkpoint_tensor *t)
{
    struct cache_rows *rows = r->rows;

    if (!t || t->n_dims != 4 || t->shape[0] != 1 || t->shape[1] < 1 || t->shape[2] < 1 ||
        t->shape[3] < 0 || t->shape[3] > INT_MAX / 32 || t->shape[1] > INT_MAX ||
        t->shape[2] > INT_MAX / t->shape[1])
        return damaged(r, "keys and values are arrays [1, heads, tokens, numbers]");
    if (!rows->heads) {
        rows->heads = (int)t->shape[1];
        rows->size = (int)t->shape[2];
    }
    if (t->shape[1] != rows->heads || t->shape[2] != rows->size)
        return damaged(r, "keys and values differ in shape");
    return 0;
}

static int read_dense(const struct reading *r, int place, struct weight *w)
{
    const struct checkpoint_tensor *t = cache_source_array(r->source, r->from, place, -1);

    if (check_array(r, t))
        return -1;
    *w = (struct weight){
        .n_out = r->rows->heads * r->rows->size, .n_in = (int)t->shape[3], .data = t->data};
    return weight_set_dense(w, t->type)
               ? 0
               : damaged(r, "keys and values are no floating-point numbers");
}

/* Words, scales and biases, as MLX quantises. */
static int read_quantised(const struct reading *r, int place, struct weight *w)
{
    const struct checkpoint_tensor *t[3];
    int bits, group;

    if (cache_source_number(r->source, r->from, 3, &group, r->err) ||
        cache_source_number(r->source, r->from, 4, &bits, r->err))
        return -1;
    for (int i = 0; i < 3; i++) {
        t[i] = cache_source_array(r->source, r->from, place, i);
        if (check_array(r, t[i]))
            return -1;
    }
    if (bits < 1 || group < 1 || t[0]->type != DTYPE_U32 || t[0]->shape[3] * 32 % bits ||
        t[0]->shape[3] * 32 / bits != t[1]->shape[3] * group || t[1]->type != t[2]->type ||
        t[1]->shape[3] != t[2]->shape[3])
        return damaged(r, "words, scales and biases do not fit each other");
    *w = (struct weight){.format = WEIGHT_AFFINE,
                         .n_out = r->rows->heads * r->rows->size,
                         .n_in = (int)(t[0]->shape[3] * 32 / bits),
                         .bits = bits,
                         .group_size = group,
                         .scale_type = t[1]->type,
                         .data = t[0]->data,
                         .scales = t[1]->data,
                         .biases = t[2]->data};
    return weight_check(w, r->source->name, r->err);
}

static int read_number(const struct reading *r, int place, int *out)
{
    return cache_source_number(r->source, r->from, place, out, r->err);
}

/* KVCache and QuantizedKVCache: rows beyond the length are room for more. */
static int read_full(const struct reading *r)
{
    r->rows->n = r->rows->length;
    return 0;
}

/* ChunkedKVCache: it begins at a later token. */
static int read_chunked(const struct reading *r)
{
    int start;

    if (read_number(r, 4, &start))
        return -1;
    if (start > r->rows->length)
        return damaged(r, "it begins after its last token");
    r->rows->n = r->rows->length - start;
    return 0;
}

/* RotatingKVCache: a ring of max_size rows whose next one to be written is idx, but rows still in
 * order while more, or fewer, are there. It may keep the first few tokens for ever. */
static int read_rotating(const struct reading *r)
{
    struct cache_rows *rows = r->rows;
    int keep, max_size, idx;
    bool in_order;

    if (read_number(r, 3, &keep) || read_number(r, 4, &max_size) || read_number(r, 5, &idx))
        return -1;
    if (idx > rows->size || (rows->length > rows->size && keep > idx) ||
        (rows->length < rows->size && idx != rows->length))
        return damaged(r, "its next place is not within it");
    rows->n = rows->size < rows->length ? rows->size : rows->length;
    in_order = rows->n < rows->size || idx == rows->size;
    if (rows->n < rows->length) {
        rows->n_first = keep;
        rows->n -= keep;
    }
    rows->base = in_order ? 0 : idx - rows->n_first;
    return 0;
}

static int read_kind(const struct reading *r)
{
    static const struct {
        const char *class;
        int (*read_array)(const struct reading *r, int place, struct weight *w);
        int (*read_order)(const struct reading *r);
    } kinds[] = {
        {"KVCache", read_dense, read_full},
        {"RotatingKVCache", read_dense, read_rotating},
        {"ChunkedKVCache", read_dense, read_chunked},
        {"QuantizedKVCache", read_quantised, read_full},
    };
    struct cache_rows *rows = r->rows;

    for (size_t i = 0; i < COUNT(kinds); i++) {
        if (strcmp(r->from->class, kinds[i].class))
            continue;
        if (kinds[i].read_array(r, 0, &rows->keys) || kinds[i].read_array(r, 1, &rows->values) ||
            read_number(r, 2, &rows->length) || kinds[i].read_order(r))
            return -1;
        return rows->n >= 1 && rows->n <= rows->size - rows->n_first
                   ? 0
                   : damaged(r, "it has fewer rows than tokens");
    }
    return fail(r->err, CLM_ERR_UNSUPPORTED,
                "%s: cache %s is of class %.31s, where the model has keys and values",
                r->source->name, r->from->prefix, r->from->class);
}

static int check_size(const struct reading *r, const char *what, int n, const struct kv_layer *kv,
                      int wanted)
{
    if (r->rows->heads == kv->n_kv_heads && n == wanted)
        return 0;
    return fail(r->err, CLM_ERR_FORMAT,
                "%s is of another model: cache %s has %s of %d heads of %d numbers, the model of "
                "%d of %d",
                r->source->name, r->from->prefix, what, r->rows->heads, n, kv->n_kv_heads, wanted);
}

/* Is all there that a next token sees: so many first ones, and so many last ones before it? */
static int check_reach(const struct reading *r, const struct kv_layer *kv)
{
    const struct cache_rows *rows = r->rows;
    int reach = kv->n_last ? kv->n_last : cache_leaf_window(rows->leaf);
    int last = reach && reach - 1 < rows->length ? reach - 1 : rows->length;

    if (rows->n >= last && (rows->n_first >= kv->n_first || rows->n == rows->length))
        return 0;
    if (rows->n_first)
        return fail(r->err, CLM_ERR_UNSUPPORTED,
                    "%s: it has kept the first %d tokens and the last %d; it can be continued with "
                    "--max-kv-size %d or less",
                    r->source->name, rows->n_first, rows->n, rows->n_first + rows->n);
    return fail(r->err, CLM_ERR_UNSUPPORTED,
                "%s: cache %s has kept the last %d tokens, the model looks back on %d; make it "
                "again without a limit",
                r->source->name, r->from->prefix, rows->n, last);
}

int cache_rows_read(struct cache_rows *r, const struct cache_source *s,
                    const struct source_leaf *from, const struct cache_leaf *leaf,
                    const struct kv_layer *kv, clm_error *err)
{
    struct reading reading = {r, s, from, err};
    int k_dim = leaf->kind == CACHE_LATENT ? kv->v_dim : kv->k_dim;
    int v_dim = leaf->kind == CACHE_LATENT ? kv->k_dim - kv->v_dim : kv->v_dim;

    *r = (struct cache_rows){.leaf = leaf, .entry = from->entry};
    if (read_kind(&reading) || check_size(&reading, "keys", r->keys.n_in, kv, k_dim))
        return -1;
    if (leaf->kind != CACHE_INDEX && check_size(&reading, "values", r->values.n_in, kv, v_dim))
        return -1;
    return check_reach(&reading, kv);
}

int cache_rows_read_early(struct cache_rows *r, const struct cache_source *s, const char *prefix,
                          clm_error *err)
{
    struct cache_rows early = {.leaf = r->leaf};
    struct source_leaf from = {.entry = r->entry, .class = "KVCache"};
    struct reading reading = {&early, s, &from, err};

    snprintf(from.prefix, sizeof from.prefix, "%s", prefix);
    if (r->leaf->kind != CACHE_KV || !cache_source_array(s, &from, 0, -1))
        return 0;
    if (read_dense(&reading, 0, &r->early_keys) || read_dense(&reading, 1, &r->early_values))
        return -1;
    if (early.heads != r->heads || r->early_keys.n_in != r->keys.n_in ||
        r->early_values.n_in != r->values.n_in || r->n < r->length || early.size > r->length)
        return damaged(&reading, "they do not fit the cache that they belong to");
    r->n_early = early.size;
    return 0;
}

/* Storing */

enum { STORE_ROWS = 256 }; /* at a time */

struct storing {
    const struct cache_rows *rows;
    const kv_seq *seq;
    device *dev;
    const struct kv_layer *kv;
    float *k, *v; /* [STORE_ROWS, heads, k_dim or v_dim] */
    void *device_k, *device_v, *blocks;
    struct kv_table table;
};

static const struct weight *keys_at(const struct cache_rows *r, int position)
{
    return position < r->n_early ? &r->early_keys : &r->keys;
}

static const struct weight *values_at(const struct cache_rows *r, int position)
{
    return position < r->n_early ? &r->early_values : &r->values;
}

/* Rows of a head where that of a token is. */
static int size_at(const struct cache_rows *r, int position)
{
    return position < r->n_early ? r->n_early : r->size;
}

/* The row of a token in each head, and how many rows from there on are of the next ones. */
static int row_of(const struct cache_rows *r, int position, int *run)
{
    int ring = r->size - r->n_first;
    int row = (r->base + position - (r->length - r->n)) % ring;

    if (position < r->n_early) {
        *run = r->n_early - position;
        return position;
    }
    if (position < r->n_first) {
        *run = r->n_first - position;
        return position;
    }
    *run = ring - row;
    return r->n_first + row;
}

/* One token's keys and values, as the model's cache has them. */
static void read_token(const struct storing *s, int position, float *k, float *v)
{
    const struct cache_rows *r = s->rows;
    int k_dim = s->kv->k_dim, v_dim = s->kv->v_dim;
    const struct weight *keys = keys_at(r, position), *values = values_at(r, position);
    int run, row = row_of(r, position, &run), size = size_at(r, position);

    for (int h = 0; h < r->heads; h++, row += size, k += k_dim, v += v_dim) {
        switch (r->leaf->kind) {
        case CACHE_LATENT:
            weight_row_f32(v, keys, row);
            weight_row_f32(k, values, row);
            memcpy(k + (k_dim - v_dim), v, (size_t)v_dim * sizeof *v);
            break;
        case CACHE_INDEX:
            weight_row_f32(k, keys, row);
            memset(v, 0, (size_t)v_dim * sizeof *v);
            break;
        default:
            weight_row_f32(k, keys, row);
            weight_row_f32(v, values, row);
        }
    }
}

static tensor rows_tensor(void *data, int n, int cols)
{
    return (tensor){.data = data, .type = DTYPE_F32, .rows = n, .cols = cols, .stride = cols};
}

static void store_rows(const struct storing *s, int position, int n)
{
    int k_cols = s->kv->n_kv_heads * s->kv->k_dim, v_cols = s->kv->n_kv_heads * s->kv->v_dim;
    struct kv_sequence sequence = {.n_rows = n,
                                   .position = position,
                                   .blocks = s->blocks,
                                   .n_kept = s->table.n_kept,
                                   .n_gone = s->table.n_gone};
    struct kv_batch batch = {.sequences = &sequence, .n_sequences = 1, .n_rows = n};
    tensor k = rows_tensor(s->device_k, n, k_cols), v = rows_tensor(s->device_v, n, v_cols);

    for (int i = 0; i < n; i++)
        read_token(s, position + i, s->k + (size_t)i * (size_t)k_cols,
                   s->v + (size_t)i * (size_t)v_cols);
    s->dev->ops->upload(s->dev, k.data, s->k, (size_t)n * (size_t)k_cols * sizeof(float));
    s->dev->ops->upload(s->dev, v.data, s->v, (size_t)n * (size_t)v_cols * sizeof(float));
    s->dev->ops->kv_store(s->dev, s->kv, &batch, &k, &v);
}

static bool is_alike(const struct weight *w, const struct kv_layer *at)
{
    static const enum weight_format formats[] = {
        [DTYPE_F32] = WEIGHT_F32, [DTYPE_F16] = WEIGHT_F16, [DTYPE_BF16] = WEIGHT_BF16};

    if (!at->bits)
        return w->format == formats[at->type];
    return w->format == WEIGHT_AFFINE && w->bits == at->bits && w->group_size == at->group_size &&
           w->scale_type == at->type;
}

/* Are rows of the file, as they lie there, rows of the cache? */
static bool lie_alike(const struct cache_rows *r, const struct kv_layer *at, int position)
{
    return r->leaf->kind == CACHE_KV && is_alike(keys_at(r, position), at) &&
           is_alike(values_at(r, position), at);
}

/* A part of a block of all rows of an array, which has them as a block would; false: its numbers
 * are out of place. */
static bool map_part(struct kv_part *p, const struct weight *w, enum dtype type,
                     const uint8_t *base)
{
    size_t item = p->n_groups ? sizeof(uint32_t) : dtype_size(type);

    p->rows = (size_t)((const uint8_t *)w->data - base);
    if (p->n_groups == 0)
        return p->rows % item == 0;
    p->scales = (size_t)((const uint8_t *)w->scales - base);
    p->biases = (size_t)((const uint8_t *)w->biases - base);
    return p->rows % item == 0 && p->scales % dtype_size(type) == 0 &&
           p->biases % dtype_size(type) == 0;
}

/* The rows where that of a token is, of a layer that is stored as at says. */
static bool map_rows(struct kv_map_rows *m, const struct cache_rows *r, const struct kv_layer *at,
                     int position, const uint8_t *base)
{
    *m = (struct kv_map_rows){{kv_keys(at), kv_values(at)}, size_at(r, position)};
    return lie_alike(r, at, position) &&
           map_part(&m->parts[0], keys_at(r, position), at->type, base) &&
           map_part(&m->parts[1], values_at(r, position), at->type, base);
}

void cache_rows_map(const struct cache_rows *r, engine *e, kv_map *map, const uint8_t *base)
{
    int layer = r->leaf->cache_layer, split;
    const struct kv_layer *kv = kv_cache_layer(engine_cache(e), layer);
    struct kv_map_rows rows, early;

    if (!kv_cache_device(engine_cache(e), layer)->ops->reads_host)
        return;
    split = kv->split < r->length ? kv->split : r->length;
    if (r->n < r->length || r->base || (r->n_early && r->n_early != split))
        return;
    if ((split > 0 && !map_rows(&early, r, kv->earlier, 0, base)) ||
        (split < r->length && !map_rows(&rows, r, kv, split, base)))
        return;
    kv_map_set(map, layer, split < r->length ? &rows : NULL, split > 0 ? &early : NULL);
}

/* n rows of size bytes from row from of an array of the file, to the to-th of such of a block. */
static void copy_array(const struct storing *s, uint8_t *part, const void *data, size_t size,
                       size_t to, size_t from, int n)
{
    if (size)
        s->dev->ops->upload(s->dev, part + to * size, (const uint8_t *)data + from * size,
                            (size_t)n * size);
}

/* Rows of tokens [from, to) of a head, which lie in one block, as they are. */
static void copy_rows(const struct storing *s, const struct weight *w, const struct kv_part *p,
                      struct kv_place place, int head, int from, int to)
{
    const struct cache_rows *r = s->rows;
    size_t at = (size_t)head * (size_t)kv_row_tokens(place.at) + (size_t)place.place;
    uint8_t *block = place.block;

    for (int n; from < to; from += n, at += (size_t)n) {
        size_t row = (size_t)head * (size_t)size_at(r, from) + (size_t)row_of(r, from, &n);

        n = to - from < n ? to - from : n;
        copy_array(s, block + p->rows, w->data, p->row_bytes, at, row, n);
        copy_array(s, block + p->scales, w->scales, p->group_bytes, at, row, n);
        copy_array(s, block + p->biases, w->biases, p->group_bytes, at, row, n);
    }
}

static void copy_blocks(const struct storing *s, const struct kv_layer *at, int from, int end)
{
    struct kv_part keys = kv_keys(at), values = kv_values(at);

    for (int to; from < end; from = to) {
        struct kv_place place = kv_seq_place(s->seq, s->rows->leaf->cache_layer, from);

        to = (from / KV_BLOCK_TOKENS + 1) * KV_BLOCK_TOKENS;
        to = to < end ? to : end;
        for (int head = 0; head < s->rows->heads; head++) {
            copy_rows(s, keys_at(s->rows, from), &keys, place, head, from, to);
            copy_rows(s, values_at(s->rows, from), &values, place, head, from, to);
        }
    }
}

static int open_buffers(struct storing *s, clm_error *err)
{
    size_t rows = STORE_ROWS * (size_t)s->kv->n_kv_heads * sizeof(float);
    size_t k_bytes = rows * (size_t)s->kv->k_dim, v_bytes = rows * (size_t)s->kv->v_dim;
    size_t table_bytes = (size_t)s->table.n_blocks * sizeof(int32_t);

    s->k = mem_alloc(k_bytes);
    s->v = mem_alloc(v_bytes);
    if (!s->k || !s->v)
        return fail(err, CLM_ERR_NOMEM, "no memory to load a cache");
    s->device_k = s->dev->ops->alloc(s->dev, k_bytes, err);
    s->device_v = s->device_k ? s->dev->ops->alloc(s->dev, v_bytes, err) : NULL;
    s->blocks = s->device_v ? s->dev->ops->alloc(s->dev, table_bytes, err) : NULL;
    if (!s->blocks)
        return -1;
    s->dev->ops->upload(s->dev, s->blocks, s->table.blocks, table_bytes);
    return 0;
}

static void close_buffers(struct storing *s)
{
    s->dev->ops->free(s->dev, s->device_k);
    s->dev->ops->free(s->dev, s->device_v);
    s->dev->ops->free(s->dev, s->blocks);
    mem_free(s->k);
    mem_free(s->v);
}

/* Rows that have to become others, some at a time. */
static int convert_rows(struct storing *s, int from, int end, clm_error *err)
{
    int rc = s->k ? 0 : open_buffers(s, err);

    for (int n; rc == 0 && from < end; from += n) {
        n = end - from < STORE_ROWS ? end - from : STORE_ROWS;
        store_rows(s, from, n);
    }
    return rc ? rc : s->dev->ops->sync(s->dev, err);
}

/* Those of tokens [from, end), stretch by stretch of what is and becomes stored alike. */
static int store_range(struct storing *s, int from, int end, clm_error *err)
{
    for (int to; from < end; from = to) {
        const struct kv_layer *at = kv_at(s->kv, from);

        to = end;
        if (from < s->kv->split && s->kv->split < to)
            to = s->kv->split;
        if (from < s->rows->n_early && s->rows->n_early < to)
            to = s->rows->n_early;
        if (lie_alike(s->rows, at, from))
            copy_blocks(s, at, from, to);
        else if (convert_rows(s, from, to, err))
            return -1;
    }
    return 0;
}

int cache_rows_store(const struct cache_rows *r, engine *e, const kv_seq *seq, clm_error *err)
{
    kv_cache *c = engine_cache(e);
    int layer = r->leaf->cache_layer, group = kv_cache_group_of(c, layer);
    struct kv_table table = kv_seq_table(seq, group);
    struct storing s = {
        .rows = r,
        .seq = seq,
        .dev = kv_cache_device(c, layer),
        .kv = kv_cache_layer(c, layer),
        .table = table,
    };
    int held = table.n_gone ? (table.n_kept + table.n_gone) * KV_BLOCK_TOKENS : 0;
    int last = r->length - r->n > held ? r->length - r->n : held;
    int first = r->n < r->length ? r->n_first : last;
    int rc;

    if (table.n_gone && first > table.n_kept * KV_BLOCK_TOKENS)
        first = table.n_kept * KV_BLOCK_TOKENS;
    rc = store_range(&s, 0, first < last ? first : last, err) ||
                 store_range(&s, last, r->length, err)
             ? -1
             : 0;
    close_buffers(&s);
    return rc;
}
