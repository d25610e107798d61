/* tokenizer/normalize.h: the "normalizer" of a tokenizer.json. */
#ifndef TOKENIZER_NORMALIZE_H
#define TOKENIZER_NORMALIZE_H

#include "base/strbuf.h"
#include "tokenizer/pattern.h"
#include "tokenizer/precompiled.h"

enum normal_kind {
    NORMAL_NFC,
    NORMAL_NFD,
    NORMAL_NFKC,
    NORMAL_NFKD,
    NORMAL_LOWERCASE,
    NORMAL_STRIP,
    NORMAL_STRIP_ACCENTS,    /* drops M */
    NORMAL_STRIP_NONSPACING, /* drops Mn: the Bert normalizer's way */
    NORMAL_REPLACE,
    NORMAL_PREPEND,
    NORMAL_NMT,
    NORMAL_BERT_CLEAN,
    NORMAL_BERT_CHINESE,
    NORMAL_BYTE_LEVEL,
    NORMAL_PRECOMPILED
};

struct normal_stage {
    enum normal_kind kind;
    struct pattern pattern; /* replace */
    struct span content;    /* replace, prepend */
    bool left, right;       /* strip */
    struct precompiled map;
};

struct normalizer {
    struct normal_stage *stages; /* sequences are flattened */
    size_t n_stages;
};

/* Two texts to work to and fro; start from {0}. */
struct normal_scratch {
    struct strbuf text[2];
    int32_t *characters;
    size_t capacity;
    struct matcher matcher;
};

int normalizer_open(struct normalizer *n, const json *v, const uint8_t *table, struct reader *r);
void normalizer_close(struct normalizer *n);

/**
 * The normal form of s[0..size). *out points into the scratch, or at s itself where there is
 * nothing to do. *head comes as the number of bytes of s that stand for the first character of the
 * whole text, and becomes that of *out.
 */
int normalize(const struct normalizer *n, struct normal_scratch *scratch, const char *s,
              size_t size, struct span *out, size_t *head, clm_error *err);
void normal_scratch_release(struct normal_scratch *scratch);

/* The forms of Unicode, appended; decided in unicode_form.c. */
int unicode_form(enum normal_kind form, struct normal_scratch *scratch, const char *s, size_t size,
                 struct strbuf *out, clm_error *err);

#endif
