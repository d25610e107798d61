#include "template/render.h"

int dict_reserve(struct render *r, struct dict *d, size_t size)
{
    struct dict_entry *entries;
    size_t slots;

    if (size <= d->capacity)
        return 0;
    if (size >= UINT32_MAX / 4)
        return render_fail(r, "a mapping of more than a billion items");
    entries = render_alloc(r, size, sizeof *entries);
    if (!entries)
        return -1;
    if (d->size)
        memcpy(entries, d->entries, d->size * sizeof *entries);
    d->entries = entries;
    d->capacity = (uint32_t)size;
    if (size <= DICT_SMALL)
        return 0;
    slots = dict_slots(size);
    d->index = render_alloc(r, slots, sizeof *d->index);
    if (!d->index) {
        d->capacity = d->size;
        return -1;
    }
    memset(d->index, 0, slots * sizeof *d->index);
    d->index_mask = (uint32_t)slots - 1;
    dict_index(d);
    return 0;
}

struct dict *dict_new(struct render *r, size_t size)
{
    size_t within = size <= DICT_SMALL ? size : 0; /* small ones come with their entries */
    struct dict *d = render_alloc(r, 1, sizeof *d + within * sizeof *d->entries);

    if (!d)
        return NULL;
    *d = (struct dict){.entries = (struct dict_entry *)(d + 1), .capacity = (uint32_t)within};
    return size > within && dict_reserve(r, d, size) ? NULL : d;
}

/* 1 with the entry, 0, or -1. */
static int find(struct render *r, const struct dict *d, const struct value *key, uint64_t hash,
                struct dict_entry **out)
{
    uint32_t at = d->index ? (uint32_t)hash & d->index_mask : 0;

    for (;;) {
        struct dict_entry *e;
        int equal;

        if (d->index ? !d->index[at] : at >= d->size)
            return 0;
        e = &d->entries[d->index ? d->index[at] - 1 : at];
        at = d->index ? (at + 1) & d->index_mask : at + 1;
        if (e->hash != hash)
            continue;
        equal = value_same(&e->key, key) ? 1 : value_equal(r, &e->key, key);
        if (equal) {
            *out = e;
            return equal;
        }
        if (render_work(r, 1))
            return -1;
    }
}

int dict_get(struct render *r, const struct dict *d, const struct value *key,
             const struct value **out)
{
    struct dict_entry *e;
    uint64_t hash;
    int found;

    if (key->kind == V_STRING) {
        e = dict_find_text(d, key, hash_bytes(key->s, key->size));
        found = e != NULL;
    } else {
        if (value_hash(r, key, &hash))
            return -1;
        found = find(r, d, key, hash, &e);
    }
    if (found > 0)
        *out = &e->value;
    return found;
}

/* Puts an entry behind the others. */
static void append(struct dict *d, const struct value *key, uint64_t hash, const struct value *v)
{
    d->entries[d->size++] = (struct dict_entry){*key, *v, hash};
    if (d->index) {
        uint32_t at = (uint32_t)hash & d->index_mask;

        while (d->index[at])
            at = (at + 1) & d->index_mask;
        d->index[at] = d->size;
    }
}

int dict_add_new(struct render *r, struct dict *d, const struct value *key, uint64_t hash,
                 const struct value *v)
{
    if (d->size == d->capacity && dict_reserve(r, d, d->size ? 2 * (size_t)d->size : 4))
        return -1;
    append(d, key, hash, v);
    return 0;
}

int dict_set_hashed(struct render *r, struct dict *d, const struct value *key, uint64_t hash,
                    struct value v)
{
    struct dict_entry *e;
    int found = find(r, d, key, hash, &e);

    if (found < 0)
        return -1;
    if (found) {
        e->value = v;
        return 0;
    }
    return dict_add_new(r, d, key, hash, &v);
}

int dict_set(struct render *r, struct dict *d, const struct value *key, struct value v)
{
    uint64_t hash;

    if (value_hash(r, key, &hash))
        return -1;
    return dict_set_hashed(r, d, key, hash, v);
}
