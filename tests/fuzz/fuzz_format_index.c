/* Any bytes as model.safetensors.index.json: refused, or sorted names and plain files. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/checkpoint_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void check(const struct checkpoint_index *index)
{
    require(index->n_shards >= 1 && index->n_shards <= index->n_entries);
    for (size_t i = 0; i < index->n_shards; i++) {
        require(!strchr(index->shards[i], '/') && index->shards[i][0] &&
                index->shards[i][0] != '.');
        require(!i || strcmp(index->shards[i - 1], index->shards[i]) < 0);
    }
    for (size_t i = 0; i < index->n_entries; i++) {
        require(index->entries[i].shard < index->n_shards);
        require(!i || strcmp(index->entries[i - 1].tensor, index->entries[i].tensor) < 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct checkpoint_index index;
    clm_error err = {0};

    if (checkpoint_index_parse(&index, (const char *)data, size, "fuzz", &err))
        require(err.code && err.message[0] && !strchr(err.message, '\n'));
    else
        check(&index);
    checkpoint_index_close(&index);
    return 0;
}
