/* tokenizer/tokenizer_config.h: tokenizer_config.json and special_tokens_map.json. */
#ifndef TOKENIZER_TOKENIZER_CONFIG_H
#define TOKENIZER_TOKENIZER_CONFIG_H

#include "tokenizer/tokenizer_parts.h"

/* {"content", "single_word", "lstrip", "rstrip", "normalized", "special"} */
int added_token_read(struct added_token *token, const json *v, struct reader *r);

/* What stands beside tokenizer.json, or in its place; each may be NULL. */
struct config_files {
    const json *config; /* tokenizer_config.json */
    const json *map;    /* special_tokens_map.json */
    const json *added;  /* added_tokens.json: {text: id}, of checkpoints without tokenizer.json */
    /* Of the class that an older checkpoint names: the token of its roles that are not given. */
    const char *end_of_text;
    bool default_bos; /* that of TOKEN_BOS too */
    bool wraps;       /* add_bos_token and add_eos_token are the only post-processor */
};

/**
 * Roles, and the tokens that the configuration knows and tokenizer.json does not, which become
 * added tokens. *cleanup: what decoding does to spaces at the end, as the configuration asks.
 */
int tokenizer_config_read(tokenizer *t, const struct config_files *files, bool *cleanup,
                          struct reader *r);

#endif
