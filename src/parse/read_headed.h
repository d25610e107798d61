/* parse/read_headed.h: calls with the name in a header and JSON arguments after it. */
#ifndef PARSE_READ_HEADED_H
#define PARSE_READ_HEADED_H

#include "parse/tool_reader.h"

enum step read_mistral(struct tool_reader *r);
enum step read_kimi_k2(struct tool_reader *r);
enum step read_deepseek(struct tool_reader *r);

/* The section is the header of a message, a line end, and its text. */
enum step read_harmony(struct tool_reader *r);

#endif
