/* tokenizer/byte_level.h: the printable characters that GPT-2 writes bytes with. */
#ifndef TOKENIZER_BYTE_LEVEL_H
#define TOKENIZER_BYTE_LEVEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

/* The printable bytes of Latin-1 stand for themselves, the 68 others for U+0100 and on, in order.
 */
int32_t byte_level_char(unsigned char byte);
int byte_level_byte(int32_t c); /* -1: not in the alphabet */

/* Append the characters of n bytes. */
void byte_level_write(struct strbuf *out, const char *bytes, size_t n);
/* Write the bytes that the characters of s stand for to out[0..n); their number, or -1 where one is
 * not in the alphabet. */
ptrdiff_t byte_level_read(const char *s, size_t n, char *out);

#endif
