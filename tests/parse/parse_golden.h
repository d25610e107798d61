/* tests/parse/parse_golden.h: JSON text held against the values of the goldens. */
#ifndef PARSE_GOLDEN_H
#define PARSE_GOLDEN_H

#include "../testing.h"

#include <math.h>
#include <string.h>

#include "format/json.h"
#include "parse/json_text.h"

static bool same_value(struct span text, const json *expected);

/* What JSON cannot say stands in the goldens as an object with one of these keys. */
static const json *tagged(const json *v, const char *tag)
{
    return json_size(v) == 1 ? json_get(v, tag) : NULL;
}

static bool same_number(struct span text, const json *expected)
{
    char *end, copy[512];
    bool whole = true;

    if (!text.size || text.size >= sizeof copy || strchr("-0123456789", text.at[0]) == NULL)
        return false;
    memcpy(copy, text.at, text.size);
    copy[text.size] = '\0';
    whole = strpbrk(copy, ".eE") == NULL;
    if (json_kind(expected) == JSON_INT)
        return whole && strtoll(copy, &end, 10) == json_int(expected, 0) && *end == '\0';
    /* A whole number beyond 64 bits is a real to the reader of the goldens. */
    return (!whole || fabs(json_real(expected, 0)) > 9e18) &&
           strtod(copy, &end) == json_real(expected, 0) && *end == '\0';
}

/* An infinite number, or NaN, which is null. */
static bool same_float(struct span text, double expected)
{
    if (isnan(expected))
        return span_is(text, "null");
    return text.size && !memchr(text.at, '"', text.size) && isinf(strtod(text.at, NULL)) &&
           (text.at[0] == '-') == (expected < 0);
}

static bool same_string(struct span text, const json *expected)
{
    struct strbuf decoded = {0};
    struct span want;
    bool same;

    want.at = json_string(expected, &want.size);
    if (text.size < 2 || text.at[0] != '"')
        return false;
    json_text_decode(text, &decoded);
    same = span_equal((struct span){decoded.data ? decoded.data : "", decoded.size}, want);
    strbuf_release(&decoded);
    return same;
}

static bool same_array(struct span text, const json *expected)
{
    struct json_text_iter it = {.rest = text};
    size_t i = 0;

    if (!text.size || text.at[0] != '[')
        return false;
    for (; json_text_next(&it); i++)
        if (i >= json_size(expected) || !same_value(it.value, json_at(expected, i)))
            return false;
    return i == json_size(expected);
}

/* Members may stand twice, the last counts; each must be expected. */
static bool same_object(struct span text, const json *expected)
{
    struct json_text_iter it = {.rest = text};

    if (!text.size || text.at[0] != '{')
        return false;
    for (struct json_iter want = json_first(expected); json_next(&want);)
        if (!same_value(json_text_get(text, want.key), want.value))
            return false;
    while (json_text_next(&it)) {
        struct strbuf key = {0};
        bool known;

        json_text_decode(it.key, &key);
        known = json_get(expected, key.data ? key.data : "") != NULL;
        strbuf_release(&key);
        if (!known)
            return false;
    }
    return true;
}

static bool same_value(struct span text, const json *expected)
{
    const json *tag;

    switch (json_kind(expected)) {
    case JSON_NULL:
        return span_is(text, "null");
    case JSON_BOOL:
        return span_is(text, json_bool(expected, false) ? "true" : "false");
    case JSON_REAL:
        if (!isfinite(json_real(expected, 0)))
            return same_float(text, json_real(expected, 0));
        return same_number(text, expected);
    case JSON_INT:
        return same_number(text, expected);
    case JSON_STRING:
        return same_string(text, expected);
    case JSON_ARRAY:
        return same_array(text, expected);
    case JSON_OBJECT:
        if ((tag = tagged(expected, "__tuple__")) || (tag = tagged(expected, "__set__")))
            return same_array(text, tag);
        if (tagged(expected, "__repr__")) /* of no counterpart in JSON: it stays a string */
            return text.size && text.at[0] == '"';
        return same_object(text, expected);
    default:
        return false;
    }
}

#endif
