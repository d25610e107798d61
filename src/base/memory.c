#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT 64
#define FIRST_ITEMS 16 /* of a list that grows */
#define HUGE_PAGE ((size_t)2 << 20)

/* Allocations that still succeed on this thread, or -1: no limit. */
static _Thread_local long remaining = -1;
static _Thread_local bool has_failed;

/* See mem_live. */
static _Thread_local long live;

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

long mem_live(void)
{
    return live;
}

static void *counted(void *p)
{
    live += p != NULL;
    return p;
}

/* No object is larger than this, and sanitizers abort where an allocator would just say no. */
static bool too_large(size_t size)
{
    return size > PTRDIFF_MAX;
}

void *mem_alloc(size_t size)
{
    if (mem_fails_now() || too_large(size))
        return NULL;
    return counted(malloc(size ? size : 1));
}

void *mem_zeroed(size_t count, size_t size)
{
    size_t total;

    if (mem_fails_now() || !size_mul(count, size, &total) || too_large(total))
        return NULL;
    return counted(calloc(total ? total : 1, 1));
}

void *mem_resize(void *old, size_t size)
{
    void *grown;

    if (mem_fails_now() || too_large(size))
        return NULL;
    grown = realloc(old, size ? size : 1);
    return old ? grown : counted(grown);
}

void *mem_grow(void *items, size_t *capacity, size_t n, size_t size)
{
    size_t wanted = *capacity <= SIZE_MAX / 2 ? 2 * *capacity : SIZE_MAX, bytes;
    void *grown;

    if (items && n <= *capacity)
        return items;
    if (wanted < n)
        wanted = n;
    if (wanted < FIRST_ITEMS)
        wanted = FIRST_ITEMS;
    grown = size_mul(wanted, size, &bytes) ? mem_resize(items, bytes) : NULL;
    if (grown)
        *capacity = wanted;
    return grown;
}

void mem_free(void *p)
{
    live -= p != NULL;
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

/* Weights, caches and states are read from end to end for every token: the kernel is asked for huge
 * pages where some fit in. It may say no. */
void *mem_alloc_aligned(size_t size)
{
    bool huge = size >= HUGE_PAGE;
    size_t alignment = huge ? HUGE_PAGE : ALIGNMENT;
    size_t padded = (size ? size : 1) + alignment - 1;
    void *p;

    if (mem_fails_now() || too_large(size))
        return NULL;
    p = counted(aligned_alloc(alignment, padded & ~(alignment - 1)));
#ifdef MADV_HUGEPAGE
    if (p && huge)
        madvise(p, size, MADV_HUGEPAGE);
#endif
    return p;
}

void mem_free_aligned(void *p)
{
    live -= p != NULL;
    free(p);
}
