#include "base/fingerprint.h"

#include <stdio.h>

#include "base/number.h"

/* The finalizer of MurmurHash3: every bit of the word changes half of the result's. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCDu;
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53u;
    return x ^ x >> 33;
}

void fingerprint_add(struct fingerprint *f, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint64_t bits = mix(f->bits ^ (size + 0x9E3779B97F4A7C15u));
    size_t i = 0;

    for (; i + 8 <= size; i += 8)
        bits = mix(bits ^ load_le64(bytes + i));
    for (; i < size; i++)
        bits = mix(bits ^ bytes[i]);
    f->bits = bits;
}

void fingerprint_text(const struct fingerprint *f, char out[FINGERPRINT_SIZE])
{
    snprintf(out, FINGERPRINT_SIZE, "%016llx", (unsigned long long)f->bits);
}
