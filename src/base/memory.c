#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64

/* Allocations that still succeed on this thread, or -1: no limit. */
static _Thread_local long remaining = -1;
static _Thread_local bool has_failed;

bool mem_fail_after(long n)
{
    bool failed = has_failed;

    remaining = n < 0 ? -1 : n;
    has_failed = false;
    return failed;
}

bool mem_fails_now(void)
{
    if (remaining < 0)
        return false;
    if (remaining-- > 0)
        return false;
    has_failed = true; /* remaining is -1: this was the one */
    return true;
}

void *mem_alloc(size_t size)
{
    if (mem_fails_now())
        return NULL;
    return malloc(size ? size : 1);
}

void *mem_zeroed(size_t count, size_t size)
{
    if (mem_fails_now())
        return NULL;
    if (!count || !size)
        return calloc(1, 1);
    return calloc(count, size); /* calloc checks the product */
}

void *mem_resize(void *old, size_t size)
{
    if (mem_fails_now())
        return NULL;
    return realloc(old, size ? size : 1);
}

void mem_free(void *p)
{
    free(p);
}

char *mem_strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    char *copy = mem_alloc(size);

    if (copy)
        memcpy(copy, s, size);
    return copy;
}

void *mem_alloc_aligned(size_t size)
{
    size_t padded;

    if (mem_fails_now())
        return NULL;
    if (!size_add(size ? size : 1, ALIGNMENT - 1, &padded))
        return NULL;
    return aligned_alloc(ALIGNMENT, padded & ~(size_t)(ALIGNMENT - 1));
}

void mem_free_aligned(void *p)
{
    free(p);
}
