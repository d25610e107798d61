/* template/parse.h: from tokens to a tree; shared by the two halves of the parser. */
#ifndef TEMPLATE_PARSE_H
#define TEMPLATE_PARSE_H

#include "base/error.h"
#include "template/lexer.h"
#include "template/tree.h"

#define PARSE_MAX_DEPTH 250 /* of expressions within expressions, statements within statements */

struct parser {
    const struct token *at;
    const char *name;
    arena *memory;
    clm_error *err;
    unsigned depth;
    unsigned loops;        /* statements being parsed inside so many loops of this function */
    struct node **scratch; /* children seen so far of the nodes being parsed */
    size_t n_scratch, scratch_room;
};

/* A list of nodes that grows on the parser's scratch stack. */
size_t parse_mark(const struct parser *p);
int parse_push(struct parser *p, struct node *n);
int parse_take(struct parser *p, size_t mark, struct nodes *out);

struct node *parse_new(struct parser *p, enum node_kind kind, uint32_t line);
void *parse_alloc(struct parser *p, size_t count, size_t size);
int parse_fail(struct parser *p, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int parse_enter(struct parser *p); /* -1 when it is too deep */
void parse_leave(struct parser *p);

bool parse_is(const struct parser *p, const char *name); /* the token is this name */
bool parse_skip_name(struct parser *p, const char *name);
bool parse_skip(struct parser *p, enum token_kind kind);
int parse_expect(struct parser *p, enum token_kind kind);

/* Expressions: NULL on error. */
struct node *parse_expression(struct parser *p, bool with_condition);
struct node *parse_filters(struct parser *p, struct node *subject, bool at_name);

/* How parse_tuple reads. */
struct tuple_mode {
    bool targets;      /* names only, for assignment */
    bool namespaces;   /* with a.b among them */
    bool no_condition; /* "a if b" is not taken */
    bool parentheses;  /* () is an empty tuple */
};
struct node *parse_tuple(struct parser *p, struct tuple_mode mode);

/* The whole of it; the variables are not yet bound (scope.h). */
int parse_template(struct template *t, const struct tokens *tokens, clm_error *err);

#endif
