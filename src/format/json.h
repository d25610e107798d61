/* format/json.h: JSON documents. */
#ifndef FORMAT_JSON_H
#define FORMAT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* A value in a parsed document (format/value.h); NULL stands for "absent" and is accepted by every
 * reader. */
typedef struct value json;

/* jansson has functions of these names, and a program may use it beside clm. */
#define json_real clm_json_real
#define json_string clm_json_string

enum json_kind {
    JSON_ABSENT,
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,
    JSON_REAL,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/**
 * Parse a whole text: UTF-8, strict JSON and what Python's json module writes besides. An integer
 * beyond 64 bits is a JSON_REAL; so are Infinity, -Infinity and NaN, also where they are written as
 * transformers does, {"__float__": "Infinity"}. Duplicate keys and depth beyond 512 are errors; NUL
 * inside strings and keys is allowed, and a byte order mark before the text. name stands for the
 * source in messages.
 *
 * A document may be read by several threads at once. It is freed with json_free(root).
 * Errors: CLM_ERR_FORMAT with line and column, CLM_ERR_NOMEM.
 */
json *json_parse(const char *text, size_t size, const char *name, clm_error *err);
json *json_parse_file(const char *path, clm_error *err);
void json_free(json *root); /* NULL is fine */

enum json_kind json_kind(const json *v);
bool json_bool(const json *v, bool otherwise);
int64_t json_int(const json *v, int64_t otherwise);   /* JSON_INT only */
double json_real(const json *v, double otherwise);    /* JSON_INT too; may be infinite or NaN */
const char *json_string(const json *v, size_t *size); /* NULL when it is none; *size may be NULL */
/* "Infinity", "-Infinity", "NaN", or NULL for a finite number. */
const char *json_special(double f);
/* json_kind and, of a string, json_string in one. */
enum json_kind json_look(const json *v, const char **text, size_t *size);

size_t json_size(const json *v); /* items of an array or object, else 0 */
const json *json_at(const json *array, size_t i);
const json *json_get(const json *object, const char *key);

/* Keys are NUL-terminated, and may hold NULs before. Walk an object in file order: for (json_iter
 * it = json_first(o); json_next(&it); ) it.key, it.value */
struct json_iter {
    const char *key;
    size_t key_size;
    const json *value;
    enum json_kind kind; /* of the value: what json_look says, for those who walk fast */
    const char *text;
    size_t size;
    const void *place, *end;
};
struct json_iter json_first(const json *object);
bool json_next(struct json_iter *it);

#endif
