/* cli/prompt.h: from what the user wrote to the tokens that a model is given. */
#ifndef CLI_PROMPT_H
#define CLI_PROMPT_H

#include "tokenizer/tokenizer.h"

struct prompt_options {
    const char *text; /* "-": standard input */
    bool ignore_chat_template;
};

/* Append the prompt's text: standard input as it is, or the option with "\n" and "\t" written out,
 * as mlx-lm does. */
int prompt_read(struct strbuf *out, const char *text, clm_error *err);

/* Append the prompt's tokens. */
int prompt_tokens(struct token_list *out, const struct prompt_options *o, const tokenizer *t,
                  clm_error *err);

#endif
