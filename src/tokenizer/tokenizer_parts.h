/* tokenizer/tokenizer_parts.h: what a tokenizer is made of, for the files of this folder. */
#ifndef TOKENIZER_TOKENIZER_PARTS_H
#define TOKENIZER_TOKENIZER_PARTS_H

#include "base/arena.h"
#include "tokenizer/added.h"
#include "tokenizer/decode.h"
#include "tokenizer/effects.h"
#include "tokenizer/model.h"
#include "tokenizer/normalize.h"
#include "tokenizer/postprocess.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/snapshot.h"
#include "tokenizer/tokenizer.h"

struct tokenizer {
    arena *memory;  /* strings and tables of all the parts */
    uint8_t *table; /* unicode_table_fill */
    struct snapshot snapshot;
    struct added added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct model model;
    struct postprocessor postprocessor;
    struct decoder decoder;
    struct effects effects;
    int32_t roles[TOKEN_ROLES];
    const char *tool_parser;
};

/* The text that an id goes into the decoder as, or NULL where no token has it; special: it is left
 * out when special tokens are. */
const char *tokenizer_decoded(const tokenizer *t, int32_t id, size_t *n, bool *special);

#endif
