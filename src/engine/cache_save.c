/* engine/cache_save.c: writing a sequence as mlx-lm's prompt cache. */
#include <string.h>

#include "base/utf8.h"
#include "engine/cache_columns.h"
#include "engine/cache_file.h"
#include "engine/cache_plan.h"
#include "format/safetensors.h"
#include "nn/state_pieces.h"

/* Rows of tokens: the first ones, one of zeros where blank, for mlx-lm wants full windows though no
 * token will see it, and those of [begin, end). */
struct range {
    int n_first;
    bool blank;
    int begin, end;
};

/* What is written in place of a tensor without data. */
struct source {
    struct cache_columns columns;
    struct range range;
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

static const struct kv_layer *layer_of(const struct saving *s, const struct cache_leaf *l)
{
    return kv_cache_layer(engine_cache(s->engine), l->cache_layer);
}

/* mlx-lm can go on from quantised keys and values where attention reads them as they are, all of
 * them; for others it has no class. */
static bool is_coded(const struct saving *s, const struct cache_leaf *l)
{
    const struct kv_layer *kv;

    if (l->kind != CACHE_KV || cache_leaf_window(l))
        return false;
    kv = layer_of(s, l);
    return kv->bits && !kv->n_last && kv->k_dim % kv->group_size == 0 &&
           kv->v_dim % kv->group_size == 0 && kv_seq_length(s->seq) > kv->split;
}

static const char *class_of(const struct saving *s, const struct cache_leaf *l)
{
    if (l->kind == CACHE_STATE || l->kind == CACHE_TOKENS)
        return "ArraysCache";
    if (is_coded(s, l))
        return "QuantizedKVCache";
    if (l->kind != CACHE_IDLE && layer_of(s, l)->n_last)
        return "RotatingKVCache";
    if (l->kind == CACHE_KV && l->spec->attention.chunk)
        return "ChunkedKVCache";
    return cache_leaf_window(l) ? "RotatingKVCache" : "KVCache";
}

/* What is there of a cache, as mlx-lm would have it. */
static struct range range_of(const struct saving *s, const struct cache_leaf *l)
{
    const struct kv_layer *kv = layer_of(s, l);
    int length = kv_seq_length(s->seq), begin = 0;
    int last = kv->n_last ? kv->n_last : cache_leaf_window(l);

    if (last && last < length - kv->n_first)
        begin = length - last;
    return (struct range){begin ? kv->n_first : 0, begin > 0, begin + (begin > 0), length};
}

static int range_rows(struct range r)
{
    return r.n_first + r.blank + (r.end - r.begin);
}

static void add_rows(struct saving *s, const char *name, struct cache_columns columns,
                     struct range range)
{
    const struct kv_layer *kv = kv_cache_layer(engine_cache(s->engine), columns.layer);
    enum dtype type = columns.form == ROW_CODES ? DTYPE_U32 : kv->type;
    struct checkpoint_tensor *t = add_tensor(s, name, type, NULL);

    add_dimension(s, t, 1);
    add_dimension(s, t, (size_t)kv->n_kv_heads);
    add_dimension(s, t, (size_t)range_rows(range));
    add_dimension(s, t, cache_columns_bytes(&columns, kv) / dtype_size(type));
    if (t)
        s->sources[t - s->tensors] = (struct source){columns, range};
}

/* One array, or three of what is quantised. */
static void add_columns(struct saving *s, const char *prefix, int place,
                        struct cache_columns columns, struct range range, bool coded)
{
    if (!coded) {
        add_rows(s, arena_printf(s->memory, "%s.%d", prefix, place), columns, range);
        return;
    }
    for (int i = 0; i < 3; i++) {
        columns.form = ROW_CODES + i;
        add_rows(s, arena_printf(s->memory, "%s.%d.%d", prefix, place, i), columns, range);
    }
}

/* Keys and values, as the kind of cache has them. */
static void add_keys_and_values(struct saving *s, const struct cache_leaf *l, const char *prefix,
                                struct range range, bool coded)
{
    const struct kv_layer *kv = layer_of(s, l);
    struct cache_columns keys = {.layer = l->cache_layer, .n = kv->k_dim};
    struct cache_columns values = {.layer = l->cache_layer, .of_values = true, .n = kv->v_dim};

    if (l->kind == CACHE_LATENT) {
        struct cache_columns latent = values;

        values = keys;
        values.n = l->spec->mla.rope_dim;
        keys = latent;
    }
    if (l->kind == CACHE_INDEX) {
        values = keys;
        if (l->spec->op != OP_MLA)
            values.n = 0;
    }
    add_columns(s, prefix, 0, keys, range, coded);
    add_columns(s, prefix, 1, values, range, coded);
}

static void add_kv(struct saving *s, const struct cache_leaf *l, const char *prefix)
{
    const struct kv_layer *kv = layer_of(s, l);
    struct range range = range_of(s, l);
    int length = kv_seq_length(s->seq), n = range_rows(range), window = cache_leaf_window(l);

    add_keys_and_values(s, l, prefix, range, is_coded(s, l));
    add_number(s, prefix, 2, length);
    if (is_coded(s, l)) {
        add_number(s, prefix, 3, kv->group_size);
        add_number(s, prefix, 4, kv->bits);
    } else if (kv->n_last || (window && !l->spec->attention.chunk)) {
        add_number(s, prefix, 3, kv->n_first);
        add_number(s, prefix, 4, kv->n_last ? kv->n_first + kv->n_last : window);
        add_number(s, prefix, 5, n); /* where the next one goes */
    } else if (window) {
        add_number(s, prefix, 3, window);
        add_number(s, prefix, 4, length - n); /* where it begins */
    }
}

/* The first tokens of quantised caches that are not quantised, in an entry behind the tokens. */
static void add_early(struct saving *s)
{
    bool any = false;

    for (int i = 0; i < s->plan.n_leaves; i++) {
        const struct cache_leaf *l = &s->plan.leaves[i];
        int split = is_coded(s, l) ? layer_of(s, l)->split : 0;
        const char *prefix = arena_printf(s->memory, "%d.%d", s->plan.n_entries + 1, i);

        if (!split)
            continue;
        add_keys_and_values(s, l, prefix, (struct range){.end = split}, false);
        if (!any)
            add_metadata(s, CACHE_QUANTIZED_FROM, arena_printf(s->memory, "%d", split));
        any = true;
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
                     l->place < 0 ? class_of(s, l) : "CacheList");
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
        add_text(s, arena_printf(s->memory, "%d.%d.1", l->entry, l->place), class_of(s, l));
}

/* Rows as they are written */

enum { PIECE_BYTES = 1 << 18 };

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

/* Of a head and tokens [from, end). */
static int write_tokens(const struct saving *s, const struct cache_columns *c, int head, int from,
                        int end, size_t row, void *room, struct batch *b)
{
    for (int to; from < end; from = to) {
        uint8_t *at;

        to = (from / KV_BLOCK_TOKENS + 1) * KV_BLOCK_TOKENS;
        to = to < end ? to : end;
        at = batch_room(b, (size_t)(to - from) * row, s->err);
        if (!at)
            return -1;
        cache_columns_read(c, s->engine, s->seq, head, from, to, room, at);
    }
    return 0;
}

static int write_head(const struct saving *s, const struct source *src, int head, size_t row,
                      void *room, struct batch *b)
{
    const struct range *r = &src->range;
    uint8_t *blank;

    if (write_tokens(s, &src->columns, head, 0, r->n_first, row, room, b))
        return -1;
    if (r->blank) {
        blank = batch_room(b, row, s->err);
        if (!blank)
            return -1;
        memset(blank, 0, row);
    }
    return write_tokens(s, &src->columns, head, r->begin, r->end, row, room, b);
}

/* All rows, head by head. */
static int fill_rows(void *ctx, const struct checkpoint_tensor *t, file_writer *w, clm_error *err)
{
    const struct saving *s = ctx;
    const struct source *src = &s->sources[t - s->tensors];
    const struct kv_layer *kv = kv_cache_layer(engine_cache(s->engine), src->columns.layer);
    size_t row = cache_columns_bytes(&src->columns, kv), block_bytes = KV_BLOCK_TOKENS * row;
    struct batch b = {.w = w, .capacity = PIECE_BYTES > block_bytes ? PIECE_BYTES : block_bytes};
    void *room = mem_alloc(cache_columns_room(&src->columns, kv));
    int rc = 0;

    b.data = mem_alloc(b.capacity);
    if (!room || !b.data)
        rc = fail(err, CLM_ERR_NOMEM, "%s: no memory to write a cache", s->path);
    for (int head = 0; rc == 0 && head < (int)t->shape[1]; head++)
        rc = write_head(s, src, head, row, room, &b);
    if (rc == 0)
        rc = file_writer_write(w, b.data, b.used, err);
    mem_free(room);
    mem_free(b.data);
    return rc;
}

/* The whole */

static int check(const struct saving *s)
{
    const int32_t *tokens = kv_seq_tokens(s->seq);
    int length = kv_seq_length(s->seq);

    if (length < 1)
        return fail(s->err, CLM_ERR_ARG, "%s: the cache to be saved holds no tokens", s->path);
    if (kv_seq_check(s->seq, s->err))
        return -1;
    for (int i = length - 1; i >= 0 && i > length - engine_model(s->engine)->spec->ngram.n; i--)
        if (tokens[i] < 0)
            return fail(s->err, CLM_ERR_ARG, "%s: the last tokens of the cache are not known",
                        s->path);
    return 0;
}

/* Room for what the leaves add at most. */
static int open_lists(struct saving *s)
{
    size_t leaves = (size_t)s->plan.n_leaves;

    s->tensor_capacity = leaves * (LAYER_MAX_BRANCHES * NN_STATE_PIECES + 16) + 1;
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
    const struct nn_model *nn = engine_model(s->engine)->nn;
    const void *from[] = {kv_seq_state(s->seq).from, kv_seq_rest_state(s->seq).from};

    for (int i = 0; i < nn->n_parts; i++) {
        const struct nn_part *p = &nn->parts[i];

        if (from[i])
            p->dev->ops->download(p->dev, s->state + p->state, from[i], p->state_bytes);
    }
}

static void add_origin(struct saving *s, const struct cache_origin *o, const char *model)
{
    const char *name = o && o->model ? o->model : "";

    /* A folder may have any bytes in its name, the file has UTF-8 alone. */
    add_metadata(s, "0.model", utf8_valid(name, strlen(name)) ? name : "");
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
    add_early(s);
    if (s->failed)
        return fail(s->err, CLM_ERR_NOMEM, "%s: no memory to write a cache", s->path);
    return safetensors_write_with(s->path, s->tensors, s->n_tensors, s->metadata, s->n_metadata,
                                  fill_rows, s, s->err);
}

int cache_file_save(engine *e, const kv_seq *seq, const char *path, const struct cache_origin *o,
                    clm_error *err)
{
    struct saving s = {.engine = e, .seq = seq, .path = path, .err = err};
    kv_seq *whole = NULL;
    int rc = -1;

    if (!kv_seq_is_whole(seq)) {
        whole = engine_fork_whole(e, seq, err);
        if (!whole)
            return -1;
        s.seq = whole;
    }
    s.memory = arena_open(0);
    if (s.memory)
        rc = save(&s, o);
    else
        fail(err, CLM_ERR_NOMEM, "%s: no memory to write a cache", path);
    arena_close(s.memory);
    kv_seq_close(whole);
    return rc;
}
