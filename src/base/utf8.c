#include "base/utf8.h"

#include <string.h>

size_t utf8_length(unsigned char lead)
{
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF)
        return 3;
    if (lead >= 0xF0 && lead <= 0xF4)
        return 4;
    return 1;
}

static bool is_continuation(unsigned char b)
{
    return (b & 0xC0) == 0x80;
}

/* Whether b may follow the lead byte (Unicode 3.9, table 3-7): no overlong forms, no surrogates,
 * nothing above U+10FFFF. */
static bool second_byte_ok(unsigned char lead, unsigned char b)
{
    switch (lead) {
    case 0xE0:
        return b >= 0xA0 && b <= 0xBF;
    case 0xED:
        return b >= 0x80 && b <= 0x9F;
    case 0xF0:
        return b >= 0x90 && b <= 0xBF;
    case 0xF4:
        return b >= 0x80 && b <= 0x8F;
    default:
        return is_continuation(b);
    }
}

/* How many of the first bytes, at most length, belong to one well-formed character; 1 at least. */
static size_t well_formed_part(const unsigned char *s, size_t n, size_t length)
{
    size_t i = 1;

    if (length < 2 || n < 2 || !second_byte_ok(s[0], s[1]))
        return 1;
    while (++i < length && i < n && is_continuation(s[i]))
        ;
    return i;
}

size_t utf8_decode_any(const char *s, size_t n, int32_t *c)
{
    static const unsigned char lead_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    const unsigned char *b = (const unsigned char *)s;
    size_t length = utf8_length(b[0]);
    size_t part = well_formed_part(b, n, length);
    int32_t value = b[0] & lead_mask[length];

    if (part < length || (length == 1 && b[0] >= 0x80)) {
        *c = UTF8_REPLACEMENT;
        return part;
    }
    for (size_t i = 1; i < length; i++)
        value = value << 6 | (b[i] & 0x3F);
    *c = value;
    return length;
}

size_t utf8_encode(int32_t c, char *out)
{
    if (c < 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        c = UTF8_REPLACEMENT;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

size_t utf8_valid_part(const char *s, size_t n)
{
    const unsigned char *b = (const unsigned char *)s;
    size_t i = 0;

    while (i < n) {
        size_t length;

        if (b[i] < 0x80) {
            i += utf8_ascii_part(s + i, n - i);
        } else if (utf8_is_plain_three(b + i, n - i)) {
            i += 3;
        } else {
            length = utf8_length(b[i]);
            if (length == 1 || well_formed_part(b + i, n - i, length) < length)
                return i;
            i += length;
        }
    }
    return n;
}

bool utf8_valid(const char *s, size_t n)
{
    return utf8_valid_part(s, n) == n;
}

size_t utf8_incomplete_tail(const char *s, size_t n)
{
    const unsigned char *b = (const unsigned char *)s;

    for (size_t back = 1; back < UTF8_MAX && back <= n; back++) {
        const unsigned char *start = b + n - back;
        size_t length = utf8_length(*start);

        if (is_continuation(*start))
            continue;
        return back < length && well_formed_part(start, back, length) == back ? back : 0;
    }
    return 0;
}

void utf8_make_printable(char *s)
{
    size_t n = strlen(s);
    size_t i = 0;

    while (i < n) {
        int32_t c;
        size_t length = utf8_decode(s + i, n - i, &c);
        bool control = c < 0x20 || (c >= 0x7F && c < 0xA0); /* C0, DEL, C1 */

        if (control || !utf8_valid(s + i, length))
            memset(s + i, '?', length);
        i += length;
    }
}
