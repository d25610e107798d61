#include "template/lex_string.h"

#include <stdio.h>

#include "base/utf8.h"
#include "template/number.h"

/* Reads up to max digits of the base; how many there were. */
static size_t read_digits(const char *s, const char *end, size_t max, int base, int32_t *value)
{
    size_t n = 0;

    *value = 0;
    while (n < max && s + n < end && digit_value(s[n]) < base) {
        *value = *value * base + digit_value(s[n]);
        n++;
    }
    return n;
}

/* \xHH, \uHHHH, \UHHHHHHHH: bytes taken after the letter, 0 on error. */
static size_t hex_escape(const char *s, const char *end, size_t want, int32_t *c,
                         const char **problem)
{
    if (read_digits(s, end, want, 16, c) < want) {
        *problem = want == 2   ? "truncated \\xXX escape"
                   : want == 4 ? "truncated \\uXXXX escape"
                               : "truncated \\UXXXXXXXX escape";
        return 0;
    }
    if (*c < 0 || *c > 0x10FFFF)
        *problem = "illegal Unicode character";
    else if (*c >= 0xD800 && *c <= 0xDFFF)
        *problem = "a surrogate cannot be written: give the character itself";
    return *problem ? 0 : want;
}

static int simple_escape(char c)
{
    switch (c) {
    case '\\':
    case '\'':
    case '"':
        return c;
    case 'a':
        return '\a';
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'v':
        return '\v';
    default:
        return -1;
    }
}

/* A backslash before a character beyond ASCII: Jinja has by then written the character as an
 * escape of its own, so the backslash stands for itself and the escape's letters stay. */
static size_t spelled_out(int32_t c, char *out)
{
    return (size_t)snprintf(out, 12,
                            c < 0x100     ? "\\x%02x"
                            : c < 0x10000 ? "\\u%04x"
                                          : "\\U%08x",
                            (unsigned)c);
}

/* One escape, s after the backslash: bytes taken, 0 on error; what it stands for goes to out. */
static size_t escape(const char *s, const char *end, char *out, size_t *n_out, const char **problem)
{
    int simple = simple_escape(*s);
    size_t taken;
    int32_t c;

    *n_out = 0;
    if (simple >= 0) {
        out[(*n_out)++] = (char)simple;
        return 1;
    }
    if (*s == '\n')
        return 1;
    if (*s >= '0' && *s <= '7') {
        taken = read_digits(s, end, 3, 8, &c);
        *n_out = utf8_encode(c, out);
        return taken;
    }
    if (*s == 'x' || *s == 'u' || *s == 'U') {
        taken = hex_escape(s + 1, end, *s == 'x' ? 2 : *s == 'u' ? 4 : 8, &c, problem);
        *n_out = utf8_encode(c, out);
        return taken ? taken + 1 : 0;
    }
    if (*s == 'N') {
        *problem = "\\N{...} is not supported: give the character itself";
        return 0;
    }
    taken = utf8_decode(s, (size_t)(end - s), &c);
    if (c >= 0x80) {
        *n_out = spelled_out(c, out);
    } else {
        out[(*n_out)++] = '\\';
        out[(*n_out)++] = *s;
    }
    return taken;
}

int lex_unescape(arena *a, const char *s, size_t size, struct value *out, const char **problem)
{
    const char *end = s + size;
    char *text;
    size_t n = 0;

    if (!memchr(s, '\\', size)) {
        *out = value_string(s, size);
        return 0;
    }
    text = arena_array(a, char, 6 * size + 1); /* "\" and two bytes can become "\x80" */
    if (!text)
        return -1;
    while (s < end) {
        size_t taken, made;

        if (*s != '\\') {
            text[n++] = *s++;
            continue;
        }
        if (++s == end) {
            *problem = "\\ at end of string";
            return -1;
        }
        taken = escape(s, end, text + n, &made, problem);
        if (!taken)
            return -1;
        s += taken;
        n += made;
    }
    *out = value_string(text, n);
    return 0;
}
