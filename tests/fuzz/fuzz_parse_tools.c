/* tests/fuzz/fuzz_parse_tools.c: any text as the reply of a model with any syntax of tool calls.
 *
 * byte 0: the syntax; byte 1: bit 0 with tools, bits 1-2 the layout or thinking; bytes 2, 3: where
 * the text is cut; the rest is the text. What is streamed must be what the whole text gives, or
 * fail. Arguments must be JSON.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "parse/json_text.h"
#include "parse/literal.h"
#include "parse/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tools_text[] =
    "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"s\":{\"type\":\"string\"},"
    "\"i\":{\"type\":\"integer\"},\"n\":{\"type\":\"number\"},\"b\":{\"type\":\"boolean\"},"
    "\"o\":{\"type\":\"object\"},\"u\":{\"type\":[\"integer\",\"null\"]},\"x\":{\"anyOf\":[{"
    "\"type\":\"string\"},{\"type\":\"array\"}]},\"d\":{\"description\":\"d\"}}}}}]";

struct seen {
    struct strbuf calls, open; /* as text, of calls that ended */
    struct strbuf arguments;
    size_t failed, call;
    bool is_open;
};

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void take(void *user, const struct parse_event *e)
{
    struct seen *s = user;

    switch (e->kind) {
    case PARSE_CALL_BEGIN:
        must(!s->is_open && e->call == s->call);
        s->is_open = true;
        strbuf_clear(&s->open);
        strbuf_clear(&s->arguments);
        strbuf_add_json(&s->open, e->text, e->size);
        break;
    case PARSE_CALL_ARGUMENTS:
        must(s->is_open && e->size > 0 && e->call == s->call);
        strbuf_add(&s->arguments, e->text, e->size);
        break;
    case PARSE_CALL_END:
        must(s->is_open && e->call == s->call && s->arguments.size);
        must(json_text_whole((struct span){s->arguments.data, s->arguments.size}, false, NULL));
        strbuf_add(&s->calls, s->open.data, s->open.size);
        strbuf_add(&s->calls, s->arguments.data, s->arguments.size);
        s->is_open = false;
        s->call++;
        break;
    case PARSE_CALL_FAILED:
        s->is_open = false;
        s->failed++;
        s->call++;
        break;
    default:
        must(e->size > 0);
    }
}

static void release(struct seen *s)
{
    strbuf_release(&s->calls);
    strbuf_release(&s->open);
    strbuf_release(&s->arguments);
}

/* Pieces of one, two or step bytes in turn; whole before the first step where step is 0. */
static void read_section(const struct tool_syntax *syntax, const json *tools, struct span text,
                         size_t step, struct seen *s)
{
    struct tool_reader r = {.syntax = syntax, .tools = tools, .out = {.sink = take, .user = s}};

    reader_section(&r);
    if (step == 0)
        strbuf_add(&r.text, text.at, text.size);
    for (size_t at = 0, n; step && at < text.size; at += n) {
        n = at % 3 == 2 ? step : 1 + at % 2;
        if (n > text.size - at)
            n = text.size - at;
        must(reader_feed(&r, text.at + at, n) == 0);
    }
    must(reader_finish(&r) == 0);
    must(!s->is_open);
    reader_release(&r);
}

static void check_section(const struct tool_syntax *syntax, const json *tools, struct span text,
                          size_t step)
{
    struct seen whole = {0}, parts = {0};

    read_section(syntax, tools, text, 0, &whole);
    read_section(syntax, tools, text, step, &parts);
    if (whole.failed == 0 && parts.failed == 0)
        must(span_equal((struct span){whole.calls.data, whole.calls.size},
                        (struct span){parts.calls.data, parts.calls.size}));
    release(&whole);
    release(&parts);
}

static void check_reply(const struct tool_syntax *syntax, const json *tools, unsigned how,
                        struct span text, size_t cut)
{
    struct reply_format format = {.syntax = syntax};
    struct reply_rules rules;
    struct stop_set stops = {0};
    struct reply r = {0};
    struct seen s = {0};

    if (how & 1)
        format.thinking = (struct thinking){"<think>", "</think>"};
    if (strcmp(syntax->name, "harmony") == 0)
        format.layout = REPLY_HARMONY;
    else if (strcmp(syntax->name, "muse_spark") == 0)
        format.layout = REPLY_MUSE;
    if (how & 2)
        must(stop_set_add_text(&stops, "\n\n\n", 3) == 0);
    must(stop_set_build(&stops) == 0 && reply_rules_init(&rules, &format, &stops, NULL) == 0);
    reply_start(&r, &rules, tools, how & 1, take, &s);
    if (reply_feed(&r, text.at, cut) == 0)
        reply_feed(&r, text.at + cut, text.size - cut);
    must(reply_finish(&r) == 0 && !s.is_open);
    reply_release(&r);
    reply_rules_release(&rules);
    stop_set_release(&stops);
    release(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json *tools;
    size_t n_syntaxes = 0, cut;
    const struct tool_syntax *syntax;
    struct strbuf literal = {0};
    struct span text;

    if (size < 4)
        return 0;
    if (!tools)
        tools = json_parse(tools_text, sizeof tools_text - 1, "tools", NULL);
    must(tools != NULL);
    while (syntax_at(n_syntaxes))
        n_syntaxes++;
    syntax = syntax_at(data[0] % n_syntaxes);
    text = (struct span){(const char *)data + 4, size - 4};
    cut = ((size_t)data[2] << 8 | data[3]) % (text.size + 1);
    check_section(syntax, data[1] & 1 ? tools : NULL, text, 1 + data[2] % 16);
    check_reply(syntax, data[1] & 1 ? tools : NULL, data[1] >> 1 & 3, text, cut);
    if (literal_to_json(text, &literal))
        must(json_text_whole((struct span){literal.data, literal.size}, false, NULL));
    strbuf_release(&literal);
    return 0;
}
