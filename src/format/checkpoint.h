/* format/checkpoint.h: the tensors of a model directory, mapped from its safetensors files. */
#ifndef FORMAT_CHECKPOINT_H
#define FORMAT_CHECKPOINT_H

#include <stdbool.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/log.h"

#define CHECKPOINT_MAX_DIMS 8

/* One tensor, little-endian and row-major, inside a mapped file; data may be unaligned. */
struct checkpoint_tensor {
    const char *name;
    enum dtype type;
    int n_dims;
    int64_t shape[CHECKPOINT_MAX_DIMS]; /* every dimension >= 0 */
    const void *data;
    size_t size; /* bytes; equals the product of shape times the size of type */
};

typedef struct checkpoint checkpoint;

/**
 * Open the weights of a directory: `model.safetensors`, or the shards named by
 * `model.safetensors.index.json`, or else every other `*.safetensors` in it that holds weights, as
 * mlx-lm's glob of "model*.safetensors" does. A path to one `.safetensors` file works too.
 *
 * Nothing is read but the headers. A file that is cut, overlaps itself, names a tensor twice (also
 * across shards), or whose shard is missing gives CLM_ERR_FORMAT or CLM_ERR_IO and NULL.
 */
checkpoint *checkpoint_open(const char *path, const struct log *log, clm_error *err);
void checkpoint_close(checkpoint *c); /* NULL is fine */

/* Tensors in order of name; 0 <= i < count. */
size_t checkpoint_count(const checkpoint *c);
const struct checkpoint_tensor *checkpoint_at(const checkpoint *c, size_t i);
const struct checkpoint_tensor *checkpoint_find(const checkpoint *c, const char *name);

/* The value of a metadata key of the first file that has it ("format", ...), or NULL. */
const char *checkpoint_metadata(const checkpoint *c, const char *key);

/* Whether any of its files lies on a disk, and not in memory alone. */
bool checkpoint_on_disk(const checkpoint *c);

/* Bytes of all tensors together. */
size_t checkpoint_bytes(const checkpoint *c);

#endif
