#include "cli/line_input.h"

#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <termios.h>
#include <unistd.h>
#ifdef CLM_LIBEDIT
#include <histedit.h>
#endif

#include "base/file.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "cli/interrupt.h"
#include "cli/session.h"

#define MAX_LINE ((size_t)1 << 26)
#define HISTORY_LINES 1000

struct line_input {
    bool terminal;
    char bytes[4096]; /* read and not used yet: [at, end) */
    size_t at, end;
#ifdef CLM_LIBEDIT
    struct strbuf paste; /* what is pasted */
    EditLine *editor;    /* NULL: lines are read as they come */
    History *history;
    const char *prompt;
    bool interrupted;
    char path[PATH_MAX]; /* of the history; empty: it is not kept */
#endif
};

bool line_input_is_terminal(const line_input *in)
{
    return in->terminal;
}

bool line_input_is_plain(void)
{
#ifdef CLM_LIBEDIT
    return false;
#else
    return true;
#endif
}

/* Until there is something to read; false when a signal came first. Ctrl-C is let through only
 * while waiting, so that none is missed between a look at it and the wait. */
static bool wait_for_input(void)
{
    sigset_t blocked, before;
    fd_set set;
    bool ready = false;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    FD_ZERO(&set);
    FD_SET(STDIN_FILENO, &set);
    if (!interrupt_seen())
        ready = pselect(STDIN_FILENO + 1, &set, NULL, NULL, NULL, &before) > 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return ready;
}

#ifdef CLM_LIBEDIT

/* Terminals put marks around what is pasted, between these two; others pass over them. It is
 * inserted at once, with its line ends, as if by a key that shows the line anew. */
#define PASTES_MARKED "\033[?2004h"
#define PASTES_PLAIN "\033[?2004l"
#define PASTE_BEGINS "[200~" /* behind an escape */
#define PASTE_ENDS "[201~"
#define PASTE_KEY '\037' /* ^_ */

static void tell_terminal(const char *what)
{
    (void)!write(STDOUT_FILENO, what, strlen(what)); /* also from a signal handler */
}

#endif

static void redraw(line_input *in)
{
#ifdef CLM_LIBEDIT
    if (in->editor) {
        tell_terminal(PASTES_MARKED); /* the shell may have ended that in between */
        el_resize(in->editor);
        el_set(in->editor, EL_REFRESH);
    }
#else
    (void)in;
#endif
}

/* Reads at least one byte behind those that are not used yet, for which there is room. */
static enum line_result read_more(line_input *in)
{
    memmove(in->bytes, in->bytes + in->at, in->end - in->at);
    in->end -= in->at;
    in->at = 0;
    for (;;) {
        ssize_t n;

        if (!wait_for_input()) {
            if (interrupt_seen())
                return LINE_INTERRUPTED;
            redraw(in); /* after a change of the window's size, or a pause */
            continue;
        }
        n = read(STDIN_FILENO, in->bytes + in->end, sizeof in->bytes - in->end);
        if (n == 0)
            return LINE_END;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return LINE_FAILED;
        if (n > 0) {
            in->end += (size_t)n;
            return LINE_READ;
        }
    }
}

static enum line_result next_byte(line_input *in, char *c)
{
    enum line_result r = in->at < in->end ? LINE_READ : read_more(in);

    if (r == LINE_READ)
        *c = in->bytes[in->at++];
    return r;
}

/* Files from elsewhere have a carriage return before each line end. */
static void drop_return(struct strbuf *line, size_t before)
{
    if (line->size > before && line->data[line->size - 1] == '\r')
        line->data[--line->size] = '\0';
}

static enum line_result read_plain(line_input *in, const char *prompt, struct strbuf *out,
                                   clm_error *err)
{
    size_t before = out->size;
    char c = 0;

    if (in->terminal) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    for (;;) {
        enum line_result r = next_byte(in, &c);

        if (r == LINE_FAILED)
            fail(err, CLM_ERR_IO, "cannot read standard input: %s", strerror(errno));
        if (r == LINE_INTERRUPTED && in->terminal)
            putchar('\n'); /* behind the ^C that the terminal shows */
        if (r == LINE_END && out->size > before)
            return LINE_READ;
        if (r == LINE_READ && c == '\n')
            drop_return(out, before);
        if (r != LINE_READ || c == '\n')
            return r;
        strbuf_add_char(out, c);
        if (out->failed || out->size > MAX_LINE) {
            fail(err, CLM_ERR_ARG, "a line of standard input is longer than %zu bytes", MAX_LINE);
            return LINE_FAILED;
        }
    }
}

#ifdef CLM_LIBEDIT

/* Takes a mark that comes next. Without waiting a mark must be there whole, as far as it has begun:
 * a lone escape is a key. */
static bool take_mark(line_input *in, const char *mark, bool wait)
{
    for (;;) {
        size_t size = strlen(mark), there = in->end - in->at;

        if (memcmp(in->bytes + in->at, mark, there < size ? there : size) != 0)
            return false;
        if (there >= size) {
            in->at += size;
            return true;
        }
        if ((there == 0 && !wait) || read_more(in) != LINE_READ)
            return false;
    }
}

/* What is pasted, up to the mark behind it: with line ends as they should be, and no other control
 * characters than tabs. */
static enum line_result read_paste(line_input *in)
{
    char c = 0, before;

    strbuf_clear(&in->paste);
    for (;;) {
        enum line_result r;

        before = c;
        r = next_byte(in, &c);
        if (r != LINE_READ)
            return r;
        if (c == '\033' && take_mark(in, PASTE_ENDS, true))
            return LINE_READ;
        if (c == '\r' || (c == '\n' && before != '\r'))
            strbuf_add_char(&in->paste, '\n');
        else if ((unsigned char)c >= ' ' || c == '\t')
            strbuf_add_char(&in->paste, c);
        if (in->paste.failed || in->paste.size > MAX_LINE) {
            errno = in->paste.failed ? ENOMEM : EFBIG;
            return LINE_FAILED;
        }
    }
}

/* Puts what was pasted into the line that is edited; false without memory. */
static bool insert_paste(line_input *in)
{
    wchar_t *wide = mem_alloc((in->paste.size + 1) * sizeof *wide);
    size_t n = 0;
    bool done;

    for (size_t at = 0; wide && at < in->paste.size; n++) {
        int32_t c;

        at += utf8_decode(in->paste.data + at, in->paste.size - at, &c);
        wide[n] = (wchar_t)c;
    }
    if (wide)
        wide[n] = L'\0';
    done = n == 0 || (wide && el_winsertstr(in->editor, wide) == 0);
    mem_free(wide);
    return done;
}

/* A byte that is typed, or the key that shows what was pasted. */
static enum line_result next_key(line_input *in, char *c)
{
    enum line_result r = next_byte(in, c);

    if (r != LINE_READ || *c != '\033' || !take_mark(in, PASTE_BEGINS, false))
        return r;
    *c = PASTE_KEY;
    r = read_paste(in);
    if (r == LINE_READ && !insert_paste(in)) {
        errno = ENOMEM;
        return LINE_FAILED;
    }
    return r;
}

/* What libedit calls for each character: 1, 0 at the end, -1 on errors. */
static int read_character(EditLine *editor, wchar_t *out)
{
    line_input *in = NULL;
    char text[UTF8_MAX] = {0};
    size_t size = 1;
    int32_t c;

    el_get(editor, EL_CLIENTDATA, &in);
    for (size_t i = 0; i < size; i++) {
        enum line_result r = i == 0 ? next_key(in, text) : next_byte(in, &text[i]);

        in->interrupted |= r == LINE_INTERRUPTED;
        if (in->interrupted) {
            *out = L'\n'; /* ends the line, which is then dropped */
            return 1;
        }
        if (r != LINE_READ)
            return r == LINE_END ? 0 : -1;
        if (i == 0)
            size = utf8_length((unsigned char)text[0]);
    }
    utf8_decode(text, size, &c);
    *out = (wchar_t)c;
    return 1;
}

static char *prompt_of(EditLine *editor)
{
    line_input *in = NULL;

    el_get(editor, EL_CLIENTDATA, &in);
    return (char *)(uintptr_t)in->prompt;
}

/* Without the line end that ends it all. */
static void add_wide(struct strbuf *out, const wchar_t *text, int n)
{
    n -= n > 0 && text[n - 1] == L'\n';
    for (int i = 0; i < n && text[i]; i++) {
        char bytes[UTF8_MAX];

        strbuf_add(out, bytes, utf8_encode((int32_t)text[i], bytes));
    }
}

static void remember(line_input *in, const char *line)
{
    HistEvent event;

    if (*line)
        history(in->history, &event, H_ENTER, line);
}

static enum line_result read_edited(line_input *in, const char *prompt, struct strbuf *out,
                                    clm_error *err)
{
    size_t before = out->size;
    const wchar_t *line;
    int n = 0;

    in->prompt = prompt;
    in->interrupted = false;
    /* Before the prompt is shown: what comes right after it is a key, not the terminal's business.
     */
    el_set(in->editor, EL_PREP_TERM, 1);
    line = el_wgets(in->editor, &n);
    if (in->interrupted) {
        if (line && n > 1)
            add_wide(out, line, n);
        return LINE_INTERRUPTED;
    }
    if (!line && n < 0) {
        fail(err, CLM_ERR_IO, "cannot read standard input: %s", strerror(errno));
        return LINE_FAILED;
    }
    if (!line || n == 0)
        return LINE_END;
    add_wide(out, line, n);
    if (out->failed) {
        fail(err, CLM_ERR_NOMEM, "no memory for a line");
        return LINE_FAILED;
    }
    remember(in, out->data ? out->data + before : "");
    return LINE_READ;
}

static void find_history(char *out, size_t size)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = 0;

    if (state && *state == '/')
        n = snprintf(out, size, "%s/clm/history", state);
    else if (home && *home == '/')
        n = snprintf(out, size, "%s/.local/state/clm/history", home);
    if (n <= 0 || (size_t)n >= size)
        out[0] = '\0';
}

/* H_SAVE would not tell of a full disk. */
static bool write_history(History *h, const char *name)
{
    FILE *f = fopen(name, "we");
    HistEvent event;
    bool good;

    if (!f)
        return false;
    good = history(h, &event, H_SAVE_FP, f) >= 0 && fflush(f) == 0;
    return fclose(f) == 0 && good;
}

/* Where the path is a link, what it leads to is replaced. */
static void save_history(line_input *in)
{
    char target[PATH_MAX], name[PATH_MAX + 16];

    if (!in->path[0])
        return;
    file_make_folders(in->path);
    if (!realpath(in->path, target))
        memcpy(target, in->path, sizeof target);
    snprintf(name, sizeof name, "%s.%ld", target, (long)getpid());
    if (write_history(in->history, name) && rename(name, target) == 0)
        return;
    log_say(&cli_log, LOG_WARNING, "cannot write %s: %s", in->path, strerror(errno));
    unlink(name);
}

static void note_signal(int number)
{
    (void)number; /* that it interrupts a wait is enough */
}

static void watch_window(void)
{
    struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    sigaction(SIGCONT, &action, NULL);
}

static struct termios terminal_before;

/* What kills while a line is edited must not leave a terminal that shows nothing of what is typed;
 * one in the background may not be told so without SIGTTOU. */
static void give_terminal_back(int number)
{
    tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
    tell_terminal(PASTES_PLAIN);
    raise(number); /* deadly now, when this returns */
}

static void watch_deaths(void)
{
    static const int deadly[] = {SIGHUP, SIGQUIT, SIGTERM};
    struct sigaction before,
        action = {.sa_handler = give_terminal_back, .sa_flags = (int)SA_RESETHAND};

    if (tcgetattr(STDIN_FILENO, &terminal_before))
        return;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGTTOU);
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
        if (sigaction(deadly[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            sigaction(deadly[i], &action, NULL);
}

static int open_editor(line_input *in, clm_error *err)
{
    HistEvent event;

    /* libedit shows characters by the locale's rules. */
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    in->history = history_init();
    in->editor = el_init("clm", stdin, stdout, stderr);
    if (!in->history || !in->editor)
        return fail(err, CLM_ERR_NOMEM, "libedit does not start");
    watch_deaths();
    history(in->history, &event, H_SETSIZE, HISTORY_LINES);
    history(in->history, &event, H_SETUNIQUE, 1);
    find_history(in->path, sizeof in->path);
    if (in->path[0])
        history(in->history, &event, H_LOAD, in->path);
    el_set(in->editor, EL_CLIENTDATA, in);
    el_set(in->editor, EL_PROMPT, prompt_of);
    el_set(in->editor, EL_EDITOR, "emacs");
    el_set(in->editor, EL_HIST, history, in->history);
    el_set(in->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(in->editor, EL_BIND, "^_", "ed-redisplay", NULL); /* PASTE_KEY */
    el_set(in->editor, EL_GETCFN, read_character);
    el_source(in->editor, NULL);
    watch_window();
    fflush(stdout);
    tell_terminal(PASTES_MARKED);
    return 0;
}

static bool terminal_can_edit(void)
{
    const char *term = getenv("TERM");

    return term && *term && strcmp(term, "dumb") != 0;
}

#endif

line_input *line_input_open(clm_error *err)
{
    line_input *in = mem_zeroed(1, sizeof *in);

    if (!in)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for input");
    in->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
#ifdef CLM_LIBEDIT
    if (in->terminal && terminal_can_edit() && open_editor(in, err)) {
        line_input_close(in);
        return NULL;
    }
#endif
    return in;
}

void line_input_close(line_input *in)
{
    if (!in)
        return;
#ifdef CLM_LIBEDIT
    if (in->editor && in->history)
        save_history(in);
    if (in->editor) {
        el_end(in->editor);
        tell_terminal(PASTES_PLAIN);
    }
    if (in->history)
        history_end(in->history);
    strbuf_release(&in->paste);
#endif
    mem_free(in);
}

enum line_result line_input_read(line_input *in, const char *prompt, struct strbuf *out,
                                 clm_error *err)
{
#ifdef CLM_LIBEDIT
    if (in->editor)
        return read_edited(in, prompt, out, err);
#endif
    return read_plain(in, prompt, out, err);
}
