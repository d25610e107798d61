#include "parse/tool_reader.h"

void reader_clear(struct tool_reader *r, struct strbuf *b)
{
    r->no_memory |= b->failed;
    strbuf_clear(b);
}

void reader_section(struct tool_reader *r)
{
    reader_clear(r, &r->text);
    r->at = r->scanned = 0;
    r->final = r->streamed = false;
    r->state = 0;
    r->why = NULL;
    r->n_calls = 0;
    r->object_open = r->in_list = r->nested = r->saw_arguments = r->string_open = false;
    call_section(&r->out);
}

static bool out_of_memory(const struct tool_reader *r)
{
    return r->no_memory || r->text.failed || r->name.failed || r->id.failed || r->key.failed ||
           r->piece.failed || call_writer_failed(&r->out);
}

static void give_up(struct tool_reader *r, const char *why)
{
    r->why = why;
    call_fail(&r->out, why, (struct span){r->text.data ? r->text.data : "", r->text.size});
}

static int run(struct tool_reader *r)
{
    enum step step;

    do
        step = r->syntax->step(r);
    while (step == STEP_AGAIN && !out_of_memory(r) && !r->out.differs);
    if (out_of_memory(r))
        return -1;
    if (r->out.differs)
        give_up(r, "the end of the section contradicts what was read before");
    else if (step == STEP_FAIL)
        give_up(r, r->why);
    else if (r->final && r->out.open)
        give_up(r, "the call is not complete");
    else if (r->final && !r->n_calls)
        give_up(r, "there is no tool call in this section");
    else
        call_flush(&r->out);
    return out_of_memory(r) ? -1 : 0;
}

int reader_feed(struct tool_reader *r, const char *text, size_t n)
{
    strbuf_add(&r->text, text, n);
    if (r->text.failed)
        return -1;
    if (r->why || !n)
        return 0; /* it failed: the rest of the section only has to be passed over */
    r->streamed = true;
    return run(r);
}

int reader_finish(struct tool_reader *r)
{
    if (r->why)
        return 0;
    r->final = true;
    return run(r);
}

void reader_release(struct tool_reader *r)
{
    call_writer_release(&r->out);
    strbuf_release(&r->text);
    strbuf_release(&r->name);
    strbuf_release(&r->id);
    strbuf_release(&r->key);
    strbuf_release(&r->piece);
}

struct span reader_between(const struct tool_reader *r, size_t begin, size_t end)
{
    return (struct span){r->text.data ? r->text.data + begin : "", end - begin};
}

struct span reader_rest(const struct tool_reader *r)
{
    return reader_between(r, r->at, r->text.size);
}

void reader_advance(struct tool_reader *r, size_t at)
{
    r->at = r->scanned = at;
}

enum step reader_go(struct tool_reader *r, size_t at, int state)
{
    reader_advance(r, at);
    r->state = state;
    return STEP_AGAIN;
}

enum step reader_fail(struct tool_reader *r, const char *why)
{
    r->why = why;
    return STEP_FAIL;
}

size_t reader_find(struct tool_reader *r, const struct span *markers, size_t n, size_t *which)
{
    struct span text = reader_between(r, 0, r->text.size);
    size_t best = SIZE_MAX, held = 0;

    for (size_t i = 0; i < n; i++) {
        size_t limit = best == SIZE_MAX ? text.size : best + markers[i].size - 1;
        size_t found = span_find(span_first(text, limit < text.size ? limit : text.size),
                                 r->scanned, markers[i]);

        if (found < best) {
            best = found;
            *which = i;
        }
        if (markers[i].size - 1 > held)
            held = markers[i].size - 1;
    }
    if (best != SIZE_MAX)
        r->scanned = best;
    else if (text.size - r->at > held && text.size - held > r->scanned)
        r->scanned = text.size - held;
    return best;
}

size_t reader_find_one(struct tool_reader *r, struct span marker)
{
    size_t which;

    return reader_find(r, &marker, 1, &which);
}

void reader_begin_call(struct tool_reader *r, struct span name, struct span id)
{
    r->object_open = r->string_open = r->saw_arguments = false;
    call_begin(&r->out, name.size ? name : SPAN(""), id);
}

void reader_end_call(struct tool_reader *r)
{
    if (r->object_open)
        call_object_close(&r->out);
    else if (!r->saw_arguments)
        call_text(&r->out, SPAN("{}"));
    call_end(&r->out, (struct span){r->id.data, r->id.size});
    reader_clear(r, &r->id);
    r->object_open = false;
    r->n_calls++;
}

void reader_skip_call(struct tool_reader *r, const char *why)
{
    call_fail(&r->out, why, (struct span){r->text.data ? r->text.data : "", r->text.size});
    r->object_open = r->string_open = false;
}

void reader_json_start(struct tool_reader *r)
{
    r->json = (struct json_text){0};
    r->json_size = 0;
}

enum json_text_status reader_json(struct tool_reader *r, size_t end, struct strbuf *out)
{
    struct span rest = reader_between(r, r->at + r->json_size, end);
    enum json_text_status status;
    size_t taken;

    status = json_text_feed(&r->json, rest, out, &taken);
    r->json_size += taken;
    return status;
}

enum json_text_status reader_json_arguments(struct tool_reader *r, size_t end)
{
    enum json_text_status status;

    reader_clear(r, &r->piece);
    status = reader_json(r, end, &r->piece);
    r->saw_arguments = true;
    call_text(&r->out, (struct span){r->piece.data, r->piece.size});
    return status;
}
