/* device/cpu/kv_rows.h: keys and values in the blocks of a paged cache, for kernels that read and
 * write numbers. */
#ifndef DEVICE_CPU_KV_ROWS_H
#define DEVICE_CPU_KV_ROWS_H

#include "device/cpu/vector_kernels.h"
#include "device/kv_layout.h"

/* The block that position p of a sequence lies in, as kv_of(kv, s, p) describes it; its place
 * within the block in *place. */
static inline char *kv_block_of(const struct kv_layer *kv, const struct kv_sequence *s, int p,
                                int *place)
{
    const struct kv_layer *at = kv_of(kv, s, p);
    int32_t block, in_slab;

    if (p < s->n_mapped) {
        *place = p;
        return at->slabs[0];
    }
    block = s->blocks[kv_block_index(p / kv->block_tokens, s->n_kept, s->n_gone)];
    in_slab = block & (int32_t)((1u << at->slab_shift) - 1);
    *place = p % kv->block_tokens;
    return (char *)at->slabs[block >> at->slab_shift] + kv_block_offset(at, in_slab, place);
}

/* Positions from p on whose rows follow one another in a block, or as if in one. */
static inline int kv_stretch(const struct kv_layer *kv, const struct kv_sequence *s, int p)
{
    int n = kv->block_tokens - p % kv->block_tokens;

    return p < s->n_mapped && s->n_mapped - p < n ? s->n_mapped - p : n;
}

/* The same, as far as blocks follow one another too; most: there must be so many positions. */
static inline int kv_run(const struct kv_layer *kv, const struct kv_sequence *s, int p, int most)
{
    const struct kv_layer *at = kv_of(kv, s, p);
    int n = kv_stretch(kv, s, p), b = p / kv->block_tokens;
    int32_t last = p < s->n_mapped ? 0 : s->blocks[kv_block_index(b, s->n_kept, s->n_gone)];

    for (; p >= s->n_mapped && n < most && kv_at(kv, p + n) == at; n += kv->block_tokens) {
        int32_t next = s->blocks[kv_block_index(++b, s->n_kept, s->n_gone)];

        if (next != ++last || !(next & (int32_t)((1u << at->side_shift) - 1)))
            break;
    }
    return n < most ? n : most;
}

/* The keys that a row at position p sees, as far as the cache has them: [first, p] without [hole,
 * hole_end), which is empty where the two are equal. first is the first that attention itself lets
 * it see. */
struct kv_sight {
    int first, hole, hole_end;
};

static inline struct kv_sight kv_sight_of(const struct kv_layer *kv, int p, int first)
{
    int last = kv->n_last > 0 ? p - kv->n_last + 1 : 0;

    if (first >= kv->n_first)
        return (struct kv_sight){first > last ? first : last, 0, 0};
    return (struct kv_sight){first, kv->n_first, last > kv->n_first ? last : kv->n_first};
}

/* Numbers of rows [n, dim], one after another. */
struct kv_rows {
    const void *data;
    enum dtype type;
};

/* Floats of room that reading n rows needs where they are quantised, else 0. */
size_t kv_rows_room(const struct kv_layer *kv, int n);

/* n keys, or values, of a head from a place of a block on; at describes the block's pool. They are
 * where they lie, or in room. */
struct kv_rows kv_read_keys(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                            const char *block, int head, int place, int n, float *room);
struct kv_rows kv_read_values(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                              const char *block, int head, int place, int n, float *room);

/* Where n rows of a part lie that will be read next, for kernels to prefetch; their scales are
 * asked for at once. */
const void *kv_rows_ahead(const struct kv_layer *at, const struct kv_part *p, const char *block,
                          int head, int place, int n);

/* Can kernels read rows of dim numbers as the codes they are? Then these are such rows. */
bool kv_reads_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at, int dim);
struct cpu_codes kv_key_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                              const char *block, int head, int place, int n, float *room);
struct cpu_codes kv_value_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                                const char *block, int head, int place, int n, float *room);

#endif
