/* tokenizer/map.c: growing and filling the table of pairs. */
#include "tokenizer/map.h"

#include "base/memory.h"

static struct pair_slot *place_of(struct pair_map *m, uint64_t key)
{
    size_t i = pair_hash(key) & m->mask;

    while (m->slots[i].key && m->slots[i].key != key + 1)
        i = (i + 1) & m->mask;
    return &m->slots[i];
}

/* Room for n pairs in all. */
static int pair_map_reserve(struct pair_map *m, size_t n, clm_error *err)
{
    struct pair_map bigger = {.count = m->count};
    size_t size = 16;

    while (size / 4 * 3 < n) {
        if (!size_mul(size, 2, &size))
            return fail(err, CLM_ERR_NOMEM, "a table of %zu pairs", n);
    }
    if (m->slots && size <= m->mask + 1)
        return 0;
    bigger.slots = mem_zeroed(size, sizeof *bigger.slots);
    if (!bigger.slots)
        return fail(err, CLM_ERR_NOMEM, "a table of %zu pairs", n);
    bigger.mask = size - 1;
    for (size_t i = 0; m->slots && i <= m->mask; i++) {
        if (m->slots[i].key)
            *place_of(&bigger, m->slots[i].key - 1) = m->slots[i];
    }
    mem_free(m->slots);
    *m = bigger;
    return 0;
}

int pair_map_set(struct pair_map *m, uint32_t left, uint32_t right, uint32_t a, uint32_t b,
                 clm_error *err)
{
    uint64_t key = pair_key(left, right);
    struct pair_slot *slot;

    if (pair_map_reserve(m, m->count + 1, err))
        return -1;
    slot = place_of(m, key);
    m->count += !slot->key;
    *slot = (struct pair_slot){.key = key + 1, .a = a, .b = b};
    return 0;
}

void pair_map_release(struct pair_map *m)
{
    mem_free(m->slots);
    *m = (struct pair_map){0};
}
