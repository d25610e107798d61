#include "parse/text.h"

#include <utf8proc.h>

#include "base/utf8.h"

size_t span_find(struct span s, size_t from, struct span what)
{
    const char *found;

    if (from > s.size || what.size > s.size - from)
        return SIZE_MAX;
    found = memmem(s.at + from, s.size - from, what.at, what.size);
    return found ? (size_t)(found - s.at) : SIZE_MAX;
}

bool span_is_nocase(struct span s, const char *lower)
{
    if (strlen(lower) != s.size)
        return false;
    for (size_t i = 0; i < s.size; i++) {
        char c = s.at[i];

        if ((c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) != lower[i])
            return false;
    }
    return true;
}

static bool is_regex_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static bool is_space(int32_t c)
{
    return is_regex_space(c) || (c >= 0x1C && c <= 0x1F);
}

static bool is_word(int32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
               c == '_';
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

/* The character that ends s, which is not empty; its length is set. */
static int32_t last_character(struct span s, size_t *length)
{
    size_t back = 1;
    int32_t c;

    while (back < UTF8_MAX && back < s.size && (s.at[s.size - back] & 0xC0) == 0x80)
        back++;
    if (utf8_decode(s.at + s.size - back, back, &c) != back) {
        c = UTF8_REPLACEMENT;
        back = 1;
    }
    *length = back;
    return c;
}

size_t space_at_start(struct span s)
{
    size_t i = 0;
    int32_t c;

    while (i < s.size) {
        size_t length = utf8_decode(s.at + i, s.size - i, &c);

        if (!is_space(c))
            break;
        i += length;
    }
    return i;
}

size_t space_at_end(struct span s)
{
    size_t all = s.size, length;

    while (s.size && is_space(last_character(s, &length)))
        s.size -= length;
    return all - s.size;
}

struct span span_strip(struct span s)
{
    s = span_from(s, space_at_start(s));
    s.size -= space_at_end(s);
    return s;
}

size_t regex_space_at_start(struct span s)
{
    size_t i = 0;
    int32_t c;

    while (i < s.size) {
        size_t length = utf8_decode(s.at + i, s.size - i, &c);

        if (!is_regex_space(c))
            break;
        i += length;
    }
    return i;
}

size_t word_at_start(struct span s, char also)
{
    size_t i = 0;
    int32_t c;

    while (i < s.size) {
        size_t length = utf8_decode(s.at + i, s.size - i, &c);

        if (!is_word(c) && (also == '\0' || c != also))
            break;
        i += length;
    }
    return i;
}

size_t word_at_end(struct span s, char also)
{
    size_t all = s.size, length;

    while (s.size) {
        int32_t c = last_character(s, &length);

        if (!is_word(c) && (also == '\0' || c != also))
            break;
        s.size -= length;
    }
    return all - s.size;
}

size_t span_partial(struct span s, struct span text)
{
    size_t n = text.size ? text.size - 1 : 0;

    if (n > s.size)
        n = s.size;
    while (n && memcmp(s.at + s.size - n, text.at, n) != 0)
        n--;
    return n;
}
