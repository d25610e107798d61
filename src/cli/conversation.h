/* cli/conversation.h: messages, and the text that a model reads in their place.
 *
 * A conversation is kept as JSON, the messages with commas between them, which is what templates
 * are given.
 */
#ifndef CLI_CONVERSATION_H
#define CLI_CONVERSATION_H

#include "cli/options.h"
#include "generate/chat_format.h"

struct template_args {
    const char *system;    /* the system prompt; NULL: none */
    const char *file;      /* of a chat template; NULL: the model's */
    const char *variables; /* a JSON object, or NULL */
    const char *tools;     /* a file with a JSON list, or NULL */
    const char *parser;    /* of calls: a name, "none", or NULL: as the model tells */
};

/* For a struct template_args: of what a model is told, and of what it answers. */
extern const struct option options_template[], options_replies[];

/* A model's chat template, ready to be used. Start from {0}. */
struct chat_template {
    chat_templates *all;
    json *config;             /* what --chat-template-config says */
    json *file;               /* what --tools names */
    const json *tools;        /* from one of these, or NULL */
    const template *template; /* NULL: the model has none */
};

/* Read the template of a model's folder; that it has none is no error. CLM_ERR_ARG when the
 * variables are no JSON object, or of names that are not for the user. */
int chat_template_open(struct chat_template *c, const char *dir, const struct template_args *args,
                       clm_error *err);
void chat_template_close(struct chat_template *c);

/* How replies are to be read, as args and the model tell. CLM_ERR_ARG: no such parser. */
int conversation_reply_format(struct reply_format *out, const struct template_args *args,
                              const struct chat_template *c, const tokenizer *t, clm_error *err);

void conversation_add(struct strbuf *messages, const char *role, const char *text, size_t size);

/* What a model has said, what it thought before and what it calls. */
struct said {
    struct strbuf content, reasoning;
    struct tool_calls calls; /* all of which have an id */
    size_t n_named;          /* calls that were given one here, as the model gave none */
};

void said_take(void *said, const struct parse_event *e); /* a parse_sink */

void said_clear(struct said *s);
void said_release(struct said *s);
bool said_failed(const struct said *s); /* for want of memory */

/* Empty reasoning and calls are left out. Arguments that are no JSON for a parser that takes no
 * key twice stay the text they are. */
void conversation_add_reply(struct strbuf *messages, const struct said *s);

/* What a call has given. */
void conversation_add_result(struct strbuf *messages, const struct tool_call *call,
                             const char *text, size_t size);

/**
 * Append the text for a conversation to out: up to where the next reply begins, or with go_on up to
 * the end of its last message, which is to be continued.
 */
int conversation_render(const struct strbuf *messages, const struct chat_template *c, bool go_on,
                        struct strbuf *out, clm_error *err);

/**
 * The same for messages that are there as JSON, a list of objects, with tools (NULL: none) in the
 * place of those of c, and variables (an object, or NULL) that go before those of c.
 */
int conversation_render_messages(const json *messages, const struct chat_template *c,
                                 const json *tools, const json *variables, bool go_on,
                                 struct strbuf *out, clm_error *err);

#endif
