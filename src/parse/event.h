/* parse/event.h: what a reply turns out to be, piece by piece. */
#ifndef PARSE_EVENT_H
#define PARSE_EVENT_H

#include <stddef.h>

enum parse_event_kind {
    PARSE_CONTENT,        /* text for the user */
    PARSE_REASONING,      /* text of a thinking section */
    PARSE_CALL_BEGIN,     /* text is the name of the function; id, where the model gave one */
    PARSE_CALL_ARGUMENTS, /* text is the next piece of the arguments' JSON */
    PARSE_CALL_END,       /* id, where it was found only after the beginning */
    /**
     * text says what is wrong. raw is what the model wrote since the section of calls began. A call
     * that had begun does not count; calls that have ended do. With section set, no more will come
     * from this section.
     */
    PARSE_CALL_FAILED
};

struct parse_event {
    enum parse_event_kind kind;
    const char *text; /* valid during the call; not NUL-terminated */
    size_t size;
    size_t call; /* which call of the reply, from 0: calls that failed keep their number */
    const char *id;
    size_t id_size;
    const char *raw;
    size_t raw_size;
};

/* Receives the events in order. */
typedef void parse_sink(void *user, const struct parse_event *event);

#endif
