/* cache/kv_pools.h: what a cache is made of: pools of blocks, and groups of layers that use them.
 * Only kv_cache.c, which makes them, and kv_seq.c, whose sequences hold their blocks, look inside.
 */
#ifndef CACHE_KV_POOLS_H
#define CACHE_KV_POOLS_H

#include "base/arena.h"
#include "cache/block_pool.h"
#include "cache/kv_cache.h"

struct pool {
    struct block_pool blocks;
    int need; /* blocks that the reserve at work will take */
};

/* Layers on one device, or with a share on each of several, that look equally far back and are
 * stored alike. */
struct group {
    device *dev; /* the first */
    int window;  /* as the model has it */
    bool plain;
    int reach;   /* a token sees so many at most, itself included, 0: all, */
    int n_first; /* and these first ones */
    int n_kept;  /* blocks of the first ones */
    bool beside; /* blocks lie side by side */
    struct pool *pool;
    struct pool *earlier; /* of tokens before the cache's split; NULL: there is none */
};

struct kv_cache {
    arena *memory;
    struct kv_cache_options options;
    size_t max_bytes; /* SIZE_MAX: no bound */
    int split;        /* of groups that have two pools */
    int n_layers, n_groups;
    int n_pools;             /* one for each group, then one for states, then earlier ones */
    struct kv_layer *layers; /* [1 + n_shares, n_layers] */
    struct kv_layer *earlier;
    int *group_of;        /* [n_layers] */
    struct group *groups; /* [n_groups] */
    struct pool *pools;   /* [n_pools] */
    struct pool *states;  /* NULL: there are none */
    bool states_stay;     /* a step of one token may write them where it reads them */
};

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int kv_blocks_for(int64_t n_tokens)
{
    return (int)((n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

/* After success every pool has as many free blocks as it needs. CLM_ERR_FULL, CLM_ERR_NOMEM. */
int kv_make_room(kv_cache *c, clm_error *err);

#endif
