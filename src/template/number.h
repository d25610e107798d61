/* template/number.h: floats as Python reads and writes them, whatever the locale. */
#ifndef TEMPLATE_NUMBER_H
#define TEMPLATE_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NUMBER_ROOM 400 /* for any of the texts below with up to 17 digits */

/* The value of a digit or letter, 0 to 35; 99 for any other character. */
static inline int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 32) >= 'a' && (c | 32) <= 'z')
        return (c | 32) - 'a' + 10;
    return 99;
}

/* float(text): white space, a sign, underscores, inf and nan are allowed. False: ValueError. */
bool number_from_text(const char *s, size_t n, double *out);

/* repr(float): the shortest digits that give the same number. Returns the length. */
size_t number_repr(double f, char out[NUMBER_ROOM]);

/* The decimal digits of |f|, rounded half to even to n significant ones (1 to 17 make sense, 800
 * is the most), and the exponent of ten of the first. f is finite. */
void number_digits(double f, int n, char *digits, int *exponent);

/* round(f, places) for finite f. */
double number_round(double f, int64_t places);

#endif
