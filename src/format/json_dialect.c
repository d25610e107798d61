#include "format/json_dialect.h"

#include <string.h>

#define NUL_ESCAPE "\\u0000"
#define NUL_ESCAPE_SIZE (sizeof NUL_ESCAPE - 1)

struct pass {
    struct json_dialect *d;
    const char *text;
    size_t size;
    size_t at;
    size_t copied; /* of the text, what is in the copy or replaced there */
    int depth;
};

/* The copy has new instead of text[begin, end). */
static void replace(struct pass *p, size_t begin, size_t end, const char *new)
{
    strbuf_add(&p->d->copy, p->text + p->copied, begin - p->copied);
    strbuf_add_str(&p->d->copy, new);
    p->copied = end;
}

static char peek(const struct pass *p, size_t at)
{
    return at < p->size ? p->text[at] : '\0';
}

static bool starts_with(const struct pass *p, size_t at, const char *word)
{
    size_t n = strlen(word);

    return p->size - at >= n && !memcmp(p->text + at, word, n);
}

static bool is_key(const struct pass *p, size_t at)
{
    while (at < p->size && strchr(" \t\r\n", p->text[at]) && p->text[at])
        at++;
    return peek(p, at) == ':';
}

static void replace_nuls(struct pass *p, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++) {
        if (p->text[i] != '\\')
            continue;
        if (starts_with(p, i, NUL_ESCAPE)) {
            replace(p, i, i + NUL_ESCAPE_SIZE, JSON_NUL_STAND_IN);
            p->d->n_key_nuls++;
        }
        i++; /* whatever is escaped; the digits of \u are not looked at again */
    }
}

/* From behind the opening quote to behind the closing one, or to the end. */
static void pass_string(struct pass *p)
{
    size_t begin = p->at;
    bool has_nul = false;

    while (p->at < p->size && p->text[p->at] != '"') {
        if (p->text[p->at] == '\\') {
            has_nul |= starts_with(p, p->at, NUL_ESCAPE);
            p->at++;
        }
        p->at++;
    }
    if (p->at >= p->size) {
        p->at = p->size;
        return;
    }
    if (has_nul && is_key(p, p->at + 1))
        replace_nuls(p, begin, p->at);
    p->at++;
}

/* Digits of an integer: do they fit, with their sign, in 64 bits? */
static bool fits(const char *digits, size_t n, bool negative)
{
    static const char limit[2][20] = {"9223372036854775807", "9223372036854775808"};

    return n < 19 || (n == 19 && memcmp(digits, limit[negative], 19) <= 0);
}

static void pass_number(struct pass *p)
{
    size_t begin = p->at;
    bool negative = begin && p->text[begin - 1] == '-';
    char next;

    while (peek(p, p->at) >= '0' && peek(p, p->at) <= '9')
        p->at++;
    next = peek(p, p->at);
    if (next == '.' || next == 'e' || next == 'E') /* a real: its other digits need no look */
        while ((next = peek(p, p->at)) && strchr("0123456789.eE+-", next))
            p->at++;
    else if (!fits(p->text + begin, p->at - begin, negative))
        replace(p, p->at, p->at, "e0");
}

/* Infinity, -Infinity or NaN, with the sign before p->at. */
static void pass_word(struct pass *p)
{
    bool negative = p->at && p->text[p->at - 1] == '-';

    if (starts_with(p, p->at, "Infinity")) {
        replace(p, p->at - negative, p->at + 8,
                negative ? "{\"__float__\":\"-Infinity\"}" : "{\"__float__\":\"Infinity\"}");
        p->at += 8;
    } else if (starts_with(p, p->at, "NaN") && !negative) {
        replace(p, p->at, p->at + 3, "{\"__float__\":\"NaN\"}");
        p->at += 3;
    } else {
        p->at++;
    }
}

static int pass_text(struct pass *p, int max_depth, const char *name, clm_error *err)
{
    while (p->at < p->size) {
        char c = p->text[p->at];

        if (c == '"') {
            p->at++;
            pass_string(p);
        } else if (c >= '0' && c <= '9') {
            pass_number(p);
        } else if (c == 'I' || c == 'N') {
            pass_word(p);
        } else {
            p->depth += (c == '[' || c == '{') - (c == ']' || c == '}');
            if (p->depth > max_depth)
                return fail(err, CLM_ERR_FORMAT, "%s: byte %zu: JSON nested deeper than %d", name,
                            p->at, max_depth);
            p->at++;
        }
    }
    return 0;
}

int json_dialect_rewrite(struct json_dialect *d, const char *text, size_t size, int max_depth,
                         const char *name, clm_error *err)
{
    struct pass p = {.d = d, .text = text, .size = size};

    *d = (struct json_dialect){.text = text, .size = size};
    if (pass_text(&p, max_depth, name, err))
        return -1;
    if (d->copy.size || d->copy.failed) {
        strbuf_add(&d->copy, text + p.copied, size - p.copied);
        d->text = d->copy.data;
        d->size = d->copy.size;
    }
    if (d->copy.failed)
        return fail(err, CLM_ERR_NOMEM, "%s: no memory for a copy of %zu bytes", name, size);
    return 0;
}
