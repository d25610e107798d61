/* engine/cache_rows.h: keys and values of one cache of a file, and their way into a sequence. */
#ifndef ENGINE_CACHE_ROWS_H
#define ENGINE_CACHE_ROWS_H

#include "cache/kv_map.h"
#include "engine/cache_plan.h"
#include "engine/cache_source.h"
#include "engine/engine.h"

/* Rows of heads, each of them size long. The first n_first are those of the first tokens; of the
 * others n from the base-th of them on, around the end, are those of the last n tokens. */
struct cache_rows {
    const struct cache_leaf *leaf;
    int entry;                  /* of the file, in messages */
    struct weight keys, values; /* [heads * size, dim]; of CACHE_INDEX there are no values */
    int heads, size;
    int n_first, base, n;
    int length; /* tokens of the sequence */
    /* Rows [heads * n_early, dim] of the first tokens, in place of those above. */
    struct weight early_keys, early_values;
    int n_early;
};

/* Read what the file says of the cache at a place of the plan, checked against the model's sizes.
 */
int cache_rows_read(struct cache_rows *r, const struct cache_source *s,
                    const struct source_leaf *from, const struct cache_leaf *leaf,
                    const struct kv_layer *kv, clm_error *err);

/* Read how the first of these tokens are, where a file of clm says so: prefix.0 and prefix.1 are
 * its arrays. */
int cache_rows_read_early(struct cache_rows *r, const struct cache_source *s, const char *prefix,
                          clm_error *err);

/* Set the layer's rows in a map of the file, whose bytes begin at base, where they lie there as the
 * cache would have them. */
void cache_rows_map(const struct cache_rows *r, engine *e, kv_map *map, const uint8_t *base);

/* Store them, but for those in a map, in a sequence that has room for its past reserved. */
int cache_rows_store(const struct cache_rows *r, engine *e, const kv_seq *seq, clm_error *err);

#endif
