/* tokenizer/bpe_merge.h: merging the symbols of a word, lowest rank first, leftmost first. */
#ifndef TOKENIZER_BPE_MERGE_H
#define TOKENIZER_BPE_MERGE_H

#include "tokenizer/bpe.h"

/* Merge the n symbols, n >= 1, and add what they come to to out; they are lost. */
int bpe_merge(const struct bpe *b, uint32_t *ids, size_t n, struct token_list *out, clm_error *err);
/* The same in place, for long words: the number of symbols after it, or 0 with the error. */
size_t bpe_merge_queue(const struct bpe *b, uint32_t *ids, size_t n, clm_error *err);

/* For the table of bpe_open.c; 0, or -1 without memory. */
int bpe_fill_seeds(struct bpe *b, struct reader *r);

#endif
