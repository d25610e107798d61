/* template/value.h: what a template computes with: Python's values, in 16 bytes each.
 *
 * Lists, tuples and mappings never change once made (the sandbox forbids it); a namespace does.
 * Strings are slices of bytes that live elsewhere: in the template, in the input document, or in
 * the rendering's heap. They are always well-formed UTF-8.
 */
#ifndef TEMPLATE_VALUE_H
#define TEMPLATE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum value_kind {
    V_MISSING, /* a variable that was never set, an argument not given; never seen by templates */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_BIGINT,
    V_FLOAT,
    V_STRING,
    V_BYTES,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_NAMESPACE,
    V_RANGE,
    V_VIEW, /* dict.keys(), .values(), .items() */
    V_ITER, /* a generator: can be walked once */
    V_MACRO,
    V_LOOP,
    V_BUILTIN, /* a global function */
    V_METHOD,  /* a method bound to its object */
    V_CYCLER,
    V_JOINER,
    V_JSON, /* an array or object of the input that nothing has asked for yet: in mappings only */
    V_KINDS
};

/* flags of V_STRING */
#define STRING_ASCII 1  /* known to hold ASCII only; absent: not known */
#define STRING_MARKUP 2 /* Markup: text that needs no HTML escaping */

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

struct value {
    uint8_t kind;
    uint8_t flags;
    uint16_t aux;
    uint32_t size; /* V_STRING, V_BYTES, V_UNDEFINED: bytes at s */
    union {
        int64_t i; /* V_INT; V_BOOL: 0 or 1 */
        double f;
        const char *s;
        const struct bigint *big;
        const struct list *list; /* V_LIST, V_TUPLE */
        struct dict *dict;       /* V_DICT, V_NAMESPACE, V_VIEW (flags: enum view_kind) */
        const struct range *range;
        struct iter *iter;
        const struct macro *macro;
        struct loop *loop;
        const struct builtin *builtin;
        const struct method *method;
        struct cycler *cycler;
        struct joiner *joiner;
        const struct json *json;
        void *p;
    };
};

struct list {
    uint32_t size;
    struct value *items;
};

struct range {
    int64_t start, stop, step;
    uint32_t size;
};

struct dict_entry {
    struct value key, value;
    uint64_t hash;
};

/* Insertion order; beyond a few entries an open-addressing index of positions + 1. */
struct dict {
    struct dict_entry *entries;
    uint32_t *index;
    uint32_t size, capacity;
    uint32_t index_mask;
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

static inline struct value value_none(void)
{
    return (struct value){.kind = V_NONE};
}

static inline struct value value_bool(bool b)
{
    return (struct value){.kind = V_BOOL, .i = b};
}

static inline struct value value_int(int64_t i)
{
    return (struct value){.kind = V_INT, .i = i};
}

static inline struct value value_float(double f)
{
    return (struct value){.kind = V_FLOAT, .f = f};
}

static inline struct value value_string(const char *s, size_t size)
{
    return (struct value){.kind = V_STRING, .size = (uint32_t)size, .s = s};
}

static inline struct value value_cstring(const char *s)
{
    return value_string(s, strlen(s));
}

static inline struct value value_list(const struct list *l)
{
    return (struct value){.kind = V_LIST, .list = l};
}

static inline struct value value_tuple(const struct list *l)
{
    return (struct value){.kind = V_TUPLE, .list = l};
}

static inline struct value value_dict(struct dict *d)
{
    return (struct value){.kind = V_DICT, .dict = d};
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

/* memcmp() == 0, without a call where there are few bytes: the last ones may overlap the first. */
static inline bool bytes_same(const char *a, const char *b, size_t n)
{
    uint64_t x, y, x_end, y_end;
    uint32_t u, v, u_end, v_end;

    if (n > 16)
        return !memcmp(a, b, n);
    if (n >= 8) {
        memcpy(&x, a, 8);
        memcpy(&y, b, 8);
        memcpy(&x_end, a + n - 8, 8);
        memcpy(&y_end, b + n - 8, 8);
        return x == y && x_end == y_end;
    }
    if (n >= 4) {
        memcpy(&u, a, 4);
        memcpy(&v, b, 4);
        memcpy(&u_end, a + n - 4, 4);
        memcpy(&v_end, b + n - 4, 4);
        return u == v && u_end == v_end;
    }
    return !n || (a[0] == b[0] && a[n / 2] == b[n / 2] && a[n - 1] == b[n - 1]);
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

static inline bool string_is(const struct value *v, const char *s)
{
    return v->kind == V_STRING && v->size == strlen(s) && !memcmp(v->s, s, v->size);
}

static inline bool string_same(const struct value *a, const struct value *b)
{
    return a->size == b->size && (a->s == b->s || bytes_same(a->s, b->s, a->size));
}

static inline uint64_t hash_mix(uint64_t h, uint64_t w)
{
    h = (h ^ w) * 0xFF51AFD7ED558CCDu;
    return h ^ h >> 32;
}

/* A hash of bytes, eight at a time; the last eight may overlap those before. */
static inline uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ n;
    uint64_t w = 0;
    uint32_t half;

    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8) {
            memcpy(&w, s + i, 8);
            h = hash_mix(h, w);
        }
        memcpy(&w, s + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&half, s, 4);
        w = half;
        memcpy(&half, s + n - 4, 4);
        w = w << 32 | half;
    } else if (n) {
        w = (uint64_t)(unsigned char)s[0] << 16 | (uint64_t)(unsigned char)s[n / 2] << 8 |
            (unsigned char)s[n - 1];
    }
    return hash_mix(h, w);
}

#endif
