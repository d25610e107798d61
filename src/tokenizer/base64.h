/* tokenizer/base64.h: bytes as text, RFC 4648, with padding. */
#ifndef TOKENIZER_BASE64_H
#define TOKENIZER_BASE64_H

#include <stddef.h>

#include "base/strbuf.h"

/* out has room for n / 4 * 3 bytes; their number, or -1 where s[0..n) is not base64. */
ptrdiff_t base64_read(const char *s, size_t n, unsigned char *out);
void base64_write(struct strbuf *out, const char *bytes, size_t n);

#endif
