#include "base/heap.h"

#include <string.h>

#include "base/memory.h"

#define FIRST_CHUNK ((size_t)32 * 1024)
#define LARGEST_STEP ((size_t)1024 * 1024)
#define TAIL_MIN 64 /* shorter results are not worth room for growth */

struct heap_chunk {
    _Alignas(16) struct heap_chunk *older;
    size_t size;
};

void heap_init(struct heap *h, size_t limit)
{
    *h = (struct heap){.limit = limit};
}

void heap_release(struct heap *h)
{
    while (h->chunks) {
        struct heap_chunk *c = h->chunks;

        h->chunks = c->older;
        mem_free(c);
    }
    *h = (struct heap){0};
}

/* Starts a chunk with room for size bytes; each is as large as all before it, up to a bound. */
static bool grow(struct heap *h, size_t size)
{
    size_t room = h->used < FIRST_CHUNK ? FIRST_CHUNK : h->used;
    struct heap_chunk *c;

    if (room > LARGEST_STEP)
        room = LARGEST_STEP;
    if (room < size)
        room = size;
    if (room > h->limit - h->used) {
        room = size;
        if (room > h->limit - h->used) {
            h->over_limit = true;
            return false;
        }
    }
    c = mem_alloc(sizeof *c + room);
    if (!c)
        return false;
    c->older = h->chunks;
    c->size = room;
    h->chunks = c;
    h->used += room;
    h->at = (char *)(c + 1);
    h->end = h->at + room;
    return true;
}

void *heap_alloc_more(struct heap *h, size_t size)
{
    void *p;

    if (size > SIZE_MAX / 4)
        return NULL;
    size = size ? (size + 15) & ~(size_t)15 : 16;
    if (!grow(h, size))
        return NULL;
    p = h->at;
    h->at += size;
    return p;
}

char *heap_bytes(struct heap *h, size_t size)
{
    char *p;

    if (size > SIZE_MAX / 4)
        return NULL;
    if ((!h->at || (size_t)(h->end - h->at) < size) && !grow(h, size ? size : 1))
        return NULL;
    p = h->at;
    h->at += size;
    return p;
}

static struct heap_tail *find_tail(struct heap *h, const char *end)
{
    for (unsigned i = 0; i < HEAP_TAILS; i++)
        if (h->tails[i].end == end && end)
            return &h->tails[i];
    return NULL;
}

const void *heap_join(struct heap *h, const void *a, size_t n_a, const void *b, size_t n_b,
                      bool aligned)
{
    struct heap_tail *tail = n_a ? find_tail(h, (const char *)a + n_a) : NULL;
    size_t total = n_a + n_b;
    size_t capacity = total < TAIL_MIN ? total : 2 * total;
    char *p;

    if (tail && (size_t)(tail->limit - tail->end) >= n_b) {
        if (n_b)
            memcpy(tail->end, b, n_b);
        tail->end += n_b;
        return a;
    }
    p = aligned ? heap_alloc(h, capacity) : heap_bytes(h, capacity);
    if (!p)
        return NULL;
    if (n_a)
        memcpy(p, a, n_a);
    if (n_b)
        memcpy(p + n_a, b, n_b);
    if (capacity > total) {
        if (!tail)
            tail = &h->tails[h->next_tail++ % HEAP_TAILS];
        *tail = (struct heap_tail){p + total, p + capacity};
    }
    return p;
}
