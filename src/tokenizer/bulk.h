/* tokenizer/bulk.h: the vocabulary and the merges of a tokenizer.json, read where they stand.
 *
 * They are nine tenths of the file, and several hundred thousand values: building a tree of them
 * takes longer than all the rest of opening a tokenizer. They are cut out of the text, the rest is
 * parsed as usual, and the two are read in place. */
#ifndef TOKENIZER_BULK_H
#define TOKENIZER_BULK_H

#include "base/strbuf.h"
#include "tokenizer/reader.h"

struct bulk {
    struct span vocab;  /* the text of model.vocab where that is an object, else NULL */
    struct span merges; /* of model.merges where that is a list */
    struct strbuf rest; /* the file with {} and [] in their place */
};

/* text must outlive it. Text that is no JSON is left for the parser of the rest to refuse. */
int bulk_split(struct bulk *b, const char *text, size_t n, const char *name, clm_error *err);
void bulk_release(struct bulk *b);

/* Walks one of the two. */
struct bulk_reader {
    const char *at;
    const char *end;
    bool started;
    struct strbuf text[2]; /* of strings with escapes */
    struct reader *r;
};

struct bulk_reader bulk_start(struct span value, struct reader *r);
void bulk_reader_release(struct bulk_reader *b);
/* "key": integer; 1, 0 behind the last, or -1 with the error. key is valid until the next call. */
int bulk_next_member(struct bulk_reader *b, struct span *key, int64_t *value);
/* "a b" or ["a", "b"]; count says how many strings it was. */
int bulk_next_item(struct bulk_reader *b, struct span part[2], int *count);

#endif
