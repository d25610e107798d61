/* tokenizer/vocab.c: an arena of texts, an array by id, and a hash table by text. */
#include "tokenizer/vocab.h"

#include <string.h>

#include "base/memory.h"
#include "tokenizer/map.h"

/* A vocabulary of this many ids, plus eight for each token, may have gaps. */
#define ID_SLACK 65536

static int grow(void **items, size_t *capacity, size_t need, size_t size, clm_error *err)
{
    size_t n = *capacity ? *capacity : 16, bytes;
    void *p;

    if (need <= *capacity)
        return 0;
    while (n < need) {
        if (!size_mul(n, 2, &n))
            return fail(err, CLM_ERR_NOMEM, "a vocabulary of %zu items", need);
    }
    if (!size_mul(n, size, &bytes) || !(p = mem_resize(*items, bytes)))
        return fail(err, CLM_ERR_NOMEM, "a vocabulary of %zu items", need);
    *items = p;
    *capacity = n;
    return 0;
}

/* The slot that holds the text, or the free one where it would go. */
static struct vocab_slot *slot_of(const struct vocab *v, const char *s, size_t n, uint64_t h)
{
    for (size_t i = (size_t)h & v->mask;; i = (i + 1) & v->mask) {
        struct vocab_slot *slot = &v->slots[i];
        const struct vocab_entry *e;

        if (!slot->entry)
            return slot;
        e = &v->entries[slot->entry - 1];
        if (slot->tag == (uint32_t)(h >> 32) && e->size == n && !memcmp(v->text + e->offset, s, n))
            return slot;
    }
}

/* Put an entry where its text belongs; false where that is taken by the same text. */
static bool take_slot(struct vocab *v, size_t e, uint64_t h)
{
    const struct vocab_entry *entry = &v->entries[e];
    struct vocab_slot *slot = slot_of(v, v->text + entry->offset, entry->size, h);

    if (slot->entry)
        return false;
    *slot = (struct vocab_slot){.tag = (uint32_t)(h >> 32), .entry = (uint32_t)(e + 1)};
    return true;
}

#define AHEAD 16 /* entries, between asking for a slot and its use */

static uint64_t hash_entry(const struct vocab *v, size_t e)
{
    return hash_bytes(v->text + v->entries[e].offset, v->entries[e].size);
}

/* Give every entry a slot, of those that are all free; the first whose text has one, or n_entries.
 */
static size_t fill_slots(struct vocab *v)
{
    uint64_t hashes[AHEAD] = {0};

    for (size_t e = 0; e < v->n_entries + AHEAD; e++) {
        uint64_t h = hashes[e % AHEAD];

        if (e < v->n_entries) {
            hashes[e % AHEAD] = hash_entry(v, e);
            __builtin_prefetch(&v->slots[(size_t)hashes[e % AHEAD] & v->mask]);
        }
        if (e >= AHEAD && !take_slot(v, e - AHEAD, h))
            return e - AHEAD;
    }
    return v->n_entries;
}

static int grow_slots(struct vocab *v, size_t n, clm_error *err)
{
    size_t size = 16;
    struct vocab_slot *slots;

    while (size / 4 * 3 < n) {
        if (!size_mul(size, 2, &size))
            return fail(err, CLM_ERR_NOMEM, "a vocabulary of %zu tokens", n);
    }
    if (v->slots && size <= v->mask + 1)
        return 0;
    slots = mem_zeroed(size, sizeof *slots);
    if (!slots)
        return fail(err, CLM_ERR_NOMEM, "a vocabulary of %zu tokens", n);
    mem_free(v->slots);
    v->slots = slots;
    v->mask = size - 1;
    v->twice = fill_slots(v);
    return 0;
}

int vocab_init(struct vocab *v, size_t n, size_t text_size, const char *name, clm_error *err)
{
    *v = (struct vocab){.name = name};
    if (grow((void **)&v->text, &v->text_capacity, text_size, 1, err) ||
        grow((void **)&v->entries, &v->entry_capacity, n, sizeof *v->entries, err) ||
        grow_slots(v, n, err)) {
        vocab_release(v);
        return -1;
    }
    return 0;
}

void vocab_release(struct vocab *v)
{
    mem_free(v->text);
    mem_free(v->entries);
    mem_free(v->entry_of_id);
    mem_free(v->slots);
    *v = (struct vocab){0};
}

static int reserve_id(struct vocab *v, int64_t id, clm_error *err)
{
    size_t old = v->n_ids;

    if (id < 0 || (uint64_t)id >= (uint64_t)v->entry_capacity * 8 + ID_SLACK)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s: token id %lld is far outside a vocabulary of %zu tokens",
                    v->name ? v->name : "tokenizer", (long long)id, v->entry_capacity);
    if ((size_t)id < v->n_ids)
        return 0;
    if (grow((void **)&v->entry_of_id, &v->id_capacity, (size_t)id + 1, sizeof *v->entry_of_id,
             err))
        return -1;
    v->n_ids = (size_t)id + 1;
    memset(v->entry_of_id + old, 0, (v->n_ids - old) * sizeof *v->entry_of_id);
    return 0;
}

int vocab_append(struct vocab *v, const char *s, size_t n, int64_t id, clm_error *err)
{
    size_t text_end;

    if (!size_add(v->text_size, n, &text_end) || text_end >= UINT32_MAX ||
        v->n_entries >= INT32_MAX / 2)
        return fail(err, CLM_ERR_UNSUPPORTED, "%s: a vocabulary of more than 4 GiB",
                    v->name ? v->name : "tokenizer");
    if (grow((void **)&v->text, &v->text_capacity, text_end + 1, 1, err) ||
        grow((void **)&v->entries, &v->entry_capacity, v->n_entries + 1, sizeof *v->entries, err) ||
        reserve_id(v, id, err))
        return -1;
    memcpy(v->text + v->text_size, s, n);
    v->text[text_end] = '\0';
    v->entries[v->n_entries] = (struct vocab_entry){
        .offset = (uint32_t)v->text_size, .size = (uint32_t)n, .id = (int32_t)id};
    v->text_size = text_end + 1;
    v->n_entries++;
    if (!v->entry_of_id[id])
        v->entry_of_id[id] = (uint32_t)v->n_entries;
    return 0;
}

int vocab_index(struct vocab *v, clm_error *err)
{
    mem_free(v->slots);
    v->slots = NULL;
    return grow_slots(v, v->n_entries, err);
}

int vocab_add(struct vocab *v, const char *s, size_t n, int64_t id, clm_error *err)
{
    uint64_t h = hash_bytes(s, n);

    if (grow_slots(v, v->n_entries + 1, err))
        return -1;
    if (slot_of(v, s, n, h)->entry)
        return 0;
    if (vocab_append(v, s, n, id, err))
        return -1;
    take_slot(v, v->n_entries - 1, h);
    return 0;
}

int32_t vocab_find(const struct vocab *v, const char *s, size_t n)
{
    const struct vocab_slot *slot;

    if (!v->slots)
        return -1;
    slot = slot_of(v, s, n, hash_bytes(s, n));
    return slot->entry ? v->entries[slot->entry - 1].id : -1;
}

void vocab_find_all(const struct vocab *v, const char *const *s, const size_t *n, size_t count,
                    int32_t *ids)
{
    uint64_t h[VOCAB_BATCH];
    uint32_t entry[VOCAB_BATCH];

    for (size_t k = 0; k < count && v->slots; k++) {
        h[k] = hash_bytes(s[k], n[k]);
        __builtin_prefetch(&v->slots[(size_t)h[k] & v->mask]);
    }
    for (size_t k = 0; k < count && v->slots; k++) {
        entry[k] = v->slots[(size_t)h[k] & v->mask].entry;
        if (entry[k])
            __builtin_prefetch(&v->entries[entry[k] - 1]);
    }
    for (size_t k = 0; k < count && v->slots; k++) {
        if (entry[k])
            __builtin_prefetch(v->text + v->entries[entry[k] - 1].offset);
    }
    for (size_t k = 0; k < count; k++) {
        const struct vocab_slot *slot = v->slots ? slot_of(v, s[k], n[k], h[k]) : NULL;

        ids[k] = slot && slot->entry ? v->entries[slot->entry - 1].id : -1;
    }
}

const char *vocab_text(const struct vocab *v, int32_t id, size_t *size)
{
    const struct vocab_entry *e;

    if (id < 0 || (size_t)id >= v->n_ids || !v->entry_of_id[id])
        return NULL;
    e = &v->entries[v->entry_of_id[id] - 1];
    if (size)
        *size = e->size;
    return v->text + e->offset;
}
