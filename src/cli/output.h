/* cli/output.h: standard output, written so that a full disk or a closed pipe is noticed and said
 * once. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include "base/error.h"
#include "base/strbuf.h"

/* At the start of main: a closed pipe and a file that may not be so large (ulimit -f) are errors of
 * write(), and descriptors 0, 1 and 2 are taken,
 * so that no file opened later becomes "standard output". */
void output_init(void);

/* Hand everything written so far to the system; -1 with *err when that, or an earlier write,
 * failed. */
int output_flush(clm_error *err);

/* Write a line, or any text, and flush it. */
int output_text(const char *text, size_t size, clm_error *err);

/* The same for what a buffer holds, which is then empty; a buffer without memory is an error too.
 */
int output_buffer(struct strbuf *b, clm_error *err);

/* Text for a terminal, where a model must not move the cursor or worse: controls become '?'. */
void output_add_safely(struct strbuf *out, const char *text, size_t size);

/* Can a file be written under a name that an option has? "-" is none, for standard output gets
 * other things. To be asked before the work. */
int output_try_file(const char *option, const char *path, clm_error *err);

/* Where the reader of standard output has gone, which is no failure to speak of, end as the system
 * ends a program that writes to such a pipe. For main, when all else is closed. */
void output_end_if_unread(void);

/* Before standard input is read: a person at a terminal is told that nothing is wrong. */
void output_tell_reading(void);

/* "clm: ..." on standard error. */
void output_error(const char *message);

#endif
