/* tokenizer/snapshot.h: the tables of a large BPE tokenizer, kept in a file for the next opening.
 *
 * Reading a vocabulary of 128,000 tokens and as many merges again, and finding out which characters
 * can be taken together, takes some 70 ms; mapping tables that are laid out already, and checking
 * every number of them, two or three. A file has, each at a multiple of 64 bytes,
 *
 *     struct snapshot_header
 *     the parts, in the order of enum snapshot_part
 *
 * and is of exactly the size that the numbers of items in its header come to. The last part is the
 * tokenizer.json that it was made of, whole: a snapshot is used for the same bytes and no others.
 */
#ifndef TOKENIZER_SNAPSHOT_H
#define TOKENIZER_SNAPSHOT_H

#include "base/file.h"
#include "tokenizer/bpe.h"

enum snapshot_part {
    PART_TEXT,
    PART_ENTRIES,
    PART_ENTRY_OF_ID,
    PART_SLOTS,
    PART_RULES,
    PART_PAIR_SLOTS,
    PART_FILTER,
    PART_CHAR_IDS,
    PART_LIMITS,     /* of raw words */
    PART_NEIGHBOURS, /* none where words are never cut */
    PART_DISTURBED,
    PART_LONGEST,
    PART_REST, /* tokenizer.json without vocabulary and merges, as bulk_split leaves it */
    PART_JSON
};
#define SNAPSHOT_PARTS 14

struct snapshot_header {
    char magic[8];
    uint64_t checksum; /* of all that follows, up to PART_JSON */
    uint64_t layout;   /* of the version that wrote it, see snapshot.c */
    uint64_t size;     /* of the file */
    uint64_t raw;      /* words are bytes: 0 or 1 */
    uint64_t count[SNAPSHOT_PARTS];
    uint64_t zero[5];
};
_Static_assert(sizeof(struct snapshot_header) == 192, "it is written as it is");

/* Tables that lie in the file: nothing of them may be written to or freed. */
struct snapshot {
    struct file_map map;
    const uint8_t *data; /* NULL: there is none */
    size_t size;
    struct vocab vocab;
    struct bpe_pairs merges;
    struct bpe_tables tables;
    struct span rest;
};

#define SNAPSHOT_MOST 16                 /* are kept in a folder */
#define SNAPSHOT_LEAST ((size_t)1 << 20) /* of a place that says nothing else */

/**
 * The snapshot of a tokenizer.json, text[0..size), if there is one that can be relied on: of the
 * same bytes and of this version, undamaged, and this user's alone to write. False, with *s zeroed,
 * is no error.
 */
bool snapshot_find(struct snapshot *s, const struct snapshot_place *place, const char *text,
                   size_t size);

/* Keep what was made of it, rest as bulk_split has cut it. What cannot be written stays unwritten.
 */
void snapshot_keep(const struct snapshot_place *place, const char *text, size_t size,
                   struct span rest, const struct bpe *b);

/* The bytes of one, for mem_free_aligned; NULL without memory. And of bytes whose numbers of items
 * come to their size, the rest of the header: false for others. */
uint8_t *snapshot_make(size_t *size, const char *text, size_t text_size, struct span rest,
                       const struct bpe *b);
bool snapshot_seal(uint8_t *data, size_t size);

/* Whether data, 64-byte aligned, is a snapshot of this version; *s then points into it. */
bool snapshot_read(struct snapshot *s, const uint8_t *data, size_t size);

/* p, or NULL where it points into the snapshot and is not to be freed. */
void *snapshot_not_lent(const struct snapshot *s, const void *p);

void snapshot_close(struct snapshot *s); /* a zeroed one is fine */

#endif
