/* tokenizer/ranks.h: tiktoken's files: a line for each token, its bytes in base64 and its rank. */
#ifndef TOKENIZER_RANKS_H
#define TOKENIZER_RANKS_H

#include "base/error.h"
#include "base/strbuf.h"

/* Whether a text begins as such a file does. */
bool ranks_recognise(const char *text, size_t n);

/* The number of lines. */
size_t ranks_count(const char *text, size_t n);

/**
 * Append the "model" of a tokenizer.json with these tokens, ids their ranks, in the byte-level
 * alphabet. Any two tokens that make a third are a merge, of the rank of the third, as
 * transformers converts such files.
 */
int ranks_write_model(const char *text, size_t n, const char *name, struct strbuf *out,
                      clm_error *err);

#endif
