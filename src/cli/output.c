#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

void output_init(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null",
                       fd == 0 ? O_WRONLY : O_RDONLY); /* of no use, as it was before */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

static bool reader_gone;

static int write_failed(clm_error *err)
{
    reader_gone |= errno == EPIPE;
    return fail(err, CLM_ERR_IO, "cannot write to standard output: %s",
                errno ? strerror(errno) : "an earlier write failed");
}

int output_flush(clm_error *err)
{
    /* errno stays as it is: where an earlier write failed it still says why. */
    return fflush(stdout) || ferror(stdout) ? write_failed(err) : 0;
}

int output_text(const char *text, size_t size, clm_error *err)
{
    errno = 0;
    return fwrite(text, 1, size, stdout) < size ? write_failed(err) : output_flush(err);
}

int output_buffer(struct strbuf *b, clm_error *err)
{
    int rc;

    if (b->failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for the output");
    rc = output_text(b->data ? b->data : "", b->size, err);
    strbuf_clear(b);
    return rc;
}

/* C1 controls are two bytes in UTF-8: C2 80 to C2 9F. */
void output_add_safely(struct strbuf *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i],
                      next = i + 1 < size ? (unsigned char)text[i + 1] : 0;
        bool c1 = c == 0xC2 && next >= 0x80 && next < 0xA0;

        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F || c1)
            strbuf_add_char(out, '?');
        else
            strbuf_add_char(out, text[i]);
        i += c1;
    }
}

int output_try_file(const char *option, const char *path, clm_error *err)
{
    if (strcmp(path, "-") == 0)
        return fail(err, CLM_ERR_ARG,
                    "--%s needs the name of a file, not -; ./- is the file of this name", option);
    return file_writer_try(path, err);
}

void output_end_if_unread(void)
{
    if (!reader_gone)
        return;
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
}

void output_tell_reading(void)
{
    if (isatty(STDIN_FILENO) && isatty(STDERR_FILENO))
        output_error("reading standard input; Ctrl-D ends it");
}

void output_error(const char *message)
{
    fprintf(stderr, "clm: %s\n", message);
}
