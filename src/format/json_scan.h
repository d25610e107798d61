/* format/json_scan.h: reading JSON of a known shape in place, where a document would cost too much.
 *
 * A safetensors header of 50000 tensors is half a million JSON values; as a document they take a
 * quarter of a second and 51 MiB (docs/json-library.md). The scanner goes over the text once and
 * keeps nothing. All functions return 0, or -1 with the error, which names the file and the byte.
 */
#ifndef FORMAT_JSON_SCAN_H
#define FORMAT_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define JSON_SCAN_MAX_DEPTH 512
#define JSON_SCAN_TOO_DEEP "nested deeper than 512"

struct json_scan {
    const char *at, *end; /* what is left */
    const char *begin;
    const char *name; /* the source, in messages */
    bool by_line;     /* messages give line and column: the file is one that people read */
    char *pool;       /* decoded strings go here; room for as many bytes as the text has */
    clm_error *err;
};

/* Is this the next character after white space? It is not consumed. False at the end. */
bool json_scan_peek(struct json_scan *s, char c);

/* Takes exactly this character, after white space. */
int json_scan_expect(struct json_scan *s, char c);

/**
 * Steps from item to item of an object or array whose opening bracket was taken:
 *
 *     if (json_scan_expect(&s, '{'))
 *         return -1;
 *     for (bool first = true; (more = json_scan_more(&s, '}', &first)) > 0;)
 *         ...
 *
 * 1: an item follows; 0: the closing bracket was taken; -1: neither.
 */
int json_scan_more(struct json_scan *s, char close, bool *first);

/* A string, decoded into the pool with a NUL behind it; it may hold NULs itself. */
int json_scan_string(struct json_scan *s, const char **string, size_t *size);

/* A string used as key, and the colon after it. A NUL inside is an error. */
int json_scan_key(struct json_scan *s, const char **key);

/* A number as JSON writes it: *number is where it begins, s->at where it ends, *whole whether it
 * has neither fraction nor exponent. */
int json_scan_number(struct json_scan *s, const char **number, bool *whole);

/* Is this word next? It is consumed then. */
bool json_scan_word(struct json_scan *s, const char *word);

/* A whole number in [0, 2^64): no sign, fraction or exponent. */
int json_scan_u64(struct json_scan *s, uint64_t *value);

/* What git leaves in the place of a large file that it was not asked to get. */
#define LFS_POINTER "version https://git-lfs"

/* Any value, checked and forgotten. */
int json_scan_skip(struct json_scan *s);

/* Nothing but white space is left. */
int json_scan_finish(struct json_scan *s);

/* The error at the present place: "NAME: byte N of the JSON: WHAT", or "NAME: line N, column N: bad
 * JSON: WHAT". Returns -1. */
int json_scan_refuse(struct json_scan *s, const char *what);
/* The same of what is there: "'x', expected EXPECTED". */
int json_scan_fail(struct json_scan *s, const char *expected);

#endif
