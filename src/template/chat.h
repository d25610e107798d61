/* template/chat.h: a conversation as the text that a model reads, as transformers makes it. */
#ifndef TEMPLATE_CHAT_H
#define TEMPLATE_CHAT_H

#include "template/template.h"

struct chat_request {
    const json *messages;  /* an array of objects */
    const json *tools;     /* an array of objects; null or absent: None */
    const json *documents; /* likewise */
    bool add_generation_prompt;
    /* The last message is to be gone on with: the text ends where its content does. */
    bool continue_final_message;
    /* All other variables: bos_token, eos_token, enable_thinking, ... */
    const struct template_variable *variables;
    size_t n_variables;
};

/**
 * Render a conversation into out, behind what is there.
 *
 * In each message that has reasoning under the name reasoning_content, thinking or reasoning, it
 * is given to the template as thinking and as reasoning_content too.
 *
 * Returns and errors as template_render; CLM_ERR_ARG where a message, a tool or a document is no
 * object.
 */
int chat_render(const template *t, const struct chat_request *request,
                const struct template_options *options, struct strbuf *out, clm_error *err);

/* The templates of a model, by name; a single one is "default". */
typedef struct chat_templates chat_templates;

/**
 * Read them from a model's folder, as transformers 5 does: chat_template.jinja and
 * additional_chat_templates/NAME.jinja; without any of these chat_template in tokenizer_config.json
 * (a text, or a list of names and texts, of which the last of a name counts); and without that the
 * file that processors had, chat_template.json. Along with them the special tokens in
 * tokenizer_config.json and special_tokens_map.json are read.
 *
 * file  a template that takes the place of all of these; NULL: none.
 *
 * NULL with CLM_ERR_FORMAT or CLM_ERR_IO; CLM_ERR_UNSUPPORTED when the folder has no template.
 */
chat_templates *chat_templates_open(const char *dir, const char *file, clm_error *err);
void chat_templates_close(chat_templates *all); /* NULL is fine */

/* The one of that name; without a name tool_use where it exists and a list of tools is given, even
 * an empty one, else default. NULL with CLM_ERR_ARG when there is none. Owned by all. */
const template *chat_templates_choose(const chat_templates *all, const char *name,
                                      const json *tools, clm_error *err);

/* The text that a template of these was made from, NUL-terminated; owned by all. */
const char *chat_templates_text(const chat_templates *all, const template *t);

/* bos_token, eos_token and so on, as variables; owned by all. */
const struct template_variable *chat_templates_variables(const chat_templates *all, size_t *n);

#endif
