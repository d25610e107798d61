/* tokenizer/bpe_words.c: a table of as many words as a cache near the core can hold. */
#include "tokenizer/bpe_words.h"

#include <string.h>

#include "base/memory.h"

#define BITS 12
#define FIRST_WORDS 64 /* of a text, which are not kept */

/* The first and the last 8 bytes, or 4, which may overlap. */
struct bpe_word bpe_word_key(const char *s, size_t n)
{
    struct bpe_word key = {.size = (uint16_t)n};
    uint32_t four;

    if (n >= 8) {
        memcpy(&key.head, s, 8);
        memcpy(&key.tail, s + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&four, s, 4);
        key.head = four;
        memcpy(&four, s + n - 4, 4);
        key.tail = four;
    } else {
        key.head = (unsigned char)s[0] | (uint64_t)(unsigned char)s[n / 2] << 8;
        key.tail = (unsigned char)s[n - 1];
    }
    return key;
}

int bpe_words_find(struct bpe_words *w, const struct bpe_word *key, struct bpe_word **slot,
                   clm_error *err)
{
    uint64_t h = (key->head * 0x9E3779B97F4A7C15u) ^ (key->tail + key->size) * 0xD6E8FEB86659FD93u;

    *slot = NULL;
    if (!w->slots) {
        if (w->n_asked++ < FIRST_WORDS)
            return 0;
        w->slots = mem_zeroed((size_t)1 << BITS, sizeof *w->slots);
        if (!w->slots)
            return fail(err, CLM_ERR_NOMEM, "the words of a text");
    }
    h ^= h >> 32;
    *slot = &w->slots[h * 0x9E3779B97F4A7C15u >> (64 - BITS)];
    return 0;
}

void bpe_words_release(struct bpe_words *w)
{
    mem_free(w->slots);
    *w = (struct bpe_words){0};
}
