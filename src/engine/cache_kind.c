/* engine/cache_kind.c: how a prompt cache's file keeps keys and values. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cache_file.h"
#include "engine/cache_plan.h"
#include "engine/cache_source.h"

/* What one cache of the file adds. */
static void add_kind(struct kv_cache_options *kind, const struct cache_source *s,
                     const struct source_leaf *from, const struct cache_leaf *leaf)
{
    clm_error ignored = {0};
    int a, b;

    if (cache_source_number(s, from, 3, &a, &ignored) ||
        cache_source_number(s, from, 4, &b, &ignored))
        return;
    if (!strcmp(from->class, "QuantizedKVCache") && (b == 4 || b == 8) &&
        (a == 32 || a == 64 || a == 128)) {
        kind->bits = b;
        kind->group_size = a;
    }
    /* A sliding window keeps no first tokens. */
    if (!strcmp(from->class, "RotatingKVCache") && b > a && (a > 0 || !cache_leaf_window(leaf))) {
        kind->n_first = a;
        kind->max_tokens = b;
    }
}

static void add_kinds(struct kv_cache_options *kind, struct cache_source *s, const struct model *m)
{
    struct cache_plan plan;
    clm_error ignored = {0};
    const char *from;

    if (cache_plan_make(&plan, m, s->memory, &ignored) ||
        cache_source_open(s, plan.n_leaves, &ignored))
        return;
    for (int i = 0, n = 0; i < plan.n_leaves && n < s->n_leaves; i++)
        if (plan.leaves[i].kind != CACHE_IDLE)
            add_kind(kind, s, &s->leaves[n++], &plan.leaves[i]);
    from = cache_source_metadata(s, CACHE_QUANTIZED_FROM);
    if (kind->bits && from) {
        long n = strtol(from, NULL, 10);

        kind->quantised_from = n < 0 ? 0 : n > INT_MAX ? INT_MAX : (int)n;
    }
}

struct kv_cache_options cache_file_kind(const struct model *m, const char *path)
{
    struct kv_cache_options kind = {0};
    struct cache_source s = {.name = path, .memory = arena_open(0)};
    clm_error ignored = {0};

    if (s.memory && safetensors_open(&s.file, path, &ignored) == 0) {
        add_kinds(&kind, &s, m);
        safetensors_close(&s.file);
    }
    arena_close(s.memory);
    return kind;
}
