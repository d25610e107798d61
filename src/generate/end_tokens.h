/* generate/end_tokens.h: the tokens that end a text. */
#ifndef GENERATE_END_TOKENS_H
#define GENERATE_END_TOKENS_H

#include "tokenizer/tokenizer.h"

/**
 * Append what a model's folder names: eos_token_id of generation_config.json, or without that of
 * config.json, and the tokenizer's own end token. As mlx-lm has it.
 *
 * Returns 0, or -1 with *err filled.
 */
int end_tokens_load(struct token_list *out, const char *dir, const tokenizer *t, clm_error *err);

/* Append the token of that id or, when the text is no number, of that spelling. CLM_ERR_ARG when
 * the tokenizer has no such token. */
int end_tokens_add(struct token_list *out, const tokenizer *t, const char *token, clm_error *err);

/* Append what XTC must not remove, as mlx_lm.generate has it: the tokens of a line end as the
 * tokenizer encodes one, and the end tokens. */
int end_tokens_for_xtc(struct token_list *out, const tokenizer *t,
                       const struct token_list *end_tokens, clm_error *err);

bool end_tokens_have(const struct token_list *list, int32_t id);

#endif
