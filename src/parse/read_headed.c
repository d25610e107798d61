/* Calls with the name in a header and JSON arguments after it.
 *
 *     NAME[ARGS]{...} and NAME[CALL_ID]ID[ARGS]{...}                              Mistral
 *     <|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{...}<|tool_call_end|>  Kimi
 * K2 <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{...}<｜tool▁call▁end｜>              DeepSeek V3.1
 *     <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{...}\n```<｜tool▁call▁end｜>  V3
 */
#include "parse/read_headed.h"

#include "parse/read_json.h"

enum state { START, SEEK, HEAD, ARGUMENTS, CLOSE };

/* Mistral */

static const struct span args_marker = SPAN_INIT("[ARGS]");

/* What stands before [ARGS]: the run of name characters at its end, and where an id comes between,
 * the name before that. */
static void mistral_head(struct span head, struct span *name, struct span *id)
{
    struct span marker = SPAN("[CALL_ID]");
    size_t word;

    *id = (struct span){0};
    head.size -= space_at_end(head);
    word = word_at_end(head, '-');
    *name = span_from(head, head.size - word);
    head.size -= word;
    if (head.size < marker.size || !span_starts(span_from(head, head.size - marker.size), marker))
        return;
    head.size -= marker.size;
    head.size -= space_at_end(head);
    word = word_at_end(head, '-');
    if (!word)
        return;
    *id = *name;
    *name = span_from(head, head.size - word);
}

static enum step mistral_seek(struct tool_reader *r)
{
    size_t found = reader_find_one(r, args_marker);
    struct span name, id;

    if (found == SIZE_MAX)
        return STEP_MORE;
    mistral_head(reader_between(r, r->at, found), &name, &id);
    found += args_marker.size;
    if (!name.size)
        return reader_go(r, found, SEEK);
    reader_begin_call(r, name, id);
    reader_json_start(r);
    return reader_go(r, found, ARGUMENTS);
}

static enum step mistral_arguments(struct tool_reader *r)
{
    enum json_text_status status;

    if (!r->json_size)
        reader_advance(r, r->at + regex_space_at_start(reader_rest(r)));
    status = reader_json_arguments(r, r->text.size);
    if (status == JSON_TEXT_MORE && r->final)
        status = json_text_end(&r->json, NULL);
    if (status == JSON_TEXT_BAD)
        return reader_fail(r, "the arguments are no JSON, or not complete");
    if (status == JSON_TEXT_MORE)
        return STEP_MORE;
    reader_end_call(r);
    return reader_go(r, r->at + r->json_size, SEEK);
}

/* A list of calls, as older models write it, or headers. */
static enum step mistral_start(struct tool_reader *r)
{
    struct span rest = reader_rest(r);
    size_t space = json_space_at_start(rest);

    if (space == rest.size && !r->final)
        return STEP_MORE;
    if (space < rest.size && rest.at[space] == '[' &&
        (!r->final || json_text_whole(rest, false, NULL))) {
        read_json_begin(r, r->at);
        return STEP_AGAIN;
    }
    return reader_go(r, r->at, SEEK);
}

enum step read_mistral(struct tool_reader *r)
{
    switch (r->state) {
    case START:
        return mistral_start(r);
    case SEEK:
        return mistral_seek(r);
    case ARGUMENTS:
        return mistral_arguments(r);
    default:
        return read_json_as(r, &json_mistral);
    }
}

/* Kimi K2 */

static const struct span k2_markers[] = {SPAN_INIT("<|tool_call_begin|>"),
                                         SPAN_INIT("<|tool_call_argument_begin|>")};
static const struct span k2_end = SPAN_INIT("<|tool_call_end|>");

static enum step k2_seek(struct tool_reader *r)
{
    size_t which, found = reader_find(r, k2_markers, 2, &which);

    if (found == SIZE_MAX)
        return STEP_MORE;
    r->bounded = which == 0;
    if (r->bounded)
        return reader_go(r, found + k2_markers[0].size, HEAD);
    if (r->n_calls) /* after calls with a beginning, one without is none */
        return reader_go(r, found + k2_markers[1].size, SEEK);
    return reader_go(r, r->at, HEAD);
}

/* [functions.]NAME:NUMBER with white space around. */
static bool k2_name(struct span head, struct span *name, struct span *id)
{
    struct span prefix = SPAN("functions.");
    size_t digits = 0;

    head = span_from(head, regex_space_at_start(head));
    head.size -= space_at_end(head);
    while (digits < head.size && head.at[head.size - 1 - digits] >= '0' &&
           head.at[head.size - 1 - digits] <= '9')
        digits++;
    if (!digits || head.size < digits + 2 || head.at[head.size - digits - 1] != ':')
        return false;
    *id = head;
    *name = span_first(head, head.size - digits - 1);
    if (span_starts(*name, prefix) && name->size > prefix.size)
        *name = span_from(*name, prefix.size);
    return true;
}

static enum step k2_head(struct tool_reader *r)
{
    struct span markers[] = {k2_markers[1], k2_end}, name, id;
    size_t which = 0, found = reader_find(r, markers, r->bounded ? 2 : 1, &which);

    if (found == SIZE_MAX && !r->final)
        return STEP_MORE;
    if (found == SIZE_MAX && r->n_calls)
        return reader_go(r, r->text.size, SEEK); /* cut short: the calls before it count */
    if (found == SIZE_MAX || which == 1 || !k2_name(reader_between(r, r->at, found), &name, &id))
        return reader_fail(r, "a call has no name with its number");
    if (r->final && !r->streamed && r->bounded && r->n_calls &&
        span_find(reader_rest(r), 0, k2_end) == SIZE_MAX)
        return reader_go(r, r->text.size, SEEK);
    reader_begin_call(r, name, id);
    reader_json_start(r);
    found += markers[0].size;
    return reader_go(r, found, ARGUMENTS);
}

/* An object in JSON is known by the quote after its bracket: Python's might follow too. */
static bool k2_is_json(struct span s)
{
    size_t i = json_space_at_start(s);

    if (i == s.size || s.at[i] != '{')
        return false;
    i++;
    i += json_space_at_start(span_from(s, i));
    return i < s.size && (s.at[i] == '"' || s.at[i] == '}');
}

static enum step k2_arguments(struct tool_reader *r)
{
    size_t end = r->bounded ? reader_find_one(r, k2_end) : SIZE_MAX;
    bool whole = end != SIZE_MAX || r->final;
    const char *why;
    struct span text;

    if (end == SIZE_MAX && whole && r->bounded && r->n_calls)
        return reader_fail(r, "the last call has no end");
    if (end == SIZE_MAX)
        end = r->bounded && !r->final ? r->scanned : r->text.size;
    text = reader_between(r, r->at, end);
    text = span_from(text, regex_space_at_start(text));
    if (!whole) {
        if (r->json_size || k2_is_json(reader_between(r, r->at, end)))
            reader_json_arguments(r, end);
        return STEP_MORE;
    }
    reader_clear(r, &r->piece);
    convert_literal(text, NULL, &r->piece, &why);
    if (r->saw_arguments) {
        /* The start of it was given out already. */
        size_t said = r->out.log.size;

        while (said && r->out.log.data[said - 1] != '\x1e')
            said--;
        said = r->out.log.size - said;
        if (r->piece.size < said ||
            memcmp(r->out.log.data + r->out.log.size - said, r->piece.data, said) != 0)
            return reader_fail(r, "the arguments are no JSON");
        call_text(&r->out, (struct span){r->piece.data + said, r->piece.size - said});
    } else {
        call_text(&r->out, (struct span){r->piece.data, r->piece.size});
    }
    r->saw_arguments = true;
    reader_end_call(r);
    return reader_go(r, end, SEEK);
}

enum step read_kimi_k2(struct tool_reader *r)
{
    switch (r->state) {
    case START:
        r->state = SEEK;
        return STEP_AGAIN;
    case SEEK:
        return k2_seek(r);
    case HEAD:
        return k2_head(r);
    default:
        return k2_arguments(r);
    }
}

/* DeepSeek */

static const struct span deepseek_begin = SPAN_INIT("<｜tool▁call▁begin｜>");
static const struct span deepseek_end = SPAN_INIT("<｜tool▁call▁end｜>");
static const struct span deepseek_separator = SPAN_INIT("<｜tool▁sep｜>");

static enum step deepseek_seek(struct tool_reader *r)
{
    size_t found = reader_find_one(r, deepseek_begin);

    return found == SIZE_MAX ? STEP_MORE : reader_go(r, found + deepseek_begin.size, HEAD);
}

static enum step deepseek_call(struct tool_reader *r, struct span name, size_t at)
{
    name = span_strip(name);
    if (!name.size)
        return reader_fail(r, "a call has no name");
    reader_begin_call(r, name, (struct span){0});
    reader_json_start(r);
    return reader_go(r, at, ARGUMENTS);
}

/* The separator stands after the name, or after the word `function` with the name behind it. */
static enum step deepseek_head(struct tool_reader *r)
{
    size_t found = reader_find_one(r, deepseek_separator), line;
    struct span rest;

    if (found == SIZE_MAX)
        return STEP_MORE;
    rest = reader_between(r, found + deepseek_separator.size, r->text.size);
    if (space_at_start(rest) == rest.size)
        return STEP_MORE;
    if (rest.at[space_at_start(rest)] == '{')
        return deepseek_call(r, reader_between(r, r->at, found), r->text.size - rest.size);
    line = span_find(rest, 0, SPAN("\n"));
    if (line == SIZE_MAX)
        return STEP_MORE;
    return deepseek_call(r, span_first(rest, line), r->text.size - rest.size + line);
}

static enum step deepseek_arguments(struct tool_reader *r)
{
    struct span fence = SPAN("```json"), rest;
    enum json_text_status status;

    if (!r->json_size) {
        reader_advance(r, r->at + json_space_at_start(reader_rest(r)));
        rest = reader_rest(r);
        if (rest.size < fence.size && span_starts(fence, rest))
            return STEP_MORE;
        if (span_starts(rest, fence))
            reader_advance(r, r->at + fence.size);
    }
    status = reader_json_arguments(r, r->text.size);
    if (status == JSON_TEXT_BAD)
        return reader_fail(r, "the arguments are no JSON");
    return status == JSON_TEXT_MORE ? STEP_MORE : reader_go(r, r->at + r->json_size, CLOSE);
}

static enum step deepseek_close(struct tool_reader *r)
{
    size_t found = reader_find_one(r, deepseek_end);

    if (found == SIZE_MAX)
        return STEP_MORE;
    reader_end_call(r);
    return reader_go(r, found + deepseek_end.size, SEEK);
}

enum step read_deepseek(struct tool_reader *r)
{
    switch (r->state) {
    case START:
        r->state = SEEK;
        return STEP_AGAIN;
    case SEEK:
        return deepseek_seek(r);
    case HEAD:
        return deepseek_head(r);
    case ARGUMENTS:
        return deepseek_arguments(r);
    default:
        return deepseek_close(r);
    }
}

/* Harmony (gpt-oss): the message's header names the function, its text is the arguments. */

enum step read_harmony(struct tool_reader *r)
{
    struct span text = reader_rest(r), to = SPAN("to="), space = SPAN(" ");
    enum json_text_status status;

    if (r->state == START) {
        /* The header up to a line end, which reply.c puts behind it. */
        size_t line = span_find(text, 0, SPAN("\n")), begin, end;

        if (line == SIZE_MAX)
            return STEP_MORE;
        begin = span_find(span_first(text, line), 0, to);
        if (begin == SIZE_MAX)
            return reader_fail(r, "the message names no recipient");
        begin += to.size;
        if (span_starts(span_from(text, begin), SPAN("functions.")))
            begin += SPAN("functions.").size;
        end = span_find(span_first(text, line), begin, space);
        if (end == SIZE_MAX)
            end = line;
        reader_begin_call(r, (struct span){text.at + begin, end - begin}, (struct span){0});
        reader_json_start(r);
        return reader_go(r, r->at + line + 1, ARGUMENTS);
    }
    if (r->state == CLOSE) {
        if (space_at_start(text) < text.size)
            return reader_fail(r, "there is text after the arguments");
        return STEP_MORE;
    }
    status = reader_json_arguments(r, r->text.size);
    if (status == JSON_TEXT_BAD)
        return reader_fail(r, "the arguments are no JSON");
    if (status == JSON_TEXT_MORE)
        return STEP_MORE;
    reader_end_call(r);
    return reader_go(r, r->at + r->json_size, CLOSE);
}
