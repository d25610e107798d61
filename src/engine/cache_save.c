/* engine/cache_save.c: writing a sequence as mlx-lm's prompt cache. */
#include <string.h>

#include "engine/cache_file.h"
#include "engine/cache_plan.h"
#include "format/safetensors.h"
#include "nn/state_pieces.h"

/* The keys or values of a cache: columns [first, first + n) of the rows of a layer's keys, or of
 * its values. */
struct columns {
    bool of_values;
    int dim, first, n;
};

/* What is written in place of a tensor without data. */
struct source {
    const struct cache_leaf *leaf;
    struct columns columns;
    bool blank; /* the first row is zeros: no token will see it, but mlx-lm wants full windows */
    int begin;  /* position of the next one */
};

struct saving {
    engine *engine;
    const kv_seq *seq;
    const char *path;
    arena *memory;
    struct cache_plan plan;
    uint8_t *state; /* all of it, in host memory */
    struct checkpoint_tensor *tensors;
    struct source *sources; /* [n_tensors] */
    size_t n_tensors, tensor_capacity;
    const char **metadata;
    size_t n_metadata, metadata_capacity;
    int n_scalars;
    bool failed; /* for want of memory */
    clm_error *err;
};

/* Lists of tensors and metadata */

static void add_metadata(struct saving *s, const char *key, const char *value)
{
    if (s->failed || !key || !value || s->n_metadata == s->metadata_capacity) {
        s->failed = true;
        return;
    }
    s->metadata[2 * s->n_metadata] = key;
    s->metadata[2 * s->n_metadata + 1] = value;
    s->n_metadata++;
}

static struct checkpoint_tensor *add_tensor(struct saving *s, const char *name, enum dtype type,
                                            const void *data)
{
    struct checkpoint_tensor *t = &s->tensors[s->n_tensors];

    if (s->failed || !name || s->n_tensors == s->tensor_capacity) {
        s->failed = true;
        return NULL;
    }
    s->n_tensors++;
    *t = (struct checkpoint_tensor){
        .name = name, .type = type, .data = data, .size = dtype_size(type)};
    return t;
}

static void add_dimension(struct saving *s, struct checkpoint_tensor *t, size_t n)
{
    if (!t)
        return;
    t->shape[t->n_dims++] = (int64_t)n;
    if (!size_mul(t->size, n, &t->size))
        s->failed = true;
}

/* A tensor that stands for something else. */
static struct checkpoint_tensor *add_scalar(struct saving *s, const char *name, const char *kind,
                                            enum dtype type, const void *data)
{
    int i = ++s->n_scalars;

    add_metadata(s, arena_printf(s->memory, "2.%d.0", i), name);
    add_metadata(s, arena_printf(s->memory, "2.%d.1", i), kind);
    return add_tensor(s, name, type, data);
}

static void add_number(struct saving *s, const char *prefix, int place, int value)
{
    int32_t *stored = arena_array(s->memory, int32_t, 1);

    if (stored)
        *stored = value;
    s->failed = s->failed || !stored;
    add_scalar(s, arena_printf(s->memory, "%s.%d", prefix, place), "scalar", DTYPE_I32, stored);
}

static void add_nothing(struct saving *s, const char *prefix, int place)
{
    add_dimension(
        s, add_scalar(s, arena_printf(s->memory, "%s.%d", prefix, place), "none", DTYPE_F32, NULL),
        0);
}

static void add_text(struct saving *s, const char *name, const char *text)
{
    size_t n = strlen(text);
    int32_t *points = arena_array(s->memory, int32_t, n);

    for (size_t i = 0; points && i < n; i++)
        points[i] = text[i];
    s->failed = s->failed || !points;
    add_dimension(s, add_scalar(s, name, "string", DTYPE_I32, points), n);
}

/* Caches of each kind */

static const char *class_of(const struct cache_leaf *l)
{
    if (l->kind == CACHE_STATE || l->kind == CACHE_TOKENS)
        return "ArraysCache";
    if (l->kind == CACHE_KV && l->spec->attention.chunk)
        return "ChunkedKVCache";
    return cache_leaf_window(l) ? "RotatingKVCache" : "KVCache";
}

/* The last n rows. */
static void add_rows(struct saving *s, const struct cache_leaf *l, const char *prefix, int place,
                     struct columns columns, int n)
{
    int begin = kv_seq_length(s->seq) - n;
    const struct kv_layer *kv = kv_cache_layer(engine_cache(s->engine), l->cache_layer);
    struct checkpoint_tensor *t =
        add_tensor(s, arena_printf(s->memory, "%s.%d", prefix, place), kv->type, NULL);

    add_dimension(s, t, 1);
    add_dimension(s, t, (size_t)kv->n_kv_heads);
    add_dimension(s, t, (size_t)n);
    add_dimension(s, t, (size_t)columns.n);
    if (t)
        s->sources[t - s->tensors] = (struct source){l, columns, begin > 0, begin + (begin > 0)};
}

/* Keys and values, as the kind of cache has them. */
static void add_keys_and_values(struct saving *s, const struct cache_leaf *l, const char *prefix,
                                int n)
{
    const struct kv_layer *kv = kv_cache_layer(engine_cache(s->engine), l->cache_layer);
    struct columns keys = {.dim = kv->k_dim, .n = kv->k_dim};
    struct columns values = {.of_values = true, .dim = kv->v_dim, .n = kv->v_dim};

    if (l->kind == CACHE_LATENT) {
        struct columns latent = values;

        values = keys;
        values.n = l->spec->mla.rope_dim;
        keys = latent;
    }
    if (l->kind == CACHE_INDEX) {
        values = keys;
        if (l->spec->op != OP_MLA)
            values.n = 0;
    }
    add_rows(s, l, prefix, 0, keys, n);
    add_rows(s, l, prefix, 1, values, n);
}

static void add_kv(struct saving *s, const struct cache_leaf *l, const char *prefix)
{
    int length = kv_seq_length(s->seq), window = cache_leaf_window(l);
    int n = window && window < length ? window : length;

    add_keys_and_values(s, l, prefix, n);
    add_number(s, prefix, 2, length);
    if (!window)
        return;
    if (l->spec->attention.chunk) {
        add_number(s, prefix, 3, window);
        add_number(s, prefix, 4, length - n); /* where it begins */
    } else {
        add_number(s, prefix, 3, 0); /* of the first tokens it keeps none */
        add_number(s, prefix, 4, window);
        add_number(s, prefix, 5, n); /* where the next one goes */
    }
}

static void add_idle(struct saving *s, const char *prefix)
{
    add_nothing(s, prefix, 0);
    add_nothing(s, prefix, 1);
    add_number(s, prefix, 2, 0);
}

/* The rest of an ArraysCache, which only batches have. */
static void end_arrays(struct saving *s, const char *prefix)
{
    add_nothing(s, prefix, 1);
    add_nothing(s, prefix, 2);
}

static void add_array(struct saving *s, const char *prefix, int i, const struct nn_state_piece *p,
                      const float *data)
{
    struct checkpoint_tensor *t =
        add_tensor(s, arena_printf(s->memory, "%s.0.%d", prefix, i), DTYPE_F32, data);

    add_dimension(s, t, 1);
    for (int d = 0; d < p->n_dims; d++)
        add_dimension(s, t, (size_t)p->dims[d]);
}

/* The arrays of all mixers of a layer, one after another. */
static void add_state(struct saving *s, const struct cache_leaf *l, const char *prefix)
{
    int array = 0;

    for (int b = 0; b < l->layer->n_branches; b++) {
        const struct nn_branch *branch = &l->layer->branches[b];
        struct nn_state_piece pieces[NN_STATE_PIECES];
        int n = nn_state_pieces(branch->spec, pieces);
        float *data = NULL;

        for (int i = 0; i < n; i++) {
            if (i == 0 || pieces[i].array != pieces[i - 1].array) {
                data = arena_array(s->memory, float, nn_state_array_count(&pieces[i]));
                s->failed = s->failed || !data;
                add_array(s, prefix, array++, &pieces[i], data);
            }
            if (data)
                nn_state_piece_to_array(&pieces[i], data, s->state + branch->state);
        }
    }
    end_arrays(s, prefix);
}

/* All tokens, unless some are not known. */
static void add_tokens(struct saving *s)
{
    const int32_t *tokens = kv_seq_tokens(s->seq);
    int n = kv_seq_length(s->seq);

    for (int i = 0; i < n; i++)
        if (tokens[i] < 0)
            return;
    add_dimension(
        s, add_tensor(s, arena_printf(s->memory, "%d", s->plan.n_entries), DTYPE_I32, tokens),
        (size_t)n);
}

static void add_past(struct saving *s, const char *prefix)
{
    int n = engine_model(s->engine)->spec->ngram.n - 1, length = kv_seq_length(s->seq);
    struct checkpoint_tensor *t;

    n = n < length ? n : length;
    t = add_tensor(s, arena_printf(s->memory, "%s.0.0", prefix), DTYPE_I32,
                   kv_seq_tokens(s->seq) + length - n);
    add_dimension(s, t, 1);
    add_dimension(s, t, (size_t)n);
    end_arrays(s, prefix);
}

static void add_leaf(struct saving *s, const struct cache_leaf *l)
{
    const char *prefix = l->place < 0 ? arena_printf(s->memory, "%d", l->entry)
                                      : arena_printf(s->memory, "%d.%d.0", l->entry, l->place);

    if (!prefix) {
        s->failed = true;
        return;
    }
    if (l->place <= 0)
        add_metadata(s, arena_printf(s->memory, "1.%d", l->entry),
                     l->place < 0 ? class_of(l) : "CacheList");
    switch (l->kind) {
    case CACHE_KV:
    case CACHE_LATENT:
    case CACHE_INDEX:
        add_kv(s, l, prefix);
        break;
    case CACHE_STATE:
        add_state(s, l, prefix);
        break;
    case CACHE_TOKENS:
        add_past(s, prefix);
        break;
    case CACHE_IDLE:
        add_idle(s, prefix);
        break;
    }
    if (l->place >= 0)
        add_text(s, arena_printf(s->memory, "%d.%d.1", l->entry, l->place), class_of(l));
}

/* Rows as they are written */

enum { PIECE_BYTES = 1 << 18 };

/* Rows [from, to) of a head, of one block, packed at out. */
static void copy_block(const struct saving *s, const struct source *src, int head, int from, int to,
                       uint8_t *rows, uint8_t *out)
{
    kv_cache *cache = engine_cache(s->engine);
    device *dev = engine_model(s->engine)->dev;
    const struct kv_layer *kv = kv_cache_layer(cache, src->leaf->cache_layer);
    const struct columns *c = &src->columns;
    int group = kv_cache_group_of(cache, src->leaf->cache_layer);
    struct kv_table table = kv_seq_table(s->seq, group);
    size_t item = dtype_size(kv->type), row = (size_t)c->dim * item, n = (size_t)c->n * item;
    int block = from / KV_BLOCK_TOKENS - table.first_block;
    size_t offset = c->of_values ? kv->v_offset : kv->k_offset;

    offset += ((size_t)head * KV_BLOCK_TOKENS + (size_t)(from % KV_BLOCK_TOKENS)) * row;
    dev->ops->download(dev, rows,
                       (const uint8_t *)kv_cache_block(cache, group, table.blocks[block]) + offset,
                       (size_t)(to - from) * row);
    for (int r = 0; r < to - from; r++)
        memcpy(out + (size_t)r * n, rows + (size_t)r * row + (size_t)c->first * item, n);
}

/* Rows on their way to the file, some at a time. */
struct batch {
    file_writer *w;
    uint8_t *data;
    size_t capacity, used;
};

/* Where the next so many bytes go, at most capacity; NULL with *err when writing fails. */
static uint8_t *batch_room(struct batch *b, size_t size, clm_error *err)
{
    uint8_t *at;

    if (b->capacity - b->used < size) {
        if (file_writer_write(b->w, b->data, b->used, err))
            return NULL;
        b->used = 0;
    }
    at = b->data + b->used;
    b->used += size;
    return at;
}

static int write_head(const struct saving *s, const struct source *src, int head, size_t row,
                      uint8_t *rows, struct batch *b, clm_error *err)
{
    int length = kv_seq_length(s->seq);
    uint8_t *at;

    if (src->blank) {
        at = batch_room(b, row, err);
        if (!at)
            return -1;
        memset(at, 0, row);
    }
    for (int from = src->begin, to; from < length; from = to) {
        to = (from / KV_BLOCK_TOKENS + 1) * KV_BLOCK_TOKENS;
        to = to < length ? to : length;
        at = batch_room(b, (size_t)(to - from) * row, err);
        if (!at)
            return -1;
        copy_block(s, src, head, from, to, rows, at);
    }
    return 0;
}

/* All rows, head by head. */
static int fill_rows(void *ctx, const struct checkpoint_tensor *t, file_writer *w, clm_error *err)
{
    const struct saving *s = ctx;
    const struct source *src = &s->sources[t - s->tensors];
    size_t item = dtype_size(t->type), row = (size_t)src->columns.n * item;
    size_t block_bytes = KV_BLOCK_TOKENS * (size_t)src->columns.dim * item;
    struct batch b = {.w = w, .capacity = PIECE_BYTES > block_bytes ? PIECE_BYTES : block_bytes};
    uint8_t *rows = mem_alloc(block_bytes);
    int rc = 0;

    b.data = mem_alloc(b.capacity);
    if (!rows || !b.data)
        rc = fail(err, CLM_ERR_NOMEM, "%s: no memory to write a cache", s->path);
    for (int head = 0; rc == 0 && head < (int)t->shape[1]; head++)
        rc = write_head(s, src, head, row, rows, &b, err);
    if (rc == 0)
        rc = file_writer_write(w, b.data, b.used, err);
    mem_free(rows);
    mem_free(b.data);
    return rc;
}

/* The whole */

static int check(const struct saving *s)
{
    kv_cache *c = engine_cache(s->engine);

    const int32_t *tokens = kv_seq_tokens(s->seq);
    int length = kv_seq_length(s->seq);

    if (length < 1)
        return fail(s->err, CLM_ERR_ARG, "%s: the cache to be saved holds no tokens", s->path);
    for (int i = length - 1; i >= 0 && i > length - engine_model(s->engine)->spec->ngram.n; i--)
        if (tokens[i] < 0)
            return fail(s->err, CLM_ERR_ARG, "%s: the last tokens of the cache are not known",
                        s->path);
    for (int i = 0; i < engine_model(s->engine)->nn->n_cache_layers; i++) {
        enum dtype type = kv_cache_layer(c, i)->type;

        if (type != DTYPE_F32 && type != DTYPE_F16 && type != DTYPE_BF16)
            return fail(s->err, CLM_ERR_UNSUPPORTED, "%s: a cache of %s cannot be saved", s->path,
                        dtype_name(type));
    }
    return 0;
}

/* Room for what the leaves add at most. */
static int open_lists(struct saving *s)
{
    size_t leaves = (size_t)s->plan.n_leaves;

    s->tensor_capacity = leaves * (LAYER_MAX_BRANCHES * NN_STATE_PIECES + 8) + 1;
    s->metadata_capacity = 3 * s->tensor_capacity + 8;
    s->tensors = arena_array(s->memory, struct checkpoint_tensor, s->tensor_capacity);
    s->sources = arena_array(s->memory, struct source, s->tensor_capacity);
    s->metadata = arena_array(s->memory, const char *, 2 * s->metadata_capacity);
    s->state = arena_array(s->memory, uint8_t, kv_cache_state_bytes(engine_cache(s->engine)) + 1);
    if (!s->tensors || !s->sources || !s->metadata || !s->state)
        return fail(s->err, CLM_ERR_NOMEM, "%s: no memory to write a cache", s->path);
    return 0;
}

static void download_state(struct saving *s)
{
    device *dev = engine_model(s->engine)->dev;
    const void *from = kv_seq_state(s->seq).from;

    if (from)
        dev->ops->download(dev, s->state, from, kv_cache_state_bytes(engine_cache(s->engine)));
}

static void add_origin(struct saving *s, const struct cache_origin *o, const char *model)
{
    add_metadata(s, "0.model", o && o->model ? o->model : "");
    add_metadata(s, "0.tokenizer_config", "{}");
    if (model[0])
        add_metadata(s, "0.clm_model", model);
    if (o && o->tokenizer)
        add_metadata(s, "0.clm_tokenizer", o->tokenizer);
    if (o && o->chat_template)
        add_metadata(s, "0.clm_chat_template", o->chat_template);
}

static int save(struct saving *s, const struct cache_origin *o)
{
    const struct model *m = engine_model(s->engine);
    char model[FINGERPRINT_SIZE];

    if (check(s) || model_fingerprint(m, model, s->err) ||
        cache_plan_make(&s->plan, m, s->memory, s->err) || open_lists(s))
        return -1;
    download_state(s);
    add_origin(s, o, model);
    add_metadata(s, "2.0", "");
    for (int i = 0; i < s->plan.n_leaves; i++)
        add_leaf(s, &s->plan.leaves[i]);
    add_tokens(s);
    if (s->failed)
        return fail(s->err, CLM_ERR_NOMEM, "%s: no memory to write a cache", s->path);
    return safetensors_write_with(s->path, s->tensors, s->n_tensors, s->metadata, s->n_metadata,
                                  fill_rows, s, s->err);
}

int cache_file_save(engine *e, const kv_seq *seq, const char *path, const struct cache_origin *o,
                    clm_error *err)
{
    struct saving s = {.engine = e, .seq = seq, .path = path, .err = err};
    int rc = -1;

    s.memory = arena_open(0);
    if (s.memory)
        rc = save(&s, o);
    else
        fail(err, CLM_ERR_NOMEM, "%s: no memory to write a cache", path);
    arena_close(s.memory);
    return rc;
}
