/* parse/read_gemma.h: call:NAME{KEY:VALUE,...}, as FunctionGemma and Gemma 4 write it. */
#ifndef PARSE_READ_GEMMA_H
#define PARSE_READ_GEMMA_H

#include "parse/tool_reader.h"

enum step read_function_gemma(struct tool_reader *r);
enum step read_gemma4(struct tool_reader *r);

#endif
