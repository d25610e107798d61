/* parse/text.h: pieces of text, and Python's ideas of white space and words. */
#ifndef PARSE_TEXT_H
#define PARSE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A piece of a longer text; not NUL-terminated. */
struct span {
    const char *at;
    size_t size;
};

#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})
#define SPAN_INIT(literal)                                                                         \
    {                                                                                              \
        (literal), sizeof(literal) - 1                                                             \
    } /* for static data */

static inline struct span span_of(const char *s)
{
    return (struct span){s, strlen(s)};
}

static inline bool span_is(struct span s, const char *text)
{
    return strlen(text) == s.size && (s.size == 0 || memcmp(s.at, text, s.size) == 0);
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.at, b.at, a.size) == 0);
}

static inline bool span_starts(struct span s, struct span prefix)
{
    return s.size >= prefix.size && (prefix.size == 0 || memcmp(s.at, prefix.at, prefix.size) == 0);
}

static inline struct span span_from(struct span s, size_t n)
{
    return (struct span){n ? s.at + n : s.at, s.size - n};
}

static inline struct span span_first(struct span s, size_t n)
{
    return (struct span){s.at, n};
}

/* Where a text begins in s at or after from, or SIZE_MAX. */
size_t span_find(struct span s, size_t from, struct span what);

/* Equal to lower-case ASCII text but for the case of ASCII letters. */
bool span_is_nocase(struct span s, const char *lower);

/* White space at the beginning and the end, in bytes: as str.strip() sees it. */
size_t space_at_start(struct span s);
size_t space_at_end(struct span s);
struct span span_strip(struct span s);

/* White space as \s in a regular expression: that of str.strip() but for U+001C to U+001F. */
size_t regex_space_at_start(struct span s);

/* Bytes of the longest run of word characters (\w: letters, marks, digits, connectors) at the
 * start; with also, that ASCII character counts as one. */
size_t word_at_start(struct span s, char also);

/* The same at the end of s. */
size_t word_at_end(struct span s, char also);

/* The longest proper end of s that begins the text: what may still become it. */
size_t span_partial(struct span s, struct span text);

#endif
