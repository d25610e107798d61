/* cli/describe.h: a spec in words: as text for people, or as JSON. */
#ifndef CLI_DESCRIBE_H
#define CLI_DESCRIBE_H

#include "base/strbuf.h"
#include "nn/spec.h"

/**
 * Names and values, one after another: `"name": value, ...` as JSON, `name value, ...` as text.
 * Start from {.out = ..., .json = ...}.
 */
struct fields {
    struct strbuf *out;
    bool json;
    bool begun;
};

void field_string(struct fields *f, const char *name, const char *value);
void field_count(struct fields *f, const char *name, double value); /* whole numbers */
void field_real(struct fields *f, const char *name, double value);  /* as Python's json has them */
void field_bool(struct fields *f, const char *name, bool value);    /* text: the name, if true */
void field_open(struct fields *f, const char *name, char bracket);  /* '{' or '['; NULL: no name */
void field_close(struct fields *f, char bracket);

/* The branches of a layer. */
void describe_layer(struct fields *f, const struct layer_spec *l);

/* A text of a file, with '?' for what would command a terminal. */
void add_printable(struct strbuf *out, const char *text);

#endif
