#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct progress progress_open(const char *what, const char *unit)
{
    return (struct progress){.what = what, .unit = unit, .terminal = isatty(STDERR_FILENO)};
}

/* What has room in a line of the terminal; one that is wrapped could not be erased. */
static const char *fitting(const char *whole, const char *brief)
{
    struct winsize size;
    size_t columns = 80;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        columns = size.ws_col;
    if (strlen(whole) < columns)
        return whole;
    return strlen(brief) < columns ? brief : "";
}

void progress_show(struct progress *p, int done, int total)
{
    char whole[120], brief[16];
    int percent;

    if (!p->terminal)
        return;
    if (done >= total) {
        progress_erase(p);
        return;
    }
    percent = (int)(100.0 * done / total);
    snprintf(whole, sizeof whole, "%s: %d/%d %s, %d%%", p->what, done, total, p->unit, percent);
    snprintf(brief, sizeof brief, "%d%%", percent);
    /* "\033[K" clears what an earlier, longer line has left. */
    fprintf(stderr, "\r%s\033[K", fitting(whole, brief));
    fflush(stderr);
    p->shown = true;
}

void progress_erase(struct progress *p)
{
    if (p->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    p->shown = false;
}
