/* parse/read_json.h: calls written as JSON objects, one or a list of them. */
#ifndef PARSE_READ_JSON_H
#define PARSE_READ_JSON_H

#include "parse/tool_reader.h"

/* What the members of a call are called; each list ends with NULL. */
struct json_format {
    const char *const *names, *const *arguments, *const *ids;
    bool arguments_object; /* must be an object, or a string that holds one */
    bool name_is_key;      /* {"NAME": ARGUMENTS} */
    bool sequence;         /* more objects may follow, after white space or a semicolon */
    bool fenced;           /* the list may stand in a ```json block */
};

/* r->syntax->format is a struct json_format. */
enum step read_json_calls(struct tool_reader *r);

/* The same for readers that turn to it; states are from JSON_STATES on. */
#define JSON_STATES 32
enum step read_json_as(struct tool_reader *r, const struct json_format *f);
void read_json_begin(struct tool_reader *r, size_t at);

extern const struct json_format json_tools, json_mistral, json_cohere, json_llama, json_apertus;

#endif
