/* tokenizer/base64.c: reading and writing base64. */
#include "tokenizer/base64.h"

#include <stdint.h>

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

ptrdiff_t base64_read(const char *s, size_t n, unsigned char *out)
{
    size_t size = 0;

    if (n % 4)
        return -1;
    for (size_t i = 0; i < n; i += 4) {
        int bytes = i + 4 < n || s[i + 3] != '=' ? 3 : s[i + 2] != '=' ? 2 : 1;
        uint32_t group = 0;

        for (int k = 0; k < 4; k++) {
            int value = k <= bytes ? base64_value(s[i + (size_t)k]) : 0;

            if (value < 0)
                return -1;
            group = group << 6 | (uint32_t)value;
        }
        for (int k = 0; k < bytes; k++)
            out[size++] = (unsigned char)(group >> (16 - 8 * k));
    }
    return (ptrdiff_t)size;
}

void base64_write(struct strbuf *out, const char *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t group = (uint32_t)(unsigned char)bytes[i] << 16;

        group |= left > 1 ? (uint32_t)(unsigned char)bytes[i + 1] << 8 : 0;
        group |= left > 2 ? (uint32_t)(unsigned char)bytes[i + 2] : 0;
        strbuf_add_char(out, digits[group >> 18]);
        strbuf_add_char(out, digits[group >> 12 & 63]);
        strbuf_add_char(out, left > 1 ? digits[group >> 6 & 63] : '=');
        strbuf_add_char(out, left > 2 ? digits[group & 63] : '=');
    }
}
