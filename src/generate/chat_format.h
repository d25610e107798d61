/* generate/chat_format.h: how a model is spoken to, from the files in its folder: conversations as
 * text, and how replies are laid out. */
#ifndef GENERATE_CHAT_FORMAT_H
#define GENERATE_CHAT_FORMAT_H

#include "parse/reply.h"
#include "template/chat.h"
#include "tokenizer/tokenizer.h"

/* A conversation, and what its template is told besides. */
struct chat_values {
    const json *messages; /* a list of objects */
    const json *tools;    /* a list of objects; NULL: none */
    /* Objects, or NULL: variables of the template. A name in both counts as the first has it; tools
     * are given above, documents may be among them. */
    const json *variables[2];
    bool go_on; /* the last message is to be continued */
};

/* Variables that say what a request says in other ways are refused: CLM_ERR_ARG with name, whose
 * they are. */
int chat_format_check(const json *variables, const char *name, clm_error *err);

/**
 * Append the text for a conversation to out: up to where the next reply begins, or with go_on up to
 * the end of its last message.
 *
 * name  of the template; NULL: as chat_templates_choose says.
 *
 * Errors: as of chat_templates_choose and chat_render; CLM_ERR_NOMEM.
 */
int chat_format_render(const chat_templates *all, const char *name, const struct chat_values *v,
                       struct strbuf *out, clm_error *err);

/* How replies are laid out. all may be NULL: the model has no template. parser is a name that
 * syntax_by_name knows; NULL: as the model's files tell. */
struct reply_format chat_format_replies(const chat_templates *all, const tokenizer *t,
                                        const char *parser);

#endif
