/* tokenizer/unicode.c: utf8proc's categories, brought to Unicode 16. */
#include "tokenizer/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "tokenizer/unicode_additions.h"

static const struct unicode_range *find_added(int32_t c)
{
    size_t low = 0, high = COUNT(category_additions);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (c > category_additions[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < COUNT(category_additions) && c >= category_additions[low].first)
        return &category_additions[low];
    return NULL;
}

const char *unicode_category(int32_t c)
{
    const struct unicode_range *added = c >= 0x80 ? find_added(c) : NULL;

    return added ? added->value : utf8proc_category_string(c);
}

static const struct unicode_range *next_added(const struct unicode_range *table, size_t count,
                                              const char *value, bool prefix, size_t *i)
{
    for (; *i < count; ++*i) {
        const char *have = table[*i].value;

        if (prefix ? have[0] == value[0] : !strcmp(have, value))
            return &table[(*i)++];
    }
    return NULL;
}

const struct unicode_range *unicode_category_added(const char *category, size_t *i)
{
    return next_added(category_additions, COUNT(category_additions), category, !category[1], i);
}

const struct unicode_range *unicode_script_added(const char *script, size_t *i)
{
    return next_added(script_additions, COUNT(script_additions), script, false, i);
}

bool unicode_is_space(int32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13);
    if (c < 0x1680)
        return c == 0x85 || c == 0xA0;
    return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static unsigned category_bits(const char *category)
{
    switch (category[0]) {
    case 'L':
        if (category[1] == 'u' || category[1] == 't')
            return CHAR_LETTER | CHAR_UPPER;
        return category[1] == 'l' ? CHAR_LETTER | CHAR_LOWER : CHAR_LETTER;
    case 'N':
        return CHAR_NUMBER;
    case 'M':
        return CHAR_MARK;
    case 'P':
        return CHAR_PUNCTUATION;
    case 'S':
        return CHAR_SYMBOL;
    default:
        return 0;
    }
}

unsigned unicode_bits(int32_t c)
{
    return category_bits(unicode_category(c)) | (unicode_is_space(c) ? CHAR_SPACE : 0);
}

bool unicode_is_word(int32_t c)
{
    const char *category;

    if (c < 0x80)
        return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
    if (c == 0x200C || c == 0x200D)
        return true;
    /* Symbols that are Alphabetic: circled and squared letters. */
    if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
        (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189))
        return true;
    category = unicode_category(c);
    return category[0] == 'L' || category[0] == 'M' || !strcmp(category, "Nd") ||
           !strcmp(category, "Nl") || !strcmp(category, "Pc");
}

/* Three quarters of the table need not be looked up one by one. */
static const struct {
    int32_t first, last;
    uint8_t bits;
} blocks[] = {
    {0x3400, 0x4DBF, CHAR_LETTER}, /* ideographs */
    {0x4E00, 0x9FFF, CHAR_LETTER},
    {0xAC00, 0xD7A3, CHAR_LETTER}, /* syllables of Hangul */
    {0xD800, 0xF8FF, 0},           /* surrogates, private use */
};

void unicode_table_fill(uint8_t *table)
{
    size_t next = 0, block = 0;

    for (int32_t c = 0; c < UNICODE_TABLE_SIZE; c++) {
        if (block < COUNT(blocks) && c == blocks[block].first) {
            memset(table + c, blocks[block].bits, (size_t)(blocks[block].last + 1 - c));
            c = blocks[block++].last;
            continue;
        }
        table[c] = (uint8_t)(category_bits(utf8proc_category_string(c)) |
                             (unicode_is_space(c) ? CHAR_SPACE : 0));
    }
    for (; next < COUNT(category_additions) && category_additions[next].last < UNICODE_TABLE_SIZE;
         next++)
        for (int32_t c = category_additions[next].first; c <= category_additions[next].last; c++)
            table[c] = (uint8_t)category_bits(category_additions[next].value);
}
