#include "template/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/decimal.h"
#include "base/memory.h"
#include "template/characters.h"

#define MAX_PLAIN DECIMAL_MAX /* characters of a number that are looked at */

static bool is_digit(const char *s, const char *end)
{
    return s < end && *s >= '0' && *s <= '9';
}

/* Copies digits that may have single underscores between them. */
static const char *copy_digits(const char *s, const char *end, char *out, size_t *n)
{
    while (is_digit(s, end)) {
        out[(*n)++] = *s++;
        if (s < end && *s == '_' && is_digit(s + 1, end))
            s++;
    }
    return s;
}

static bool word_is(const char *s, const char *end, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(end - s) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((s[i] | 32) != word[i])
            return false;
    return true;
}

bool number_from_text(const char *s, size_t n, double *out)
{
    const char *end = s + n;
    char plain[MAX_PLAIN];
    size_t used = 0, mark;
    bool negative;

    s = character_skip_space(s, end);
    end = character_strip_end(s, end);
    if (end - s >= MAX_PLAIN - 2)
        return false;
    negative = s < end && *s == '-';
    if (s < end && (*s == '-' || *s == '+'))
        s++;
    if (word_is(s, end, "inf") || word_is(s, end, "infinity") || word_is(s, end, "nan")) {
        *out = (*s | 32) == 'n' ? (double)NAN : HUGE_VAL;
        *out = negative ? -*out : *out;
        return true;
    }
    s = copy_digits(s, end, plain, &used);
    mark = used;
    if (s < end && *s == '.') {
        plain[used++] = '.';
        s = copy_digits(s + 1, end, plain, &used);
        mark = used - 1;
    }
    if (!mark)
        return false;
    if (s < end && (*s | 32) == 'e') {
        plain[used++] = 'e';
        s++;
        if (s < end && (*s == '-' || *s == '+'))
            plain[used++] = *s++;
        if (!is_digit(s, end))
            return false;
        s = copy_digits(s, end, plain, &used);
    }
    if (s != end)
        return false;
    *out = decimal_parse(plain, used);
    *out = negative ? -*out : *out;
    return true;
}

void number_digits(double f, int n, char *digits, int *exponent)
{
    char text[840];
    size_t used = 0;
    char *s;

    snprintf(text, sizeof text, "%.*e", n - 1, fabs(f));
    for (s = text; *s && *s != 'e'; s++)
        if (*s >= '0' && *s <= '9') /* the decimal point may be any character */
            digits[used++] = *s;
    digits[used] = '\0';
    *exponent = *s ? atoi(s + 1) : 0;
}

/* The fewest of 15, 16 or 17 digits that read back as f; trailing zeros are cut. */
static void shortest_digits(double f, char *digits, int *exponent)
{
    char text[64];

    /* 15 digits are the least precision of a number; of the smallest ones it is less */
    for (int n = fabs(f) < 2.3e-308 ? 1 : 15; n <= 17; n++) {
        size_t size;

        number_digits(f, n, digits, exponent);
        size = (size_t)snprintf(text, sizeof text, "%c.%se%d", digits[0], digits + 1, *exponent);
        if (n == 17 || !(decimal_parse(text, size) != fabs(f)))
            break;
    }
    for (size_t n = strlen(digits); n > 1 && digits[n - 1] == '0'; n--)
        digits[n - 1] = '\0';
}

size_t number_repr(double f, char out[NUMBER_ROOM])
{
    char digits[32];
    int exponent, n, sign = signbit(f) ? 1 : 0;

    if (isnan(f))
        return (size_t)snprintf(out, NUMBER_ROOM, "nan");
    if (isinf(f))
        return (size_t)snprintf(out, NUMBER_ROOM, "%sinf", sign ? "-" : "");
    shortest_digits(f, digits, &exponent);
    n = (int)strlen(digits);
    if (exponent < -4 || exponent >= 16)
        return (size_t)snprintf(out, NUMBER_ROOM, "%s%c%s%se%c%02d", sign ? "-" : "", digits[0],
                                n > 1 ? "." : "", digits + 1, exponent < 0 ? '-' : '+',
                                abs(exponent));
    if (exponent < 0)
        return (size_t)snprintf(out, NUMBER_ROOM, "%s0.%.*s%s", sign ? "-" : "", -exponent - 1,
                                "0000", digits);
    if (n > exponent + 1)
        return (size_t)snprintf(out, NUMBER_ROOM, "%s%.*s.%s", sign ? "-" : "", exponent + 1,
                                digits, digits + exponent + 1);
    return (size_t)snprintf(out, NUMBER_ROOM, "%s%s%.*s.0", sign ? "-" : "", digits,
                            exponent + 1 - n, "0000000000000000");
}

double number_round(double f, int64_t places)
{
    char text[840];
    double scale, scaled;

    if (places > 323 || f == 0)
        return f;
    if (places < -308)
        return copysign(0.0, f);
    if (places >= 0) {
        int n = snprintf(text, sizeof text, "%.*f", (int)places, f);

        for (int i = 0; i < n; i++)
            if (text[i] != '-' && (text[i] < '0' || text[i] > '9'))
                text[i] = '.';
        return decimal_parse(text, (size_t)n);
    }
    scale = pow(10.0, (double)-places);
    scaled = nearbyint(f / scale); /* half to even */
    return scaled * scale;
}
