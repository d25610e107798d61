#include "engine/cache_rows.h"

#include <limits.h>
#include <string.h>

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
    switch (t->type) {
    case DTYPE_F32:
        w->format = WEIGHT_F32;
        return 0;
    case DTYPE_F16:
        w->format = WEIGHT_F16;
        return 0;
    case DTYPE_BF16:
        w->format = WEIGHT_BF16;
        return 0;
    default:
        return damaged(r, "keys and values are no floating-point numbers");
    }
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

    if (read_number(r, 3, &keep) || read_number(r, 4, &max_size) || read_number(r, 5, &idx))
        return -1;
    if (idx > rows->size || keep > idx || (rows->length < rows->size && idx != rows->length))
        return damaged(r, "its next place is not within it");
    rows->n = rows->size < rows->length ? rows->size : rows->length;
    rows->base = rows->n < rows->size || idx == rows->size ? 0 : idx;
    if (keep > 0 && (rows->n < rows->length || rows->length > max_size))
        return fail(r->err, CLM_ERR_UNSUPPORTED,
                    "%s: it has let go of tokens behind the first %d (--max-kv-size %d), which clm "
                    "cannot continue; make it again without a limit",
                    r->source->name, keep, max_size);
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
        return rows->n >= 1 && rows->n <= rows->size ? 0
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

/* Is all there that a next token sees? */
static int check_reach(const struct reading *r)
{
    const struct cache_rows *rows = r->rows;
    int window = cache_leaf_window(rows->leaf);
    int need = window && window - 1 < rows->length ? window - 1 : rows->length;

    if (rows->n >= need)
        return 0;
    return fail(r->err, CLM_ERR_UNSUPPORTED,
                "%s: cache %s has kept the last %d tokens, the model looks back on %d; make it "
                "again without a limit",
                r->source->name, r->from->prefix, rows->n, need);
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
    return check_reach(&reading);
}

/* Storing */

enum { STORE_ROWS = 256 }; /* at a time */

struct storing {
    const struct cache_rows *rows;
    device *dev;
    const struct kv_layer *kv;
    float *k, *v; /* [STORE_ROWS, heads, k_dim or v_dim] */
    void *device_k, *device_v, *blocks;
    struct kv_table table;
};

/* One token's keys and values, as the model's cache has them. */
static void read_token(const struct storing *s, int position, float *k, float *v)
{
    const struct cache_rows *r = s->rows;
    int k_dim = s->kv->k_dim, v_dim = s->kv->v_dim;
    int row = (r->base + position - (r->length - r->n)) % r->size;

    for (int h = 0; h < r->heads; h++, row += r->size, k += k_dim, v += v_dim) {
        switch (r->leaf->kind) {
        case CACHE_LATENT:
            weight_row_f32(v, &r->keys, row);
            weight_row_f32(k, &r->values, row);
            memcpy(k + (k_dim - v_dim), v, (size_t)v_dim * sizeof *v);
            break;
        case CACHE_INDEX:
            weight_row_f32(k, &r->keys, row);
            memset(v, 0, (size_t)v_dim * sizeof *v);
            break;
        default:
            weight_row_f32(k, &r->keys, row);
            weight_row_f32(v, &r->values, row);
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
                                   .first_block = s->table.first_block,
                                   .blocks = s->blocks};
    struct kv_batch batch = {.sequences = &sequence, .n_sequences = 1, .n_rows = n};
    tensor k = rows_tensor(s->device_k, n, k_cols), v = rows_tensor(s->device_v, n, v_cols);

    for (int i = 0; i < n; i++)
        read_token(s, position + i, s->k + (size_t)i * (size_t)k_cols,
                   s->v + (size_t)i * (size_t)v_cols);
    s->dev->ops->upload(s->dev, k.data, s->k, (size_t)n * (size_t)k_cols * sizeof(float));
    s->dev->ops->upload(s->dev, v.data, s->v, (size_t)n * (size_t)v_cols * sizeof(float));
    s->dev->ops->kv_store(s->dev, s->kv, &batch, &k, &v);
}

/* Are rows of the file, as they lie there, rows of the cache? */
static bool lie_alike(const struct cache_rows *r, enum dtype type)
{
    static const struct {
        enum dtype type;
        enum weight_format format;
    } alike[] = {{DTYPE_F32, WEIGHT_F32}, {DTYPE_F16, WEIGHT_F16}, {DTYPE_BF16, WEIGHT_BF16}};

    for (size_t i = 0; i < COUNT(alike); i++)
        if (alike[i].type == type)
            return r->leaf->kind == CACHE_KV && r->keys.format == alike[i].format &&
                   r->values.format == alike[i].format;
    return false;
}

/* Rows [at, to) of a head, of one block, as they are; they may lie around the end of the ring. */
static void copy_rows(const struct storing *s, const struct weight *w, size_t offset,
                      uint8_t *block, int head, int at, int to)
{
    const struct cache_rows *r = s->rows;
    size_t row = (size_t)w->n_in * dtype_size(s->kv->type);

    for (int n; at < to; at += n) {
        int from = (r->base + at - (r->length - r->n)) % r->size;
        size_t first = (size_t)head * (size_t)r->size + (size_t)from;

        n = to - at < r->size - from ? to - at : r->size - from;
        s->dev->ops->upload(s->dev,
                            block + offset +
                                ((size_t)head * KV_BLOCK_TOKENS + (size_t)(at % KV_BLOCK_TOKENS)) *
                                    row,
                            (const uint8_t *)w->data + first * row, (size_t)n * row);
    }
}

static void copy_blocks(const struct storing *s, const kv_cache *c, int group, int first)
{
    const struct cache_rows *r = s->rows;

    for (int at = first, to; at < r->length; at = to) {
        int b = at / KV_BLOCK_TOKENS;
        uint8_t *block = kv_cache_block(c, group, s->table.blocks[b - s->table.first_block]);

        to = (b + 1) * KV_BLOCK_TOKENS < r->length ? (b + 1) * KV_BLOCK_TOKENS : r->length;
        for (int head = 0; head < r->heads; head++) {
            copy_rows(s, &r->keys, s->kv->k_offset, block, head, at, to);
            copy_rows(s, &r->values, s->kv->v_offset, block, head, at, to);
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

/* Rows that have to become others, some at a time. */
static int convert_rows(struct storing *s, int first, clm_error *err)
{
    const struct cache_rows *r = s->rows;
    int rc = open_buffers(s, err);

    for (int n, at = first; rc == 0 && at < r->length; at += n) {
        n = r->length - at < STORE_ROWS ? r->length - at : STORE_ROWS;
        store_rows(s, at, n);
    }
    if (rc == 0)
        rc = s->dev->ops->sync(s->dev, err);
    s->dev->ops->free(s->dev, s->device_k);
    s->dev->ops->free(s->dev, s->device_v);
    s->dev->ops->free(s->dev, s->blocks);
    mem_free(s->k);
    mem_free(s->v);
    return rc;
}

int cache_rows_store(const struct cache_rows *r, engine *e, const kv_seq *seq, clm_error *err)
{
    kv_cache *c = engine_cache(e);
    int layer = r->leaf->cache_layer;
    struct storing s = {
        .rows = r,
        .dev = engine_model(e)->dev,
        .kv = kv_cache_layer(c, layer),
        .table = kv_seq_table(seq, kv_cache_group_of(c, layer)),
    };
    int held = s.table.first_block * KV_BLOCK_TOKENS, first = r->length - r->n;

    first = first > held ? first : held;
    if (!lie_alike(r, s.kv->type))
        return convert_rows(&s, first, err);
    copy_blocks(&s, c, kv_cache_group_of(c, layer), first);
    return 0;
}
