/* cli/line_input.h: lines that a user types, edited where there is a terminal and libedit. */
#ifndef CLI_LINE_INPUT_H
#define CLI_LINE_INPUT_H

#include <stdbool.h>

#include "base/error.h"
#include "base/strbuf.h"

typedef struct line_input line_input;

enum line_result {
    LINE_READ,
    LINE_END,         /* of the input; Ctrl-D */
    LINE_INTERRUPTED, /* Ctrl-C: what was typed, as far as it is there, is to be forgotten */
    LINE_FAILED
};

/**
 * Standard input. On a terminal, of which standard output must be one too, lines are edited and
 * kept in a history file from one run to the next; elsewhere they are read without a prompt. There
 * is one at a time, and interrupt_catch has been called.
 */
line_input *line_input_open(clm_error *err);
/* Saves the history; a warning says when that cannot be. NULL is fine. */
void line_input_close(line_input *in);

bool line_input_is_terminal(const line_input *in);
/* Was clm built without libedit? */
bool line_input_is_plain(void);

/* Append one line, without its end, to out. LINE_FAILED comes with *err. */
enum line_result line_input_read(line_input *in, const char *prompt, struct strbuf *out,
                                 clm_error *err);

#endif
