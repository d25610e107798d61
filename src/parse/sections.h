/* parse/sections.h: a reply as it streams, cut into sections by the markers in its text.
 *
 * The markers are data: in each state there are some, and each leads to a state. Markers are
 * dropped, the text between them belongs to the state it stands in. Matching is on text, so it does
 * not matter into which tokens a marker was split.
 */
#ifndef PARSE_SECTIONS_H
#define PARSE_SECTIONS_H

#include <stdbool.h>

#include "base/strbuf.h"
#include "parse/automaton.h"

#define SECTIONS_MAX_STATES 8
#define SECTIONS_END (-1) /* a marker to here ends the reply: what follows is dropped */

struct section_marker {
    size_t size; /* in bytes */
    int to;
};

/* Start from {0}. Immutable after sections_build, shared by any threads. */
struct sections {
    struct {
        struct automaton markers;
        struct section_marker *marker;
        size_t n_markers;
    } state[SECTIONS_MAX_STATES];
};

/* An empty marker is ignored; of equal ones in a state the last counts. 0, or -1 without memory. */
int sections_add(struct sections *s, int from, const char *marker, size_t n, int to);
int sections_build(struct sections *s);
void sections_release(struct sections *s);

/* The place of one reply. Start with sections_start; one thread at a time. */
struct section_place {
    const struct sections *sections;
    int state;
    uint32_t node;
    struct strbuf held; /* what may still become a marker of the state */
};

void sections_start(struct section_place *p, const struct sections *s, int state);
void sections_stop(struct section_place *p); /* frees what it holds */

/* Receives text of a state; size 0 where a state is entered or passed without text. entered: a
 * marker has led here, even to the same state again. */
typedef void section_sink(void *user, int state, const char *text, size_t size, bool entered);

/* One more segment. Nothing is held but the longest end of the text that begins a marker.
 * 0, or -1 without memory. */
int sections_feed(struct section_place *p, const char *text, size_t n, section_sink *sink,
                  void *user);

/* The end of the text: what was held is text of the state. */
void sections_flush(struct section_place *p, section_sink *sink, void *user);

#endif
