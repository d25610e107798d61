/* parse/stop.h: where a reply stops: sequences of token ids, and texts, several at once. */
#ifndef PARSE_STOP_H
#define PARSE_STOP_H

#include <stdbool.h>

#include "base/strbuf.h"
#include "parse/automaton.h"

/* What stops a reply. Start from {0}; immutable after stop_set_build, shared by any threads. */
struct stop_set {
    struct automaton ids, texts;
    size_t *lengths; /* of the texts, in bytes */
    size_t n_texts;
};

/* Empty sequences and texts are ignored. All: 0, or -1 without memory. */
int stop_set_add_ids(struct stop_set *s, const int32_t *ids, size_t n);
int stop_set_add_text(struct stop_set *s, const char *text, size_t n);
int stop_set_build(struct stop_set *s);
void stop_set_release(struct stop_set *s);

/* One reply's place in a set. Start with stop_start; one thread at a time. */
struct stop_matcher {
    const struct stop_set *set;
    uint32_t id_node, text_node;
    struct strbuf held; /* text that may still become a stop */
    bool stopped;       /* a text has been found: what comes after is dropped */
};

void stop_start(struct stop_matcher *m, const struct stop_set *s);
void stop_release(struct stop_matcher *m);

/* One more token: true when it completes a sequence. It goes on where a match overlaps. */
bool stop_id(struct stop_matcher *m, int32_t id);

/**
 * One more segment of text. What can no longer become part of a stop is added to out, nothing
 * else is held back; at a stop what stands before it, without it. True when stopped.
 * Where memory runs out, out->failed or held.failed is set.
 */
bool stop_text(struct stop_matcher *m, const char *text, size_t n, struct strbuf *out);

/* The end of the text: what was held goes to out. */
void stop_flush(struct stop_matcher *m, struct strbuf *out);

#endif
