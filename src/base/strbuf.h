/* base/strbuf.h: a string that grows. */
#ifndef BASE_STRBUF_H
#define BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

/* Start from {0}. data is NUL-terminated, or NULL while nothing was added. */
struct strbuf {
    char *data;
    size_t size; /* without the NUL */
    size_t capacity;
    bool failed; /* an allocation failed: adding does nothing since */
};

void strbuf_add(struct strbuf *b, const char *s, size_t n);
void strbuf_add_str(struct strbuf *b, const char *s);
void strbuf_add_char(struct strbuf *b, char c);
void strbuf_addf(struct strbuf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void strbuf_clear(struct strbuf *b);   /* keeps the memory */
void strbuf_release(struct strbuf *b); /* back to {0} */

/* The string as JSON would write it, with quotes, on one line whatever it holds; invalid UTF-8
 * becomes U+FFFD. */
void strbuf_add_json(struct strbuf *b, const char *s, size_t n);

#endif
