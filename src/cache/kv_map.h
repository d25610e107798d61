/* cache/kv_map.h: keys and values of the first tokens of sequences where they lie in a mapped file.
 *
 * An array [heads, tokens, numbers] of a layer in a file is laid out like that in a block that has
 * room for so many tokens. So the mapped file is like such a block of every layer of a group, at
 * offsets of its own. Sequences share a map, forks too; nothing in it is ever written.
 */
#ifndef CACHE_KV_MAP_H
#define CACHE_KV_MAP_H

#include "base/file.h"
#include "cache/kv_cache.h"
#include "device/kv_layout.h"

/* Where a layer's keys and values lie, by offsets in the file, n_tokens rows of each head; both
 * parts as kv_keys and kv_values of a block would be. */
struct kv_map_rows {
    struct kv_part parts[2];
    int n_tokens;
};

/**
 * A map of a file for sequences of a cache, without any rows and with one owner. Unless it fails
 * (CLM_ERR_NOMEM) file and identity are its own and empty for the caller.
 */
kv_map *kv_map_open(const kv_cache *c, struct file_map *file, struct file_identity *identity,
                    clm_error *err);
void kv_map_own(kv_map *m);   /* one owner more */
void kv_map_close(kv_map *m); /* one less, and with the last one the file; NULL is fine */

/* Rows of a layer from the cache's split on, and before; NULL: there are no tokens there. */
void kv_map_set(kv_map *m, int layer, const struct kv_map_rows *rows,
                const struct kv_map_rows *early);

/* Whether all layers of a group have been set, none of which sees only a part of what came before.
 */
bool kv_map_has(const kv_map *m, int group);

/* The layers, by index, for struct kv_sequence. */
const struct kv_layer *kv_map_layers(const kv_map *m);

/* CLM_ERR_IO: the file has been changed since it was mapped. */
int kv_map_check(const kv_map *m, clm_error *err);

#endif
