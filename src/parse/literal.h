/* parse/literal.h: Python literals, as ast.literal_eval reads them, written as JSON.
 *
 * Tuples and sets become arrays; keys that are no strings become what json.dumps makes of them.
 * Bytes, complex numbers, `...` and names of characters (\N{...}) have no counterpart in JSON: a
 * text with one of them is no literal here, and so stays the string that it is.
 */
#ifndef PARSE_LITERAL_H
#define PARSE_LITERAL_H

#include "base/strbuf.h"
#include "parse/text.h"

#define LITERAL_MAX_DEPTH 200

/* All of s as one literal, added to out; false, with nothing added, where it is none. */
bool literal_to_json(struct span s, struct strbuf *out);

/* The whole number in s, with Python's prefixes and underscores, in decimal; digits only. */
bool integer_to_json(struct span digits, struct strbuf *out);

/**
 * A call with keyword arguments that are literals, or names true, false and null:
 *
 *     ns.name(key=value, ...)
 *
 * In pieces: call_name takes the name and the bracket, call_argument one argument with the comma
 * after it. Each returns the bytes it took, or 0 where there is no such thing.
 */
size_t call_name(struct span s, struct strbuf *name);
size_t call_argument(struct span s, struct span *key, struct strbuf *value, bool *last);

/* White space, and comments, where Python allows it within brackets. */
size_t python_space(struct span s);

#endif
