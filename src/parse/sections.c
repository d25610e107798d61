#include "parse/sections.h"

#include <string.h>

#include "base/memory.h"

int sections_add(struct sections *s, int from, const char *marker, size_t n, int to)
{
    size_t count = s->state[from].n_markers;
    struct section_marker *markers;

    if (n == 0)
        return 0;
    if (count >= INT32_MAX)
        return -1;
    markers = mem_resize(s->state[from].marker, (count + 1) * sizeof *markers);
    if (!markers)
        return -1;
    markers[count] = (struct section_marker){n, to};
    s->state[from].marker = markers;
    if (automaton_add_text(&s->state[from].markers, marker, n, (int32_t)count))
        return -1;
    s->state[from].n_markers++;
    return 0;
}

int sections_build(struct sections *s)
{
    for (int i = 0; i < SECTIONS_MAX_STATES; i++)
        if (automaton_build(&s->state[i].markers))
            return -1;
    return 0;
}

void sections_release(struct sections *s)
{
    for (int i = 0; i < SECTIONS_MAX_STATES; i++) {
        automaton_release(&s->state[i].markers);
        mem_free(s->state[i].marker);
    }
    *s = (struct sections){0};
}

void sections_start(struct section_place *p, const struct sections *s, int state)
{
    *p = (struct section_place){.sections = s, .state = state};
}

void sections_stop(struct section_place *p)
{
    strbuf_release(&p->held);
    *p = (struct section_place){.state = SECTIONS_END};
}

/* Keeps the last n bytes of what is held. */
static void keep(struct section_place *p, size_t n)
{
    if (p->held.size == n)
        return;
    memmove(p->held.data, p->held.data + p->held.size - n, n + 1);
    p->held.size = n;
}

int sections_feed(struct section_place *p, const char *text, size_t n, section_sink *sink,
                  void *user)
{
    size_t begin = 0, i = p->held.size, depth; /* held[begin...) is not given out yet */

    if (p->state == SECTIONS_END)
        return 0;
    strbuf_add(&p->held, text, n);
    if (p->held.failed)
        return -1;
    for (; i < p->held.size; i++) {
        const struct automaton *a = &p->sections->state[p->state].markers;
        int32_t match;

        p->node = automaton_next(a, p->node, (unsigned char)p->held.data[i]);
        match = automaton_match(a, p->node);
        if (match == AUTOMATON_NO_MATCH)
            continue;
        const struct section_marker *marker = &p->sections->state[p->state].marker[match];

        sink(user, p->state, p->held.data + begin, i + 1 - marker->size - begin, false);
        begin = i + 1;
        p->node = AUTOMATON_ROOT;
        p->state = marker->to;
        sink(user, p->state, NULL, 0, true);
        if (p->state == SECTIONS_END) {
            keep(p, 0);
            return 0;
        }
    }
    depth = automaton_depth(&p->sections->state[p->state].markers, p->node);
    if (p->held.size - depth > begin)
        sink(user, p->state, p->held.data + begin, p->held.size - depth - begin, false);
    keep(p, depth);
    return 0;
}

void sections_flush(struct section_place *p, section_sink *sink, void *user)
{
    if (p->state != SECTIONS_END && p->held.size)
        sink(user, p->state, p->held.data, p->held.size, false);
    keep(p, 0);
    p->node = AUTOMATON_ROOT;
}
