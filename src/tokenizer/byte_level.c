/* tokenizer/byte_level.c: bytes to characters and back. */
#include "tokenizer/byte_level.h"

#include <stdbool.h>

#include "base/utf8.h"

static bool is_printable(int32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD);
}

/* The unprintable bytes are 0x00-0x20, 0x7F-0xA0 and 0xAD. */
int32_t byte_level_char(unsigned char byte)
{
    if (is_printable(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + (byte - 0x7F);
}

int byte_level_byte(int32_t c)
{
    if (c < 0x100)
        return is_printable(c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c <= 0x142)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

void byte_level_write(struct strbuf *out, const char *bytes, size_t n)
{
    char block[512];
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        used += utf8_encode(byte_level_char((unsigned char)bytes[i]), block + used);
        if (used > sizeof block - UTF8_MAX) {
            strbuf_add(out, block, used);
            used = 0;
        }
    }
    strbuf_add(out, block, used);
}

ptrdiff_t byte_level_read(const char *s, size_t n, char *out)
{
    ptrdiff_t written = 0;

    for (size_t i = 0; i < n;) {
        unsigned char lead = (unsigned char)s[i];
        int32_t c = lead;
        int byte;

        if (lead < 0x80) {
            i++;
        } else if ((lead & 0xE0) == 0xC0 && i + 1 < n && (s[i + 1] & 0xC0) == 0x80) {
            c = (lead & 0x1F) << 6 | (s[i + 1] & 0x3F);
            i += 2;
        } else {
            return -1;
        }
        byte = byte_level_byte(c);
        if (byte < 0)
            return -1;
        out[written++] = (char)byte;
    }
    return written;
}
