/* base/memory.h: heap allocation that can be made to fail, and sizes that cannot overflow. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Like malloc, calloc, realloc and free; everything in the library allocates through these. */
void *mem_alloc(size_t size);
void *mem_zeroed(size_t count, size_t size);
void *mem_resize(void *old, size_t size);
void mem_free(void *p);
char *mem_strdup(const char *s);

/**
 * A list that grows: items, of which there is room for *capacity, each of size bytes, with room for
 * n at least; where that is more than there is, moved, with room for twice as many as before. NULL
 * where there is no memory, or the bytes do not fit a size_t: items and *capacity are as they were.
 */
void *mem_grow(void *items, size_t *capacity, size_t n, size_t size);

/* 64-byte aligned, not zeroed; freed by mem_free_aligned. */
void *mem_alloc_aligned(size_t size);
void mem_free_aligned(void *p);

/**
 * For tests: let n allocations succeed and the one after it fail, once; n < 0 turns it off.
 * Per thread. Returns whether the previous setting has failed one.
 */
bool mem_fail_after(long n);

/* For tests: blocks that this thread has allocated, less those that it has freed. */
long mem_live(void);

/* Counts one allocation, for allocators built on this one: true when it is the one to fail. */
bool mem_fails_now(void);

/* *out = a * b or a + b; false, with *out untouched, where that does not fit. */
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    size_t r;

    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool size_add(size_t a, size_t b, size_t *out)
{
    size_t r;

    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

#endif
