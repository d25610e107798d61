/* template/tree.h: a parsed template. Nothing in it changes after parsing. */
#ifndef TEMPLATE_TREE_H
#define TEMPLATE_TREE_H

#include "base/arena.h"
#include "template/value.h"

/* Where a variable lives: in the frame of the function that many levels out, at a place there. */
struct variable {
    uint16_t hops;
    uint16_t slot;
};

enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT,    /* items: key, value, key, value, ... */
    N_GETATTR, /* and items by a constant text */
    N_GETITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_COND,
    N_AND,
    N_OR,
    N_NOT,
    N_NEG,
    N_POS,
    N_ADD,
    N_SUB,
    N_MUL,
    N_DIV,
    N_FLOORDIV,
    N_MOD,
    N_POW,
    N_CONCAT,
    N_COMPARE,
    N_NSREF, /* a.b as the target of set */
    /* statements */
    N_OUTPUT,
    N_FOR,
    N_IF,
    N_SET,
    N_SET_BLOCK,
    N_MACRO,
    N_CALL_BLOCK,
    N_FILTER_BLOCK,
    N_WITH,
    N_GENERATION,
    N_SCOPE, /* autoescape: a scope of names with a setting */
    N_BLOCK,
    N_BREAK,
    N_CONTINUE,
    N_REFUSED /* include, import, extends: there is nothing to load from */
};

/* Comparisons that are common in templates. */
enum compare_form {
    COMPARE_ANY,
    COMPARE_TEXT, /* a == 'text', a != 'text' */
    COMPARE_KEY   /* 'text' in a, 'text' not in a */
};

/* Tests of what they stand behind alone, such as "is string". */
enum test_form { TEST_ANY, TEST_PLAIN };

enum compare_op { OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN };

struct nodes {
    struct node **items;
    uint32_t size;
};

struct keyword {
    struct value name;
    struct node *value;
};

/* The arguments of a call, filter or test. */
struct arguments {
    struct nodes positional;
    struct keyword *keywords;
    uint32_t n_keywords;
    struct node *star, *star_star; /* *list, **mapping, or NULL */
    bool none;                     /* there are no arguments */
};

/* How a variable of a scope begins each time the scope is entered. */
enum load_kind {
    LOAD_PARAMETER, /* the one who enters sets it */
    LOAD_RESOLVE,   /* the input's variable of that name, or a global */
    LOAD_ALIAS,     /* a copy of an outer variable */
    LOAD_UNDEFINED  /* unset */
};

struct load {
    uint16_t slot;
    uint8_t how;
    struct variable source; /* LOAD_ALIAS */
    struct value name;      /* LOAD_RESOLVE */
    uint64_t hash;
    const struct value *global;   /* what the name means when the input does not say */
    const struct variable *outer; /* in a block: the top level's variable, NULL when it has none */
};

/* The variables that a scope begins with. */
struct scope_loads {
    struct load *items;
    uint32_t size;
    uint16_t first, count; /* the slots of the scope: unset again when it is left */
};

/* A unit of code with a frame of its own: the template, a macro, a call's body, a recursive loop.
 */
struct function {
    uint16_t n_slots;
    bool keeps_frame; /* something may refer to the frame after the function has returned */
    struct scope_loads loads;
};

struct parameter {
    struct value name;
    struct node *fallback; /* or NULL */
    uint16_t slot;
};

/* A macro, or the body of a call block. */
struct macro_code {
    struct function function;
    struct value name; /* V_NONE for the body of a call */
    struct parameter *parameters;
    uint32_t n_parameters;
    struct nodes body;
    bool uses_caller, uses_kwargs, uses_varargs;
    bool explicit_caller; /* "caller" is among the parameters */
    uint16_t caller_slot, kwargs_slot, varargs_slot;
};

struct for_code {
    struct node *target, *iterable, *test;
    struct nodes body, otherwise;
    struct node *test_target; /* the same target, in the scope of the test */
    bool recursive, extended, has_else;
    uint16_t loop_slot;
    struct scope_loads body_loads, else_loads, test_loads;
    struct function function; /* when recursive */
};

struct branch {
    struct node *test; /* NULL: else */
    struct nodes body;
    bool compares;     /* the test is a == 'text' */
    bool same_subject; /* and the branch before compares the same a */
};

struct node {
    uint8_t kind;
    uint8_t flag;   /* N_BLOCK: it is scoped; N_COMPARE: enum compare_form; N_TEST: enum test_form;
                       N_GETATTR: it was a['b'] */
    uint16_t depth; /* of the expression below */
    uint32_t line;
    union {
        struct value value; /* N_CONST; N_REFUSED: the tag */
        struct {
            struct value name;
            struct variable variable;
        } name;            /* N_NAME */
        struct nodes list; /* N_TUPLE, N_LIST, N_DICT, N_CONCAT, N_OUTPUT */
        struct {
            struct node *left, *right; /* N_GETITEM too; unary: left */
        } pair;
        struct {
            struct node *object;
            struct value name;
            uint64_t hash;
            const struct builtin *methods; /* of that name, or NULL */
            bool simple; /* of a variable, by a short name; where it is a mapping, a key */
        } attr;
        struct {
            struct node *start, *stop, *step;
        } slice;
        struct {
            struct node *subject;          /* the callee; NULL for a filter of a block */
            const struct builtin *builtin; /* of a filter or test; NULL: there is none */
            struct arguments *arguments;
            struct value name;
        } call; /* N_CALL, N_FILTER, N_TEST */
        struct {
            struct node *test, *then, *otherwise;
        } cond;
        struct {
            struct node *first;
            struct nodes rest;
            const uint8_t *ops;
            uint64_t hash; /* COMPARE_KEY: of the text */
        } compare;
        struct {
            struct value name;
            struct value attr;
            uint64_t hash; /* of attr */
            struct variable variable;
        } nsref;
        struct for_code *loop;
        struct {
            struct branch *branches;
            uint32_t size;
        } cases; /* N_IF */
        struct {
            struct node *target, *value;
        } set;
        struct {
            struct node *target; /* N_SET_BLOCK, or NULL */
            struct node *filter; /* or NULL; its innermost subject is NULL: the body's text */
            struct nodes body;
            struct scope_loads *loads;
        } capture; /* N_SET_BLOCK, N_FILTER_BLOCK */
        struct {
            struct macro_code *code;
            struct variable variable; /* N_MACRO: where it is put */
            struct node *call;        /* N_CALL_BLOCK */
        } macro;                      /* N_GENERATION too */
        struct {
            struct nodes targets, values, body;
            struct scope_loads *loads;
        } with;
        struct {
            struct node *setting;
            struct nodes body;
            struct scope_loads *loads;
        } scope;
        struct {
            struct value name;
            struct macro_code *code;
        } block;
    };
};

struct block_entry {
    struct value name;
    struct macro_code *code;
};

struct template
{
    arena *memory;
    const char *name;
    struct function root;
    struct nodes body;
};

#endif
