/* device/kv_layout.h: where the rows of keys and values lie in a block of the cache. */
#ifndef DEVICE_KV_LAYOUT_H
#define DEVICE_KV_LAYOUT_H

#include "device/device.h"

/* Tokens whose rows of a head follow one another. */
static inline int kv_row_tokens(const struct kv_layer *kv)
{
    return kv->block_tokens << kv->side_shift;
}

/* Where a block of a slab begins, or the first of those that lie side by side with it; *place is
 * that of a token within the block, and becomes that within all of them. */
static inline size_t kv_block_offset(const struct kv_layer *kv, int32_t in_slab, int *place)
{
    int32_t beside = in_slab & (int32_t)((1u << kv->side_shift) - 1);

    *place += beside * kv->block_tokens;
    return (size_t)(in_slab - beside) * kv->block_bytes;
}

/* Of the keys or the values of a layer, in bytes from the start of a block, or of several that lie
 * side by side: row r = head * kv_row_tokens + place lies at rows + r * row_bytes, and where it is
 * quantised its scales and its biases [n_groups] at scales and biases + r * group_bytes. */
struct kv_part {
    int dim;
    size_t rows, row_bytes;
    size_t scales, biases, group_bytes;
    int n_groups; /* 0: not quantised */
    size_t end;
};

static inline struct kv_part kv_part_at(const struct kv_layer *kv, size_t offset, int dim)
{
    size_t n = (size_t)kv->n_kv_heads * (size_t)kv_row_tokens(kv), item = dtype_size(kv->type);
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
