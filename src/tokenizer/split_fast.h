/* tokenizer/split_fast.h: scanners for the splitting expressions that most models use. */
#ifndef TOKENIZER_SPLIT_FAST_H
#define TOKENIZER_SPLIT_FAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a family's expression differs from the others. */
struct split_fast {
    const char *text;  /* the expression, exactly */
    bool gpt2;         /* the first of them: its own rules */
    bool cased;        /* o200k: words end where upper case begins, contractions belong to them */
    bool contractions; /* 's 't 're ... alone, or in a cased one at the end of words */
    bool marks;        /* M counts as a letter */
    int digits;        /* at most so many numbers together */
    bool slash;        /* '/' may follow punctuation as line ends do */
};

const struct split_fast *split_fast_find(const char *text, size_t n); /* NULL: none */

/* The expressions that have a scanner, i = 0, 1, ...; NULL behind the last. */
const char *split_fast_text(size_t i);

/* The end of the match that starts at s[at], at < n: these expressions match everywhere. */
size_t split_fast_next(const struct split_fast *f, const uint8_t *table, const char *s, size_t n,
                       size_t at);

#endif
