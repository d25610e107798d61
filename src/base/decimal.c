#include "base/decimal.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void decimal_write(char out[DECIMAL_ROOM], double f)
{
    const char *point = localeconv()->decimal_point;
    size_t n = strlen(point);
    char *at;

    snprintf(out, DECIMAL_ROOM, "%.17g", f);
    at = strstr(out, point);
    if (!at || !n)
        return;
    *at = '.';
    memmove(at + 1, at + n, strlen(at + n) + 1);
}
