/* tokenizer/tokenizer_config.h: tokenizer_config.json and special_tokens_map.json. */
#ifndef TOKENIZER_TOKENIZER_CONFIG_H
#define TOKENIZER_TOKENIZER_CONFIG_H

#include "tokenizer/tokenizer_parts.h"

/* {"content", "single_word", "lstrip", "rstrip", "normalized", "special"} */
int added_token_read(struct added_token *token, const json *v, struct reader *r);

/**
 * Roles, templates, and the tokens that the configuration knows and tokenizer.json does not, which
 * become added tokens. config and map may be NULL. *cleanup: clean_up_tokenization_spaces.
 */
int tokenizer_config_read(tokenizer *t, const json *config, const json *map, bool *cleanup,
                          struct reader *r);

/* Add a template, or replace the one of that name. */
int tokenizer_template_set(tokenizer *t, const char *name, const char *text, size_t size,
                           clm_error *err);

#endif
