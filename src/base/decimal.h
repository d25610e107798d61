/* base/decimal.h: numbers from decimal digits and to them, whatever the locale. */
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

/* As "%.17g", which reads back as the same number; f is finite. */
#define DECIMAL_ROOM 32
void decimal_write(char out[DECIMAL_ROOM], double f);

#endif
