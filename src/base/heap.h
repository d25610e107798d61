/* base/heap.h: the memory of one rendering, or one document: taken piece by piece, given back all
 * at once.
 *
 * Values in it never die before it does, so nothing is counted. Unlike those of an arena, pieces
 * are small (16 bytes and up), not cleared, and bounded in total.
 */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAP_TAILS 4

struct heap_chunk;

struct heap {
    char *at, *end; /* the free part of the newest chunk */
    struct heap_chunk *chunks;
    size_t used, limit; /* bytes in chunks */
    bool over_limit;    /* an allocation failed because of the limit, not for want of memory */
    /* Strings and lists that were built by adding at the end, and may be continued in place. */
    struct heap_tail {
        char *end, *limit;
    } tails[HEAP_TAILS];
    unsigned next_tail;
};

void heap_init(struct heap *h, size_t limit);
void heap_release(struct heap *h);

void *heap_alloc_more(struct heap *h, size_t size); /* from a new chunk */

/* size bytes, 16-byte aligned, not cleared; NULL without memory or over the limit. */
static inline void *heap_alloc(struct heap *h, size_t size)
{
    size_t pad = -(uintptr_t)h->at & 15;
    size_t room = (size_t)(h->end - h->at);
    char *p;

    if (size >= room || room - size < pad + 16)
        return heap_alloc_more(h, size);
    p = h->at + pad;
    h->at = p + ((size + !size + 15) & ~(size_t)15);
    return p;
}

/* The same, unaligned, for bytes of strings. */
char *heap_bytes(struct heap *h, size_t size);

/**
 * The bytes of a and b, one after the other, of strings or (aligned) of lists. Where a is the end
 * of what was built here before, b is added behind it in place, and the result is a: building a
 * string piece by piece costs its length, not its square.
 */
const void *heap_join(struct heap *h, const void *a, size_t n_a, const void *b, size_t n_b,
                      bool aligned);

#endif
