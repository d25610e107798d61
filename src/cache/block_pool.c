#include "cache/block_pool.h"

#include <assert.h>

#include "base/memory.h"

/* Few enough that a short sequence does not hold much memory that it does not use. */
#define MAX_SLAB_SHIFT 3

void block_pool_init(struct block_pool *p, const struct block_part *parts, int n,
                     size_t max_slab_bytes)
{
    *p = (struct block_pool){.n_parts = n, .slab_shift = MAX_SLAB_SHIFT};
    for (int i = 0; i < n; i++) {
        p->parts[i] = (struct block_part){.dev = parts[i].dev, .bytes = parts[i].bytes};
        p->block_bytes += parts[i].bytes;
    }
    while (p->slab_shift > 0 && p->block_bytes > max_slab_bytes >> p->slab_shift)
        p->slab_shift--;
}

static void free_slab(struct block_pool *p, int place)
{
    for (int i = 0; i < p->n_parts; i++) {
        struct block_part *part = &p->parts[i];

        if (part->bytes && part->slabs[place])
            part->dev->ops->free(part->dev, part->slabs[place]);
        if (part->bytes)
            part->slabs[place] = NULL;
    }
}

void block_pool_release(struct block_pool *p)
{
    for (int i = 0; i < p->n_places; i++)
        free_slab(p, i);
    for (int i = 0; i < p->n_parts; i++) {
        struct block_part *part = &p->parts[i];

        if (part->device_slabs)
            part->dev->ops->free(part->dev, part->device_slabs);
        mem_free(part->slabs);
    }
    mem_free(p->slab_used);
    mem_free(p->refs);
    mem_free(p->free);
    *p = (struct block_pool){0};
}

size_t block_pool_slab_bytes(const struct block_pool *p)
{
    return p->block_bytes << p->slab_shift;
}

int block_pool_used(const struct block_pool *p)
{
    return (p->n_slabs << p->slab_shift) - p->n_free;
}

int block_pool_missing(const struct block_pool *p, int n)
{
    if (n <= p->n_free)
        return 0;
    return (int)(((int64_t)n - p->n_free - 1) >> p->slab_shift) + 1;
}

/* Makes *list hold n numbers; it keeps those it had. */
static bool resize(int32_t **list, size_t n)
{
    size_t bytes;
    int32_t *grown = NULL;

    if (size_mul(n, sizeof **list, &bytes))
        grown = mem_resize(*list, bytes);
    if (grown)
        *list = grown;
    return grown;
}

static int grow_host_lists(struct block_pool *p, int capacity, clm_error *err)
{
    size_t n_blocks = (size_t)capacity << p->slab_shift;
    bool grown = true;

    for (int i = 0; i < p->n_parts && grown; i++) {
        void **slabs;

        if (!p->parts[i].bytes)
            continue;
        slabs = mem_resize(p->parts[i].slabs, (size_t)capacity * sizeof *slabs);
        grown = slabs;
        if (grown)
            p->parts[i].slabs = slabs;
    }
    if (grown && resize(&p->slab_used, (size_t)capacity) && resize(&p->refs, n_blocks) &&
        resize(&p->free, n_blocks))
        return 0;
    return fail(err, CLM_ERR_NOMEM, "no memory for a list of %zu cache blocks", n_blocks);
}

static int grow_device_lists(struct block_pool *p, int capacity, clm_error *err)
{
    for (int i = 0; i < p->n_parts; i++) {
        struct block_part *part = &p->parts[i];
        device *d = part->dev;
        void **list;

        if (!part->bytes)
            continue;
        list = d->ops->alloc(d, (size_t)capacity * sizeof *list, err);
        if (!list)
            return -1;
        if (part->device_slabs) {
            d->ops->upload(d, list, part->slabs, (size_t)p->n_places * sizeof *list);
            d->ops->free(d, part->device_slabs);
        }
        part->device_slabs = list;
    }
    return 0;
}

static int grow_lists(struct block_pool *p, clm_error *err)
{
    int capacity;

    if (p->capacity > INT32_MAX >> (p->slab_shift + 1))
        return fail(err, CLM_ERR_FULL, "the cache cannot number more than %d blocks", INT32_MAX);
    capacity = p->capacity ? 2 * p->capacity : 4;
    if (grow_host_lists(p, capacity, err) || grow_device_lists(p, capacity, err))
        return -1;
    p->capacity = capacity;
    return 0;
}

/* An empty place, the end of the list if there is none before. */
static int find_place(const struct block_pool *p)
{
    if (p->n_slabs == p->n_places)
        return p->n_places;
    for (int i = 0;; i++)
        if (p->slab_used[i] < 0)
            return i;
}

/* A slab of every part. */
static int alloc_slab(struct block_pool *p, int place, clm_error *err)
{
    for (int i = 0; i < p->n_parts; i++)
        if (p->parts[i].bytes)
            p->parts[i].slabs[place] = NULL;
    for (int i = 0; i < p->n_parts; i++) {
        struct block_part *part = &p->parts[i];
        device *d = part->dev;

        if (!part->bytes)
            continue;
        part->slabs[place] = d->ops->alloc(d, part->bytes << p->slab_shift, err);
        if (!part->slabs[place]) {
            free_slab(p, place);
            return -1;
        }
        d->ops->upload(d, part->device_slabs + place, part->slabs + place, sizeof *part->slabs);
    }
    return 0;
}

int block_pool_grow(struct block_pool *p, clm_error *err)
{
    int place = find_place(p);

    if ((place == p->capacity && grow_lists(p, err)) || alloc_slab(p, place, err))
        return -1;
    p->slab_used[place] = 0;
    if (place == p->n_places)
        p->n_places++;
    p->n_slabs++;
    /* The lowest id last, so that blocks are taken in the order in which they lie. */
    for (int i = (1 << p->slab_shift) - 1; i >= 0; i--) {
        int32_t id = (int32_t)(place << p->slab_shift) + i;

        p->refs[id] = 0;
        p->free[p->n_free++] = id;
    }
    return 0;
}

static void drop_slab(struct block_pool *p, int place)
{
    int kept = 0;

    for (int i = 0; i < p->n_free; i++)
        if (p->free[i] >> p->slab_shift != place)
            p->free[kept++] = p->free[i];
    p->n_free = kept;
    free_slab(p, place);
    p->slab_used[place] = -1;
    p->n_slabs--;
    while (p->n_places > 0 && p->slab_used[p->n_places - 1] < 0)
        p->n_places--;
}

bool block_pool_shrink(struct block_pool *p, int n)
{
    if (p->n_free - (1 << p->slab_shift) < n)
        return false;
    for (int i = p->n_places - 1; i >= 0; i--)
        if (p->slab_used[i] == 0) {
            drop_slab(p, i);
            return true;
        }
    return false;
}

int32_t block_pool_take(struct block_pool *p)
{
    int32_t id;

    assert(p->n_free > 0);
    id = p->free[--p->n_free];
    p->refs[id] = 1;
    p->slab_used[id >> p->slab_shift]++;
    return id;
}

void block_pool_ref(struct block_pool *p, int32_t id)
{
    p->refs[id]++;
}

void block_pool_unref(struct block_pool *p, int32_t id)
{
    assert(p->refs[id] > 0);
    if (--p->refs[id])
        return;
    p->slab_used[id >> p->slab_shift]--;
    p->free[p->n_free++] = id;
}

bool block_pool_shared(const struct block_pool *p, int32_t id)
{
    return p->refs[id] > 1;
}

int block_pool_refs(const struct block_pool *p, int32_t id)
{
    return p->refs[id];
}

int block_pool_limit(const struct block_pool *p)
{
    return p->n_places << p->slab_shift;
}

void *block_pool_part_at(const struct block_pool *p, int32_t id, int part)
{
    const struct block_part *of = &p->parts[part];
    size_t within = (size_t)id & (((size_t)1 << p->slab_shift) - 1);

    return of->bytes ? (char *)of->slabs[id >> p->slab_shift] + within * of->bytes : NULL;
}

void *block_pool_at(const struct block_pool *p, int32_t id)
{
    return block_pool_part_at(p, id, 0);
}

void block_pool_copy(struct block_pool *p, int32_t to, int32_t from)
{
    for (int i = 0; i < p->n_parts; i++) {
        device *d = p->parts[i].dev;

        if (p->parts[i].bytes)
            d->ops->copy(d, block_pool_part_at(p, to, i), block_pool_part_at(p, from, i),
                         p->parts[i].bytes);
    }
}
