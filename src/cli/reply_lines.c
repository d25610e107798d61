#include "cli/reply_lines.h"

#include <string.h>

static void begin(struct strbuf *b, const char *type)
{
    strbuf_addf(b, "{\"type\": \"%s\"", type);
}

static void add_string(struct strbuf *b, const char *key, const char *s, size_t n)
{
    strbuf_addf(b, ", \"%s\": ", key);
    strbuf_add_json(b, s, n);
}

static void begin_call(struct strbuf *b, const char *type, const struct parse_event *e)
{
    begin(b, type);
    strbuf_addf(b, ", \"index\": %zu", e->call);
}

static void add_end(struct strbuf *b, const struct parse_event *e, const struct tool_calls *calls)
{
    const struct tool_call *call = &calls->calls[calls->count - 1];

    begin_call(b, "tool_call", e);
    add_string(b, "name", call->name, call->name_size);
    if (call->id)
        add_string(b, "id", call->id, strlen(call->id));
    add_string(b, "arguments", call->arguments, call->arguments_size);
}

void reply_lines_take(void *lines, const struct parse_event *e)
{
    struct reply_lines *l = lines;
    struct strbuf *b = l->out;

    tool_calls_take(&l->calls, e);
    if (l->calls.failed)
        return;
    switch (e->kind) {
    case PARSE_CONTENT:
    case PARSE_REASONING:
        begin(b, e->kind == PARSE_CONTENT ? "content" : "reasoning");
        add_string(b, "text", e->text, e->size);
        break;
    case PARSE_CALL_BEGIN:
        begin_call(b, "tool_call_start", e);
        add_string(b, "name", e->text, e->size);
        if (e->id_size)
            add_string(b, "id", e->id, e->id_size);
        break;
    case PARSE_CALL_ARGUMENTS:
        begin_call(b, "tool_call_delta", e);
        add_string(b, "arguments", e->text, e->size);
        break;
    case PARSE_CALL_END:
        add_end(b, e, &l->calls);
        break;
    case PARSE_CALL_FAILED:
        begin_call(b, "tool_call_error", e);
        add_string(b, "error", e->text, e->size);
        add_string(b, "text", e->raw, e->raw_size);
        break;
    }
    strbuf_add_str(b, "}\n");
}

void reply_lines_release(struct reply_lines *l)
{
    tool_calls_release(&l->calls);
}
