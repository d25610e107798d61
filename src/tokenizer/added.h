/* tokenizer/added.h: tokens that are cut out of the text before the model sees it. */
#ifndef TOKENIZER_ADDED_H
#define TOKENIZER_ADDED_H

#include "tokenizer/map.h"
#include "tokenizer/reader.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"

struct added_token {
    struct span content;
    struct span normal;  /* what a normalized token is searched as; else content */
    struct span decoded; /* what goes into the decoder */
    int32_t id;
    bool single_word; /* no word character beside it */
    bool lstrip;      /* takes the spaces on its left along */
    bool rstrip;
    bool normalized;      /* searched in the normalized text */
    bool ever_normalized; /* a token of the list said so, which decoding remembers */
    bool special;
    bool skipped; /* left out of decoded text when special tokens are */
};

struct added {
    struct added_token *tokens;
    size_t count, capacity;
    struct vocab index;    /* content -> place in tokens */
    struct pair_map by_id; /* id, 0 -> place in tokens */
    struct trie raw;       /* tokens that are searched in the text as it came */
    struct trie normalized;
};

/* A part of a text: a token, or what lies between two. */
struct added_part {
    size_t begin, end;
    int32_t token; /* place in tokens, or -1 */
};

struct added_parts {
    struct added_part *items;
    size_t count, capacity;
};

/**
 * Add a token or change the flags of one. Its id is the one that the model's vocabulary or an
 * earlier token of that content has, else next_id, which then counts on.
 */
int added_add(struct added *a, const struct added_token *token, const struct vocab *vocab,
              int64_t *next_id, struct reader *r);
/* The next_id to begin with, for one list of tokens. */
int64_t added_next_id(const struct added *a, const struct vocab *vocab);
/* When all are there, and normal is set where it differs: make them searchable. */
int added_finish(struct added *a, struct reader *r);
void added_close(struct added *a);

const struct added_token *added_by_id(const struct added *a, int32_t id); /* or NULL */
const struct added_token *added_find(const struct added *a, const char *s, size_t n);

/* Cut s[0..n) at its tokens, leftmost first and longest first; empty text gives no part. */
int added_split(const struct added *a, bool normalized, const char *s, size_t n,
                struct added_parts *out, clm_error *err);

#endif
