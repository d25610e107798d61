/* format/checkpoint_index.h: model.safetensors.index.json, which says what lies in which shard.
 *
 *     {"metadata": {...}, "weight_map": {"tensor name": "file name", ...}}
 */
#ifndef FORMAT_CHECKPOINT_INDEX_H
#define FORMAT_CHECKPOINT_INDEX_H

#include <stddef.h>

#include "base/error.h"

struct checkpoint_index {
    struct checkpoint_index_entry {
        const char *tensor;
        size_t shard;
    } * entries; /* in order of tensor name, each name once */
    size_t n_entries;
    const char **shards; /* plain file names, in order, each once; at least one */
    size_t n_shards;
    void *memory;
};

/* From memory that stays the caller's; name stands for the path in messages. 0 or -1. */
int checkpoint_index_parse(struct checkpoint_index *index, const char *text, size_t size,
                           const char *name, clm_error *err);
void checkpoint_index_close(struct checkpoint_index *index); /* a zeroed one is fine */

#endif
