/* format/value.h: values, in 16 bytes each: of JSON documents, and what templates compute with.
 *
 * A template takes a document as it is. Lists, tuples and mappings never change once made (the
 * sandbox forbids it); a namespace does. Strings are slices of bytes that live elsewhere: in the
 * template, in the document, or in the rendering's heap. They are always well-formed UTF-8.
 */
#ifndef FORMAT_VALUE_H
#define FORMAT_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Of documents: none, bool, int, float, string, list, dict. */
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
    V_KINDS
};

/* flags of V_STRING */
#define STRING_ASCII 1  /* known to hold ASCII only; absent: not known */
#define STRING_MARKUP 2 /* Markup: text that needs no HTML escaping */

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
        void *p;
    };
};

struct list {
    uint32_t size;
    struct value *items;
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

static inline struct value value_dict(struct dict *d)
{
    return (struct value){.kind = V_DICT, .dict = d};
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

static inline bool string_is(const struct value *v, const char *s)
{
    return v->kind == V_STRING && v->size == strlen(s) && !memcmp(v->s, s, v->size);
}

static inline bool string_same(const struct value *a, const struct value *b)
{
    return a->size == b->size && (a->s == b->s || bytes_same(a->s, b->s, a->size));
}

/* All of w tells in the low bits, which choose a place: the bytes of a product are the better mixed
 * the higher they are. */
static inline uint64_t hash_mix(uint64_t h, uint64_t w)
{
    return __builtin_bswap64((h ^ w) * 0xFF51AFD7ED558CCDu);
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

/* The key is a string with that hash. Of up to eight bytes hash_bytes makes hashes that differ when
 * the bytes do. */
static inline bool entry_is(const struct dict_entry *e, const struct value *key, uint64_t hash)
{
    return e->hash == hash && e->key.kind == V_STRING && e->key.size == key->size &&
           (key->size <= 8 || bytes_same(e->key.s, key->s, key->size));
}

struct dict_entry *dict_find_indexed(const struct dict *d, const struct value *key, uint64_t hash);

/* NULL when there is none. */
static inline struct dict_entry *dict_find_text(const struct dict *d, const struct value *key,
                                                uint64_t hash)
{
    if (d->index)
        return dict_find_indexed(d, key, hash);
    for (uint32_t i = 0; i < d->size; i++)
        if (entry_is(&d->entries[i], key, hash))
            return &d->entries[i];
    return NULL;
}

/* Up to so many entries are looked through without an index. */
#define DICT_SMALL 8

/* The slots of an index for so many entries, a power of two. */
size_t dict_slots(size_t size);
/* Enters all entries into an index that is empty, if there is one. */
void dict_index(struct dict *d);

#endif
