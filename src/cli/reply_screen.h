/* cli/reply_screen.h: answers as they come, on a terminal or elsewhere; thinking is dimmed on a
 * terminal.
 *
 *     call: get_weather {"city": "Oslo"}
 */
#ifndef CLI_REPLY_SCREEN_H
#define CLI_REPLY_SCREEN_H

#include <stdbool.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "parse/event.h"

/* Start from {.terminal = ..., .dims = ...}, and anew for each answer. */
struct reply_screen {
    bool terminal; /* control characters of the model are not let through */
    bool dims;
    bool begun;                 /* something was shown */
    enum parse_event_kind part; /* what it belongs to */
    bool line_open;             /* the last line has no end yet */
    struct strbuf out;
};

/* Can standard output dim text, and does the user want it? NO_COLOR and TERM say. */
bool reply_screen_can_dim(void);

/* A piece of the reply: gathered until it is flushed. A call is a line of its own. */
void reply_screen_add(struct reply_screen *s, const struct parse_event *e);
/* The end of the answer. */
void reply_screen_end(struct reply_screen *s);
int reply_screen_flush(struct reply_screen *s, clm_error *err);

#endif
