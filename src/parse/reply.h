/* parse/reply.h: the text of a reply, as it is generated, made into content, reasoning and calls.
 *
 *     struct reply_rules rules = {0};          per model and set of stops; shared by its replies
 *     struct reply reply = {0};                per request
 *
 *     reply_rules_init(&rules, &format, &stops, &err);
 *     reply_start(&reply, &rules, tools, inside_thinking, sink, user);
 *     while (... a segment of text is generated ...)
 *         if (reply_feed(&reply, text, n) != 0)
 *             break;                           stopped, or no memory
 *     reply_finish(&reply);
 *     reply_release(&reply);
 *
 * Segments may end anywhere, also within a character. What comes out does not depend on where. Text
 * is held back only as long as it may still become a stop, a marker, or the beginning of a call.
 *
 * The markers have to be in the text: do not skip special tokens when decoding for a reply that may
 * hold reasoning or calls.
 */
#ifndef PARSE_REPLY_H
#define PARSE_REPLY_H

#include "parse/sections.h"
#include "parse/stop.h"
#include "parse/syntax.h"

/* How a model lays out a reply. */
enum reply_layout {
    REPLY_TAGS,    /* text, with tags around thinking and calls */
    REPLY_HARMONY, /* messages with headers: <|channel|>analysis<|message|>...<|end|> (gpt-oss) */
    REPLY_MUSE     /* messages with recipients: to=self<|message|>...<|eom|> (Muse Spark) */
};

struct reply_format {
    const struct tool_syntax *syntax; /* NULL: calls are not looked for */
    struct thinking thinking;
    struct message_ends ends; /* for thinking_is_open */
    enum reply_layout layout;
    const char *const *dropped; /* further markers, not shown to the user; ends with NULL */
};

/* All of it, from what is known of a model. */
struct reply_format reply_format_infer(const struct model_traits *m);

struct reply_rules {
    struct reply_format format;
    struct sections sections;
    const struct stop_set *stops;
};

/* stops (built, or NULL: none) is kept by the caller, as are the texts in format. */
int reply_rules_init(struct reply_rules *r, const struct reply_format *format,
                     const struct stop_set *stops, clm_error *err);
void reply_rules_release(struct reply_rules *r);

/* One reply. One thread at a time. */
struct reply {
    const struct reply_rules *rules;
    parse_sink *sink;
    void *user;
    const json *tools;
    struct stop_matcher stops;
    struct strbuf passed; /* by the stops */
    struct section_place place;
    struct tool_reader reader;
    int section;          /* what the text belongs to now: enum in reply.c */
    struct strbuf header; /* of a message, as far as it is known */
    struct strbuf lead;   /* the beginning of a reply whose calls have no marker */
    enum { LEAD_OPEN, LEAD_CALLS, LEAD_TEXT } lead_is;
    bool lead_refused; /* it was no call of the request's tools */
    bool any_message, failed;
};

/**
 * tools        the request's list, or NULL: a reply with no marker before calls then has none
 * in_thinking  the prompt has opened a section of thinking (thinking_is_open)
 * sink         receives the events; it may not call back into r
 *
 * Start from {0}, or from a reply that was used before: its memory serves again.
 */
void reply_start(struct reply *r, const struct reply_rules *rules, const json *tools,
                 bool in_thinking, parse_sink *sink, void *user);

/* One more segment. 0: go on; 1: a stop text was found, which ends the reply; -1: no memory. */
int reply_feed(struct reply *r, const char *text, size_t n);

/* The end of the reply, however it came: what was held back comes out. 0, or -1 without memory. */
int reply_finish(struct reply *r);
void reply_release(struct reply *r);

#endif
