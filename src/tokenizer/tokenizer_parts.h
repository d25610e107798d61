/* tokenizer/tokenizer_parts.h: what a tokenizer is made of, for the files of this folder. */
#ifndef TOKENIZER_TOKENIZER_PARTS_H
#define TOKENIZER_TOKENIZER_PARTS_H

#include "base/arena.h"
#include "tokenizer/added.h"
#include "tokenizer/decode.h"
#include "tokenizer/model.h"
#include "tokenizer/normalize.h"
#include "tokenizer/postprocess.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer.h"

struct tokenizer {
    arena *memory;  /* strings and tables of all the parts */
    uint8_t *table; /* unicode_table_fill */
    struct added added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct model model;
    struct postprocessor postprocessor;
    struct decoder decoder;
    int32_t roles[TOKEN_ROLES];
    const char *tool_parser;
};

#endif
