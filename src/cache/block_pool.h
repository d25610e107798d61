/* cache/block_pool.h: equal blocks of device memory, counted, taken from the device in slabs. A
 * block may have parts on several devices.
 *
 * Block b lies in slab b >> slab_shift. The addresses of the slabs stand in device memory, where
 * kernels read them. A slab of which no block is in use can be given back; its place in the list is
 * filled by a later one, so that ids of blocks in use never change.
 */
#ifndef CACHE_BLOCK_POOL_H
#define CACHE_BLOCK_POOL_H

#include "device/device.h"

/* What a device has of every block. */
struct block_part {
    device *dev;
    size_t bytes;        /* may be 0 */
    void **slabs;        /* [n_places]; NULL: given back, or there is nothing in it */
    void **device_slabs; /* the same in the device's memory */
};

struct block_pool {
    struct block_part parts[DEVICE_MAX_GROUP];
    int n_parts;
    size_t block_bytes; /* of all parts */
    int slab_shift;     /* a slab holds 2^slab_shift blocks */
    int32_t *slab_used; /* [n_places] blocks in use; -1: given back */
    int n_places, capacity;
    int n_slabs;   /* places that are not empty */
    int32_t *refs; /* [capacity << slab_shift] */
    int32_t *free; /* [n_free] ids, the next to be taken last; room for as many as refs */
    int n_free;
};

/* An empty pool of blocks of n <= DEVICE_MAX_GROUP parts, of which device and bytes are given,
 * those of one >= 1; a slab holds at most max_slab_bytes, or one block. */
void block_pool_init(struct block_pool *p, const struct block_part *parts, int n,
                     size_t max_slab_bytes);
void block_pool_release(struct block_pool *p); /* a zeroed one is fine */

size_t block_pool_slab_bytes(const struct block_pool *p);
int block_pool_used(const struct block_pool *p); /* blocks */

/* Slabs to add so that n blocks are free; and adding one. CLM_ERR_NOMEM leaves the pool as it was.
 */
int block_pool_missing(const struct block_pool *p, int n);
int block_pool_grow(struct block_pool *p, clm_error *err);

/* Give a slab without blocks in use back to the device if n blocks are free without it. */
bool block_pool_shrink(struct block_pool *p, int n);

/* A free block, of which there must be one, with one reference. */
int32_t block_pool_take(struct block_pool *p);
void block_pool_ref(struct block_pool *p, int32_t id);
void block_pool_unref(struct block_pool *p, int32_t id);
bool block_pool_shared(const struct block_pool *p, int32_t id); /* has more than one reference */
int block_pool_refs(const struct block_pool *p, int32_t id);
int block_pool_limit(const struct block_pool *p); /* ids are below this */

void *block_pool_at(const struct block_pool *p, int32_t id); /* device memory of the first part */
void *block_pool_part_at(const struct block_pool *p, int32_t id, int part); /* NULL: it is empty */

/* The contents of block to become those of block from. */
void block_pool_copy(struct block_pool *p, int32_t to, int32_t from);

#endif
