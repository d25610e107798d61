/* tokenizer/bpe_words.h: the short words of a text, for when they come again. */
#ifndef TOKENIZER_BPE_WORDS_H
#define TOKENIZER_BPE_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define BPE_WORD_SIZE 16 /* bytes; longer ones are not kept */
#define BPE_WORD_IDS 3

/* The bytes as numbers that, with the size, leave no doubt; count is 0 in a free slot. */
struct bpe_word {
    uint64_t head, tail;
    uint16_t size;
    uint16_t count;
    uint32_t ids[BPE_WORD_IDS];
};

/* Start from {0}. A new word takes the place of an old one with the same hash. */
struct bpe_words {
    struct bpe_word *slots;
    size_t n_asked;
};

/* The key of a word, 1 <= n <= BPE_WORD_SIZE. */
struct bpe_word bpe_word_key(const char *s, size_t n);
/* Set *slot to the word's place; NULL for as long as the text is too short to be worth it. Returns
 * 0, or -1 without memory. */
int bpe_words_find(struct bpe_words *w, const struct bpe_word *key, struct bpe_word **slot,
                   clm_error *err);
void bpe_words_release(struct bpe_words *w);

static inline bool bpe_word_is(const struct bpe_word *slot, const struct bpe_word *key)
{
    return slot->count && slot->head == key->head && slot->tail == key->tail &&
           slot->size == key->size;
}

#endif
