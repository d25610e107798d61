/* tokenizer/bpe_merge.h: merging the symbols of a word, lowest rank first, leftmost first. */
#ifndef TOKENIZER_BPE_MERGE_H
#define TOKENIZER_BPE_MERGE_H

#include "tokenizer/bpe.h"

#define BPE_NO_RANK UINT32_MAX

struct bpe_pair {
    uint32_t rank; /* BPE_NO_RANK: the two do not merge */
    uint32_t merged;
};

/* Most pairs do not merge, and most of those are told by one bit. */
static inline struct bpe_pair bpe_find_pair(const struct bpe *b, uint32_t left, uint32_t right)
{
    const struct pair_slot *slot = NULL;

    if (bpe_filter_has(b, left, right))
        slot = pair_map_find(&b->merges, left, right);
    return slot ? (struct bpe_pair){slot->a, slot->b} : (struct bpe_pair){BPE_NO_RANK, 0};
}

/* Merge the n symbols in scratch->ids, n >= 1; their number after it, or 0 with the error. */
size_t bpe_merge(const struct bpe *b, struct bpe_scratch *scratch, size_t n, clm_error *err);

/* For the table of bpe_open.c; 0, or -1 without memory. */
int bpe_fill_seeds(struct bpe *b, struct reader *r);

#endif
