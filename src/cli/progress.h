/* cli/progress.h: one line on a terminal that says how far something is; erased in the end. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>

struct progress {
    const char *what; /* "Prompt" */
    const char *unit; /* "tokens" */
    bool terminal;    /* standard error is one: without it nothing is ever shown */
    bool shown;
};

struct progress progress_open(const char *what, const char *unit);

/* "\rPrompt: 512/2048 tokens, 25%": at most 40 columns; "\r25%" where there are too few. Erases the
 * line when done reaches total. */
void progress_show(struct progress *p, int done, int total);
void progress_erase(struct progress *p);

#endif
