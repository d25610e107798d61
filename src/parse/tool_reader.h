/* parse/tool_reader.h: what the readers of all syntaxes of tool calls stand on.
 *
 * A reader is a function that looks at the text of a section from r->at on, takes one step, and is
 * called again; it never assumes that more than it sees will come, unless r->final says that this
 * is all. So the same reader serves text that streams and text that is whole, however it is split.
 * When it has the whole text before its first step, it can look ahead and is as strict, or as
 * lenient, as the reference implementation is with that text.
 */
#ifndef PARSE_TOOL_READER_H
#define PARSE_TOOL_READER_H

#include "parse/call_writer.h"
#include "parse/convert.h"
#include "parse/json_text.h"

enum step {
    STEP_AGAIN, /* something was done */
    STEP_MORE,  /* nothing can be done without more text */
    STEP_FAIL   /* r->why: nothing more can be read from this section */
};

struct tool_syntax;

struct tool_reader {
    const struct tool_syntax *syntax;
    const json *tools;
    struct call_writer out;

    struct strbuf text; /* of the section */
    size_t at;          /* all before is done with */
    size_t scanned;     /* reader_find found nothing in [at, scanned) */
    bool final;
    bool streamed; /* a step was taken before the text was whole */
    int state;
    const char *why;
    bool no_memory; /* some allocation failed: sticky, unlike the flags of buffers */
    size_t n_calls; /* that have ended in this section */

    /* The present call. */
    struct strbuf name, id;
    bool object_open; /* the arguments are an object made by call_key */
    bool in_list, first, nested, saw_arguments, bounded;
    size_t arguments_at, arguments_size; /* in text, when they stand before the name */

    /* The present argument. */
    struct strbuf key;
    const json *schema;
    int value_kind;
    bool no_key;                    /* its tag does not name it */
    bool string_open;               /* a string is being streamed */
    size_t string_begin, string_at; /* in text: from here to there it was */
    struct json_text json;
    size_t json_size; /* of the value that json has read, from at on */
    struct strbuf piece;
};

/* A way to write tool calls. */
struct tool_syntax {
    const char *name;  /* mlx_lm's name of the parser, where it has one */
    const char *start; /* marker before a section of calls; NULL: the reply's own beginning tells */
    const char *end;   /* marker after it; "": the end of the reply */
    enum step (*step)(struct tool_reader *r);
    const void *format; /* data of the reader, which may serve several syntaxes */
};

/* Starts on a section; what the reader held before is kept for reuse. Start from {0} with syntax,
 * tools and out.sink set. */
void reader_section(struct tool_reader *r);
/* 0, or -1 without memory. What is wrong with the text is an event. */
int reader_feed(struct tool_reader *r, const char *text, size_t n);
int reader_finish(struct tool_reader *r);
void reader_release(struct tool_reader *r);

/* For readers: */

/* Empties one of the reader's buffers; that it had failed is not forgotten. */
void reader_clear(struct tool_reader *r, struct strbuf *b);

/* The text from at on. */
struct span reader_rest(const struct tool_reader *r);
/* Text of the section between two places. */
struct span reader_between(const struct tool_reader *r, size_t begin, size_t end);
/* All before this place is done with. */
void reader_advance(struct tool_reader *r, size_t at);
enum step reader_go(struct tool_reader *r, size_t at, int state);
enum step reader_fail(struct tool_reader *r, const char *why);
/* The place of the first of the markers at or after `scanned`; SIZE_MAX where there is none yet. As
 * long as at stays, a search goes on where the last one stopped: always look for the same then. */
size_t reader_find(struct tool_reader *r, const struct span *markers, size_t n, size_t *which);
size_t reader_find_one(struct tool_reader *r, struct span marker);

void reader_begin_call(struct tool_reader *r, struct span name, struct span id);
void reader_end_call(struct tool_reader *r); /* with an empty object where there was nothing */
void reader_skip_call(struct tool_reader *r, const char *why); /* what has begun does not count */

/* One JSON value from at on, as it comes; copied to out unless it is NULL. Start it with
 * reader_json_start. JSON_TEXT_DONE leaves its size in json_size. */
void reader_json_start(struct tool_reader *r);
enum json_text_status reader_json(struct tool_reader *r, size_t end, struct strbuf *out);
/* The same, with the copy said to the sink as the arguments. */
enum json_text_status reader_json_arguments(struct tool_reader *r, size_t end);

#endif
