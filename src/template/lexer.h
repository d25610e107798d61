/* template/lexer.h: a template's text cut into tokens, with its white space rules applied. */
#ifndef TEMPLATE_LEXER_H
#define TEMPLATE_LEXER_H

#include "base/arena.h"
#include "base/error.h"
#include "template/value.h"

enum token_kind {
    T_END,
    T_DATA, /* text outside of tags */
    T_VARIABLE_BEGIN,
    T_VARIABLE_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INTEGER,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_DIV,
    T_FLOORDIV,
    T_MUL,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LBRACKET,
    T_RBRACKET,
    T_LPAREN,
    T_RPAREN,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON
};

struct token {
    uint8_t kind;
    uint32_t line;
    struct value value; /* text of T_DATA and T_NAME; what T_STRING and the numbers stand for */
};

struct tokens {
    struct token *items; /* the last one is T_END */
    size_t size;
};

/* Everything lives in the arena; name stands for the template in messages. */
int lex_template(struct tokens *out, const char *text, size_t size, const char *name, arena *a,
                 clm_error *err);

/* How messages show a token of this kind. */
const char *token_name(enum token_kind kind);

#endif
