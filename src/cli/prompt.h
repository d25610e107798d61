/* cli/prompt.h: from what the user wrote to the tokens that a model is given. */
#ifndef CLI_PROMPT_H
#define CLI_PROMPT_H

#include "cli/conversation.h"
#include "tokenizer/tokenizer.h"

/* What of a conversation a prompt is: all up to where the reply begins; or from what the user says
 * on, as what comes before is in a cache; or up to the end of that, to be gone on with. */
enum prompt_part { PROMPT_WHOLE, PROMPT_SUFFIX, PROMPT_PREFIX };

struct prompt_options {
    const char *text; /* "-": standard input */
    bool ignore_chat_template;
    struct template_args chat;
    const char *prefill; /* how the reply begins; NULL: not said */
    enum prompt_part part;
};

/* Append a text of the command line with "\n" and "\t" in it written out, as mlx-lm does. */
void prompt_unescape(struct strbuf *out, const char *text);

/* Append the prompt's text: standard input as it is, or the option, unescaped. */
int prompt_read(struct strbuf *out, const char *text, clm_error *err);

/* What a model is given. Start from {0}. */
struct prompt {
    struct chat_template format;
    struct strbuf text;
    size_t reply_at; /* in text: here the reply begins, the part of it that was given too */
    struct token_list tokens;
};

/* As mlx_lm.generate and mlx_lm.cache_prompt have it, a conversation in the chat template of the
 * model in dir, or the text alone with what the tokenizer puts around it. Whatever comes of it, p
 * is to be closed. */
int prompt_open(struct prompt *p, const struct prompt_options *o, const char *dir,
                const tokenizer *t, clm_error *err);
void prompt_close(struct prompt *p);

#endif
