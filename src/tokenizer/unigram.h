/* tokenizer/unigram.h: the most probable segmentation, arXiv:1804.10959. */
#ifndef TOKENIZER_UNIGRAM_H
#define TOKENIZER_UNIGRAM_H

#include "tokenizer/reader.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"

struct unigram {
    const struct vocab *vocab;
    struct trie trie;
    double *scores; /* [n_ids] */
    double unk_score;
    int32_t unk; /* -1: none */
    bool byte_fallback;
    int32_t fallback_ids[256];
};

/* The best way to reach a byte of the text. */
struct unigram_node {
    double score;
    int32_t begin; /* of its last token; -1: not reached */
    int32_t id;
};

struct unigram_scratch {
    struct unigram_node *nodes;
    size_t capacity;
};

/* Reads scores and options; the vocabulary, filled from model's list of [token, score], is given.
 */
int unigram_open(struct unigram *u, const json *model, const struct vocab *vocab, struct reader *r);
void unigram_close(struct unigram *u);
int unigram_encode(const struct unigram *u, struct unigram_scratch *scratch, const char *s,
                   size_t n, struct token_list *out, clm_error *err);
void unigram_scratch_release(struct unigram_scratch *scratch);

#endif
