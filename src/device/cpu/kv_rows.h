/* device/cpu/kv_rows.h: where keys and values lie in the blocks of a paged cache. */
#ifndef DEVICE_CPU_KV_ROWS_H
#define DEVICE_CPU_KV_ROWS_H

#include "device/device.h"

/* Where position p of a sequence lies: its place within the block in *place. */
static inline char *kv_block_of(const struct kv_layer *kv, const struct kv_sequence *s, int p,
                                int *place)
{
    int32_t block = s->blocks[p / kv->block_tokens - s->first_block];
    int32_t in_slab = block & (int32_t)((1u << kv->slab_shift) - 1);

    *place = p % kv->block_tokens;
    return (char *)kv->slabs[block >> kv->slab_shift] + (size_t)in_slab * kv->block_bytes;
}

/* Row number place of head in the keys or values of a block. */
static inline void *kv_head_row(char *block, const struct kv_layer *kv, size_t offset, int head,
                                int place, int dim)
{
    size_t row = (size_t)head * (size_t)kv->block_tokens + (size_t)place;

    return block + offset + row * (size_t)dim * dtype_size(kv->type);
}

#endif
