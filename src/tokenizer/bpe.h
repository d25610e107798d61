/* tokenizer/bpe.h: byte pair encoding, arXiv:1508.07909, with the options of tokenizer.json. */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H

#include <stdatomic.h>

#include "tokenizer/bulk.h"
#include "tokenizer/map.h"
#include "tokenizer/reader.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

#define BPE_CHARACTERS 0x10000 /* those that have a place in char_ids */
#define BPE_NEIGHBOUR_BITS 19

/* Beside what a character is not sure to be merged from its bytes first. */
enum { BPE_NOT_AFTER_ASCII = 1, BPE_NOT_BEFORE_ASCII = 2, BPE_NEVER = 4 };

struct bpe {
    const struct vocab *vocab;
    struct pair_map merges; /* pair of ids -> rank, id of the two joined */
    struct span prefix;     /* continuing_subword_prefix, "" for none */
    struct span suffix;     /* end_of_word_suffix */
    bool has_unk;           /* an unk_token is named ... */
    int32_t unk;            /* ... and this is its id, -1 where the vocabulary lacks it */
    bool fuse_unk;
    bool byte_fallback;
    bool ignore_merges;
    bool raw;                  /* words come as bytes, and are meant in the byte-level alphabet */
    size_t longest;            /* bytes of the longest token */
    int32_t byte_ids[256];     /* of a byte's byte-level character, -1: none */
    int32_t fallback_ids[256]; /* of <0xNN> */
    /* Of characters below U+10000, -1: none. Of raw words, only those whose bytes are sure to be
     * merged to them, see bpe_seeds.c. */
    int32_t *char_ids;
    unsigned char *limits; /* of raw words: BPE_NOT_AFTER_ASCII and so on, for those characters */
    /* A bit for each hash of a pair, set for those that merge; small enough for a cache. */
    uint64_t *filter;
    int filter_shift;
    /* Which characters may stand side by side within a token that merging makes: a bit for each
     * hash of a pair. Where two may not, the word can be cut; NULL where that would not be exact.
     */
    uint64_t *neighbours;
    /* Per id, found out on first use: whether the token's text is encoded to the token alone.
     * Every thread finds the same, so a lost update costs time and nothing else. */
    _Atomic unsigned char *whole;
};

/* The bit of neighbours for a pair of characters. */
static inline size_t bpe_neighbour_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 21 ^ (uint32_t)right) * 0x9E3779B97F4A7C15u;

    return (size_t)(h >> (64 - BPE_NEIGHBOUR_BITS));
}

static inline size_t bpe_filter_hash(const struct bpe *b, uint32_t left, uint32_t right)
{
    return (size_t)(pair_key(left, right) * 0x9E3779B97F4A7C15u >> b->filter_shift);
}

static inline bool bpe_filter_has(const struct bpe *b, uint32_t left, uint32_t right)
{
    size_t h = bpe_filter_hash(b, left, right);

    return b->filter[h / 64] >> h % 64 & 1;
}

static inline void bpe_filter_prefetch(const struct bpe *b, uint32_t left, uint32_t right)
{
    __builtin_prefetch(&b->filter[bpe_filter_hash(b, left, right) / 64]);
}

/* Working memory of one thread; start from {0}. */
struct bpe_scratch {
    uint32_t *ids; /* the symbols of a word */
    size_t capacity;
    struct strbuf text;
};

/* model is the "model" object, without its merges; vocab is complete and stays where it is. */
int bpe_open(struct bpe *b, const json *model, struct span merges, const struct vocab *vocab,
             struct reader *r);
/* Say how words will come, before the first bpe_encode. */
int bpe_prepare(struct bpe *b, bool raw, struct reader *r);
void bpe_close(struct bpe *b); /* a zeroed one is fine */

int bpe_encode(const struct bpe *b, struct bpe_scratch *scratch, const char *word, size_t n,
               struct token_list *out, clm_error *err);
void bpe_scratch_release(struct bpe_scratch *scratch);

#endif
