#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"

/* Makes room for n more bytes and the NUL. */
static bool reserve(struct strbuf *b, size_t n)
{
    size_t need, capacity;
    char *data;

    if (b->failed)
        return false;
    if (!size_add(b->size, n, &need) || !size_add(need, 1, &need))
        goto failed;
    if (need <= b->capacity)
        return true;
    capacity = b->capacity < 32 ? 64 : b->capacity;
    while (capacity < need)
        if (!size_mul(capacity, 2, &capacity))
            capacity = need;
    data = mem_resize(b->data, capacity);
    if (!data)
        goto failed;
    data[b->size] = '\0';
    b->data = data;
    b->capacity = capacity;
    return true;

failed:
    b->failed = true;
    return false;
}

void strbuf_add(struct strbuf *b, const char *s, size_t n)
{
    if (!reserve(b, n))
        return;
    if (n)
        memcpy(b->data + b->size, s, n);
    b->size += n;
    b->data[b->size] = '\0';
}

void strbuf_add_str(struct strbuf *b, const char *s)
{
    strbuf_add(b, s, strlen(s));
}

void strbuf_add_char(struct strbuf *b, char c)
{
    strbuf_add(b, &c, 1);
}

void strbuf_addf(struct strbuf *b, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        b->failed = true;
        return;
    }
    if (!reserve(b, (size_t)n))
        return;
    va_start(args, format);
    vsnprintf(b->data + b->size, (size_t)n + 1, format, args);
    va_end(args);
    b->size += (size_t)n;
}

void strbuf_clear(struct strbuf *b)
{
    b->size = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

void strbuf_release(struct strbuf *b)
{
    mem_free(b->data);
    *b = (struct strbuf){0};
}

/* Unicode's own line ends: JSON allows them in a string, readers of lines would cut there. */
static bool ends_line(int32_t c)
{
    return c == 0x85 || c == 0x2028 || c == 0x2029;
}

/* How JSON writes a character that cannot stand for itself, else NULL. */
static const char *json_escape(int32_t c, char unicode[static 7])
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        break;
    }
    if (c >= 0x20 && !ends_line(c))
        return NULL;
    snprintf(unicode, 7, "\\u%04x", (unsigned)c & 0xFFFF);
    return unicode;
}

void strbuf_add_json(struct strbuf *b, const char *s, size_t n)
{
    char unicode[7], replacement[UTF8_MAX];
    size_t begin = 0, i = 0; /* s[begin, i) is copied as it stands */

    strbuf_add_char(b, '"');
    while (i < n) {
        int32_t c;
        size_t length = utf8_decode(s + i, n - i, &c);
        const char *escape = json_escape(c, unicode);

        if (escape) {
            strbuf_add(b, s + begin, i - begin);
            strbuf_add_str(b, escape);
        } else if (c == UTF8_REPLACEMENT) {
            strbuf_add(b, s + begin, i - begin);
            strbuf_add(b, replacement, utf8_encode(UTF8_REPLACEMENT, replacement));
        }
        i += length;
        if (escape || c == UTF8_REPLACEMENT)
            begin = i;
    }
    strbuf_add(b, s + begin, n - begin);
    strbuf_add_char(b, '"');
}
