/* template/builtin.h: what is built in: filters, tests, methods, functions. */
#ifndef TEMPLATE_BUILTIN_H
#define TEMPLATE_BUILTIN_H

#include "template/value.h"

struct render;

struct named_value {
    struct value name;
    struct value value;
};

struct args {
    const struct value *positional;
    const struct named_value *named;
    uint32_t n_positional, n_named;
};

/**
 * self: what a filter or test is applied to, the object of a method; V_MISSING for a function.
 * p: the parameters, V_MISSING where not given; NULL where params is NULL: then all is in args.
 * Returns 0, or -1 with the rendering's error filled.
 */
typedef int builtin_fn(struct render *r, struct value self, const struct value *p,
                       const struct args *args, struct value *out);

#define BUILTIN_MAX_PARAMS 8

struct builtin {
    const char *name;
    builtin_fn *fn;
    const char *params; /* names, separated by spaces */
    uint8_t required;   /* the first so many must be given */
    /* bits 1 << value_kind: of a method, the kinds of objects that have it; of a test that asks for
     * nothing but the kind, those that pass, else 0 */
    uint32_t kinds;
};

const struct builtin *filter_find(const char *name, size_t size);
const struct builtin *test_find(const char *name, size_t size);
/* The methods of that name, one after another in a table, or NULL; and the one of them that objects
 * of a kind have, or NULL. A method without function is one that the sandbox refuses. */
const struct builtin *methods_named(const char *name, size_t size);
const struct builtin *method_for(const struct builtin *methods, enum value_kind kind);
/* A global variable, or NULL. */
const struct value *global_find(const char *name, size_t size);

/* Finds a name in a table that is sorted by name. */
const struct builtin *builtin_search(const struct builtin *table, size_t n, const char *name,
                                     size_t size);

#endif
