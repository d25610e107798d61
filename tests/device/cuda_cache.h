/* tests/device/cuda_cache.h: a paged cache of some sequences on both devices of a pair. */
#ifndef CUDA_CACHE_H
#define CUDA_CACHE_H

#include "cuda_pair.h"

enum { N = 4 /* sequences */, BLOCKS = 128, SLAB_SHIFT = 3 };

static inline int sum(const int n[N])
{
    return n[0] + n[1] + n[2] + n[3];
}

/* A pool of blocks and the sequences' tables, on both. */
struct cache_call {
    struct kv_layer kv;
    struct kv_sequence past[N], now[N]; /* what is stored before, and the batch itself */
    struct kv_batch past_batch, batch;
};

static inline size_t part_end(const struct kv_layer *kv, size_t at, int dim)
{
    size_t rows = (size_t)kv->n_kv_heads * (size_t)kv->block_tokens, groups;

    if (!kv->bits)
        return at + rows * (size_t)dim * dtype_size(kv->type);
    groups = ((size_t)dim - 1) / (size_t)kv->group_size + 1;
    return at + rows * (((size_t)dim * (size_t)kv->bits + 31) / 32 * 4 +
                        2 * groups * dtype_size(kv->type));
}

static inline void cache_make(struct pair *p, struct cache_call c[PAIR_DEVICES],
                              const struct kv_layer *like, const int rows[N], const int past[N])
{
    struct kv_layer kv = *like;
    struct pair_operand *pool, *tables;
    int32_t blocks[BLOCKS];
    size_t end;

    if (!kv.block_tokens)
        kv.block_tokens = 16;
    kv.slab_shift = SLAB_SHIFT;
    kv.v_offset = part_end(&kv, 0, kv.k_dim);
    end = part_end(&kv, kv.v_offset, kv.v_dim);
    kv.block_bytes = (end + 15) / 16 * 16;
    pool = pair_numbers(p, BLOCKS * kv.block_bytes / sizeof(float));
    pool->exact = kv.type != DTYPE_F32 && !kv.bits;
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = i * 37 % BLOCKS;
    tables = pair_bytes(p, blocks, sizeof blocks, true);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        void *slabs[BLOCKS >> SLAB_SHIFT];
        int block = 0, row = 0, past_row = 0;
        void *list;

        for (size_t i = 0; i < COUNT(slabs); i++)
            slabs[i] = (char *)pool->at[d] + (i << SLAB_SHIFT) * kv.block_bytes;
        list = p->dev[d]->ops->alloc(p->dev[d], sizeof slabs, NULL);
        assert_non_null(list);
        p->dev[d]->ops->upload(p->dev[d], list, slabs, sizeof slabs);
        c[d].kv = kv;
        c[d].kv.slabs = list;
        for (int i = 0; i < N; i++) {
            int n = (past[i] + rows[i] + kv.block_tokens - 1) / kv.block_tokens;
            const int32_t *own = (const int32_t *)tables->at[d] + block;

            c[d].past[i] = (struct kv_sequence){
                .row = past_row, .n_rows = past[i], .blocks = own, .n_kept = n};
            c[d].now[i] = (struct kv_sequence){
                .row = row, .n_rows = rows[i], .position = past[i], .blocks = own, .n_kept = n};
            block += n;
            row += rows[i];
            past_row += past[i];
        }
        CHECK(block <= BLOCKS, "%d blocks", block);
        c[d].past_batch = (struct kv_batch){c[d].past, N, past_row};
        c[d].batch = (struct kv_batch){c[d].now, N, row};
    }
}

static inline void cache_drop(struct pair *p, struct cache_call c[PAIR_DEVICES])
{
    for (int d = 0; d < PAIR_DEVICES; d++)
        p->dev[d]->ops->free(p->dev[d], (void *)(uintptr_t)c[d].kv.slabs);
    pair_clear(p);
}

/* Random keys and values of all that came before and of the batch. */
static inline void cache_store(struct pair *p, struct cache_call c[PAIR_DEVICES], const int rows[N],
                               const int past[N])
{
    tensor k[2][PAIR_DEVICES], v[2][PAIR_DEVICES];
    const struct kv_layer *kv = &c[0].kv;

    for (int i = 0; i < 2; i++) {
        pair_tensor(p, k[i], sum(i ? rows : past), kv->n_kv_heads * kv->k_dim);
        pair_tensor(p, v[i], sum(i ? rows : past), kv->n_kv_heads * kv->v_dim);
    }
    for (int d = 0; d < PAIR_DEVICES; d++) {
        const struct device_ops *o = p->dev[d]->ops;

        o->kv_store(p->dev[d], &c[d].kv, &c[d].past_batch, &k[0][d], &v[0][d]);
        o->kv_store(p->dev[d], &c[d].kv, &c[d].batch, &k[1][d], &v[1][d]);
    }
}

#endif
