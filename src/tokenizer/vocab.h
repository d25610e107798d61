/* tokenizer/vocab.h: the tokens of a model and their ids, in both directions. */
#ifndef TOKENIZER_VOCAB_H
#define TOKENIZER_VOCAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct vocab_entry {
    uint32_t offset; /* in text */
    uint32_t size;
    int32_t id;
};

struct vocab_slot {
    uint32_t tag;   /* high half of the hash */
    uint32_t entry; /* plus one; 0 is free */
};

/* All texts lie end to end in one piece of memory, each with a NUL after it. */
struct vocab {
    const char *name; /* of the file, for messages; not kept beyond reading */
    char *text;
    size_t text_size, text_capacity;
    struct vocab_entry *entries;
    size_t n_entries, entry_capacity;
    uint32_t *entry_of_id; /* plus one; 0 for an id without token */
    size_t n_ids;          /* one more than the largest id */
    size_t id_capacity;
    struct vocab_slot *slots; /* a power of two, at most three quarters taken */
    size_t mask;
    size_t twice; /* see vocab_index */
};

/* Room for n tokens of text_size bytes in all; more is made when needed. */
int vocab_init(struct vocab *v, size_t n, size_t text_size, const char *name, clm_error *err);
void vocab_release(struct vocab *v);

/**
 * Add a token. Where the text is there already it keeps its first id; where the id is taken, id to
 * text keeps the first text. Ids may leave gaps, but not by far more than there are tokens
 * (CLM_ERR_UNSUPPORTED).
 */
int vocab_add(struct vocab *v, const char *s, size_t n, int64_t id, clm_error *err);
/* The two steps of vocab_add, for many: nothing is found before vocab_index, which leaves in
 * v->twice the first entry whose text was there already, or n_entries. */
int vocab_append(struct vocab *v, const char *s, size_t n, int64_t id, clm_error *err);
int vocab_index(struct vocab *v, clm_error *err);

int32_t vocab_find(const struct vocab *v, const char *s, size_t n); /* -1: not there */
/* The same for many texts, count <= VOCAB_BATCH: their parts of the tables are fetched side by
 * side. */
#define VOCAB_BATCH 32
void vocab_find_all(const struct vocab *v, const char *const *s, const size_t *n, size_t count,
                    int32_t *ids);
const char *vocab_text(const struct vocab *v, int32_t id, size_t *size);

#endif
