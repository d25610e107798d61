/* tokenizer/bulk.c: finding two members of a JSON text, and reading what they hold. */
#include "tokenizer/bulk.h"

#include <string.h>

#include "base/utf8.h"

/* Finding. All of these return NULL where the text is not as expected. */

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* Behind the closing quote of the string that begins at p. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        const char *quote = memchr(p, '"', (size_t)(end - p)), *escape = quote;

        if (!quote)
            return NULL;
        while (escape > p && escape[-1] == '\\')
            escape--;
        if ((quote - escape) % 2 == 0)
            return quote + 1;
        p = quote;
    }
    return NULL;
}

static const char *skip_value(const char *p, const char *end)
{
    size_t depth = 0;

    while (p < end) {
        char c = *p;

        if (c == '"') {
            p = skip_string(p, end);
            if (!p)
                return NULL;
            if (!depth)
                return p;
            continue;
        }
        if (c == '{' || c == '[')
            depth++;
        if ((c == '}' || c == ']') && depth && --depth == 0)
            return p + 1;
        if (!depth && (c == ',' || c == '}' || c == ']'))
            return p;
        p++;
    }
    return NULL;
}

/* The value of a key in the object that begins at p. */
static struct span find_member(const char *p, const char *end, const char *key)
{
    const struct span none = {0};
    size_t n = strlen(key);

    p = skip_space(p, end);
    if (p == end || *p != '{')
        return none;
    for (p++; (p = skip_space(p, end)) < end && *p == '"';) {
        const char *name = p + 1, *value;
        bool same;

        p = skip_string(p, end);
        if (!p)
            return none;
        same = (size_t)(p - 1 - name) == n && !memcmp(name, key, n);
        p = skip_space(p, end);
        if (p == end || *p != ':')
            return none;
        value = skip_space(p + 1, end);
        p = skip_value(value, end);
        if (!p)
            return none;
        if (same)
            return (struct span){value, (size_t)(p - value)};
        p = skip_space(p, end);
        if (p < end && *p == ',')
            p++;
    }
    return none;
}

int bulk_split(struct bulk *b, const char *text, size_t n, const char *name, clm_error *err)
{
    struct span model = find_member(text, text + n, "model"), first, second;
    const char *at = text;

    *b = (struct bulk){0};
    if (model.s) {
        b->vocab = find_member(model.s, model.s + model.n, "vocab");
        b->merges = find_member(model.s, model.s + model.n, "merges");
    }
    if (b->vocab.s && *b->vocab.s != '{')
        b->vocab = (struct span){0};
    if (b->merges.s && *b->merges.s != '[')
        b->merges = (struct span){0};
    first = b->vocab;
    second = b->merges;
    if (second.s && (!first.s || second.s < first.s)) {
        first = b->merges;
        second = b->vocab;
    }
    for (int i = 0; i < 2; i++) {
        struct span *value = i ? &second : &first;

        if (!value->s)
            continue;
        strbuf_add(&b->rest, at, (size_t)(value->s - at));
        strbuf_add_str(&b->rest, *value->s == '{' ? "{}" : "[]");
        at = value->s + value->n;
    }
    strbuf_add(&b->rest, at, (size_t)(text + n - at));
    return b->rest.failed ? fail(err, CLM_ERR_NOMEM, "%s: no memory for %zu bytes", name, n) : 0;
}

void bulk_release(struct bulk *b)
{
    strbuf_release(&b->rest);
}

/* Reading. */

struct bulk_reader bulk_start(struct span value, struct reader *r)
{
    return (struct bulk_reader){.at = value.s + 1, .end = value.s + value.n, .r = r};
}

void bulk_reader_release(struct bulk_reader *b)
{
    strbuf_release(&b->text[0]);
    strbuf_release(&b->text[1]);
}

static int bad_json(struct bulk_reader *b)
{
    return fail(b->r->err, CLM_ERR_FORMAT, "%s: model: bad JSON at \"%.*s\"", b->r->name,
                (int)(b->end - b->at < 30 ? b->end - b->at : 30), b->at);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits behind \u; -1 where there are none. */
static int32_t read_hex4(const char *p, const char *end)
{
    int32_t c = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(p[i]);

        if (digit < 0)
            return -1;
        c = c << 4 | digit;
    }
    return c;
}

/* One escape, p behind the backslash; the place behind it, or NULL. */
static const char *read_escape(const char *p, const char *end, struct strbuf *out)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *known = p < end && *p ? strchr(letters, *p) : NULL;
    char text[UTF8_MAX];
    int32_t c, low;

    if (known) {
        strbuf_add_char(out, values[known - letters]);
        return p + 1;
    }
    if (p >= end || *p != 'u' || (c = read_hex4(p + 1, end)) < 0)
        return NULL;
    p += 5;
    if (c >= 0xDC00 && c < 0xE000)
        return NULL;
    if (c >= 0xD800 && c < 0xDC00) {
        if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
            return NULL;
        low = read_hex4(p + 2, end);
        if (low < 0xDC00 || low >= 0xE000)
            return NULL;
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        p += 6;
    }
    strbuf_add(out, text, utf8_encode(c, text));
    return p;
}

static int read_escaped(struct bulk_reader *b, const char *s, const char *end, struct strbuf *text,
                        struct span *out)
{
    strbuf_clear(text);
    while (s < end) {
        const char *escape = memchr(s, '\\', (size_t)(end - s));

        strbuf_add(text, s, (size_t)((escape ? escape : end) - s));
        s = escape ? read_escape(escape + 1, end, text) : end;
        if (!s)
            return bad_json(b);
    }
    *out = (struct span){text->data ? text->data : "", text->size};
    return text->failed ? no_memory(b->r) : 0;
}

static int read_text(struct bulk_reader *b, struct strbuf *text, struct span *out)
{
    const char *s = b->at + 1, *p = s;
    unsigned char high = 0;
    bool escaped = false;

    if (b->at >= b->end || *b->at != '"')
        return bad_json(b);
    for (; p < b->end && *p != '"'; p++) {
        if ((unsigned char)*p < 0x20)
            return bad_json(b);
        high |= (unsigned char)*p;
        if (*p == '\\') {
            escaped = true;
            p++;
        }
    }
    if (p >= b->end || (high >= 0x80 && !utf8_valid(s, (size_t)(p - s))))
        return bad_json(b);
    b->at = p + 1;
    if (escaped)
        return read_escaped(b, s, p, text, out);
    *out = (struct span){s, (size_t)(p - s)};
    return 0;
}

static void space(struct bulk_reader *b)
{
    b->at = skip_space(b->at, b->end);
}

static bool accept(struct bulk_reader *b, char c)
{
    space(b);
    if (b->at >= b->end || *b->at != c)
        return false;
    b->at++;
    space(b);
    return true;
}

/* To the next item: 1, 0 where the value ends, -1. */
static int next(struct bulk_reader *b, char closing)
{
    space(b);
    if (b->at + 1 == b->end && *b->at == closing)
        return 0;
    if (b->started && !accept(b, ','))
        return bad_json(b);
    b->started = true;
    return 1;
}

/* A whole number that fits; -1 for what is none. */
static int64_t read_number(struct bulk_reader *b)
{
    int64_t value = 0;
    const char *start = b->at;

    while (b->at < b->end && *b->at >= '0' && *b->at <= '9' && b->at - start < 18)
        value = value * 10 + (*b->at++ - '0');
    if (b->at == start || (*start == '0' && b->at - start > 1))
        return -1;
    if (b->at < b->end && *b->at != ',' && *b->at != '}' && *b->at != ' ' && *b->at != '\n' &&
        *b->at != '\r' && *b->at != '\t')
        return -1;
    return value;
}

int bulk_next_member(struct bulk_reader *b, struct span *key, int64_t *value)
{
    int rc = next(b, '}');

    if (rc <= 0)
        return rc;
    if (read_text(b, &b->text[0], key))
        return -1;
    if (!accept(b, ':'))
        return bad_json(b);
    *value = read_number(b);
    if (*value < 0)
        return fail(b->r->err, CLM_ERR_FORMAT, "%s: model: token \"%.*s\" has no id", b->r->name,
                    (int)(key->n < 80 ? key->n : 80), key->s);
    return 1;
}

int bulk_next_item(struct bulk_reader *b, struct span part[2], int *count)
{
    int rc = next(b, ']');

    *count = 1;
    if (rc <= 0)
        return rc;
    if (!accept(b, '['))
        return read_text(b, &b->text[0], &part[0]) ? -1 : 1;
    *count = 2;
    if (read_text(b, &b->text[0], &part[0]))
        return -1;
    if (!accept(b, ','))
        return bad_json(b);
    if (read_text(b, &b->text[1], &part[1]))
        return -1;
    return accept(b, ']') ? 1 : bad_json(b);
}
