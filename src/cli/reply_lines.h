/* cli/reply_lines.h: a reply as JSON lines, one for each piece of text and for each step of a call.
 *
 *     {"type": "content", "text": "..."}
 *     {"type": "reasoning", "text": "..."}
 *     {"type": "tool_call_start", "index": 0, "name": "f", "id": "..."}
 *     {"type": "tool_call_delta", "index": 0, "arguments": "{\"a"}
 *     {"type": "tool_call", "index": 0, "name": "f", "id": "...", "arguments": "{\"a\": 1}"}
 *     {"type": "tool_call_error", "index": 0, "error": "...", "text": "..."}
 *
 * Arguments are a text, as a model may write what not every reader of JSON takes. id is there where
 * the model gives one.
 */
#ifndef CLI_REPLY_LINES_H
#define CLI_REPLY_LINES_H

#include "parse/syntax.h"

/* Start from {.out = ...}. */
struct reply_lines {
    struct strbuf *out;
    struct tool_calls calls; /* that have ended */
};

void reply_lines_take(void *lines, const struct parse_event *e); /* a parse_sink */
void reply_lines_release(struct reply_lines *l);

#endif
