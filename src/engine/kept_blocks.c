#include "engine/kept_blocks.h"

#include <string.h>

#include "base/memory.h"

int kept_blocks_init(struct kept_blocks *k, const kv_cache *c, clm_error *err)
{
    *k = (struct kept_blocks){.cache = c};
    k->pools = mem_zeroed((size_t)kv_cache_pools(c) + 1, sizeof *k->pools);
    return k->pools ? 0 : fail(err, CLM_ERR_NOMEM, "no memory to count cache blocks");
}

void kept_blocks_release(struct kept_blocks *k)
{
    for (int i = 0; k->pools && i < kv_cache_pools(k->cache); i++)
        mem_free(k->pools[i].counts);
    mem_free(k->pools);
    *k = (struct kept_blocks){0};
}

static bool grow(struct kept_pool *p, int limit)
{
    int32_t *grown;

    if (limit <= p->limit)
        return true;
    grown = mem_resize(p->counts, (size_t)limit * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + p->limit, 0, (size_t)(limit - p->limit) * sizeof *grown);
    p->counts = grown;
    p->limit = limit;
    return true;
}

static void count(void *ctx, int pool, int32_t block)
{
    struct kept_blocks *k = ctx;

    if (k->pools[pool].counts[block]++ == 0)
        k->bytes += kv_cache_block_bytes(k->cache, pool);
}

static void discount(void *ctx, int pool, int32_t block)
{
    struct kept_blocks *k = ctx;

    if (--k->pools[pool].counts[block] == 0)
        k->bytes -= kv_cache_block_bytes(k->cache, pool);
}

int kept_blocks_add(struct kept_blocks *k, const kv_seq *s, clm_error *err)
{
    for (int i = 0; i < kv_cache_pools(k->cache); i++)
        if (!grow(&k->pools[i], kv_cache_block_limit(k->cache, i)))
            return fail(err, CLM_ERR_NOMEM, "no memory to count cache blocks");
    kv_seq_visit_blocks(s, count, k);
    return 0;
}

void kept_blocks_remove(struct kept_blocks *k, const kv_seq *s)
{
    kv_seq_visit_blocks(s, discount, k);
}

struct look {
    const struct kept_blocks *kept;
    bool idle;
    size_t bytes;
};

static void look_at(void *ctx, int pool, int32_t block)
{
    struct look *l = ctx;
    const struct kept_blocks *k = l->kept;

    l->bytes += kv_cache_block_bytes(k->cache, pool);
    if (block < k->pools[pool].limit &&
        kv_cache_block_refs(k->cache, pool, block) == k->pools[pool].counts[block])
        l->idle = true;
}

bool kept_blocks_idle(const struct kept_blocks *k, const kv_seq *s)
{
    struct look l = {.kept = k};

    kv_seq_visit_blocks(s, look_at, &l);
    return l.idle;
}

size_t kept_blocks_size(const struct kept_blocks *k, const kv_seq *s)
{
    struct look l = {.kept = k};

    kv_seq_visit_blocks(s, look_at, &l);
    return l.bytes;
}
