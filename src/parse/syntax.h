/* parse/syntax.h: the ways in which models write tool calls, by name, and the one of a model. */
#ifndef PARSE_SYNTAX_H
#define PARSE_SYNTAX_H

#include "parse/tool_reader.h"

/* By mlx_lm's name of the parser, or clm's own for what it has none for. NULL: no such syntax. */
const struct tool_syntax *syntax_by_name(const char *name);

/* All of them, for lists and tests; NULL after the last. */
const struct tool_syntax *syntax_at(size_t i);

/* What is known of a model: the text of its chat template (that for tools, where there are several;
 * NULL: none), and whether a token is in its vocabulary. */
struct model_traits {
    const char *chat_template;
    bool (*has_token)(const void *vocabulary, const char *token); /* NULL: no vocabulary */
    const void *vocabulary;
    const char *tool_parser; /* what tokenizer_config.json names; NULL: nothing */
};

/* The syntax that the model names, else the one that mlx_lm infers; where it infers none, one that
 * the template shows. NULL: none. */
const struct tool_syntax *syntax_infer(const struct model_traits *m);

/* Between which texts a model thinks. */
struct thinking {
    const char *start, *end; /* NULL: it does not */
};

/* The same for thinking. */
struct thinking thinking_infer(const struct model_traits *m);

/* What stands in a prompt behind the last message and before what of the reply is given. Start from
 * {0}: nothing is known. */
struct message_ends {
    const char *token; /* that ends a text; NULL: none */
    /* What the template puts behind a message of a user, and of a tool, before any tag of thinking:
     * the last bytes of it, NUL-terminated. */
    char leads[2][48];
};

/* A prompt has opened a section of thinking that is not closed: the reply begins inside of it. A
 * tag before the last of ends, as in a question about tags, opens none. */
bool thinking_is_open(const struct thinking *t, const struct message_ends *ends, const char *prompt,
                      size_t n);

/* A call in a text that is whole, copied; owned by struct tool_calls. */
struct tool_call {
    char *name, *id; /* NUL-terminated; id is NULL where the model gave none */
    size_t name_size;
    char *arguments; /* JSON text */
    size_t arguments_size;
};

/* Start from {0}. */
struct tool_calls {
    struct tool_call *calls;
    size_t count;
    struct strbuf arguments; /* of the call being read */
    bool failed;
};

/* A sink for struct tool_calls: keeps the calls that end, the last of which is calls[count - 1]
 * during PARSE_CALL_END. Without memory calls->failed is set. */
void tool_calls_take(void *calls, const struct parse_event *e);

/**
 * All calls in the text between the markers of a syntax, as its parser in mlx_lm reads it. tools is
 * the request's list, or NULL.
 *
 * Errors: CLM_ERR_FORMAT where there is no call, or one that cannot be read: then none counts.
 */
int tool_calls_read(struct tool_calls *calls, const struct tool_syntax *s, const char *text,
                    size_t n, const json *tools, clm_error *err);
void tool_calls_release(struct tool_calls *calls);

#endif
