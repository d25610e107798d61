/* tokenizer/reader.h: fields of a tokenizer.json, with one kind of message for what is wrong. */
#ifndef TOKENIZER_READER_H
#define TOKENIZER_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "format/json.h"

/* Bytes that live in the tokenizer's arena, or as long as the document. */
struct span {
    const char *s;
    size_t n;
};

struct reader {
    const char *name; /* of the file, for messages */
    const char *part; /* "normalizer", "decoder", ... */
    arena *memory;    /* of the tokenizer */
    clm_error *err;
    int depth; /* of the component that is read within others */
};

/* Every reader returns 0, or -1 with the error filled. An absent or null key takes the default;
 * for the readers without one it is an error. */
int read_string(struct reader *r, const json *o, const char *key, struct span *out);
int read_string_or(struct reader *r, const json *o, const char *key, const char *otherwise,
                   struct span *out);
int read_char(struct reader *r, const json *o, const char *key, int32_t *out); /* one character */
int read_bool(struct reader *r, const json *o, const char *key, bool *out);
int read_bool_or(struct reader *r, const json *o, const char *key, bool otherwise, bool *out);
int read_size_or(struct reader *r, const json *o, const char *key, size_t otherwise, size_t *out);
int read_array(struct reader *r, const json *o, const char *key, const json **out);

/* The component's "type", NUL-terminated in the document; NULL with the error. */
const char *read_type(struct reader *r, const json *o);
int unknown_type(struct reader *r, const char *type);

/* A "Sequence": open(ctx, component) for each in its list. Too many within one another are an
 * error. */
int read_sequence(struct reader *r, const json *o, const char *list,
                  int (*open)(void *ctx, const json *component), void *ctx);

bool json_is_null(const json *v); /* absent or null */

/* A copy in the arena; s is NULL without memory. */
struct span span_copy(struct reader *r, const char *s, size_t n);
int no_memory(struct reader *r);

#endif
