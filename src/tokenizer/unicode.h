/* tokenizer/unicode.h: what kind of character it is, in the Unicode version tokenizers goes by
 * (16). */
#ifndef TOKENIZER_UNICODE_H
#define TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A run of code points with one category or script, both spelled as in a regular expression. */
struct unicode_range {
    int32_t first;
    int32_t last;
    char value[24];
};

/* Runs that have this category ("Lu"; "L" stands for all that begin with it) or script ("Han") in
 * Unicode 16 but not in 14, the version of the oldest PCRE2 in use. *i starts at 0; NULL: no more.
 */
const struct unicode_range *unicode_category_added(const char *category, size_t *i);
const struct unicode_range *unicode_script_added(const char *script, size_t *i);

enum char_bits {
    CHAR_LETTER = 1,
    CHAR_NUMBER = 2, /* Nd, Nl, No */
    CHAR_SPACE = 4,  /* White_Space */
    CHAR_MARK = 8,
    CHAR_UPPER = 16, /* Lu, Lt */
    CHAR_LOWER = 32, /* Ll */
    CHAR_PUNCTUATION = 64,
    CHAR_SYMBOL = 128
};

unsigned unicode_bits(int32_t c);

/* Whether s[0, n), well-formed UTF-8, begins with one of the ideographs U+4E00 to U+9F7F, three
 * bytes each: all are letters, and no normalization form changes them. */
static inline bool unicode_is_ideograph(const char *s, size_t n)
{
    unsigned lead = n < 3 ? 0 : (unsigned)(unsigned char)s[0] << 8 | (unsigned char)s[1];

    return lead >= 0xE4B8 && lead <= 0xE9BD;
}

bool unicode_is_space(int32_t c); /* White_Space */
/* \w of the Rust regex crate: Alphabetic, M, Nd, Pc, U+200C, U+200D. */
bool unicode_is_word(int32_t c);
/* Two-letter general category. */
const char *unicode_category(int32_t c);

/* unicode_bits of every character below U+10000, for loops that ask often. */
#define UNICODE_TABLE_SIZE 0x10000
void unicode_table_fill(uint8_t *table);

#endif
