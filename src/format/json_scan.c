#include "format/json_scan.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static void skip_space(struct json_scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

/* "line 3, column 7: bad JSON: ", both from 1, columns in bytes; of a text that is one line, which
 * its name may tell the number of, the column alone. */
static int refuse_by_line(struct json_scan *s, const char *what)
{
    static const char lfs[] = LFS_POINTER;
    size_t size = (size_t)(s->end - s->begin), number = 1;
    const char *line = s->begin;

    if (size >= sizeof lfs - 1 && !memcmp(s->begin, lfs, sizeof lfs - 1))
        return fail(s->err, CLM_ERR_FORMAT,
                    "%s: this is a Git LFS pointer, not the file itself; run git lfs pull",
                    s->name);
    if (!size || !memchr(s->begin, '\n', size))
        return fail(s->err, CLM_ERR_FORMAT, "%s: column %zu: bad JSON: %s", s->name,
                    (size_t)(s->at - line) + 1, what);
    for (const char *p = s->begin; p < s->at; p++)
        if (*p == '\n') {
            line = p + 1;
            number++;
        }
    return fail(s->err, CLM_ERR_FORMAT, "%s: line %zu, column %zu: bad JSON: %s", s->name, number,
                (size_t)(s->at - line) + 1, what);
}

int json_scan_refuse(struct json_scan *s, const char *what)
{
    if (s->by_line)
        return refuse_by_line(s, what);
    return fail(s->err, CLM_ERR_FORMAT, "%s: byte %zu of the JSON: %s", s->name,
                (size_t)(s->at - s->begin), what);
}

int json_scan_fail(struct json_scan *s, const char *expected)
{
    char what[160];

    if (s->at == s->end)
        snprintf(what, sizeof what, "the end, expected %s", expected);
    else if (*s->at <= ' ' || *s->at > '~')
        snprintf(what, sizeof what, "0x%02X, expected %s", (unsigned)(unsigned char)*s->at,
                 expected);
    else
        snprintf(what, sizeof what, "'%c', expected %s", *s->at, expected);
    return json_scan_refuse(s, what);
}

bool json_scan_peek(struct json_scan *s, char c)
{
    skip_space(s);
    return s->at < s->end && *s->at == c;
}

int json_scan_expect(struct json_scan *s, char c)
{
    char expected[] = {'\'', c, '\'', '\0'};

    if (!json_scan_peek(s, c))
        return json_scan_fail(s, expected);
    s->at++;
    return 0;
}

int json_scan_more(struct json_scan *s, char close, bool *first)
{
    if (json_scan_peek(s, close)) {
        s->at++;
        return 0;
    }
    if (*first)
        *first = false;
    else if (json_scan_expect(s, ','))
        return -1;
    return 1;
}

/* Four hexadecimal digits, or -1. */
static int32_t scan_hex4(struct json_scan *s)
{
    int32_t value = 0;

    for (int i = 0; i < 4; i++, s->at++) {
        char c = s->at < s->end ? *s->at : '\0';
        int digit;

        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (c | 0x20) - 'a' + 10;
        else
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* What follows \u: a character, or two halves of one. */
static int scan_unicode_escape(struct json_scan *s)
{
    int32_t c = scan_hex4(s);

    if (c < 0)
        return json_scan_fail(s, "four hexadecimal digits after \\u");
    if (c >= 0xD800 && c < 0xDC00 && s->end - s->at >= 2 && s->at[0] == '\\' && s->at[1] == 'u') {
        int32_t low;

        s->at += 2;
        low = scan_hex4(s);
        if (low < 0xDC00 || low > 0xDFFF)
            return json_scan_fail(s, "the second half of a surrogate pair");
        c = 0x10000 + (c - 0xD800) * 0x400 + (low - 0xDC00);
    }
    if (c >= 0xD800 && c <= 0xDFFF)
        return json_scan_fail(s, "both halves of a surrogate pair");
    s->pool += utf8_encode(c, s->pool);
    return 0;
}

static int scan_escape(struct json_scan *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;

    if (s->at == s->end)
        return json_scan_fail(s, "an escape");
    if (*s->at == 'u') {
        s->at++;
        return scan_unicode_escape(s);
    }
    found = memchr(from, *s->at, sizeof from - 1);
    if (!found)
        return json_scan_fail(s, "an escape that JSON knows");
    s->at++;
    *s->pool++ = to[found - from];
    return 0;
}

/* The end of the bytes from at on that stand for themselves in a string. */
static const char *plain_run(const char *at, const char *end)
{
    const uint64_t ones = UINT64_MAX / 255, tops = ones << 7;

    for (; end - at >= 8; at += 8) {
        uint64_t w, quote, slash, control;

        memcpy(&w, at, 8);
        quote = w ^ ones * '"';
        slash = w ^ ones * '\\';
        control = (w - ones * ' ') & ~w; /* a byte below the space borrows */
        if ((((quote - ones) & ~quote) | ((slash - ones) & ~slash) | control) & tops)
            break;
    }
    while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= ' ')
        at++;
    return at;
}

/* Each escape is longer than what it stands for, and two quotes pay for the NUL: the pool cannot
 * grow faster than the text shrinks. */
int json_scan_string(struct json_scan *s, const char **string, size_t *size)
{
    *string = s->pool;
    if (!json_scan_peek(s, '"'))
        return json_scan_fail(s, "a string");
    s->at++;
    for (;;) {
        const char *run = s->at;

        s->at = plain_run(run, s->end);
        memcpy(s->pool, run, (size_t)(s->at - run));
        s->pool += s->at - run;
        if (s->at == s->end || (unsigned char)*s->at < ' ')
            return json_scan_fail(s, "the end of a string");
        if (*s->at++ == '"')
            break;
        if (scan_escape(s))
            return -1;
    }
    *size = (size_t)(s->pool - *string);
    *s->pool++ = '\0';
    return 0;
}

int json_scan_key(struct json_scan *s, const char **key)
{
    size_t size;

    if (json_scan_string(s, key, &size))
        return -1;
    if (memchr(*key, '\0', size))
        return json_scan_refuse(s, "a name holds a NUL character");
    return json_scan_expect(s, ':');
}

static bool is_digit(const struct json_scan *s)
{
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

int json_scan_u64(struct json_scan *s, uint64_t *value)
{
    static const char expected[] = "a whole number below 2^64";
    uint64_t v = 0;
    const char *start;

    skip_space(s);
    start = s->at;
    for (; is_digit(s); s->at++)
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s->at - '0'), &v))
            return json_scan_fail(s, expected);
    if (s->at == start || (*start == '0' && s->at - start > 1) ||
        (s->at < s->end && (*s->at == '.' || (*s->at | 0x20) == 'e')))
        return json_scan_fail(s, expected);
    *value = v;
    return 0;
}

static int skip_digits(struct json_scan *s)
{
    if (!is_digit(s))
        return json_scan_fail(s, "a digit");
    while (is_digit(s))
        s->at++;
    return 0;
}

int json_scan_number(struct json_scan *s, const char **number, bool *whole)
{
    *number = s->at;
    *whole = true;
    if (s->at < s->end && *s->at == '-')
        s->at++;
    if (s->at < s->end && *s->at == '0')
        s->at++;
    else if (skip_digits(s))
        return -1;
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        *whole = false;
        if (skip_digits(s))
            return -1;
    }
    if (s->at < s->end && (*s->at | 0x20) == 'e') {
        s->at++;
        *whole = false;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
            s->at++;
        return skip_digits(s);
    }
    return 0;
}

bool json_scan_word(struct json_scan *s, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n))
        return false;
    s->at += n;
    return true;
}

static int skip_word(struct json_scan *s)
{
    if (json_scan_word(s, "true") || json_scan_word(s, "false") || json_scan_word(s, "null"))
        return 0;
    return json_scan_fail(s, "a value");
}

static int skip_value(struct json_scan *s, int depth);

static int skip_items(struct json_scan *s, char close, int depth)
{
    int more;

    if (depth == JSON_SCAN_MAX_DEPTH)
        return json_scan_refuse(s, JSON_SCAN_TOO_DEEP);
    s->at++;
    for (bool first = true; (more = json_scan_more(s, close, &first)) > 0;) {
        const char *key;

        if ((close == '}' && json_scan_key(s, &key)) || skip_value(s, depth + 1))
            return -1;
    }
    return more;
}

static int skip_value(struct json_scan *s, int depth)
{
    const char *string;
    size_t size;
    bool whole;

    skip_space(s);
    if (s->at == s->end)
        return json_scan_fail(s, "a value");
    switch (*s->at) {
    case '{':
        return skip_items(s, '}', depth);
    case '[':
        return skip_items(s, ']', depth);
    case '"':
        return json_scan_string(s, &string, &size);
    default:
        return *s->at == '-' || is_digit(s) ? json_scan_number(s, &string, &whole) : skip_word(s);
    }
}

int json_scan_skip(struct json_scan *s)
{
    char *pool = s->pool;
    int rc = skip_value(s, 0);

    s->pool = pool;
    return rc;
}

int json_scan_finish(struct json_scan *s)
{
    skip_space(s);
    return s->at == s->end ? 0 : json_scan_fail(s, "nothing more");
}
