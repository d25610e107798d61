/* device/kv_layout.h: where the rows of keys and values lie in a block of the cache. */
#ifndef DEVICE_KV_LAYOUT_H
#define DEVICE_KV_LAYOUT_H

#include "device/device.h"

/* Of the keys or the values of a layer, in bytes from the start of a block: row r = head *
 * block_tokens + place lies at rows + r * row_bytes, and where it is quantised its scales and its
 * biases [n_groups] at scales and biases + r * group_bytes. */
struct kv_part {
    int dim;
    size_t rows, row_bytes;
    size_t scales, biases, group_bytes;
    int n_groups; /* 0: not quantised */
    size_t end;
};

static inline struct kv_part kv_part_at(const struct kv_layer *kv, size_t offset, int dim)
{
    size_t n = (size_t)kv->n_kv_heads * (size_t)kv->block_tokens, item = dtype_size(kv->type);
    struct kv_part p = {.dim = dim, .rows = offset, .row_bytes = (size_t)dim * item};

    if (kv->bits) {
        p.n_groups = (dim - 1) / kv->group_size + 1;
        p.row_bytes = ((size_t)dim * (size_t)kv->bits + 31) / 32 * 4;
        p.group_bytes = (size_t)p.n_groups * item;
    }
    p.scales = p.rows + n * p.row_bytes;
    p.biases = p.scales + n * p.group_bytes;
    p.end = p.biases + n * p.group_bytes;
    return p;
}

static inline struct kv_part kv_keys(const struct kv_layer *kv)
{
    return kv->parts ? kv->parts[0] : kv_part_at(kv, kv->k_offset, kv->k_dim);
}

static inline struct kv_part kv_values(const struct kv_layer *kv)
{
    return kv->parts ? kv->parts[1] : kv_part_at(kv, kv->v_offset, kv->v_dim);
}

/* How the token at a position lies: which of the two pools it is in. */
static inline const struct kv_layer *kv_at(const struct kv_layer *kv, int position)
{
    return position < kv->split ? kv->earlier : kv;
}

/* The same of a sequence, where it may be mapped. */
static inline const struct kv_layer *kv_of(const struct kv_layer *kv, const struct kv_sequence *s,
                                           int position)
{
    return kv_at(position < s->n_mapped ? &s->mapped[kv->index] : kv, position);
}

/* Where block number b of a sequence stands in its list; it must not be one let go of. */
static inline int kv_block_index(int b, int n_kept, int n_gone)
{
    return b < n_kept ? b : b - n_gone;
}

#endif
