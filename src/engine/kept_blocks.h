/* engine/kept_blocks.h: the blocks of a cache that some of a set of sequences hold, each counted
 * once. */
#ifndef ENGINE_KEPT_BLOCKS_H
#define ENGINE_KEPT_BLOCKS_H

#include "cache/kv_cache.h"

struct kept_pool {
    int32_t *counts; /* [limit] sequences of the set that hold a block */
    int limit;
};

struct kept_blocks {
    const kv_cache *cache;
    struct kept_pool *pools; /* [kv_cache_pools] */
    size_t bytes;            /* of the blocks that any of them holds */
};

/* CLM_ERR_NOMEM. */
int kept_blocks_init(struct kept_blocks *k, const kv_cache *c, clm_error *err);
void kept_blocks_release(struct kept_blocks *k); /* a zeroed one is fine */

/* A sequence joins the set, or leaves it, in between unchanged. CLM_ERR_NOMEM: it has not joined.
 */
int kept_blocks_add(struct kept_blocks *k, const kv_seq *s, clm_error *err);
void kept_blocks_remove(struct kept_blocks *k, const kv_seq *s);

/* Does a sequence of the set hold a block that none outside holds? */
bool kept_blocks_idle(const struct kept_blocks *k, const kv_seq *s);

/* The bytes of all blocks of a sequence, whoever else holds them. */
size_t kept_blocks_size(const struct kept_blocks *k, const kv_seq *s);

#endif
