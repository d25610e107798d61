/* tokenizer/pretokenize.h: cutting a text into the pieces that the model encodes one by one. */
#ifndef TOKENIZER_PRETOKENIZE_H
#define TOKENIZER_PRETOKENIZE_H

#include "base/strbuf.h"
#include "tokenizer/pattern.h"

enum split_behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
};

enum pre_kind {
    PRE_SPLIT,      /* pattern, behavior, invert */
    PRE_CHARACTERS, /* the same with a set of characters */
    PRE_BYTE_LEVEL,
    PRE_METASPACE,
    PRE_FIXED_LENGTH,
    PRE_SCRIPTS,
    PRE_WORDS /* runs of \w, runs of neither \w nor space; spaces go */
};

enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct pre_stage {
    enum pre_kind kind;
    struct pattern pattern;
    bool (*is_match)(int32_t c, int32_t parameter);
    int32_t parameter;
    enum split_behavior behavior;
    bool invert;
    bool add_prefix_space; /* byte level */
    bool use_regex;
    enum prepend_scheme scheme; /* metaspace */
    struct span replacement;
    bool split;
    size_t length; /* fixed length, in characters */
};

struct pretokenizer {
    struct pre_stage *stages; /* sequences are flattened */
    size_t n_stages;
    bool raw_bytes; /* the last stage is a byte level one whose characters are left as bytes */
};

/* text[begin..begin+size); the first head bytes of it stand for the first character of the whole
 * text that was given to be encoded, which is what "first" means to Metaspace. */
struct piece {
    uint32_t begin;
    uint32_t size;
    uint32_t head;
};

/* A text and how it is cut; start from {0}. */
struct pieces {
    struct strbuf text;
    struct piece *items;
    size_t count, capacity;
};

struct pre_match {
    uint32_t begin, end;
    bool is_match;
};

struct pre_scratch {
    struct pieces pieces[2];
    struct pre_match *matches;
    size_t n_matches, capacity;
    struct matcher matcher;
};

/* v may be null: no stage. table: unicode_table_fill. */
int pretokenizer_open(struct pretokenizer *p, const json *v, const uint8_t *table,
                      struct reader *r);
void pretokenizer_close(struct pretokenizer *p);

/* Cut a text; the pieces are in *out, in the scratch. */
int pretokenize(const struct pretokenizer *p, struct pre_scratch *scratch, const char *s, size_t n,
                size_t head, const struct pieces **out, clm_error *err);
void pre_scratch_release(struct pre_scratch *scratch);

#endif
