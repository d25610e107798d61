/* cli/conversation.h: messages, and the text that a model reads in their place.
 *
 * A conversation is kept as JSON, the messages with commas between them, which is what templates
 * are given.
 */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "cli/options.h"
#include "template/chat.h"

struct template_args {
    const char *system;    /* the system prompt; NULL: none */
    const char *variables; /* a JSON object, or NULL */
};

extern const struct option options_template[]; /* for a struct template_args */

/* A model's chat template, ready to be used. Start from {0}. */
struct chat_template {
    chat_templates *all;
    json *config;             /* what --chat-template-config says */
    const template *template; /* NULL: the model has none */
};

/* Read the template of a model's folder; that it has none is no error. CLM_ERR_ARG when the
 * variables are no JSON object, or of names that are not for the user. */
int chat_template_open(struct chat_template *c, const char *dir, const struct template_args *args,
                       clm_error *err);
void chat_template_close(struct chat_template *c);

void conversation_add(struct strbuf *messages, const char *role, const char *text, size_t size);

/* What the model has said, and thought before: empty reasoning is left out. */
void conversation_add_reply(struct strbuf *messages, const struct strbuf *content,
                            const struct strbuf *reasoning);

/**
 * Append the text for a conversation to out: up to where the next reply begins, or with go_on up to
 * the end of its last message, which is to be continued.
 */
int conversation_render(const struct strbuf *messages, const struct chat_template *c, bool go_on,
                        struct strbuf *out, clm_error *err);

#endif
