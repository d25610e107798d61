/* cli/line_reader.h: lines as they come, without standing still for one that is not there yet. */
#ifndef CLI_LINE_READER_H
#define CLI_LINE_READER_H

#include "base/error.h"
#include "base/strbuf.h"

#define LINE_MAX_BYTES ((size_t)64 << 20)

struct line_reader {
    int fd;
    const char *name; /* in messages */
    long number;      /* of the line given last, from 1 */
    struct strbuf buffer;
    size_t at, scanned; /* the next line begins at; before this there is no line end */
    bool ended, skipping;
};

enum line_state {
    LINE_FAILED, /* with *err */
    LINE_READ,
    LINE_TOO_LONG, /* a line of more than LINE_MAX_BYTES, which is left out */
    LINE_LATER,    /* there is none yet */
    LINE_END
};

/* "-": standard input. CLM_ERR_IO. */
int line_reader_open(struct line_reader *r, const char *path, clm_error *err);
void line_reader_close(struct line_reader *r);

/* The next line [*size], without its end, valid until the next call. With wait it is waited for,
 * but not beyond a signal. */
enum line_state line_reader_next(struct line_reader *r, bool wait, const char **text, size_t *size,
                                 clm_error *err);

#endif
