/* template/lex_string.h: what a quoted string of a template stands for. */
#ifndef TEMPLATE_LEX_STRING_H
#define TEMPLATE_LEX_STRING_H

#include "base/arena.h"
#include "template/value.h"

/* s without its quotes. -1 with *problem set, or without when there is no memory. */
int lex_unescape(arena *a, const char *s, size_t size, struct value *out, const char **problem);

#endif
