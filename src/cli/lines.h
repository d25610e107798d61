/* cli/lines.h: JSON lines in, JSON lines out: how the look-inside commands speak. */
#ifndef CLI_LINES_H
#define CLI_LINES_H

#include "base/error.h"
#include "base/strbuf.h"
#include "format/json.h"
#include "tokenizer/tokenizer.h"

bool line_is_blank(const char *text, size_t size);

/**
 * Answer every line of standard input: fn appends the answer to *out, without a line end, and it is
 * written before the next line is read. Empty lines are passed over. An error ends the work; it
 * names the line.
 */
int lines_answer(int (*fn)(void *ctx, const json *line, struct strbuf *out, clm_error *err),
                 void *ctx, clm_error *err);

/* Append the token ids in the array at a key of a line; CLM_ERR_FORMAT: there is none. */
int line_ids(struct token_list *out, const json *line, const char *key, clm_error *err);

struct line {
    const json *value; /* an object */
    char name[64];     /* for messages */
};

enum { LINES_MOST = 64 }; /* at once */

/* The same for what answers several lines at once, 1 <= n <= LINES_MOST: as many as are there when
 * standard input is read. fn appends all answers, each with its line end; its errors name the line,
 * and come with the answers to the lines before.
 */
int lines_answer_together(int (*fn)(void *ctx, const struct line *lines, size_t n,
                                    struct strbuf *out, clm_error *err),
                          void *ctx, clm_error *err);

#endif
