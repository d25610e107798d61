#include "cli/progress.h"

#include <stdio.h>
#include <unistd.h>

struct progress progress_open(const char *what, const char *unit)
{
    return (struct progress){.what = what, .unit = unit, .terminal = isatty(STDERR_FILENO)};
}

void progress_show(struct progress *p, int done, int total)
{
    if (!p->terminal)
        return;
    if (done >= total) {
        progress_erase(p);
        return;
    }
    /* "\033[K" clears what an earlier, longer line has left. */
    fprintf(stderr, "\r%s: %d/%d %s, %d%%\033[K", p->what, done, total, p->unit,
            (int)(100.0 * done / total));
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
