/* parse/schema.h: what the tools of a request say about their arguments. */
#ifndef PARSE_SCHEMA_H
#define PARSE_SCHEMA_H

#include "format/json.h"
#include "parse/text.h"

/* All take the request's list of tools, as the chat template is given it; NULL: there are none. */

/* There is a function of this name. */
bool schema_has_function(const json *tools, struct span name);

/* The schema of a function's argument, or NULL. */
const json *schema_argument(const json *tools, struct span function, struct span argument);

/* Types that a schema allows, as bits. Both names of a type (integer and int) are one. */
enum schema_type {
    TYPE_INTEGER = 1,
    TYPE_NUMBER = 2,
    TYPE_BOOLEAN = 4,
    TYPE_OBJECT = 8, /* or an array: they are read the same */
    TYPE_STRING = 16,
    TYPE_NULL = 32
};

/* The types in type, enum, anyOf, oneOf and allOf, as a set of enum schema_type; a schema that is
 * absent or says nothing means TYPE_STRING, one with other types only means none of these. */
unsigned schema_types(const json *schema);

/* The schema's type in one word, stripped and in lower case, cut to fit; empty where type is
 * absent. False where there is no schema, or an empty one; "[" where it is a list of types. */
bool schema_type_word(const json *schema, char word[static 24]);

#endif
