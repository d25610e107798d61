/* template/bigint.h: integers beyond 64 bits, as Python has them; at most BIGINT_MAX_DIGITS. */
#ifndef TEMPLATE_BIGINT_H
#define TEMPLATE_BIGINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/heap.h"

#define BIGINT_MAX_DIGITS 4300 /* Python too refuses to print more */
#define BIGINT_BASE 1000000000u

/* Limbs of nine decimal digits, lowest first; no zero limb on top; zero has none. */
struct bigint {
    bool negative;
    uint32_t size;
    uint32_t limbs[];
};

/* Digits of a base from 2 to 36, nothing else. False when the number needs more than 63 bits. */
bool bigint_small_from_text(const char *s, size_t n, int base, int64_t *out);

/* NULL when there is no memory or there are too many digits. */
const struct bigint *bigint_from_text(struct heap *h, const char *s, size_t n, int base);
const struct bigint *bigint_from_text_arena(arena *a, const char *s, size_t n, int base);
const struct bigint *bigint_from_int(struct heap *h, int64_t i);
const struct bigint *bigint_from_double(struct heap *h, double f); /* its whole part; f is finite */

/* The result when it fits 64 bits. */
bool bigint_to_int(const struct bigint *a, int64_t *out);
double bigint_to_double(const struct bigint *a); /* may be infinite */
/* Decimal text: at most 9 * size + 2 bytes with the NUL; returns the length. */
size_t bigint_to_text(const struct bigint *a, char *out);

int bigint_compare(const struct bigint *a, const struct bigint *b);
const struct bigint *bigint_add(struct heap *h, const struct bigint *a, const struct bigint *b);
const struct bigint *bigint_sub(struct heap *h, const struct bigint *a, const struct bigint *b);
const struct bigint *bigint_mul(struct heap *h, const struct bigint *a, const struct bigint *b);
/* Division towards minus infinity; b is not zero. Either result may be NULL: not wanted. */
int bigint_divmod(struct heap *h, const struct bigint *a, const struct bigint *b,
                  const struct bigint **quotient, const struct bigint **rest);

#endif
