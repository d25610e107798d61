#include "template/characters.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

static bool in_ranges(const struct character_range *ranges, size_t n, int32_t c)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (c > ranges[middle].last)
            low = middle + 1;
        else if (c < ranges[middle].first)
            high = middle;
        else
            return true;
    }
    return false;
}

static const struct character_special *find_special(const struct character_special *table, size_t n,
                                                    int32_t c)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (c > table[middle].c)
            low = middle + 1;
        else if (c < table[middle].c)
            high = middle;
        else
            return &table[middle];
    }
    return NULL;
}

bool character_is_space(int32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool character_is_line_end(int32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

bool character_is_alpha(int32_t c)
{
    utf8proc_category_t category;

    if (c < 0x80)
        return (c | 32) >= 'a' && (c | 32) <= 'z';
    category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool character_is_mark(int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);

    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
           category == UTF8PROC_CATEGORY_PC;
}

bool character_is_decimal(int32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

bool character_is_digit(int32_t c)
{
    return character_is_decimal(c) ||
           (c >= 0x80 && in_ranges(character_digits, n_character_digits, c));
}

bool character_is_numeric(int32_t c)
{
    return character_is_digit(c) ||
           (c >= 0x80 && in_ranges(character_numerics, n_character_numerics, c));
}

bool character_is_alnum(int32_t c)
{
    return character_is_alpha(c) || character_is_numeric(c);
}

bool character_is_lower(int32_t c)
{
    if (c < 0x80)
        return c >= 'a' && c <= 'z';
    return utf8proc_category(c) == UTF8PROC_CATEGORY_LL ||
           in_ranges(character_other_lower, n_character_other_lower, c);
}

bool character_is_upper(int32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z';
    return utf8proc_category(c) == UTF8PROC_CATEGORY_LU ||
           in_ranges(character_other_upper, n_character_other_upper, c);
}

bool character_is_title(int32_t c)
{
    return c >= 0x80 && utf8proc_category(c) == UTF8PROC_CATEGORY_LT;
}

bool character_is_printable(int32_t c)
{
    if (c < 0x80)
        return c >= 0x20 && c < 0x7F;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    default:
        return true;
    }
}

static int special(const struct character_special *table, size_t n, int32_t c, int32_t out[3])
{
    const struct character_special *s = c < 0x80 ? NULL : find_special(table, n, c);
    int used = 0;

    while (s && used < 3 && s->to[used]) {
        out[used] = s->to[used];
        used++;
    }
    return used;
}

int character_upper(int32_t c, int32_t out[3])
{
    int n = special(character_special_upper, n_character_special_upper, c, out);

    if (n)
        return n;
    out[0] = c < 0x80 ? (c >= 'a' && c <= 'z' ? c - 32 : c) : utf8proc_toupper(c);
    return 1;
}

int character_lower(int32_t c, int32_t out[3])
{
    if (c == 0x130) { /* I with a dot above: i and the dot */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = c < 0x80 ? (c >= 'A' && c <= 'Z' ? c + 32 : c) : utf8proc_tolower(c);
    return 1;
}

int character_title(int32_t c, int32_t out[3])
{
    int n = special(character_special_title, n_character_special_title, c, out);

    if (n)
        return n;
    out[0] = c < 0x80 ? (c >= 'a' && c <= 'z' ? c - 32 : c) : utf8proc_totitle(c);
    return 1;
}

int character_fold(int32_t c, int32_t out[3])
{
    int n = special(character_special_fold, n_character_special_fold, c, out);

    return n ? n : character_lower(c, out);
}

bool character_is_cased(int32_t c)
{
    return character_is_lower(c) || character_is_upper(c) || character_is_title(c);
}

bool character_is_case_ignorable(int32_t c)
{
    switch (c) { /* Word_Break MidLetter, MidNumLet, Single_Quote */
    case '\'':
    case '.':
    case ':':
    case 0xB7:
    case 0x387:
    case 0x55F:
    case 0x5F4:
    case 0x2018:
    case 0x2019:
    case 0x2024:
    case 0x2027:
    case 0xFE13:
    case 0xFE52:
    case 0xFE55:
    case 0xFF07:
    case 0xFF0E:
    case 0xFF1A:
        return true;
    default:
        break;
    }
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return false;
    }
}

const char *character_skip_space(const char *s, const char *end)
{
    while (s < end) {
        int32_t c;
        size_t n;

        if (*s > ' ' && *s < 0x7F)
            break;
        n = utf8_decode(s, (size_t)(end - s), &c);
        if (!character_is_space(c))
            break;
        s += n;
    }
    return s;
}

const char *character_strip_end(const char *s, const char *end)
{
    while (end > s) {
        const char *last = end - 1;
        int32_t c;

        if (*last > ' ' && *last < 0x7F)
            break;
        while (last > s && ((unsigned char)*last & 0xC0) == 0x80)
            last--;
        utf8_decode(last, (size_t)(end - last), &c);
        if (!character_is_space(c))
            break;
        end = last;
    }
    return end;
}

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xC0) != 0x80;
}

/* How many characters begin in the eight bytes: those that do not are 10xxxxxx. */
static size_t beginnings(const char *s)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t w;

    memcpy(&w, s, 8);
    return 8 - (size_t)((w >> 7 & ~(w >> 6) & ones) * ones >> 56);
}

size_t character_count(const char *s, size_t size)
{
    size_t n = 0, i = 0;

    for (; size - i >= 8; i += 8)
        n += beginnings(s + i);
    for (; i < size; i++)
        n += begins_character(s[i]);
    return n;
}

size_t character_offset(const char *s, size_t size, size_t n)
{
    size_t i = 0;

    for (size_t here; size - i >= 8; i += 8, n -= here) {
        here = beginnings(s + i);
        if (here > n)
            break;
    }
    for (; i < size; i++)
        if (begins_character(s[i]) && !n--)
            break;
    return i;
}
