#include "base/read_ahead.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/thread.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

enum {
    SAMPLES = 256,   /* pages that are looked at */
    PIECE = 2 << 20, /* read at a time: a huge page */
    N_THREADS = 8,   /* that wait for the disk, whatever the number of processors */
    SMALLEST_PAGE = 4096
};

/* Whole pages around a range. */
static struct file_part whole_pages(const void *data, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)data & ~(page - 1), end = (uintptr_t)data + size;

    return (struct file_part){(const void *)begin, ((end + page - 1) & ~(page - 1)) - begin};
}

/* Of at most a piece; what is not known is taken for being there. */
static bool is_resident(const void *data, size_t size)
{
    unsigned char pages[PIECE / SMALLEST_PAGE + 2];
    struct file_part whole = whole_pages(data, size);
    size_t n = whole.size / (size_t)sysconf(_SC_PAGESIZE);

    if (n > sizeof pages || mincore((void *)whole.data, whole.size, pages))
        return true;
    for (size_t i = 0; i < n; i++)
        if (!(pages[i] & 1))
            return false;
    return true;
}

static size_t total_size(const struct file_part *parts, size_t n)
{
    size_t total = 0;

    for (size_t i = 0; i < n; i++)
        total += parts[i].size;
    return total;
}

bool read_ahead_wanted(const struct file_part *parts, size_t n)
{
    size_t step = total_size(parts, n) / SAMPLES + 1, skip = step / 2;

    for (size_t i = 0; i < n; i++) {
        for (; skip < parts[i].size; skip += step)
            if (!is_resident((const char *)parts[i].data + skip, 1))
                return true;
        skip -= parts[i].size;
    }
    return false;
}

struct reading {
    struct file_part *pieces;
    size_t total;
    atomic_size_t done; /* bytes */
    atomic_bool stopped;
    bool (*go_on)(void *ctx, size_t done, size_t total);
    void *ctx;
};

/* Older kernels know but how to begin reading. */
static void read_piece(const struct file_part *piece)
{
    if (madvise((void *)piece->data, piece->size, MADV_POPULATE_READ) && errno == EINVAL)
        (void)madvise((void *)piece->data, piece->size, MADV_WILLNEED);
}

static void read_pieces(void *ctx, int64_t begin, int64_t end, int thread)
{
    struct reading *r = ctx;

    for (int64_t i = begin; i < end && !atomic_load(&r->stopped); i++) {
        const struct file_part *piece = &r->pieces[i];

        if (!is_resident(piece->data, piece->size))
            read_piece(piece);
        size_t done = atomic_fetch_add(&r->done, piece->size) + piece->size;

        if (thread == 0 && !r->go_on(r->ctx, done, r->total))
            atomic_store(&r->stopped, true);
    }
}

/* How much of the size bytes at data is the next piece: up to the end of a huge page. */
static size_t piece_size(const char *data, size_t size)
{
    size_t left = PIECE - ((uintptr_t)data & (PIECE - 1));

    return left < size ? left : size;
}

/* The pieces of all parts, in whole pages; NULL without memory. */
static struct file_part *cut(const struct file_part *parts, size_t n, size_t *n_pieces)
{
    struct file_part *pieces = mem_zeroed(total_size(parts, n) / PIECE + 3 * n + 1, sizeof *pieces);

    *n_pieces = 0;
    for (size_t i = 0; pieces && i < n; i++) {
        struct file_part whole = whole_pages(parts[i].data, parts[i].size);

        for (size_t at = 0, size; at < whole.size; at += size) {
            const char *data = (const char *)whole.data + at;

            size = piece_size(data, whole.size - at);
            pieces[(*n_pieces)++] = (struct file_part){data, size};
        }
    }
    return pieces;
}

bool read_ahead(const struct file_part *parts, size_t n,
                bool (*go_on)(void *ctx, size_t done, size_t total), void *ctx)
{
    size_t n_pieces;
    struct reading r = {.pieces = cut(parts, n, &n_pieces), .go_on = go_on, .ctx = ctx};
    thread_pool *pool = r.pieces ? thread_pool_open(N_THREADS, NULL) : NULL;

    r.total = total_size(r.pieces, r.pieces ? n_pieces : 0);
    /* Read so, a file lies in huge pages, which a process maps at once: 2 MB are one fault. */
    for (size_t i = 0; pool && i < n_pieces; i++)
        (void)madvise((void *)r.pieces[i].data, r.pieces[i].size, MADV_HUGEPAGE);
    if (pool)
        thread_pool_for(pool, (int64_t)n_pieces, 1, read_pieces, &r);
    thread_pool_close(pool);
    mem_free(r.pieces);
    return !atomic_load(&r.stopped);
}

/* A fault maps what lies in memory around it. Asking for it by MADV_POPULATE_READ is no faster, and
 * other threads could neither map nor unmap meanwhile. */
void map_ahead(const struct file_part *parts, size_t n, bool (*go_on)(void *ctx), void *ctx)
{
    for (size_t i = 0; i < n; i++) {
        const volatile char *data = parts[i].data;

        for (size_t at = 0; at < parts[i].size; at += MAP_AHEAD) {
            if (!go_on(ctx))
                return;
            (void)data[at];
        }
    }
}
