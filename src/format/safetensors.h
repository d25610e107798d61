/* format/safetensors.h: one safetensors file, read and written.
 *
 *     offset  size  what
 *     0       8     n, little-endian: length of the header
 *     8       n     JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end]},
 * "__metadata__": {...}} 8 + n         the data; offsets count from here; tensors cover it without
 * holes or overlaps
 */
#ifndef FORMAT_SAFETENSORS_H
#define FORMAT_SAFETENSORS_H

#include "base/file.h"
#include "format/checkpoint.h"

struct safetensors {
    struct file_map map;
    struct checkpoint_tensor *tensors; /* in file order */
    size_t n_tensors;
    const char **metadata; /* key, value, key, value, ... */
    size_t n_metadata;     /* pairs */
    void *memory;
};

int safetensors_open(struct safetensors *st, const char *path, clm_error *err);
/* The same from memory that stays the caller's; name stands for the path in messages. */
int safetensors_parse(struct safetensors *st, const void *data, size_t size, const char *name,
                      clm_error *err);
void safetensors_close(struct safetensors *st); /* a zeroed one is fine */

/* Write tensors and metadata to a file, whole or not at all; path NULL: to standard output. Names
 * must differ. */
int safetensors_write(const char *path, const struct checkpoint_tensor *tensors, size_t n_tensors,
                      const char *const *metadata, size_t n_metadata, clm_error *err);

/* The same where tensors may have data NULL: fill writes all bytes of such a one, in order, when it
 * is their turn. It returns 0 or -1 with *err. */
typedef int (*safetensors_fill)(void *ctx, const struct checkpoint_tensor *t, file_writer *w,
                                clm_error *err);
int safetensors_write_with(const char *path, const struct checkpoint_tensor *tensors,
                           size_t n_tensors, const char *const *metadata, size_t n_metadata,
                           safetensors_fill fill, void *ctx, clm_error *err);

#endif
