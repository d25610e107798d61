/* tokenizer/bpe_pairs.c: filling the tables of merges. */
#include "tokenizer/bpe_pairs.h"

#include "base/memory.h"

#define MOST_RULES ((size_t)1 << 30)
#define AHEAD 16 /* merges, between asking for memory and its use */

int bpe_pairs_reserve(struct bpe_pairs *p, size_t n, clm_error *err)
{
    void *rules;

    if (n > MOST_RULES)
        return fail(err, CLM_ERR_UNSUPPORTED, "%zu merges are too many", n);
    rules = mem_grow(p->rules, &p->capacity, n, sizeof *p->rules);
    if (!rules)
        return fail(err, CLM_ERR_NOMEM, "a table of %zu merges", n);
    p->rules = rules;
    return 0;
}

int bpe_pairs_add(struct bpe_pairs *p, struct bpe_rule rule, clm_error *err)
{
    if (p->count == p->capacity && bpe_pairs_reserve(p, p->count + 1, err))
        return -1;
    p->rules[p->count++] = rule;
    return 0;
}

static void put(struct bpe_pairs *p, size_t rank)
{
    struct bpe_rule rule = p->rules[rank];
    uint64_t h = bpe_pair_hash(rule.left, rule.right);
    struct bpe_pair old = bpe_pairs_find(p, rule.left, rule.right, h);
    uint32_t slot = ((uint32_t)(h >> 32) & ~p->rank_mask) | (uint32_t)(rank + 1);
    size_t i = bpe_pairs_slot(p, h), bit = (size_t)(h >> p->filter_shift);

    while (p->slots[i] && (p->slots[i] & p->rank_mask) != old.rank + 1)
        i = (i + 1) & p->mask;
    p->slots[i] = slot;
    p->filter[bit / 64] |= (uint64_t)1 << bit % 64;
}

void bpe_pairs_shape(struct bpe_pairs *p, size_t n_slots, int filter_bits)
{
    p->mask = n_slots - 1;
    p->rank_mask = 1;
    while (p->rank_mask < p->count)
        p->rank_mask = p->rank_mask << 1 | 1;
    p->filter_shift = 64 - filter_bits;
}

/* Four bits of the filter or more for each merge: one in five pairs that do not merge is looked up
 * in vain; with twice the bits it would be one in nine, but more of them would come from afar. */
int bpe_pairs_finish(struct bpe_pairs *p, clm_error *err)
{
    size_t n = 16;
    int bits = 12;

    while (n / 4 * 3 < p->count)
        n *= 2;
    while (bits < 22 && (size_t)1 << bits < 4 * p->count)
        bits++;
    bpe_pairs_shape(p, n, bits);
    p->slots = mem_zeroed(n, sizeof *p->slots);
    p->filter = mem_zeroed(((size_t)1 << bits) / 64, sizeof *p->filter);
    if (!p->slots || !p->filter || bpe_pairs_reserve(p, 1, err))
        return fail(err, CLM_ERR_NOMEM, "a table of %zu merges", p->count);
    for (size_t rank = 0; rank < p->count; rank++) {
        const struct bpe_rule *soon = &p->rules[rank + AHEAD < p->count ? rank + AHEAD : rank];

        bpe_pairs_prefetch_slot(p, bpe_pair_hash(soon->left, soon->right));
        put(p, rank);
    }
    return 0;
}

void bpe_pairs_release(struct bpe_pairs *p)
{
    mem_free(p->rules);
    mem_free(p->slots);
    mem_free(p->filter);
    *p = (struct bpe_pairs){0};
}
