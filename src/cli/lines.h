/* cli/lines.h: JSON lines in, JSON lines out: how the look-inside commands speak. */
#ifndef CLI_LINES_H
#define CLI_LINES_H

#include "base/error.h"
#include "base/strbuf.h"
#include "format/json.h"

/**
 * Answer every line of standard input: fn appends the answer to *out, without a line end, and it is
 * written before the next line is read. Empty lines are passed over. An error ends the work; it
 * names the line.
 */
int lines_answer(int (*fn)(void *ctx, const json *line, struct strbuf *out, clm_error *err),
                 void *ctx, clm_error *err);

#endif
