/* tokenizer/pattern.h: finding a string or a regular expression, as tokenizers does with Oniguruma.
 */
#ifndef TOKENIZER_PATTERN_H
#define TOKENIZER_PATTERN_H

#include "tokenizer/reader.h"
#include "tokenizer/split_fast.h"

struct regex; /* a compiled expression */

struct pattern {
    struct span string; /* to be found as it is, where there is no regex */
    struct regex *regex;
    const struct split_fast *fast; /* an expression that has a scanner of its own */
    const uint8_t *table;          /* unicode_table_fill, for the scanner */
};

/* What one thread needs for searching; start from {0}. Usable with any number of patterns. */
struct matcher {
    void *data;
    void *stack;
    void *context;
};

/* The search for the matches of one pattern in one text, left to right. */
struct search {
    const struct pattern *pattern;
    struct matcher *matcher;
    const char *s;
    size_t n;
    size_t position;   /* where to look next */
    size_t last_end;   /* of the last match, SIZE_MAX before there is one */
    size_t begin, end; /* the match found */
};

/* v is {"String": ...} or {"Regex": ...}. table: unicode_table_fill of the tokenizer. */
int pattern_open(struct pattern *p, const json *v, const uint8_t *table, struct reader *r);
int pattern_open_string(struct pattern *p, const char *s, size_t n);
/* use_scanner false: the expression is compiled even where there is a scanner for it. */
int pattern_open_regex(struct pattern *p, const char *s, size_t n, bool use_scanner,
                       const uint8_t *table, struct reader *r);
void pattern_close(struct pattern *p); /* a zeroed one is fine */

static inline bool pattern_is_byte(const struct pattern *p)
{
    return !p->regex && !p->fast && p->string.n == 1;
}

struct search search_start(const struct pattern *p, struct matcher *m, const char *s, size_t n);
/* 1: a match is in begin and end, possibly empty; 0: there are no more; -1 with the error. */
int search_next(struct search *search, clm_error *err);

void matcher_release(struct matcher *m);

#endif
