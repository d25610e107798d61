/* parse/convert.h: the text of an argument made into JSON, as each format's reference does it. */
#ifndef PARSE_CONVERT_H
#define PARSE_CONVERT_H

#include "base/strbuf.h"
#include "parse/schema.h"

/* Each adds the value to out. 0, or -1 where the text does not fit the type: *why says what was
 * expected. Memory that runs out shows in out->failed. */
typedef int convert_function(struct span text, const json *schema, struct strbuf *out,
                             const char **why);

/* Qwen3-Coder: one declared type; null whatever the type; a number that is none is an error. */
convert_function convert_by_type;

/* MiniMax-M2 and MiniCPM5: the first of the declared types that fits. */
convert_function convert_by_types;

/* GLM and LongCat: declared strings stay, all else is JSON, a Python literal, or a string. */
convert_function convert_literal;

/* Muse Spark: JSON, or a string without the white space around it. */
convert_function convert_json;

/* Is the value a string whatever its text is (null aside, where the format has that)? Then it can
 * be given out before its end is known. */
bool convert_always_string_by_type(const json *schema);
bool convert_always_string_by_types(const json *schema);
bool convert_always_string_literal(const json *schema);

#endif
