/* tokenizer/precompiled.h: SentencePiece's table of replacements, as T5 and XLM-R have it.
 *
 *     offset  size  what
 *     0       4     n, little-endian: bytes of the trie
 *     4       n     a double array of 32-bit units (darts-clone)
 *     4 + n         the replacements, each ended by a NUL; the trie's values are offsets into them
 */
#ifndef TOKENIZER_PRECOMPILED_H
#define TOKENIZER_PRECOMPILED_H

#include "base/strbuf.h"
#include "tokenizer/reader.h"

struct precompiled {
    const unsigned char *trie;
    size_t n_units;
    const char *texts; /* its last byte is a NUL */
    size_t text_size;
};

/* text is the table in base64. Everything lives in the reader's arena. */
int precompiled_open(struct precompiled *p, const char *text, size_t n, struct reader *r);

/* Append s[0..n) with its replacements: of a grapheme of up to five bytes as a whole, else of its
 * characters. *head is as for normalize(). */
void precompiled_apply(const struct precompiled *p, const char *s, size_t n, struct strbuf *out,
                       size_t *head);

#endif
