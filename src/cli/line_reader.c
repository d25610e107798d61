#include "cli/line_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"

#define PIECE 65536

int line_reader_open(struct line_reader *r, const char *path, clm_error *err)
{
    bool standard = strcmp(path, "-") == 0;

    *r = (struct line_reader){.fd = STDIN_FILENO, .name = standard ? "standard input" : path};
    if (standard)
        output_tell_reading();
    else
        r->fd = open(path, O_RDONLY | O_CLOEXEC);
    return r->fd < 0 ? fail(err, CLM_ERR_IO, "cannot open %s: %s", path, strerror(errno)) : 0;
}

void line_reader_close(struct line_reader *r)
{
    strbuf_release(&r->buffer);
    if (r->fd > STDIN_FILENO)
        close(r->fd);
    *r = (struct line_reader){0};
}

/* What was given is forgotten. */
static void drop_given(struct line_reader *r)
{
    struct strbuf *b = &r->buffer;

    if (r->at == 0)
        return;
    memmove(b->data, b->data + r->at, b->size - r->at);
    b->size -= r->at;
    r->scanned -= r->at;
    r->at = 0;
}

static bool take_line(struct line_reader *r, const char **text, size_t *size)
{
    struct strbuf *b = &r->buffer;
    const char *end = NULL;

    if (b->size > r->scanned)
        end = memchr(b->data + r->scanned, '\n', b->size - r->scanned);
    r->scanned = end ? (size_t)(end - b->data) + 1 : b->size;
    if (!end && !(r->ended && b->size > r->at))
        return false;
    *text = b->data + r->at;
    *size = (end ? (size_t)(end - b->data) : b->size) - r->at;
    r->at = r->scanned;
    r->number++;
    return true;
}

static bool is_ready(const struct line_reader *r, bool wait)
{
    struct pollfd p = {.fd = r->fd, .events = POLLIN};

    return poll(&p, 1, wait ? -1 : 0) > 0;
}

static int read_more(struct line_reader *r, clm_error *err)
{
    char piece[PIECE];
    ssize_t n = read(r->fd, piece, sizeof piece);

    if (n < 0 && errno != EINTR && errno != EAGAIN)
        return fail(err, CLM_ERR_IO, "cannot read %s: %s", r->name, strerror(errno));
    r->ended = n == 0;
    drop_given(r);
    if (n > 0)
        strbuf_add(&r->buffer, piece, (size_t)n);
    return r->buffer.failed ? fail(err, CLM_ERR_NOMEM, "no memory for a line of %s", r->name) : 0;
}

enum line_state line_reader_next(struct line_reader *r, bool wait, const char **text, size_t *size,
                                 clm_error *err)
{
    for (;;) {
        if (take_line(r, text, size)) {
            bool skipped = r->skipping;

            r->skipping = false;
            return skipped ? LINE_TOO_LONG : LINE_READ;
        }
        if (r->ended)
            return LINE_END;
        if (r->buffer.size - r->at > LINE_MAX_BYTES) {
            r->at = r->scanned = r->buffer.size;
            r->skipping = true;
        }
        if (!is_ready(r, wait))
            return LINE_LATER;
        if (read_more(r, err))
            return LINE_FAILED;
    }
}
