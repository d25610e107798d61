/* tokenizer/onig_class.h: sets of characters of an expression, on the way from Oniguruma to PCRE2.
 */
#ifndef TOKENIZER_ONIG_CLASS_H
#define TOKENIZER_ONIG_CLASS_H

#include <stdbool.h>

#include "base/strbuf.h"
#include "tokenizer/reader.h"

/* The expression being read. */
struct onig {
    const char *s;
    size_t n;
    size_t at;
    int depth;
    bool caseless;
    struct reader *r;
};

int onig_unsupported(struct onig *o, const char *what);

/* One character as PCRE2 reads it anywhere. */
void onig_add_char(struct strbuf *out, int32_t c);
/* The character behind a backslash that stands for one character: 1 and *c, 0 for none such, -1. */
int onig_escaped_char(struct onig *o, int32_t *c);

/* The same escape outside of and within brackets: \s \d \w \h \p{..} and their opposites, o->at
 * behind the backslash. Appends an expression for one character. 1: done, 0: no such escape, -1. */
int onig_shorthand(struct onig *o, struct strbuf *out);
/* A bracket expression, o->at behind its '['. Appends an expression for one character. */
int onig_class(struct onig *o, struct strbuf *out);

#endif
