/* tokenizer/reader.c: typed reading of JSON fields. */
#include "tokenizer/reader.h"

#include <string.h>

#include "base/utf8.h"

#define MAX_DEPTH 32 /* of components within components */

bool json_is_null(const json *v)
{
    return json_kind(v) == JSON_ABSENT || json_kind(v) == JSON_NULL;
}

int no_memory(struct reader *r)
{
    return fail(r->err, CLM_ERR_NOMEM, "%s: no memory for the %s", r->name, r->part);
}

struct span span_copy(struct reader *r, const char *s, size_t n)
{
    struct span copy = {arena_strndup(r->memory, s, n), n};

    if (!copy.s)
        no_memory(r);
    return copy;
}

static int wrong(struct reader *r, const char *key, const char *expected)
{
    return fail(r->err, CLM_ERR_FORMAT, "%s: %s: \"%s\" is not %s", r->name, r->part, key,
                expected);
}

int read_string(struct reader *r, const json *o, const char *key, struct span *out)
{
    size_t n;
    const char *s = json_string(json_get(o, key), &n);

    if (!s)
        return wrong(r, key, "a string");
    *out = span_copy(r, s, n);
    return out->s ? 0 : -1;
}

int read_string_or(struct reader *r, const json *o, const char *key, const char *otherwise,
                   struct span *out)
{
    if (!json_is_null(json_get(o, key)))
        return read_string(r, o, key, out);
    *out = (struct span){otherwise, otherwise ? strlen(otherwise) : 0};
    return 0;
}

int read_char(struct reader *r, const json *o, const char *key, int32_t *out)
{
    struct span s = {0};

    if (read_string(r, o, key, &s))
        return -1;
    if (!s.n || utf8_decode(s.s, s.n, out) != s.n)
        return wrong(r, key, "one character");
    return 0;
}

int read_bool_or(struct reader *r, const json *o, const char *key, bool otherwise, bool *out)
{
    const json *v = json_get(o, key);

    *out = json_bool(v, otherwise);
    if (!json_is_null(v) && json_kind(v) != JSON_BOOL)
        return wrong(r, key, "true or false");
    return 0;
}

int read_bool(struct reader *r, const json *o, const char *key, bool *out)
{
    if (json_is_null(json_get(o, key)))
        return wrong(r, key, "true or false");
    return read_bool_or(r, o, key, false, out);
}

int read_size_or(struct reader *r, const json *o, const char *key, size_t otherwise, size_t *out)
{
    const json *v = json_get(o, key);
    int64_t n = json_int(v, -1);

    *out = otherwise;
    if (json_is_null(v))
        return 0;
    if (n < 0)
        return wrong(r, key, "a whole number");
    *out = (size_t)n;
    return 0;
}

int read_array(struct reader *r, const json *o, const char *key, const json **out)
{
    *out = json_get(o, key);
    return json_kind(*out) == JSON_ARRAY ? 0 : wrong(r, key, "a list");
}

const char *read_type(struct reader *r, const json *o)
{
    const char *type = json_string(json_get(o, "type"), NULL);

    if (!type)
        wrong(r, "type", "a string");
    return type;
}

int unknown_type(struct reader *r, const char *type)
{
    return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: %s of type \"%s\" is not supported", r->name,
                r->part, type);
}

int read_sequence(struct reader *r, const json *o, const char *list,
                  int (*open)(void *ctx, const json *component), void *ctx)
{
    const json *components;
    int rc = 0;

    if (r->depth == MAX_DEPTH)
        return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: %s: nested too deep", r->name, r->part);
    if (read_array(r, o, list, &components))
        return -1;
    r->depth++;
    for (size_t i = 0; i < json_size(components) && !rc; i++)
        rc = open(ctx, json_at(components, i));
    r->depth--;
    return rc;
}
