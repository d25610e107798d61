/* tokenizer/snapshot.c: writing a snapshot, and believing nothing that is read of one. */
#include "tokenizer/snapshot.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/scramble.h"
#include "tokenizer/map.h"

#define NAME_LENGTH 32 /* of a snapshot's file */

static const char magic[8] = "clmtoken";

static const size_t item_size[SNAPSHOT_PARTS] = {
    [PART_TEXT] = 1,
    [PART_ENTRIES] = sizeof(struct vocab_entry),
    [PART_ENTRY_OF_ID] = sizeof(uint32_t),
    [PART_SLOTS] = sizeof(struct vocab_slot),
    [PART_RULES] = sizeof(struct bpe_rule),
    [PART_PAIR_SLOTS] = sizeof(uint32_t),
    [PART_FILTER] = sizeof(uint64_t),
    [PART_CHAR_IDS] = sizeof(int32_t),
    [PART_LIMITS] = 1,
    [PART_NEIGHBOURS] = sizeof(uint64_t),
    [PART_DISTURBED] = sizeof(uint64_t),
    [PART_LONGEST] = sizeof(size_t),
    [PART_REST] = 1,
    [PART_JSON] = 1,
};

/* Each step can be undone: no change of a single word goes unnoticed. */
static uint64_t checksum(const uint8_t *p, size_t n)
{
    uint64_t lane[8] = {1, 2, 3, 4, 5, 6, 7, 8}, sum = n, word[8] = {0};

    for (; n >= sizeof word; p += sizeof word, n -= sizeof word) {
        memcpy(word, p, sizeof word);
        for (int i = 0; i < 8; i++) {
            uint64_t h = (lane[i] ^ word[i]) * 0x9E3779B97F4A7C15u;

            lane[i] = h << 29 | h >> 35;
        }
    }
    memset(word, 0, sizeof word);
    memcpy(word, p, n);
    for (int i = 0; i < 8; i++)
        sum = scramble(sum ^ lane[i]) ^ scramble(word[i] + (uint64_t)i);
    return sum;
}

/* What differs where tables would be read wrongly: the sources that made them, as CMake has hashed
 * them, hash functions from elsewhere, sizes, the order of bytes. */
static uint64_t layout(void)
{
    const uint64_t facts[] = {CLM_TOKENIZER_SOURCES,    hash_bytes("snapshot", 8),
                              hash_bytes("layout", 6),  bpe_pair_hash(1, 2),
                              bpe_neighbour_hash(1, 2), bpe_disturbed_hash(1, 2),
                              BPE_CHARACTERS,           BPE_NEIGHBOUR_BITS};
    uint64_t bits = checksum((const uint8_t *)facts, sizeof facts);

    return bits ^ checksum((const uint8_t *)item_size, sizeof item_size);
}

/* Where the parts lie, and in the last the size of all; false where numbers are too large. */
static bool lay_out(const uint64_t count[SNAPSHOT_PARTS], size_t at[SNAPSHOT_PARTS + 1])
{
    at[0] = sizeof(struct snapshot_header);
    for (int i = 0; i < SNAPSHOT_PARTS; i++) {
        size_t bytes;

        if (!size_mul(count[i], item_size[i], &bytes) || bytes > SIZE_MAX / 32)
            return false;
        at[i + 1] = at[i] + bytes;
        if (i + 1 < SNAPSHOT_PARTS)
            at[i + 1] = (at[i + 1] + 63) & ~(size_t)63;
    }
    return true;
}

/* Reading. */

static bool is_power(uint64_t n)
{
    return n && !(n & (n - 1));
}

/* The numbers of items that go together; ids and ranks fit their types. */
static bool counts_agree(const struct snapshot_header *h)
{
    const uint64_t *n = h->count;

    return h->raw <= 1 && n[PART_TEXT] < UINT32_MAX && n[PART_ENTRIES] < INT32_MAX &&
           n[PART_ENTRY_OF_ID] < INT32_MAX && is_power(n[PART_SLOTS]) &&
           n[PART_SLOTS] <= UINT32_MAX && is_power(n[PART_PAIR_SLOTS]) &&
           n[PART_PAIR_SLOTS] <= UINT32_MAX && n[PART_RULES] < n[PART_PAIR_SLOTS] &&
           is_power(n[PART_FILTER]) && n[PART_FILTER] <= UINT32_MAX &&
           n[PART_CHAR_IDS] == BPE_CHARACTERS && n[PART_LIMITS] == (h->raw ? BPE_CHARACTERS : 0) &&
           (!n[PART_NEIGHBOURS] || n[PART_NEIGHBOURS] == BPE_NEIGHBOUR_WORDS) &&
           n[PART_DISTURBED] == BPE_DISTURBED / 64 && n[PART_LONGEST] == 256 && n[PART_JSON];
}

/* The loops below note what is wrong without leaving, so that they go many numbers at a time. The
 * sign of above(x, most) is set where x > most; most < 2^31. */
static inline uint32_t above(uint32_t x, uint32_t most)
{
    return x | (most - x);
}

static bool is_negative(uint32_t x)
{
    return x >> 31;
}

/* Texts lie end to end. */
static bool entries_fit(const struct vocab *v)
{
    uint32_t last_id = (uint32_t)v->n_ids - 1, bad = v->n_entries && !v->n_ids ? UINT32_MAX : 0;
    size_t end = 0;

    for (size_t e = 0; e < v->n_entries; e++) {
        const struct vocab_entry *entry = &v->entries[e];

        if (entry->offset != end)
            return false;
        end += (size_t)entry->size + 1;
        if (end > v->text_size || v->text[end - 1])
            return false;
        bad |= above((uint32_t)entry->id, last_id);
    }
    for (size_t id = 0; id < v->n_ids; id++)
        bad |= above(v->entry_of_id[id], (uint32_t)v->n_entries);
    return !is_negative(bad);
}

/* A search ends at a free slot. */
static bool slots_fit(const struct vocab *v)
{
    uint32_t bad = 0, taken = UINT32_MAX;

    for (size_t i = 0; i <= v->mask; i++) {
        bad |= above(v->slots[i].entry, (uint32_t)v->n_entries);
        taken &= v->slots[i].entry ? UINT32_MAX : 0;
    }
    return !is_negative(bad) && !taken;
}

static bool merges_fit(const struct bpe_pairs *p, size_t n_ids)
{
    uint32_t last_id = (uint32_t)n_ids - 1, taken = UINT32_MAX, zeros = 0;
    uint32_t bad = p->count && !n_ids ? UINT32_MAX : 0;

    for (size_t i = 0; i < p->count; i++) {
        const struct bpe_rule *rule = &p->rules[i];

        bad |=
            above(rule->left, last_id) | above(rule->right, last_id) | above(rule->merged, last_id);
    }
    for (size_t i = 0; i <= p->mask; i++) {
        uint32_t slot = p->slots[i], rank = slot & p->rank_mask;

        bad |= above(rank, (uint32_t)p->count);
        zeros |= rank ? 0 : slot; /* it is free as a whole or not */
        taken &= slot ? UINT32_MAX : 0;
    }
    return !is_negative(bad) && !zeros && !taken;
}

/* -1 is none. */
static bool characters_fit(const int32_t *ids, size_t n_ids)
{
    uint32_t bad = 0;

    for (size_t i = 0; i < BPE_CHARACTERS; i++)
        bad |= above((uint32_t)ids[i] + 1, (uint32_t)n_ids);
    return !is_negative(bad);
}

static void point(struct snapshot *s, const struct snapshot_header *h, const size_t *at)
{
    const uint64_t *n = h->count;
    uint8_t *p = (uint8_t *)s->data;
    int bits = 6;

    while ((uint64_t)1 << (bits - 6) < n[PART_FILTER])
        bits++;
    s->vocab = (struct vocab){.text = (char *)p + at[PART_TEXT],
                              .text_size = n[PART_TEXT],
                              .entries = (void *)(p + at[PART_ENTRIES]),
                              .n_entries = n[PART_ENTRIES],
                              .entry_of_id = (void *)(p + at[PART_ENTRY_OF_ID]),
                              .n_ids = n[PART_ENTRY_OF_ID],
                              .slots = (void *)(p + at[PART_SLOTS]),
                              .mask = n[PART_SLOTS] - 1,
                              .twice = n[PART_ENTRIES]};
    s->merges = (struct bpe_pairs){.rules = (void *)(p + at[PART_RULES]),
                                   .count = n[PART_RULES],
                                   .slots = (void *)(p + at[PART_PAIR_SLOTS]),
                                   .filter = (void *)(p + at[PART_FILTER])};
    bpe_pairs_shape(&s->merges, n[PART_PAIR_SLOTS], bits);
    s->tables = (struct bpe_tables){
        .raw = h->raw,
        .char_ids = (void *)(p + at[PART_CHAR_IDS]),
        .limits = n[PART_LIMITS] ? p + at[PART_LIMITS] : NULL,
        .neighbours = n[PART_NEIGHBOURS] ? (void *)(p + at[PART_NEIGHBOURS]) : NULL,
        .disturbed = (const void *)(p + at[PART_DISTURBED]),
        .longest = (const void *)(p + at[PART_LONGEST])};
    s->rest = (struct span){(const char *)p + at[PART_REST], n[PART_REST]};
}

bool snapshot_read(struct snapshot *s, const uint8_t *data, size_t size)
{
    const struct snapshot_header *h = (const struct snapshot_header *)data;
    const size_t skip = offsetof(struct snapshot_header, layout);
    size_t at[SNAPSHOT_PARTS + 1];

    if (size < sizeof *h || memcmp(h->magic, magic, sizeof magic) != 0 || h->layout != layout() ||
        h->size != size || !lay_out(h->count, at) || at[SNAPSHOT_PARTS] != size ||
        !counts_agree(h) || checksum(data + skip, at[PART_JSON] - skip) != h->checksum)
        return false;
    s->data = data;
    s->size = size;
    point(s, h, at);
    return entries_fit(&s->vocab) && slots_fit(&s->vocab) &&
           merges_fit(&s->merges, s->vocab.n_ids) &&
           characters_fit(s->tables.char_ids, s->vocab.n_ids);
}

static bool is_of(const struct snapshot *s, const char *text, size_t size)
{
    return s->size > size && ((const struct snapshot_header *)s->data)->count[PART_JSON] == size &&
           !memcmp(s->data + s->size - size, text, size);
}

/* The name of its file: two texts that are alike in what is looked at share it, and each finds
 * that the other's is not its own. */
static bool find_path(char *out, size_t n, const char *folder, const char *text, size_t size)
{
    const size_t edge = (size_t)16 << 10, step = (size_t)64 << 10, sample = 64;
    const uint8_t *p = (const uint8_t *)text;
    uint64_t a = checksum(p, size < edge ? size : edge);
    uint64_t b = checksum(p + (size < edge ? 0 : size - edge), size < edge ? size : edge);
    int length;

    for (size_t i = edge; i + sample <= size; i += step)
        b = scramble(b ^ checksum(p + i, sample));
    length = snprintf(out, n, "%s/%016llx%016llx", folder, (unsigned long long)scramble(a ^ size),
                      (unsigned long long)b);
    return length > 0 && (size_t)length < n;
}

/* Nobody else has made it, or may change it. */
static bool is_own(const char *path, mode_t kind)
{
    struct stat st;

    return lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == kind && st.st_uid == geteuid() &&
           !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static bool is_worth_it(const struct snapshot_place *place, size_t size)
{
    return place->folder && size >= (place->least ? place->least : SNAPSHOT_LEAST);
}

bool snapshot_find(struct snapshot *s, const struct snapshot_place *place, const char *text,
                   size_t size)
{
    char path[4096];

    *s = (struct snapshot){0};
    if (!is_worth_it(place, size) || !is_own(place->folder, S_IFDIR) ||
        !find_path(path, sizeof path, place->folder, text, size) || !is_own(path, S_IFREG) ||
        file_map(&s->map, path, NULL))
        return false;
    if (snapshot_read(s, s->map.data, s->map.size) && is_of(s, text, size))
        return true;
    snapshot_close(s);
    return false;
}

void *snapshot_not_lent(const struct snapshot *s, const void *p)
{
    uintptr_t at = (uintptr_t)p, begin = (uintptr_t)s->data;

    return s->data && at >= begin && at - begin < s->size ? NULL : (void *)p;
}

void snapshot_close(struct snapshot *s)
{
    file_unmap(&s->map);
    *s = (struct snapshot){0};
}

/* Writing. */

bool snapshot_seal(uint8_t *data, size_t size)
{
    const size_t skip = offsetof(struct snapshot_header, layout);
    struct snapshot_header h;
    size_t at[SNAPSHOT_PARTS + 1];

    if (size < sizeof h)
        return false;
    memcpy(&h, data, sizeof h);
    if (!lay_out(h.count, at) || at[SNAPSHOT_PARTS] != size)
        return false;
    memcpy(h.magic, magic, sizeof magic);
    h.layout = layout();
    h.size = size;
    memcpy(data, &h, sizeof h);
    h.checksum = checksum(data + skip, at[PART_JSON] - skip);
    memcpy(data, &h, sizeof h);
    return true;
}

uint8_t *snapshot_make(size_t *size, const char *text, size_t text_size, struct span rest,
                       const struct bpe *b)
{
    const struct vocab *v = b->vocab;
    const struct bpe_pairs *m = &b->merges;
    const struct {
        const void *data;
        size_t count;
    } parts[SNAPSHOT_PARTS] = {
        [PART_TEXT] = {v->text, v->text_size},
        [PART_ENTRIES] = {v->entries, v->n_entries},
        [PART_ENTRY_OF_ID] = {v->entry_of_id, v->n_ids},
        [PART_SLOTS] = {v->slots, v->mask + 1},
        [PART_RULES] = {m->rules, m->count},
        [PART_PAIR_SLOTS] = {m->slots, m->mask + 1},
        [PART_FILTER] = {m->filter, ((size_t)1 << (64 - m->filter_shift)) / 64},
        [PART_CHAR_IDS] = {b->char_ids, BPE_CHARACTERS},
        [PART_LIMITS] = {b->limits, b->limits ? BPE_CHARACTERS : 0},
        [PART_NEIGHBOURS] = {b->neighbours, b->neighbours ? BPE_NEIGHBOUR_WORDS : 0},
        [PART_DISTURBED] = {b->disturbed, BPE_DISTURBED / 64},
        [PART_LONGEST] = {b->longest, 256},
        [PART_REST] = {rest.s, rest.n},
        [PART_JSON] = {text, text_size},
    };
    struct snapshot_header h = {.raw = b->raw};
    size_t at[SNAPSHOT_PARTS + 1];
    uint8_t *data;

    for (int i = 0; i < SNAPSHOT_PARTS; i++)
        h.count[i] = parts[i].count;
    data = lay_out(h.count, at) ? mem_alloc_aligned(at[SNAPSHOT_PARTS]) : NULL;
    if (!data)
        return NULL;
    memcpy(data, &h, sizeof h);
    for (int i = 0; i < SNAPSHOT_PARTS; i++) {
        size_t bytes = parts[i].count * item_size[i];

        if (bytes)
            memcpy(data + at[i], parts[i].data, bytes);
        memset(data + at[i] + bytes, 0, at[i + 1] - at[i] - bytes);
    }
    *size = at[SNAPSHOT_PARTS];
    snapshot_seal(data, *size);
    return data;
}

/* Of as many snapshots as are kept, the one that was not used for the longest time goes. */
static void make_room(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    struct stat st;
    char oldest[NAME_LENGTH + 1] = "";
    time_t since = 0;
    int n = 0;

    while (dir && (entry = readdir(dir))) {
        if (strlen(entry->d_name) != NAME_LENGTH ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        st.st_mtime = st.st_atime > st.st_mtime ? st.st_atime : st.st_mtime;
        if (!n++ || st.st_mtime < since) {
            since = st.st_mtime;
            memcpy(oldest, entry->d_name, sizeof oldest);
        }
    }
    if (n >= SNAPSHOT_MOST)
        unlinkat(dirfd(dir), oldest, 0);
    if (dir)
        closedir(dir);
}

static void write_file(const char *path, const uint8_t *data, size_t size)
{
    file_writer *w = file_writer_open_own(path, NULL);

    if (!w)
        return;
    if (file_writer_write(w, data, size, NULL))
        file_writer_abort(w);
    else
        file_writer_commit_soon(w, NULL);
}

void snapshot_keep(const struct snapshot_place *place, const char *text, size_t size,
                   struct span rest, const struct bpe *b)
{
    char path[4096];
    uint8_t *data;
    size_t n;

    if (!is_worth_it(place, size) || !find_path(path, sizeof path, place->folder, text, size))
        return;
    file_make_folders(path);
    if (!is_own(place->folder, S_IFDIR))
        return;
    data = snapshot_make(&n, text, size, rest, b);
    if (data && !file_exists(path))
        make_room(place->folder);
    if (data)
        write_file(path, data, n);
    mem_free_aligned(data);
}
