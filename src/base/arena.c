#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif

/* What is not given out may not be touched: AddressSanitizer sees past the end of a piece too. */
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define forbid(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define permit(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define forbid(p, n) ((void)(p), (void)(n))
#define permit(p, n) ((void)(p), (void)(n))
#endif

#define ALIGNMENT ((size_t)64)
#define DEFAULT_CHUNK ((size_t)64 * 1024)

/* A header, then room for size bytes. */
struct chunk {
    _Alignas(64) struct chunk *below; /* older one in use, or next spare one */
    size_t start; /* position of its first byte: all that the chunks below it hold */
    size_t used;
    size_t size;
};

_Static_assert(sizeof(struct chunk) == 64, "the room after the header must be aligned");

/*
 * A position counts the bytes given out, over all chunks: chunks in use form a stack, so a mark is
 * just a position, and rewinding pops every chunk that starts at it or later.
 */
struct arena {
    struct chunk *top;
    struct chunk *spare;
    size_t chunk_size;
    size_t peak;
};

arena *arena_open(size_t chunk_size)
{
    arena *a = mem_zeroed(1, sizeof *a);

    if (a)
        a->chunk_size = chunk_size ? chunk_size : DEFAULT_CHUNK;
    return a;
}

static uint8_t *chunk_room(struct chunk *c)
{
    return (uint8_t *)(c + 1);
}

static void free_chunks(struct chunk **list)
{
    while (*list) {
        struct chunk *c = *list;

        *list = c->below;
        permit(chunk_room(c), c->size);
        mem_free_aligned(c);
    }
}

void arena_close(arena *a)
{
    if (!a)
        return;
    free_chunks(&a->top);
    free_chunks(&a->spare);
    mem_free(a);
}

/* Takes the smallest spare chunk that has room for size bytes out of the list. */
static struct chunk *take_spare(arena *a, size_t size)
{
    struct chunk **best = NULL;
    struct chunk *c;

    for (struct chunk **at = &a->spare; *at; at = &(*at)->below)
        if ((*at)->size >= size && (!best || (*at)->size < (*best)->size))
            best = at;
    if (!best)
        return NULL;
    c = *best;
    *best = c->below;
    return c;
}

static struct chunk *new_chunk(arena *a, size_t size)
{
    struct chunk *c;
    size_t total;

    if (size < a->chunk_size)
        size = a->chunk_size;
    if (!size_add(size, sizeof *c, &total))
        return NULL;
    c = mem_alloc_aligned(total);
    if (!c)
        return NULL;
    c->size = size;
    forbid(chunk_room(c), size);
    /* The spare ones are all too small for what is asked these days: they would only add up. */
    free_chunks(&a->spare);
    return c;
}

/* Puts a chunk with room for size bytes on top. */
static bool push_chunk(arena *a, size_t size)
{
    struct chunk *c = take_spare(a, size);

    if (!c)
        c = new_chunk(a, size);
    if (!c)
        return false;
    c->start = arena_used(a);
    c->used = 0;
    c->below = a->top;
    a->top = c;
    return true;
}

void *arena_zeroed(arena *a, size_t count, size_t size)
{
    size_t bytes, padded, position;
    uint8_t *p;

    if (mem_fails_now() || !size_mul(count, size, &bytes))
        return NULL;
    if (!size_add(bytes ? bytes : 1, ALIGNMENT - 1, &padded))
        return NULL;
    padded &= ~(ALIGNMENT - 1);
    if (!size_add(arena_used(a), padded, &position))
        return NULL;
    if ((!a->top || a->top->size - a->top->used < padded) && !push_chunk(a, padded))
        return NULL;
    p = chunk_room(a->top) + a->top->used;
    a->top->used += padded;
    if (position > a->peak)
        a->peak = position;
    permit(p, bytes);
    memset(p, 0, bytes);
    return p;
}

char *arena_strdup(arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_strndup(arena *a, const char *s, size_t n)
{
    size_t size;
    char *copy;

    if (!size_add(n, 1, &size))
        return NULL;
    copy = arena_zeroed(a, size, 1);
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}

char *arena_printf(arena *a, const char *format, ...)
{
    va_list args;
    char *out;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return NULL;
    out = arena_zeroed(a, (size_t)n + 1, 1);
    if (!out)
        return NULL;
    va_start(args, format);
    vsnprintf(out, (size_t)n + 1, format, args);
    va_end(args);
    return out;
}

size_t arena_mark(const arena *a)
{
    return arena_used(a);
}

void arena_rewind(arena *a, size_t mark)
{
    while (a->top && a->top->start >= mark) {
        struct chunk *c = a->top;

        a->top = c->below;
        c->below = a->spare;
        a->spare = c;
        forbid(chunk_room(c), c->size);
    }
    if (a->top && mark - a->top->start < a->top->used) {
        a->top->used = mark - a->top->start;
        forbid(chunk_room(a->top) + a->top->used, a->top->size - a->top->used);
    }
}

size_t arena_used(const arena *a)
{
    return a->top ? a->top->start + a->top->used : 0;
}

size_t arena_peak(const arena *a)
{
    return a->peak;
}
