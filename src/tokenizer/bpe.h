/* tokenizer/bpe.h: byte pair encoding, arXiv:1508.07909, with the options of tokenizer.json. */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H

#include <stdatomic.h>

#include "tokenizer/bpe_pairs.h"
#include "tokenizer/bpe_words.h"
#include "tokenizer/bulk.h"
#include "tokenizer/reader.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

#define BPE_CHARACTERS 0x10000 /* those that have a place in char_ids */
#define BPE_NEIGHBOUR_BITS 19
#define BPE_NEIGHBOUR_WORDS (((size_t)1 << BPE_NEIGHBOUR_BITS) / 64)
#define BPE_DISTURBED 0x10000
#define BPE_LEAD 0x200000

/* Beside what a character is not sure to be merged from its bytes first. */
enum { BPE_NOT_AFTER_ASCII = 1, BPE_NOT_BEFORE_ASCII = 2, BPE_NOT_BEFORE_SOME = 4, BPE_NEVER = 8 };

struct bpe {
    const struct vocab *vocab;
    struct bpe_pairs merges;
    struct span prefix; /* continuing_subword_prefix, "" for none */
    struct span suffix; /* end_of_word_suffix */
    bool has_unk;       /* an unk_token is named ... */
    int32_t unk;        /* ... and this is its id, -1 where the vocabulary lacks it */
    bool fuse_unk;
    bool byte_fallback;
    bool ignore_merges;
    bool raw; /* words come as bytes, and are meant in the byte-level alphabet */
    /* Bytes of the longest token that begins with a byte; of raw words, as these are. */
    size_t longest[256];
    int32_t byte_ids[256];     /* of a byte's byte-level character, -1: none */
    int32_t fallback_ids[256]; /* of <0xNN> */
    /* Of characters below U+10000, -1: none. Of raw words, only those whose bytes are sure to be
     * merged to them, see bpe_seeds.c. */
    int32_t *char_ids;
    unsigned char *limits; /* of raw words: BPE_NOT_AFTER_ASCII and so on, for those characters */
    /* What those of BPE_NOT_BEFORE_SOME may not stand before: a bit for each hash of a last byte
     * and a character, or BPE_LEAD and the byte that begins one. */
    uint64_t disturbed[BPE_DISTURBED / 64];
    /* Which characters may stand side by side within a token that merging makes: a bit for each
     * hash of a pair. Where two may not, the word can be cut; of raw words, if both come from
     * char_ids. NULL where that would not be exact. */
    uint64_t *neighbours;
    /* Per id, found out on first use: whether the token's text is encoded to the token alone.
     * Every thread finds the same, so a lost update costs time and nothing else. */
    _Atomic unsigned char *whole;
};

static inline size_t bpe_disturbed_hash(unsigned char last, int32_t next)
{
    return (uint32_t)(last << 22 ^ next) * 0x9E3779B1u >> 16;
}

static inline bool bpe_is_disturbed(const struct bpe *b, unsigned char last, int32_t next)
{
    size_t h = bpe_disturbed_hash(last, next);

    return b->disturbed[h / 64] >> h % 64 & 1;
}

/* The bit of neighbours for a pair of characters. */
static inline size_t bpe_neighbour_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 21 ^ (uint32_t)right) * 0x9E3779B97F4A7C15u;

    return (size_t)(h >> (64 - BPE_NEIGHBOUR_BITS));
}

static inline void bpe_allow_neighbours(struct bpe *b, int32_t left, int32_t right)
{
    size_t h = bpe_neighbour_hash(left, right);

    b->neighbours[h / 64] |= (uint64_t)1 << h % 64;
}

static inline bool bpe_are_neighbours(const struct bpe *b, int32_t left, int32_t right)
{
    size_t h = bpe_neighbour_hash(left, right);

    return b->neighbours[h / 64] >> h % 64 & 1;
}

#define BPE_PARTS 32 /* of a word, merged in one go */

/* Working memory of one thread; start from {0}. */
struct bpe_scratch {
    uint32_t *ids; /* the symbols of a word */
    size_t capacity;
    size_t ends[BPE_PARTS]; /* of its parts, in symbols */
    struct strbuf text;
    struct bpe_words words;
};

/* What bpe_prepare finds out, as it was found out before; see struct bpe. */
struct bpe_tables {
    bool raw;
    int32_t *char_ids;
    unsigned char *limits;
    uint64_t *neighbours;
    const uint64_t *disturbed; /* [BPE_DISTURBED / 64] */
    const size_t *longest;     /* [256] */
};

/* model is the "model" object, without its merges; vocab is complete and stays where it is. ready,
 * unless NULL, are the merges, which b then has as its own. */
int bpe_open(struct bpe *b, const json *model, struct span merges, const struct bpe_pairs *ready,
             const struct vocab *vocab, struct reader *r);
/* Say how words will come, before the first bpe_encode. ready: the tables, where they are of such
 * words, as above; or NULL. */
int bpe_prepare(struct bpe *b, bool raw, const struct bpe_tables *ready, struct reader *r);
void bpe_close(struct bpe *b); /* a zeroed one is fine */

int bpe_encode(const struct bpe *b, struct bpe_scratch *scratch, const char *word, size_t n,
               struct token_list *out, clm_error *err);
void bpe_scratch_release(struct bpe_scratch *scratch);

#endif
