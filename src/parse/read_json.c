#include "parse/read_json.h"

#include "base/memory.h"

enum state { START = JSON_STATES, ITEM, KEY, COLON, MEMBER, AFTER_MEMBER, AFTER_ITEM, END };

enum member { MEMBER_OTHER, MEMBER_NAME, MEMBER_ARGUMENTS, MEMBER_ID, MEMBER_FUNCTION };

void read_json_begin(struct tool_reader *r, size_t at)
{
    r->in_list = false;
    reader_go(r, at, START);
}

/* The next character after white space, at r->at; '\0' where there is none yet. */
static char next_char(struct tool_reader *r)
{
    struct span rest = reader_rest(r);
    size_t space = json_space_at_start(rest);

    reader_advance(r, r->at + space);
    return space < rest.size ? rest.at[space] : '\0';
}

static enum step wait_for(struct tool_reader *r, const char *expected)
{
    if (r->at < r->text.size)
        return reader_fail(r, expected);
    return r->final ? reader_fail(r, "the JSON of the call is not complete") : STEP_MORE;
}

/* Passes over ```json, which may be there in part. */
static bool pass_fence(struct tool_reader *r)
{
    struct span rest = reader_rest(r), fence = SPAN("```json");

    if (!r->final && rest.size < fence.size && span_starts(fence, rest))
        return false;
    if (span_starts(rest, fence))
        reader_advance(r, r->at + fence.size);
    return true;
}

static enum step start(struct tool_reader *r, const struct json_format *f)
{
    struct span rest = reader_rest(r);
    char c;

    reader_advance(r, r->at + space_at_start(rest));
    if (f->fenced && !pass_fence(r))
        return STEP_MORE;
    c = next_char(r);
    if (c == '[' && !r->in_list && !r->n_calls) {
        r->in_list = r->first = true;
        return reader_go(r, r->at + 1, ITEM);
    }
    if (c == '{')
        return reader_go(r, r->at, ITEM);
    if (r->at < r->text.size && r->text.size - r->at < 4 && !r->final)
        return STEP_MORE; /* a character of white space may be cut */
    return wait_for(r, "this is no JSON object or list");
}

static void new_call(struct tool_reader *r)
{
    reader_clear(r, &r->name);
    reader_clear(r, &r->id);
    r->nested = r->saw_arguments = false;
    r->arguments_size = 0;
    r->first = true;
}

static enum step item(struct tool_reader *r)
{
    char c = next_char(r);

    if (c == ']' && r->in_list && r->first)
        return reader_go(r, r->at + 1, END);
    if (c != '{')
        return wait_for(r, "a call is no JSON object");
    new_call(r);
    reader_json_start(r);
    return reader_go(r, r->at + 1, KEY);
}

static enum step end_item(struct tool_reader *r, const struct json_format *f)
{
    reader_advance(r, r->at + 1);
    if (r->nested) {
        r->nested = false;
        r->state = AFTER_MEMBER;
        return STEP_AGAIN;
    }
    if (!f->name_is_key) {
        if (!r->out.open)
            return reader_fail(r, "a call has no name");
        reader_end_call(r);
    }
    r->state = r->in_list ? AFTER_ITEM : END;
    r->first = false;
    return STEP_AGAIN;
}

static bool is_in(struct span literal, const char *const *list)
{
    for (; list && *list; list++)
        if (json_text_is(literal, *list))
            return true;
    return false;
}

static enum step key(struct tool_reader *r, const struct json_format *f)
{
    char c = r->json_size ? '"' : next_char(r);
    struct span literal;

    if (c == '}' && r->first)
        return end_item(r, f);
    if (c != '"')
        return wait_for(r, "a key was expected in the JSON of a call");
    switch (reader_json(r, r->text.size, NULL)) {
    case JSON_TEXT_BAD:
        return reader_fail(r, "a key in the JSON of a call is broken");
    case JSON_TEXT_MORE:
        return r->final ? reader_fail(r, "the JSON of the call is not complete") : STEP_MORE;
    default:
        break;
    }
    literal = reader_between(r, r->at, r->at + r->json_size);
    r->value_kind = is_in(literal, f->arguments)        ? MEMBER_ARGUMENTS
                    : is_in(literal, f->names)          ? MEMBER_NAME
                    : is_in(literal, f->ids)            ? MEMBER_ID
                    : json_text_is(literal, "function") ? MEMBER_FUNCTION
                                                        : MEMBER_OTHER;
    if (f->name_is_key) {
        reader_clear(r, &r->name);
        json_text_decode(literal, &r->name);
        r->value_kind = MEMBER_ARGUMENTS;
        reader_begin_call(r, (struct span){r->name.data, r->name.size}, (struct span){0});
    }
    return reader_go(r, r->at + r->json_size, COLON);
}

static enum step colon(struct tool_reader *r)
{
    if (next_char(r) != ':')
        return wait_for(r, "a colon was expected in the JSON of a call");
    reader_json_start(r);
    return reader_go(r, r->at + 1, MEMBER);
}

/* Arguments that are complete, given or kept for when the name is known. */
static enum step whole_arguments(struct tool_reader *r, const struct json_format *f,
                                 struct span value)
{
    bool ok = true;

    reader_clear(r, &r->piece);
    if (f->arguments_object && value.at[0] == '"') {
        json_text_decode(value, &r->piece);
        struct span decoded = {r->piece.data ? r->piece.data : "", r->piece.size};
        struct strbuf copy = {0};
        size_t space = json_space_at_start(decoded);

        ok = space < decoded.size && decoded.at[space] == '{' &&
             json_text_whole(decoded, false, &copy);
        if (ok)
            call_text(&r->out, (struct span){copy.data, copy.size});
        if (copy.failed)
            r->no_memory = true;
        strbuf_release(&copy);
    } else if (f->arguments_object && value.at[0] != '{') {
        ok = false;
    } else {
        json_text_value(value, false, &r->piece);
        call_text(&r->out, (struct span){r->piece.data, r->piece.size});
    }
    r->saw_arguments = true;
    return ok ? STEP_AGAIN : reader_fail(r, "the arguments are no JSON object");
}

static enum step take_name(struct tool_reader *r, const struct json_format *f, struct span value)
{
    if (value.at[0] != '"')
        return reader_fail(r, "the name of a call is no string");
    if (r->out.open)
        return reader_fail(r, "a call has two names");
    reader_clear(r, &r->name);
    json_text_decode(value, &r->name);
    reader_begin_call(r, (struct span){r->name.data ? r->name.data : "", r->name.size},
                      (struct span){r->id.data, r->id.size});
    if (!r->arguments_size)
        return STEP_AGAIN;
    return whole_arguments(r, f,
                           reader_between(r, r->arguments_at, r->arguments_at + r->arguments_size));
}

/* A member other than arguments that stream, complete. */
static enum step take_member(struct tool_reader *r, const struct json_format *f)
{
    size_t end = r->at + r->json_size;
    struct span value = reader_rest(r);
    enum step step = STEP_AGAIN;

    value.size = r->json_size;
    value = span_from(value, json_space_at_start(value));
    if (r->value_kind == MEMBER_NAME) {
        step = take_name(r, f, value);
    } else if (r->value_kind == MEMBER_ID && value.at[0] == '"') {
        reader_clear(r, &r->id);
        json_text_decode(value, &r->id);
    } else if (r->value_kind == MEMBER_ARGUMENTS && r->out.open) {
        step = whole_arguments(r, f, value);
    } else if (r->value_kind == MEMBER_ARGUMENTS) {
        r->arguments_at = (size_t)(value.at - r->text.data);
        r->arguments_size = value.size;
    }
    return step == STEP_FAIL ? step : reader_go(r, end, AFTER_MEMBER);
}

static enum step member(struct tool_reader *r, const struct json_format *f)
{
    char c = r->json_size ? '\0' : next_char(r);
    enum json_text_status status;
    bool stream;

    if (!r->json_size && r->at == r->text.size)
        return wait_for(r, "");
    if (r->value_kind == MEMBER_FUNCTION && c == '{' && !r->nested) {
        r->nested = r->first = true;
        reader_json_start(r);
        return reader_go(r, r->at + 1, KEY);
    }
    stream = r->value_kind == MEMBER_ARGUMENTS && r->out.open &&
             (!f->arguments_object || r->text.data[r->at] == '{');
    if (stream && r->saw_arguments && !r->json_size)
        return reader_fail(r, "a call has arguments twice");
    status = stream ? reader_json_arguments(r, r->text.size) : reader_json(r, r->text.size, NULL);
    if (status == JSON_TEXT_MORE && r->final)
        return reader_fail(r, "the JSON of the call is not complete");
    if (status == JSON_TEXT_BAD)
        return reader_fail(r, "a value in the JSON of a call is broken");
    if (status == JSON_TEXT_MORE)
        return STEP_MORE;
    if (!stream)
        return take_member(r, f);
    return reader_go(r, r->at + r->json_size, AFTER_MEMBER);
}

static enum step after_member(struct tool_reader *r, const struct json_format *f)
{
    char c = next_char(r);

    if (f->name_is_key && r->out.open)
        reader_end_call(r);
    if (c == '}')
        return end_item(r, f);
    if (c != ',')
        return wait_for(r, "a comma was expected in the JSON of a call");
    r->first = false;
    reader_json_start(r);
    return reader_go(r, r->at + 1, KEY);
}

static enum step after_item(struct tool_reader *r)
{
    char c = next_char(r);

    if (c != ',' && c != ']')
        return wait_for(r, "a comma was expected between calls");
    return reader_go(r, r->at + 1, c == ',' ? ITEM : END);
}

static enum step end(struct tool_reader *r, const struct json_format *f)
{
    struct span rest = reader_rest(r);
    size_t space = space_at_start(rest);

    if (f->sequence && space < rest.size && rest.at[space] == ';')
        return reader_go(r, r->at + space + 1, END);
    if (f->sequence && space < rest.size && rest.at[space] == '{')
        return reader_go(r, r->at + space, START);
    if (f->fenced && space < rest.size && rest.at[space] == '`')
        return reader_go(r, r->at + space + 1, END);
    if (space < rest.size && (r->final || rest.size - space > 3))
        return reader_fail(r, "there is text after the call");
    return STEP_MORE;
}

enum step read_json_as(struct tool_reader *r, const struct json_format *f)
{
    switch (r->state) {
    case START:
        return start(r, f);
    case ITEM:
        return item(r);
    case KEY:
        return key(r, f);
    case COLON:
        return colon(r);
    case MEMBER:
        return member(r, f);
    case AFTER_MEMBER:
        return after_member(r, f);
    case AFTER_ITEM:
        return after_item(r);
    default:
        return end(r, f);
    }
}

enum step read_json_calls(struct tool_reader *r)
{
    if (r->state < START)
        read_json_begin(r, r->at);
    return read_json_as(r, r->syntax->format);
}

static const char *const name[] = {"name", NULL}, *const arguments[] = {"arguments", NULL};
static const char *const ids[] = {"id", NULL}, *const cohere_names[] = {"tool_name", "name", NULL};
static const char *const cohere_ids[] = {"tool_call_id", "id", NULL};
static const char *const parameters[] = {"parameters", "arguments", NULL};
static const char *const llama_names[] = {"name", "function", NULL};

const struct json_format json_tools = {.names = name, .arguments = arguments, .ids = ids};
const struct json_format json_mistral = {
    .names = name, .arguments = arguments, .ids = ids, .arguments_object = true};
const struct json_format json_cohere = {
    .names = cohere_names, .arguments = parameters, .ids = cohere_ids, .fenced = true};
const struct json_format json_llama = {
    .names = llama_names, .arguments = parameters, .ids = ids, .sequence = true};
const struct json_format json_apertus = {.name_is_key = true};
