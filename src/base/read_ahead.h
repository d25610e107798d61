/* base/read_ahead.h: parts of mapped files brought into memory before they are used.
 *
 * A page that is used but not there yet is read while its user waits, and the next one after that:
 * a disk answers many requests at a time as fast as one.
 */
#ifndef BASE_READ_AHEAD_H
#define BASE_READ_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

/* A range of a file_map. */
struct file_part {
    const void *data;
    size_t size;
};

/* Whether some of n parts is not in memory, as far as a sample of their pages tells: less than a
 * millisecond, whatever their size. */
bool read_ahead_wanted(const struct file_part *parts, size_t n);

/**
 * Read n parts, in order, by several threads, but for what is in memory already. go_on(ctx, done,
 * total) is asked by the calling thread now and then, with bytes; false ends it.
 *
 * What cannot be read is left to whoever uses it, as without reading ahead. Returns false where
 * go_on said so.
 */
bool read_ahead(const struct file_part *parts, size_t n,
                bool (*go_on)(void *ctx, size_t done, size_t total), void *ctx);

/* Let this process have the pages of n parts, in order, before they are used; go_on(ctx) is asked
 * before every MAP_AHEAD bytes, as many as Linux maps at once where they lie in memory. */
#define MAP_AHEAD ((size_t)64 << 10)
void map_ahead(const struct file_part *parts, size_t n, bool (*go_on)(void *ctx), void *ctx);

#endif
