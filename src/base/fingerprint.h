/* base/fingerprint.h: 64 bits that tell contents apart which differ by chance, not on purpose. */
#ifndef BASE_FINGERPRINT_H
#define BASE_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

#define FINGERPRINT_SIZE 17 /* of the text, with the NUL */

/* Start from {0}. The same bytes cut in other pieces give another one. */
struct fingerprint {
    uint64_t bits;
};

void fingerprint_add(struct fingerprint *f, const void *data, size_t size);
void fingerprint_text(const struct fingerprint *f, char out[FINGERPRINT_SIZE]); /* hexadecimal */

#endif
