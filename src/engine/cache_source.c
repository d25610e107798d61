#include "engine/cache_source.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"

static int tensors_by_name(const void *a, const void *b)
{
    const struct checkpoint_tensor *x = *(const struct checkpoint_tensor *const *)a;
    const struct checkpoint_tensor *y = *(const struct checkpoint_tensor *const *)b;

    return strcmp(x->name, y->name);
}

static int strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const struct checkpoint_tensor *cache_source_tensor(const struct cache_source *s, const char *name)
{
    struct checkpoint_tensor key = {.name = name};
    const struct checkpoint_tensor *wanted = &key, **found;

    found = bsearch(&wanted, s->tensors, s->file.n_tensors, sizeof *s->tensors, tensors_by_name);
    return found ? *found : NULL;
}

const char *cache_source_metadata(const struct cache_source *s, const char *key)
{
    const char **found =
        bsearch(&key, s->metadata, s->file.n_metadata, 2 * sizeof *s->metadata, strings);

    return found ? found[1] : NULL;
}

const struct checkpoint_tensor *cache_source_array(const struct cache_source *s,
                                                   const struct source_leaf *l, int place, int i)
{
    const struct checkpoint_tensor *t;
    char name[sizeof l->prefix + 32];

    if (i < 0)
        snprintf(name, sizeof name, "%s.%d", l->prefix, place);
    else
        snprintf(name, sizeof name, "%s.%d.%d", l->prefix, place, i);
    t = cache_source_tensor(s, name);
    return t && t->n_dims == 1 && t->size == 0 ? NULL : t;
}

int cache_source_number(const struct cache_source *s, const struct source_leaf *l, int place,
                        int *out, clm_error *err)
{
    const struct checkpoint_tensor *t = cache_source_array(s, l, place, -1);
    uint64_t value = UINT64_MAX;

    if (t && t->n_dims == 0 && t->type == DTYPE_I32)
        value = load_le32(t->data);
    else if (t && t->n_dims == 0 && t->type == DTYPE_I64)
        value = load_le64(t->data);
    if (value > INT_MAX)
        return fail(err, CLM_ERR_FORMAT, "%s: %s.%d is no number of tokens", s->name, l->prefix,
                    place);
    *out = (int)value;
    return 0;
}

/* A short text, kept as the numbers of its characters. */
static bool read_text(const struct cache_source *s, const char *name, char *out, size_t size)
{
    const struct checkpoint_tensor *t = cache_source_tensor(s, name);

    if (!t || t->type != DTYPE_I32 || t->n_dims != 1 || t->shape[0] >= (int64_t)size)
        return false;
    for (size_t i = 0; i < (size_t)t->shape[0]; i++) {
        uint32_t c = load_le32((const uint8_t *)t->data + 4 * i);

        if (c <= ' ' || c > '~')
            return false;
        out[i] = (char)c;
    }
    out[t->shape[0]] = '\0';
    return true;
}

/* A layer's that was never used: neither keys nor arrays. */
static bool is_empty(const struct cache_source *s, const struct source_leaf *l)
{
    return !cache_source_array(s, l, 0, -1) && !cache_source_array(s, l, 0, 0);
}

static int add_leaf(struct cache_source *s, struct source_leaf leaf, int max_leaves, clm_error *err)
{
    if (is_empty(s, &leaf))
        return 0;
    if (s->n_leaves == max_leaves)
        return fail(err, CLM_ERR_FORMAT,
                    "%s holds more than the %d caches that the model has: it is of another model",
                    s->name, max_leaves);
    s->leaves[s->n_leaves++] = leaf;
    return 0;
}

/* Caches i.0, i.1, ... of a list: the state of each, then its class. */
static int add_list(struct cache_source *s, int entry, int max_leaves, clm_error *err)
{
    for (int i = 0;; i++) {
        struct source_leaf leaf = {.entry = entry};
        char name[32];

        snprintf(name, sizeof name, "%d.%d.1", entry, i);
        if (!read_text(s, name, leaf.class, sizeof leaf.class))
            return i ? 0
                     : fail(err, CLM_ERR_FORMAT, "%s: the list of caches %d has none", s->name,
                            entry);
        snprintf(leaf.prefix, sizeof leaf.prefix, "%d.%d.0", entry, i);
        if (add_leaf(s, leaf, max_leaves, err))
            return -1;
    }
}

static int add_entries(struct cache_source *s, int max_leaves, clm_error *err)
{
    for (;; s->n_entries++) {
        struct source_leaf leaf = {.entry = s->n_entries};
        char key[32];
        const char *class;
        int rc;

        snprintf(key, sizeof key, "1.%d", s->n_entries);
        class = cache_source_metadata(s, key);
        if (!class)
            return 0;
        snprintf(leaf.class, sizeof leaf.class, "%s", class);
        snprintf(leaf.prefix, sizeof leaf.prefix, "%d", s->n_entries);
        rc = strcmp(class, "CacheList") ? add_leaf(s, leaf, max_leaves, err)
                                        : add_list(s, s->n_entries, max_leaves, err);
        if (rc)
            return -1;
    }
}

static int sort(struct cache_source *s, clm_error *err)
{
    size_t n = s->file.n_tensors, m = s->file.n_metadata;

    s->tensors = arena_array(s->memory, const struct checkpoint_tensor *, n + 1);
    s->metadata = arena_array(s->memory, const char *, 2 * m + 1);
    if (!s->tensors || !s->metadata)
        return fail(err, CLM_ERR_NOMEM, "%s: no memory for %zu tensors", s->name, n);
    for (size_t i = 0; i < n; i++)
        s->tensors[i] = &s->file.tensors[i];
    qsort(s->tensors, n, sizeof *s->tensors, tensors_by_name);
    if (m)
        memcpy(s->metadata, s->file.metadata, 2 * m * sizeof *s->metadata);
    qsort(s->metadata, m, 2 * sizeof *s->metadata, strings);
    return 0;
}

int cache_source_open(struct cache_source *s, int max_leaves, clm_error *err)
{
    const char *old;

    s->leaves = arena_array(s->memory, struct source_leaf, (size_t)max_leaves + 1);
    if (!s->leaves)
        return fail(err, CLM_ERR_NOMEM, "%s: no memory for %d caches", s->name, max_leaves);
    if (sort(s, err))
        return -1;
    old = cache_source_metadata(s, "2.0");
    if (!old)
        return fail(err, CLM_ERR_FORMAT, "%s is no prompt cache", s->name);
    if (old[0])
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s was written by an older mlx-lm, in another layout: make it again", s->name);
    if (add_entries(s, max_leaves, err))
        return -1;
    return s->n_leaves ? 0 : fail(err, CLM_ERR_FORMAT, "%s: the cache holds no tokens", s->name);
}
