/* device/cuda/kv.cuh: the paged cache as kernels take it. */
#ifndef DEVICE_CUDA_KV_CUH
#define DEVICE_CUDA_KV_CUH

#include "device/cuda/numbers.cuh"

extern "C" {
#include "device/kv_layout.h"
}

/* One pool's part of a layer. */
struct cuda_pool {
    void *const *slabs;
    size_t block_bytes;
    int slab_shift;
    enum dtype type;
    int bits, group_size;
    struct kv_part keys, values;
};

/* struct kv_layer without pointers to the host. */
struct cuda_kv {
    int n_kv_heads, block_tokens;
    int k_dim, v_dim;
    int split, n_first, n_last;
    struct cuda_pool now, earlier;
};

static inline void cuda_pool_of(struct cuda_pool *p, const struct kv_layer *kv)
{
    p->slabs = kv->slabs;
    p->block_bytes = kv->block_bytes;
    p->slab_shift = kv->slab_shift;
    p->type = kv->type;
    p->bits = kv->bits;
    p->group_size = kv->group_size;
    p->keys = kv_keys(kv);
    p->values = kv_values(kv);
}

static inline struct cuda_kv cuda_kv_of(const struct kv_layer *kv)
{
    struct cuda_kv k = {};

    k.n_kv_heads = kv->n_kv_heads;
    k.block_tokens = kv->block_tokens;
    k.k_dim = kv->k_dim;
    k.v_dim = kv->v_dim;
    k.split = kv->split;
    k.n_first = kv->n_first;
    k.n_last = kv->n_last;
    cuda_pool_of(&k.now, kv);
    if (kv->split > 0)
        cuda_pool_of(&k.earlier, kv->earlier);
    return k;
}

/* The sequences of a batch on the device, and for each row the number of its sequence. */
struct cuda_batch {
    const struct kv_sequence *sequences;
    const int32_t *of_row;
};

/* NULL pointers after a failure. */
struct cuda_batch cuda_batch_of(struct cuda_device *c, const struct kv_batch *batch);

/* The pool that holds the token at a position. */
static __device__ __forceinline__ const struct cuda_pool &pool_at(const struct cuda_kv &kv,
                                                                  int position)
{
    return position < kv.split ? kv.earlier : kv.now;
}

/* The block that position p of a sequence lies in. */
static __device__ __forceinline__ char *block_at(const struct cuda_kv &kv,
                                                 const struct kv_sequence &s, int p)
{
    const struct cuda_pool &pool = pool_at(kv, p);
    int b = p / kv.block_tokens;
    int32_t block = s.blocks[b < s.n_kept ? b : b - s.n_gone];
    int32_t within = block & (int32_t)((1u << pool.slab_shift) - 1);

    return (char *)pool.slabs[block >> pool.slab_shift] + (size_t)within * pool.block_bytes;
}

/* Number i of a row of keys or values, quantised or not. */
static __device__ __forceinline__ float kv_number(const struct cuda_pool &pool,
                                                  const struct kv_part &part, const char *block,
                                                  int row, int i)
{
    const char *data = block + part.rows + (size_t)row * part.row_bytes;

    if (!pool.bits)
        return number_at(data, pool.type, i);

    size_t group = (size_t)row * part.group_bytes;
    unsigned code = pool.bits == 4 ? (uint8_t)data[i / 2] >> i % 2 * 4 & 15 : (uint8_t)data[i];
    float scale = number_at(block + part.scales + group, pool.type, i / pool.group_size);
    float bias = number_at(block + part.biases + group, pool.type, i / pool.group_size);

    return __fadd_rn(__fmul_rn((float)code, scale), bias);
}

/* The keys that a row at position p sees, as struct kv_sight of the CPU: [first, p] without [hole,
 * hole_end). */
struct cuda_sight {
    int first, hole, hole_end;
};

static __device__ __forceinline__ struct cuda_sight sight_of(const struct cuda_kv &kv, int p,
                                                             int first)
{
    int last = kv.n_last > 0 ? p - kv.n_last + 1 : 0;

    if (first >= kv.n_first)
        return (struct cuda_sight){first > last ? first : last, 0, 0};
    return (struct cuda_sight){first, kv.n_first, last > kv.n_first ? last : kv.n_first};
}

#endif
