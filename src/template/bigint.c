#include "template/bigint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/decimal.h"
#include "template/number.h"

#define MAX_LIMBS (BIGINT_MAX_DIGITS / 9 + 1)

static struct bigint *new_bigint(struct heap *h, size_t size)
{
    struct bigint *b;

    if (size > MAX_LIMBS + 1)
        return NULL;
    b = heap_alloc(h, sizeof *b + size * sizeof b->limbs[0]);
    if (!b)
        return NULL;
    b->negative = false;
    b->size = (uint32_t)size;
    memset(b->limbs, 0, size * sizeof b->limbs[0]);
    return b;
}

static struct bigint *trim(struct bigint *b)
{
    while (b->size && !b->limbs[b->size - 1])
        b->size--;
    if (!b->size)
        b->negative = false;
    return b->size > MAX_LIMBS ? NULL : b;
}

bool bigint_small_from_text(const char *s, size_t n, int base, int64_t *out)
{
    int64_t value = 0;

    for (size_t i = 0; i < n; i++)
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit_value(s[i]), &value))
            return false;
    *out = value;
    return true;
}

/* limbs * factor + add; the limbs used afterwards, or 0 when there would be too many. */
static uint32_t multiply_add(uint32_t *limbs, uint32_t size, uint32_t factor, uint32_t add)
{
    uint64_t carry = add;

    for (uint32_t i = 0; i < size; i++) {
        carry += (uint64_t)limbs[i] * factor;
        limbs[i] = (uint32_t)(carry % BIGINT_BASE);
        carry /= BIGINT_BASE;
    }
    if (carry) {
        if (size == MAX_LIMBS)
            return UINT32_MAX;
        limbs[size++] = (uint32_t)carry;
    }
    return size;
}

static uint32_t read_digits(uint32_t *limbs, const char *s, size_t n, int base)
{
    uint32_t size = 0;

    if (n > 20000) /* more binary digits than the decimal ones allow */
        return UINT32_MAX;
    for (size_t i = 0; i < n && size != UINT32_MAX; i++)
        size = multiply_add(limbs, size, (uint32_t)base, (uint32_t)digit_value(s[i]));
    return size;
}

const struct bigint *bigint_from_text(struct heap *h, const char *s, size_t n, int base)
{
    uint32_t limbs[MAX_LIMBS];
    uint32_t size = read_digits(limbs, s, n, base);
    struct bigint *b = size == UINT32_MAX ? NULL : new_bigint(h, size);

    if (b && size)
        memcpy(b->limbs, limbs, size * sizeof limbs[0]);
    return b;
}

const struct bigint *bigint_from_text_arena(arena *a, const char *s, size_t n, int base)
{
    uint32_t limbs[MAX_LIMBS];
    uint32_t size = read_digits(limbs, s, n, base);
    struct bigint *b =
        size == UINT32_MAX ? NULL : arena_zeroed(a, 1, sizeof *b + size * sizeof limbs[0]);

    if (b) {
        b->size = size;
        if (size)
            memcpy(b->limbs, limbs, size * sizeof limbs[0]);
    }
    return b;
}

const struct bigint *bigint_from_int(struct heap *h, int64_t i)
{
    uint64_t rest = i < 0 ? -(uint64_t)i : (uint64_t)i;
    struct bigint *b = new_bigint(h, 3);

    if (!b)
        return NULL;
    for (int at = 0; at < 3; at++) {
        b->limbs[at] = (uint32_t)(rest % BIGINT_BASE);
        rest /= BIGINT_BASE;
    }
    b->negative = i < 0;
    return trim(b);
}

const struct bigint *bigint_from_double(struct heap *h, double f)
{
    char text[400];
    int n = snprintf(text, sizeof text, "%.0f", trunc(fabs(f)));
    struct bigint *b = (struct bigint *)bigint_from_text(h, text, (size_t)n, 10);

    if (b && b->size)
        b->negative = f < 0;
    return b;
}

bool bigint_to_int(const struct bigint *a, int64_t *out)
{
    uint64_t value = 0;

    for (uint32_t i = a->size; i-- > 0;)
        if (__builtin_mul_overflow(value, BIGINT_BASE, &value) ||
            __builtin_add_overflow(value, a->limbs[i], &value))
            return false;
    if (value > (uint64_t)INT64_MAX + a->negative)
        return false;
    *out = a->negative ? (int64_t)-value : (int64_t)value;
    return true;
}

size_t bigint_to_text(const struct bigint *a, char *out)
{
    char *at = out;

    if (!a->size) {
        memcpy(out, "0", 2);
        return 1;
    }
    if (a->negative)
        *at++ = '-';
    at += snprintf(at, 11, "%u", a->limbs[a->size - 1]);
    for (uint32_t i = a->size - 1; i-- > 0;)
        at += snprintf(at, 11, "%09u", a->limbs[i]);
    return (size_t)(at - out);
}

double bigint_to_double(const struct bigint *a)
{
    char text[9 * (MAX_LIMBS + 2)];
    size_t n = bigint_to_text(a, text);

    if (n > 320)
        return a->negative ? -HUGE_VAL : HUGE_VAL;
    return decimal_parse(text, n);
}

static int compare_sizes(const struct bigint *a, const struct bigint *b)
{
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    for (uint32_t i = a->size; i-- > 0;)
        if (a->limbs[i] != b->limbs[i])
            return a->limbs[i] < b->limbs[i] ? -1 : 1;
    return 0;
}

int bigint_compare(const struct bigint *a, const struct bigint *b)
{
    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    return a->negative ? compare_sizes(b, a) : compare_sizes(a, b);
}

/* |a| + |b|. */
static struct bigint *add_sizes(struct heap *h, const struct bigint *a, const struct bigint *b)
{
    uint32_t size = (a->size > b->size ? a->size : b->size) + 1;
    struct bigint *sum = new_bigint(h, size);
    uint32_t carry = 0;

    for (uint32_t i = 0; sum && i < size; i++) {
        carry += (i < a->size ? a->limbs[i] : 0) + (i < b->size ? b->limbs[i] : 0);
        sum->limbs[i] = carry % BIGINT_BASE;
        carry /= BIGINT_BASE;
    }
    return sum;
}

/* |a| - |b|, where |a| >= |b|. */
static struct bigint *sub_sizes(struct heap *h, const struct bigint *a, const struct bigint *b)
{
    struct bigint *rest = new_bigint(h, a->size);
    uint32_t borrow = 0;

    for (uint32_t i = 0; rest && i < a->size; i++) {
        uint32_t take = (i < b->size ? b->limbs[i] : 0) + borrow;

        borrow = a->limbs[i] < take;
        rest->limbs[i] = a->limbs[i] + (borrow ? BIGINT_BASE : 0) - take;
    }
    return rest;
}

static const struct bigint *combine(struct heap *h, const struct bigint *a, const struct bigint *b,
                                    bool negative_b)
{
    bool larger = compare_sizes(a, b) >= 0;
    struct bigint *r;

    if (a->negative == negative_b)
        r = add_sizes(h, a, b);
    else
        r = larger ? sub_sizes(h, a, b) : sub_sizes(h, b, a);
    if (!r)
        return NULL;
    r->negative = larger ? a->negative : negative_b;
    return trim(r);
}

const struct bigint *bigint_add(struct heap *h, const struct bigint *a, const struct bigint *b)
{
    return combine(h, a, b, b->negative);
}

const struct bigint *bigint_sub(struct heap *h, const struct bigint *a, const struct bigint *b)
{
    return combine(h, a, b, !b->negative);
}

const struct bigint *bigint_mul(struct heap *h, const struct bigint *a, const struct bigint *b)
{
    struct bigint *r = new_bigint(h, (size_t)a->size + b->size);

    if (!r)
        return NULL;
    for (uint32_t i = 0; i < a->size; i++) {
        uint64_t carry = 0;

        for (uint32_t j = 0; j < b->size; j++) {
            carry += (uint64_t)a->limbs[i] * b->limbs[j] + r->limbs[i + j];
            r->limbs[i + j] = (uint32_t)(carry % BIGINT_BASE);
            carry /= BIGINT_BASE;
        }
        r->limbs[i + b->size] = (uint32_t)carry;
    }
    r->negative = a->negative != b->negative;
    return trim(r);
}

/* rest -= b * factor at limbs [0, n] of rest; true when it went below zero. */
static bool subtract_multiple(uint32_t *rest, const struct bigint *b, uint32_t factor)
{
    int64_t carry = 0;

    for (uint32_t i = 0; i <= b->size; i++) {
        int64_t product = i < b->size ? (int64_t)b->limbs[i] * factor : 0;

        carry += (int64_t)rest[i] - product;
        rest[i] = (uint32_t)(((carry % (int64_t)BIGINT_BASE) + BIGINT_BASE) % BIGINT_BASE);
        carry = (carry - rest[i]) / (int64_t)BIGINT_BASE;
    }
    return carry < 0;
}

/* rest += b; true when that made up for what was taken too much. */
static bool add_back(uint32_t *rest, const struct bigint *b)
{
    uint32_t carry = 0;

    for (uint32_t i = 0; i <= b->size; i++) {
        carry += rest[i] + (i < b->size ? b->limbs[i] : 0);
        rest[i] = carry % BIGINT_BASE;
        carry /= BIGINT_BASE;
    }
    return carry;
}

/* One digit of the quotient: from the top limbs as floats, then set right. */
static uint32_t quotient_digit(uint32_t *rest, const struct bigint *b)
{
    uint32_t n = b->size;
    long double base = BIGINT_BASE;
    long double top =
        ((long double)rest[n] * base + rest[n - 1]) * base + (n > 1 ? rest[n - 2] : 0);
    long double divisor = (long double)b->limbs[n - 1] * base + (n > 1 ? b->limbs[n - 2] : 0);
    long double guess = top / divisor;
    uint32_t q = guess >= base ? BIGINT_BASE - 1 : (uint32_t)guess;

    if (q && q < BIGINT_BASE - 1)
        q++; /* rounding may have made the guess too small; too large is set right below */
    if (subtract_multiple(rest, b, q))
        do
            q--;
        while (!add_back(rest, b));
    return q;
}

/* |a| / |b| and |a| % |b|, schoolbook. */
static int divide_sizes(struct heap *h, const struct bigint *a, const struct bigint *b,
                        struct bigint **quotient, struct bigint **rest)
{
    struct bigint *q = new_bigint(h, a->size >= b->size ? a->size - b->size + 1 : 0);
    struct bigint *r = new_bigint(h, (size_t)a->size + 1);

    if (!q || !r)
        return -1;
    memcpy(r->limbs, a->limbs, a->size * sizeof a->limbs[0]);
    for (uint32_t i = q->size; i-- > 0;)
        q->limbs[i] = quotient_digit(r->limbs + i, b);
    *quotient = trim(q);
    *rest = trim(r);
    return *quotient && *rest ? 0 : -1;
}

int bigint_divmod(struct heap *h, const struct bigint *a, const struct bigint *b,
                  const struct bigint **quotient, const struct bigint **rest)
{
    struct bigint *q = NULL, *r = NULL;
    const struct bigint *one = bigint_from_int(h, 1);
    bool opposite = a->negative != b->negative;

    if (!one || divide_sizes(h, a, b, &q, &r))
        return -1;
    q->negative = opposite && q->size;
    r->negative = a->negative && r->size;
    *quotient = q;
    *rest = r;
    if (opposite && r->size) {
        *quotient = bigint_sub(h, q, one);
        *rest = bigint_add(h, r, b);
    }
    return *quotient && *rest ? 0 : -1;
}
