#include "format/value.h"

size_t dict_slots(size_t size)
{
    size_t slots = 16;

    while (slots < size * 2)
        slots *= 2;
    return slots;
}

void dict_index(struct dict *d)
{
    for (uint32_t i = 0; d->index && i < d->size; i++) {
        uint32_t at = (uint32_t)d->entries[i].hash & d->index_mask;

        while (d->index[at])
            at = (at + 1) & d->index_mask;
        d->index[at] = i + 1;
    }
}

struct dict_entry *dict_find_indexed(const struct dict *d, const struct value *key, uint64_t hash)
{
    for (uint32_t at = (uint32_t)hash & d->index_mask; d->index[at]; at = (at + 1) & d->index_mask)
        if (entry_is(&d->entries[d->index[at] - 1], key, hash))
            return &d->entries[d->index[at] - 1];
    return NULL;
}
