/* parse/read_python.h: calls written as Python: [NAME(KEY=VALUE, ...), ...] */
#ifndef PARSE_READ_PYTHON_H
#define PARSE_READ_PYTHON_H

#include "parse/tool_reader.h"

enum step read_pythonic(struct tool_reader *r);

/* What Llama 3 and 4 write: JSON objects with "parameters", a Python list of calls, one call
 * (a built-in tool: NAME.call(...)), or <function=NAME>{...}</function>. */
enum step read_llama(struct tool_reader *r);

#endif
