/* tokenizer/punctuation.c: today's categories, but for what has changed since. */
#include "tokenizer/punctuation.h"

#include <string.h>

#include "base/memory.h"
#include "tokenizer/punctuation_table.h"
#include "tokenizer/unicode.h"

static bool changed(const struct change_range *runs, size_t n, int32_t c)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (c > runs[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && c >= runs[low].first;
}

bool punctuation_is(int32_t c)
{
    if (c < 0x80)
        return (c > 0x20 && c < 0x30) || (c > 0x39 && c < 0x41) || (c > 0x5A && c < 0x61) ||
               (c > 0x7A && c < 0x7F);
    return (unicode_category(c)[0] == 'P') !=
           changed(punctuation_changes, COUNT(punctuation_changes), c);
}

bool nonspacing_mark_is(int32_t c)
{
    if (c < 0x300)
        return false;
    return !strcmp(unicode_category(c), "Mn") !=
           changed(nonspacing_changes, COUNT(nonspacing_changes), c);
}

bool combining_mark_is(int32_t c)
{
    if (c < 0x300)
        return false;
    return (unicode_category(c)[0] == 'M') !=
           changed(combining_changes, COUNT(combining_changes), c);
}

bool other_is(int32_t c)
{
    const char *category = unicode_category(c);
    bool now = category[0] == 'C' && category[1] != 'n' && category[1] != 's';

    return now != changed(other_changes, COUNT(other_changes), c);
}

bool combining_class_known(int32_t c)
{
    return !changed(unordered, COUNT(unordered), c);
}
