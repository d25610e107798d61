/* template/value.h: the values that only templates know. */
#ifndef TEMPLATE_VALUE_H
#define TEMPLATE_VALUE_H

#include "format/value.h"

/* flags of V_UNDEFINED: how it came about, for the message */
enum undefined_kind {
    UNDEFINED_NAME,    /* s: the variable's name */
    UNDEFINED_ATTR,    /* s: the attribute; aux: the object's kind */
    UNDEFINED_ELEMENT, /* s: the key as text; aux: the object's kind */
    UNDEFINED_HINT,    /* s: the whole message */
    UNDEFINED_UNSAFE   /* s: the attribute the sandbox refuses; aux: the object's kind */
};

/* flags of V_TUPLE */
#define TUPLE_GROUP 1 /* a (grouper, list) of groupby, whose items have these names too */

enum view_kind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

struct range {
    int64_t start, stop, step;
    uint32_t size;
};

struct method {
    struct value self;
    const struct builtin *builtin;
};

struct cycler {
    const struct list *items;
    uint32_t at;
};

struct joiner {
    struct value separator;
    bool used;
};

static inline struct value value_tuple(const struct list *l)
{
    return (struct value){.kind = V_TUPLE, .list = l};
}

static inline struct value value_undefined(enum undefined_kind how, const char *s, size_t size,
                                           unsigned kind)
{
    return (struct value){.kind = V_UNDEFINED,
                          .flags = (uint8_t)how,
                          .aux = (uint16_t)kind,
                          .size = (uint32_t)size,
                          .s = s};
}

/* memcpy(), in the same way. */
static inline void bytes_copy(char *to, const char *from, size_t n)
{
    char first[16], last[16];

    if (n > 32) {
        memcpy(to, from, n);
    } else if (n >= 16) {
        memcpy(first, from, 16);
        memcpy(last, from + n - 16, 16);
        memcpy(to, first, 16);
        memcpy(to + n - 16, last, 16);
    } else if (n >= 8) {
        memcpy(first, from, 8);
        memcpy(last, from + n - 8, 8);
        memcpy(to, first, 8);
        memcpy(to + n - 8, last, 8);
    } else if (n >= 4) {
        memcpy(first, from, 4);
        memcpy(last, from + n - 4, 4);
        memcpy(to, first, 4);
        memcpy(to + n - 4, last, 4);
    } else if (n) {
        to[0] = from[0];
        to[n / 2] = from[n / 2];
        to[n - 1] = from[n - 1];
    }
}

#endif
