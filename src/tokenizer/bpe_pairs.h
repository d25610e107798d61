/* tokenizer/bpe_pairs.h: the merges of a BPE model, by rank and by pair.
 *
 * Made for few and near accesses to memory: most pairs do not merge, and one bit of a filter tells
 * most of those; a slot of the hash table has no more than a place in the list of merges, where
 * the frequent ones are close together at the beginning, and as much of the hash as fits beside it.
 */
#ifndef TOKENIZER_BPE_PAIRS_H
#define TOKENIZER_BPE_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define BPE_NO_RANK UINT32_MAX

struct bpe_rule {
    uint32_t left, right;
    uint32_t merged;
};

struct bpe_pairs {
    struct bpe_rule *rules; /* by rank */
    size_t count, capacity;
    uint32_t *slots; /* rank + 1 below, bits of the hash above; 0 is free */
    uint32_t rank_mask;
    size_t mask;
    uint64_t *filter; /* a bit for each hash of a pair, set for those that merge */
    int filter_shift;
};

struct bpe_pair {
    uint32_t rank; /* BPE_NO_RANK: the two do not merge */
    uint32_t merged;
};

/* Make room for n merges in all; 0, or -1 without memory. */
int bpe_pairs_reserve(struct bpe_pairs *p, size_t n, clm_error *err);
/* Add the merge of the next rank; of a pair that is there already the last one counts. */
int bpe_pairs_add(struct bpe_pairs *p, struct bpe_rule rule, clm_error *err);
/* After the last one, and before any look: 0, or -1 without memory. */
int bpe_pairs_finish(struct bpe_pairs *p, clm_error *err);
/* What count, the number of slots and of the filter's bits, a power of two, say of the rest. */
void bpe_pairs_shape(struct bpe_pairs *p, size_t n_slots, int filter_bits);
void bpe_pairs_release(struct bpe_pairs *p);

static inline uint64_t bpe_pair_hash(uint32_t left, uint32_t right)
{
    return ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
}

/* The middle bits of the product, which all bits of both numbers reach; the highest ones are for
 * the filter and beside the rank. */
static inline size_t bpe_pairs_slot(const struct bpe_pairs *p, uint64_t h)
{
    return (size_t)(h >> 24) & p->mask;
}

static inline void bpe_pairs_prefetch_filter(const struct bpe_pairs *p, uint64_t h)
{
    __builtin_prefetch(&p->filter[(h >> p->filter_shift) / 64]);
}

static inline bool bpe_pairs_may_have(const struct bpe_pairs *p, uint64_t h)
{
    size_t bit = (size_t)(h >> p->filter_shift);

    return p->filter[bit / 64] >> bit % 64 & 1;
}

static inline void bpe_pairs_prefetch_slot(const struct bpe_pairs *p, uint64_t h)
{
    __builtin_prefetch(&p->slots[bpe_pairs_slot(p, h)]);
}

/* Of the slot that should have come by now. */
static inline void bpe_pairs_prefetch_rule(const struct bpe_pairs *p, uint64_t h)
{
    uint32_t slot = p->slots[bpe_pairs_slot(p, h)];

    __builtin_prefetch(&p->rules[slot ? (slot & p->rank_mask) - 1 : 0]);
}

/* For a pair that passes the filter. */
static inline struct bpe_pair bpe_pairs_find(const struct bpe_pairs *p, uint32_t left,
                                             uint32_t right, uint64_t h)
{
    uint32_t tag = (uint32_t)(h >> 32) & ~p->rank_mask, slot;

    for (size_t i = bpe_pairs_slot(p, h); (slot = p->slots[i]); i = (i + 1) & p->mask) {
        const struct bpe_rule *rule;

        if ((slot & ~p->rank_mask) != tag)
            continue;
        rule = &p->rules[(slot & p->rank_mask) - 1];
        if (rule->left == left && rule->right == right)
            return (struct bpe_pair){(slot & p->rank_mask) - 1, rule->merged};
    }
    return (struct bpe_pair){BPE_NO_RANK, 0};
}

static inline struct bpe_pair bpe_find_pair(const struct bpe_pairs *p, uint32_t left,
                                            uint32_t right)
{
    uint64_t h = bpe_pair_hash(left, right);

    if (!bpe_pairs_may_have(p, h))
        return (struct bpe_pair){BPE_NO_RANK, 0};
    return bpe_pairs_find(p, left, right, h);
}

#endif
