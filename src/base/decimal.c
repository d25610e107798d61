#include "base/decimal.h"

#include <locale.h>
#include <stdlib.h>

double decimal_parse(const char *s, size_t n)
{
    char text[DECIMAL_MAX + 8];
    const char *point = localeconv()->decimal_point;
    size_t used = 0;

    for (size_t i = 0; i < n && used < DECIMAL_MAX; i++) {
        if (s[i] == '.') {
            for (const char *p = point; *p && used < DECIMAL_MAX; p++)
                text[used++] = *p;
        } else {
            text[used++] = s[i];
        }
    }
    text[used] = '\0';
    return strtod(text, NULL);
}
