#include "parse/stop.h"

#include <string.h>

#include "base/memory.h"

int stop_set_add_ids(struct stop_set *s, const int32_t *ids, size_t n)
{
    return automaton_add(&s->ids, ids, n, 0);
}

int stop_set_add_text(struct stop_set *s, const char *text, size_t n)
{
    size_t *lengths;

    if (n == 0)
        return 0;
    if (s->n_texts >= INT32_MAX)
        return -1;
    lengths = mem_resize(s->lengths, (s->n_texts + 1) * sizeof *lengths);
    if (!lengths)
        return -1;
    s->lengths = lengths;
    lengths[s->n_texts] = n;
    if (automaton_add_text(&s->texts, text, n, (int32_t)s->n_texts))
        return -1;
    s->n_texts++;
    return 0;
}

int stop_set_build(struct stop_set *s)
{
    return automaton_build(&s->ids) || automaton_build(&s->texts) ? -1 : 0;
}

void stop_set_release(struct stop_set *s)
{
    automaton_release(&s->ids);
    automaton_release(&s->texts);
    mem_free(s->lengths);
    *s = (struct stop_set){0};
}

void stop_start(struct stop_matcher *m, const struct stop_set *s)
{
    *m = (struct stop_matcher){.set = s};
}

void stop_release(struct stop_matcher *m)
{
    strbuf_release(&m->held);
    *m = (struct stop_matcher){0};
}

bool stop_id(struct stop_matcher *m, int32_t id)
{
    m->id_node = automaton_next(&m->set->ids, m->id_node, id);
    return automaton_match(&m->set->ids, m->id_node) != AUTOMATON_NO_MATCH;
}

/* Gives out all of the held text but its last keep bytes. */
static void give(struct stop_matcher *m, size_t keep, struct strbuf *out)
{
    size_t n = m->held.size - keep;

    if (n == 0)
        return;
    strbuf_add(out, m->held.data, n);
    memmove(m->held.data, m->held.data + n, keep + 1);
    m->held.size = keep;
}

bool stop_text(struct stop_matcher *m, const char *text, size_t n, struct strbuf *out)
{
    const struct automaton *a = &m->set->texts;
    size_t before = m->held.size;

    if (m->stopped)
        return true;
    strbuf_add(&m->held, text, n);
    if (m->held.failed)
        return false;
    for (size_t i = 0; i < n; i++) {
        int32_t match;

        m->text_node = automaton_next(a, m->text_node, (unsigned char)text[i]);
        match = automaton_match(a, m->text_node);
        if (match != AUTOMATON_NO_MATCH) {
            strbuf_add(out, m->held.data, before + i + 1 - m->set->lengths[match]);
            strbuf_clear(&m->held);
            m->stopped = true;
            return true;
        }
    }
    give(m, automaton_depth(a, m->text_node), out);
    return false;
}

void stop_flush(struct stop_matcher *m, struct strbuf *out)
{
    give(m, 0, out);
    m->text_node = AUTOMATON_ROOT;
}
