/* engine/cache_load.c: a sequence from mlx-lm's prompt cache. All of the file is checked before the
 * cache is touched. */
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "engine/cache_file.h"
#include "engine/cache_rows.h"
#include "nn/state_pieces.h"

/* A length that neither rows nor tokens in the file bear out is held below this. */
#define MAX_BARE_LENGTH (1 << 24)

struct loading {
    engine *engine;
    struct cache_source source;
    struct cache_plan plan;
    struct cache_rows *rows; /* [n_rows] caches of keys and values */
    int n_rows;
    int length;      /* tokens; 0: not known yet */
    int n_told;      /* of them, the last, so many are told by a cache of tokens */
    int32_t *tokens; /* [length] */
    const struct checkpoint_tensor *past; /* [1, n_told] */
    struct file_map *file;                /* of the source; empty: it is not a file, or in map */
    struct file_identity identity;        /* of the file */
    kv_map *map;                          /* NULL: there is none */
    uint8_t *state;                       /* of all recurrent mixers */
    clm_error *err;
};

/* Whose cache it is */

static int check_same(const struct loading *l, const char *key, const char *own, const char *what)
{
    const char *theirs = cache_source_metadata(&l->source, key);

    if (!theirs || !own || !strcmp(theirs, own))
        return 0;
    return fail(l->err, CLM_ERR_FORMAT,
                "%s was made with another %s than this one's: make it again (clm cache-prompt), or "
                "take the model that it was made with",
                l->source.name, what);
}

static int check_origin(const struct loading *l, const struct cache_origin *o)
{
    char model[FINGERPRINT_SIZE];

    if (model_fingerprint(engine_model(l->engine), model, l->err) ||
        check_same(l, "0.clm_model", model[0] ? model : NULL, "model"))
        return -1;
    return check_same(l, "0.clm_tokenizer", o ? o->tokenizer : NULL, "tokenizer") ||
                   check_same(l, "0.clm_chat_template", o ? o->chat_template : NULL,
                              "chat template")
               ? -1
               : 0;
}

/* Caches of each kind */

static int read_rows(struct loading *l, const struct cache_leaf *leaf,
                     const struct source_leaf *from)
{
    const struct kv_layer *kv = kv_cache_layer(engine_cache(l->engine), leaf->cache_layer);
    struct cache_rows *r = &l->rows[l->n_rows++];
    char early[32];

    snprintf(early, sizeof early, "%d.%d", l->source.n_entries + 1, (int)(leaf - l->plan.leaves));
    if (cache_rows_read(r, &l->source, from, leaf, kv, l->err) ||
        cache_rows_read_early(r, &l->source, early, l->err))
        return -1;
    if (l->length && r->length != l->length)
        return fail(l->err, CLM_ERR_FORMAT,
                    "%s is damaged: cache %s holds %d tokens, one before it %d", l->source.name,
                    from->prefix, r->length, l->length);
    l->length = r->length;
    return 0;
}

/* No array of batches, and the class. */
static int check_arrays(const struct loading *l, const struct source_leaf *from)
{
    if (strcmp(from->class, "ArraysCache"))
        return fail(l->err, CLM_ERR_UNSUPPORTED,
                    "%s: cache %s is of class %.31s, where the model has an ArraysCache",
                    l->source.name, from->prefix, from->class);
    if (cache_source_array(&l->source, from, 1, -1) || cache_source_array(&l->source, from, 2, -1))
        return fail(l->err, CLM_ERR_UNSUPPORTED, "%s: cache %s is that of a batch", l->source.name,
                    from->prefix);
    return 0;
}

/* An array of the shape [1, dims of the piece] as f32 in the arena; NULL with an error. */
static float *read_array(const struct loading *l, const struct source_leaf *from, int i,
                         const struct nn_state_piece *p)
{
    const struct checkpoint_tensor *t = cache_source_array(&l->source, from, 0, i);
    bool fits = t && t->n_dims == p->n_dims + 1 && t->shape[0] == 1;
    float *numbers;

    for (int d = 0; fits && d < p->n_dims; d++)
        fits = t->shape[d + 1] == p->dims[d];
    if (!fits)
        return fail_null(
            l->err, CLM_ERR_FORMAT,
            "%s is of another model: array %d of cache %s is not of the shape that the "
            "model has",
            l->source.name, i, from->prefix);
    numbers = arena_array(l->source.memory, float, nn_state_array_count(p) + 1);
    if (!numbers)
        return fail_null(l->err, CLM_ERR_NOMEM, "%s: no memory to load it", l->source.name);
    if (!dtype_to_f32(numbers, t->data, t->type, nn_state_array_count(p)))
        return fail_null(l->err, CLM_ERR_FORMAT,
                         "%s is damaged: array %d of cache %s holds no "
                         "numbers",
                         l->source.name, i, from->prefix);
    return numbers;
}

static int read_state(const struct loading *l, const struct cache_leaf *leaf,
                      const struct source_leaf *from)
{
    int array = 0;

    if (check_arrays(l, from))
        return -1;
    for (int b = 0; b < leaf->layer->n_branches; b++) {
        const struct nn_branch *branch = &leaf->layer->branches[b];
        struct nn_state_piece pieces[NN_STATE_PIECES];
        int n = nn_state_pieces(branch->spec, pieces);
        float *numbers = NULL;

        for (int i = 0; i < n; i++) {
            if (i == 0 || pieces[i].array != pieces[i - 1].array)
                numbers = read_array(l, from, array++, &pieces[i]);
            if (!numbers)
                return -1;
            nn_state_piece_from_array(&pieces[i], l->state + branch->state, numbers);
        }
    }
    return 0;
}

static int read_past(struct loading *l, const struct source_leaf *from)
{
    const struct checkpoint_tensor *t = cache_source_array(&l->source, from, 0, 0);

    if (check_arrays(l, from))
        return -1;
    if (!t || t->n_dims != 2 || t->shape[0] != 1 || t->type != DTYPE_I32 ||
        t->shape[1] >= engine_model(l->engine)->spec->ngram.n)
        return fail(l->err, CLM_ERR_FORMAT, "%s is damaged: cache %s holds no tokens",
                    l->source.name, from->prefix);
    l->past = t;
    l->n_told = (int)t->shape[1];
    return 0;
}

static int read_leaf(struct loading *l, const struct cache_leaf *leaf,
                     const struct source_leaf *from)
{
    switch (leaf->kind) {
    case CACHE_STATE:
        return read_state(l, leaf, from);
    case CACHE_TOKENS:
        return read_past(l, from);
    default:
        return read_rows(l, leaf, from);
    }
}

/* Each cache of the file is one of the plan, in order. */
static int read_leaves(struct loading *l)
{
    const struct cache_leaf *leaf = l->plan.leaves, *end = leaf + l->plan.n_leaves;
    int n = 0;

    for (; leaf < end; leaf++)
        n += leaf->kind != CACHE_IDLE;
    if (n != l->source.n_leaves)
        return fail(l->err, CLM_ERR_FORMAT,
                    "%s holds %d caches, the model has %d: it is of another "
                    "model",
                    l->source.name, l->source.n_leaves, n);
    n = 0;
    for (leaf = l->plan.leaves; leaf < end; leaf++)
        if (leaf->kind != CACHE_IDLE && read_leaf(l, leaf, &l->source.leaves[n++]))
            return -1;
    return 0;
}

/* Tokens */

static int read_ids(const struct loading *l, const struct checkpoint_tensor *t, int32_t *out, int n)
{
    int vocab_size = engine_model(l->engine)->spec->vocab_size;

    for (int i = 0; i < n; i++) {
        out[i] = (int32_t)load_le32((const uint8_t *)t->data + 4 * (size_t)i);
        if (out[i] < 0 || out[i] >= vocab_size)
            return fail(l->err, CLM_ERR_FORMAT,
                        "%s is damaged: token %d is outside the vocabulary of %d", l->source.name,
                        out[i], vocab_size);
    }
    return 0;
}

/* Caches of recurrent mixers do not say how many tokens they have seen, nor does it matter. */
static int find_length(struct loading *l, const struct checkpoint_tensor *tokens)
{
    if (!l->length)
        l->length = tokens ? (int)tokens->shape[0] : 1;
    if (l->length < 1 || (tokens && tokens->shape[0] != l->length) || l->n_told > l->length ||
        (l->past && l->n_told < l->length &&
         l->n_told < engine_model(l->engine)->spec->ngram.n - 1))
        return fail(l->err, CLM_ERR_FORMAT,
                    "%s is damaged: it does not hold as many tokens as it "
                    "says",
                    l->source.name);
    if (!tokens && l->length > MAX_BARE_LENGTH)
        return fail(l->err, CLM_ERR_FORMAT, "%s is damaged: it says to hold %d tokens",
                    l->source.name, l->length);
    return 0;
}

/* *t is the array behind the last cache, NULL where there is none. */
static int find_tokens(const struct loading *l, const struct checkpoint_tensor **t)
{
    char name[32];

    snprintf(name, sizeof name, "%d", l->source.n_entries);
    *t = cache_source_tensor(&l->source, name);
    if (*t && ((*t)->n_dims != 1 || (*t)->type != DTYPE_I32 || (*t)->shape[0] > INT32_MAX))
        return fail(l->err, CLM_ERR_FORMAT, "%s is damaged: %s are no tokens", l->source.name,
                    name);
    return 0;
}

static int read_tokens(struct loading *l)
{
    const struct checkpoint_tensor *t;

    if (find_tokens(l, &t) || find_length(l, t))
        return -1;
    l->tokens = arena_array(l->source.memory, int32_t, l->length);
    if (!l->tokens)
        return fail(l->err, CLM_ERR_NOMEM, "%s: no memory to load it", l->source.name);
    if (t)
        return read_ids(l, t, l->tokens, l->length);
    for (int i = 0; i < l->length; i++)
        l->tokens[i] = -1;
    return l->past ? read_ids(l, l->past, l->tokens + l->length - l->n_told, l->n_told) : 0;
}

/* Into the cache */

/* What can stay in the file does. */
static int map_rows(struct loading *l)
{
    const uint8_t *base = l->file->data;

    if (!base || l->n_rows == 0)
        return 0;
    l->map = kv_map_open(engine_cache(l->engine), l->file, &l->identity, l->err);
    for (int i = 0; l->map && i < l->n_rows; i++)
        cache_rows_map(&l->rows[i], l->engine, l->map, base);
    return l->map ? 0 : -1;
}

static int upload_state(const struct loading *l, const kv_seq *seq)
{
    const struct nn_model *nn = engine_model(l->engine)->nn;
    void *to[] = {kv_seq_state(seq).to, kv_seq_rest_state(seq).to};

    for (int i = 0; i < nn->n_parts; i++) {
        const struct nn_part *p = &nn->parts[i];

        if (to[i])
            p->dev->ops->upload(p->dev, to[i], l->state + p->state, p->state_bytes);
        if (p->dev->ops->sync(p->dev, l->err))
            return -1;
    }
    return 0;
}

static kv_seq *fill_sequence(const struct loading *l)
{
    kv_seq *seq = kv_seq_open(engine_cache(l->engine), l->err);

    if (!seq || kv_seq_reserve_past(seq, l->length, l->map, l->err))
        goto failed;
    for (int i = 0; i < l->n_rows; i++)
        if (cache_rows_store(&l->rows[i], l->engine, seq, l->err))
            goto failed;
    if (upload_state(l, seq))
        goto failed;
    kv_seq_commit(seq, l->tokens, l->length);
    return seq;

failed:
    kv_seq_close(seq);
    return NULL;
}

static kv_seq *load(struct loading *l, const struct cache_origin *o)
{
    const struct model *m = engine_model(l->engine);
    arena *a = l->source.memory;

    if (cache_plan_make(&l->plan, m, a, l->err) ||
        cache_source_open(&l->source, l->plan.n_leaves, l->err) || check_origin(l, o))
        return NULL;
    l->rows = arena_array(a, struct cache_rows, l->plan.n_leaves);
    l->state = arena_array(a, uint8_t, kv_cache_state_bytes(engine_cache(l->engine)) + 1);
    if (!l->rows || !l->state)
        return fail_null(l->err, CLM_ERR_NOMEM, "%s: no memory to load it", l->source.name);
    if (read_leaves(l) || read_tokens(l) || map_rows(l))
        return NULL;
    return fill_sequence(l);
}

/* The file is open in *file, and closed in any case. */
static kv_seq *load_file(struct loading *l, struct safetensors *file, const char *name,
                         const struct cache_origin *o)
{
    kv_seq *seq = NULL;

    l->file = &file->map;
    l->source.file = *file;
    l->source.name = name;
    l->source.memory = arena_open(0);
    if (l->source.memory)
        seq = load(l, o);
    else
        fail(l->err, CLM_ERR_NOMEM, "%s: no memory to load it", name);
    arena_close(l->source.memory);
    kv_map_close(l->map);
    safetensors_close(file);
    return seq;
}

kv_seq *cache_file_load(engine *e, const char *path, const struct cache_origin *o, clm_error *err)
{
    struct loading l = {.engine = e, .err = err};
    struct safetensors file;
    kv_seq *seq;

    /* What it is like before it is mapped: a change after that is noticed. */
    if (file_identify(&l.identity, path, err))
        return NULL;
    l.identity.at_any_time = o && o->replaced_whole;
    seq = safetensors_open(&file, path, err) ? NULL : load_file(&l, &file, path, o);
    file_identity_release(&l.identity);
    return seq;
}

kv_seq *cache_file_parse(engine *e, const void *data, size_t size, const char *name,
                         const struct cache_origin *o, clm_error *err)
{
    struct loading l = {.engine = e, .err = err};
    struct safetensors file;

    return safetensors_parse(&file, data, size, name, err) ? NULL : load_file(&l, &file, name, o);
}

static int32_t *tokens_of(struct loading *l, int *n)
{
    const struct checkpoint_tensor *t;
    int32_t *tokens;

    if (cache_plan_make(&l->plan, engine_model(l->engine), l->source.memory, l->err) ||
        cache_source_open(&l->source, l->plan.n_leaves, l->err) || find_tokens(l, &t))
        return NULL;
    if (!t || t->shape[0] < 1)
        return fail_null(l->err, CLM_ERR_FORMAT, "%s does not tell its tokens", l->source.name);
    *n = (int)t->shape[0];
    tokens = mem_alloc((size_t)*n * sizeof *tokens);
    if (!tokens)
        return fail_null(l->err, CLM_ERR_NOMEM, "%s: no memory for its tokens", l->source.name);
    if (!read_ids(l, t, tokens, *n))
        return tokens;
    mem_free(tokens);
    return NULL;
}

int32_t *cache_file_tokens(engine *e, const char *path, int *n, clm_error *err)
{
    struct loading l = {.engine = e, .source.name = path, .err = err};
    int32_t *tokens = NULL;

    if (safetensors_open(&l.source.file, path, err))
        return NULL;
    l.source.memory = arena_open(0);
    if (l.source.memory)
        tokens = tokens_of(&l, n);
    else
        fail(err, CLM_ERR_NOMEM, "%s: no memory to read it", path);
    arena_close(l.source.memory);
    safetensors_close(&l.source.file);
    return tokens;
}
