/* parse/json_text.h: JSON kept as text: checked as it streams, and copied as it was written.
 *
 * The grammar is that of Python's json.loads, with which the formats of tool calls are read: strict
 * JSON with NaN, Infinity and -Infinity, duplicate keys and numbers of any size. The copy is strict
 * JSON: NaN becomes null, an infinity 1e999 (which readers turn into one again), a control
 * character in a string is escaped, an invalid byte becomes U+FFFD.
 */
#ifndef PARSE_JSON_TEXT_H
#define PARSE_JSON_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/strbuf.h"
#include "parse/text.h"

#define JSON_TEXT_MAX_DEPTH 512

enum json_text_status {
    JSON_TEXT_MORE, /* all bytes were taken, and the value is not complete */
    JSON_TEXT_DONE, /* the value is complete */
    JSON_TEXT_BAD   /* no value begins so */
};

/* One value on its way. Start from {0}, or with controls set. */
struct json_text {
    bool controls; /* let control characters stand in strings, as strict=False does */
    uint8_t state;
    uint16_t depth;
    uint8_t count;     /* of a word or an escape */
    uint8_t utf8_size; /* bytes of a character that is not complete */
    char word[9];      /* a literal name as far as it is known */
    char utf8[4];
    uint8_t in_object[JSON_TEXT_MAX_DEPTH / 8]; /* one bit per level */
};

/**
 * Takes bytes of s, white space before the value too, as long as they belong to it; *taken says how
 * many. A number ends only with a byte that is not its own, or at the end. out may be NULL.
 */
enum json_text_status json_text_feed(struct json_text *j, struct span s, struct strbuf *out,
                                     size_t *taken);

/* The text is over: does it end a value? */
enum json_text_status json_text_end(struct json_text *j, struct strbuf *out);

/* One whole value at the start of s: its size with white space before it, or 0 where there is
 * none. Its copy is added to out, which may be NULL; with false nothing stays added. */
size_t json_text_value(struct span s, bool controls, struct strbuf *out);

/* s is one value between white space, as json.loads takes it. */
bool json_text_whole(struct span s, bool controls, struct strbuf *out);

/* The characters of a string literal, which was checked: adds them to out. */
void json_text_decode(struct span literal, struct strbuf *out);

/* s is a string literal that decodes to exactly this text. */
bool json_text_is(struct span literal, const char *text);

/**
 * The value of a key in the object s, which was checked; of duplicates the last. A zero span where
 * there is none or s is no object.
 */
struct span json_text_get(struct span object, const char *key);

/* Steps through the members of an object or the items of an array that was checked. Start with
 * {.rest = the text}. False after the last. */
struct json_text_iter {
    struct span rest;
    struct span key; /* literal, with its quotes; empty in an array */
    struct span value;
    bool started;
};
bool json_text_next(struct json_text_iter *it);

/* White space of JSON, in bytes. */
size_t json_space_at_start(struct span s);

#endif
