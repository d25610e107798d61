/* parse/call_writer.h: calls on their way from a format's reader to the sink.
 *
 * The reader says what it knows, in order: begin, pieces of the arguments, end. Pieces are gathered
 * and given to the sink by call_flush, once per segment.
 *
 * A reader that finds at the end of a section that the text has to be read in another way calls
 * call_replay and says everything again: what was given out already is only compared, and goes on
 * where it stopped. What differs makes the section fail: it cannot be taken back.
 */
#ifndef PARSE_CALL_WRITER_H
#define PARSE_CALL_WRITER_H

#include <stdbool.h>

#include "base/strbuf.h"
#include "parse/event.h"
#include "parse/text.h"

/* Start from {.sink, .user}. */
struct call_writer {
    parse_sink *sink;
    void *user;
    size_t next_call;  /* number of the next call of the reply */
    bool open;         /* a call has begun and not ended */
    bool any_member;   /* of the arguments object being written */
    struct strbuf log; /* all that was said in this section; a record separator ends each part */
    size_t given;      /* of the log, how much the sink knows */
    size_t replay_at;  /* while this is less than the log's size, what is said is compared */
    bool replaying, differs;
    bool failed; /* an allocation did; sticky */
    struct strbuf scratch;
};

void call_writer_release(struct call_writer *w);

/* A new section of calls. */
void call_section(struct call_writer *w);

void call_begin(struct call_writer *w, struct span name, struct span id);
void call_text(struct call_writer *w, struct span json); /* of the arguments, as it is */
void call_end(struct call_writer *w, struct span id);    /* where it is known only here */

/* The arguments as an object made here: between { and }, members with a key, and a value that is
 * JSON text or a string in pieces. */
void call_object_open(struct call_writer *w);
void call_key(struct call_writer *w, struct span key);
void call_string_open(struct call_writer *w);
void call_string_piece(struct call_writer *w, struct span text); /* whole characters */
void call_string_close(struct call_writer *w);
void call_object_close(struct call_writer *w);

/* The arguments so far, for a reader that has to know them. */
bool call_has_text(const struct call_writer *w);

void call_replay(struct call_writer *w);
void call_flush(struct call_writer *w);

/* Calls off the open call, or the next one, and says why. */
void call_fail(struct call_writer *w, const char *why, struct span raw);

bool call_writer_failed(const struct call_writer *w); /* no memory */

#endif
