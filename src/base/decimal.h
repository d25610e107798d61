/* base/decimal.h: the number that decimal digits stand for, whatever the locale. */
#ifndef BASE_DECIMAL_H
#define BASE_DECIMAL_H

#include <stddef.h>

#define DECIMAL_MAX 1024

/**
 * A plain decimal, s[0, n): [sign] digits [. digits] [e exponent]; what follows is ignored. The
 * nearest double, ties to even; infinity beyond the largest. Of a number of more than DECIMAL_MAX
 * characters the rest is not seen.
 */
double decimal_parse(const char *s, size_t n);

#endif
