/* base/utf8.h: UTF-8, byte by byte, with every input allowed. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define UTF8_REPLACEMENT 0xFFFD
#define UTF8_MAX 4

/* What utf8_decode does for other characters than ASCII and most ideographs. */
size_t utf8_decode_any(const char *s, size_t n, int32_t *c);

/* A character of three bytes whose first one forbids no second, U+1000 to U+CFFF. */
static inline bool utf8_is_plain_three(const unsigned char *s, size_t n)
{
    return n >= 3 && s[0] - 0xE1u <= 0xEC - 0xE1 && ((s[1] ^ 0x80) | (s[2] ^ 0x80)) < 0x40;
}

/**
 * Decode the character at s[0..n), n >= 1, into *c and return its length in bytes. An invalid or
 * cut sequence gives UTF8_REPLACEMENT and the length of its maximal invalid part (Unicode 3.9,
 * table 3-8: what a decoder replaces by one U+FFFD), at least 1.
 */
static inline size_t utf8_decode(const char *s, size_t n, int32_t *c)
{
    const unsigned char *u = (const unsigned char *)s;

    if (u[0] < 0x80) {
        *c = u[0];
        return 1;
    }
    if (utf8_is_plain_three(u, n)) {
        *c = (u[0] & 0x0F) << 12 | (u[1] & 0x3F) << 6 | (u[2] & 0x3F);
        return 3;
    }
    return utf8_decode_any(s, n, c);
}

/* Writes c (a scalar value; others become U+FFFD) to out[0..4) and returns the length. */
size_t utf8_encode(int32_t c, char *out);

bool utf8_valid(const char *s, size_t n);

/* The bytes that are well-formed at the beginning of s: n where all are. */
size_t utf8_valid_part(const char *s, size_t n);

/* The bytes of ASCII at the beginning of s. */
static inline size_t utf8_ascii_part(const char *s, size_t n)
{
    size_t i = 0;
    uint64_t w;

    for (; n - i >= sizeof w; i += sizeof w) {
        memcpy(&w, s + i, sizeof w);
        if (w & UINT64_MAX / 255 * 0x80)
            break;
    }
    while (i < n && (unsigned char)s[i] < 0x80)
        i++;
    return i;
}

/* Bytes at the end of s that begin a character which is not complete yet: 0 to 3. */
size_t utf8_incomplete_tail(const char *s, size_t n);

/* The length a lead byte announces: 1 to 4; 1 for a byte that cannot lead. */
size_t utf8_length(unsigned char lead);

/* Makes s safe to show on one line: bytes of control characters and of invalid UTF-8 become '?'. */
void utf8_make_printable(char *s);

#endif
