/* [NAME(KEY=VALUE, ...), ...]
 *
 * While the text streams, each argument is given out when it is complete. At the end the whole text
 * decides: what is not Python as a whole is read by a looser grammar, and where that contradicts
 * what was given out, the section fails.
 */
#include "parse/read_python.h"

#include "parse/literal.h"
#include "parse/read_json.h"

enum state { START, CALL, ARGUMENT, AFTER_CALL, WAIT, BUILTIN, FUNCTION, DONE };

static void say_argument(struct tool_reader *r, struct span key, const struct strbuf *value)
{
    if (!r->object_open)
        call_object_open(&r->out);
    r->object_open = true;
    call_key(&r->out, key);
    call_text(&r->out, (struct span){value->data, value->size});
}

/* The arguments of a call at the start of *s, up to its bracket; moves *s behind it. */
static bool arguments_of_call(struct tool_reader *r, struct span *s, bool say)
{
    struct strbuf value = {0};
    bool last = false, ok = true;

    while (ok && !last) {
        size_t n = python_space(*s);
        struct span key;

        if (n < s->size && s->at[n] == ')') {
            *s = span_from(*s, n + 1);
            break;
        }
        strbuf_clear(&value);
        n = call_argument(*s, &key, &value, &last);
        r->no_memory |= value.failed;
        ok = n && !value.failed;
        *s = span_from(*s, n);
        if (ok && say)
            say_argument(r, key, &value);
    }
    strbuf_release(&value);
    return ok;
}

/* One call at the start of *s. */
static bool one_call(struct tool_reader *r, struct span *s, bool say)
{
    struct strbuf name = {0};
    size_t n = call_name(*s, &name);
    bool ok = n && !name.failed;

    r->no_memory |= name.failed;
    *s = span_from(*s, n);
    if (ok && say)
        reader_begin_call(r, (struct span){name.data, name.size}, (struct span){0});
    ok = ok && arguments_of_call(r, s, say);
    if (ok && say)
        reader_end_call(r);
    strbuf_release(&name);
    return ok;
}

/* A list of calls, all of s; false where it is none. Said to the writer only with say. */
static bool list_of_calls(struct tool_reader *r, struct span s, bool say)
{
    for (size_t count = 0;; count++) {
        s = span_from(s, count ? 0 : 1); /* the bracket */
        s = span_from(s, python_space(s));
        if (count && s.size && s.at[0] == ']')
            break;
        if (!one_call(r, &s, say))
            return false;
        s = span_from(s, python_space(s));
        if (!s.size || (s.at[0] != ',' && s.at[0] != ']'))
            return false;
        if (s.at[0] == ',')
            s = span_from(s, 1);
    }
    s = span_from(s, 1);
    return python_space(s) == s.size;
}

/* The value of an argument in the looser grammar: quoted, or up to a comma. Returns its end. */
static size_t loose_value(struct span s, struct span *value)
{
    size_t end;

    if (s.size && (s.at[0] == '"' || s.at[0] == '\'')) {
        end = span_find(s, 1, span_first(s, 1));
        if (end != SIZE_MAX) {
            size_t after = end + 1;

            *value = (struct span){s.at + 1, end - 1};
            if (after < s.size && s.at[after] == ',')
                return after + 1 + regex_space_at_start(span_from(s, after + 1));
            if (after == s.size || (after + 1 == s.size && s.at[after] == '\n'))
                return after;
        }
    }
    end = span_find(s, 0, SPAN(","));
    if (end == SIZE_MAX)
        end = s.size;
    *value = span_strip(span_first(s, end));
    if (!end || end == s.size)
        return end;
    return end + 1 + regex_space_at_start(span_from(s, end + 1));
}

static void loose_arguments(struct tool_reader *r, struct span s)
{
    while (s.size) {
        size_t word = word_at_start(s, '\0'), used = 0;
        struct span key = span_first(s, word), value;

        if (word && word < s.size && s.at[word] == '=')
            used = loose_value(span_from(s, word + 1), &value);
        if (!used) {
            s = span_from(s, word ? word : 1);
            continue;
        }
        reader_clear(r, &r->piece);
        if (!literal_to_json(value, &r->piece))
            strbuf_add_json(&r->piece, value.size ? value.at : "", value.size);
        say_argument(r, key, &r->piece);
        s = span_from(s, word + 1 + used);
    }
}

/* [NAME(anything)] wherever it stands: the first that closes. */
static bool loose_call(struct tool_reader *r, struct span s)
{
    size_t open = 0, close = span_find(s, 0, SPAN(")]"));

    while (close != SIZE_MAX && (open = span_find(s, open, SPAN("["))) != SIZE_MAX) {
        struct span rest = span_from(s, open + 1);
        size_t word = word_at_start(rest, '.'), begin = open + 1 + word + 1;

        open++;
        if (!word || word == rest.size || rest.at[word] != '(')
            continue;
        close = span_find(s, begin, SPAN(")]"));
        if (close == SIZE_MAX)
            break;
        reader_begin_call(r, span_first(rest, word), (struct span){0});
        loose_arguments(r, (struct span){s.at + begin, close - begin});
        reader_end_call(r);
        return true;
    }
    return false;
}

/* From the first [ to the last ]: Python, or what is near to it. */
static enum step whole(struct tool_reader *r)
{
    struct span text = reader_between(r, 0, r->text.size), list;
    size_t begin = span_find(text, 0, SPAN("[")), end = text.size;

    while (end && text.at[end - 1] != ']')
        end--;
    call_replay(&r->out);
    r->n_calls = 0;
    r->state = DONE;
    reader_advance(r, r->text.size);
    if (begin != SIZE_MAX && end > begin + 1) {
        list = (struct span){text.at + begin, end - begin};
        if (list_of_calls(r, list, false)) {
            list_of_calls(r, list, true);
            return STEP_MORE;
        }
    }
    if (!loose_call(r, text))
        return reader_fail(r, "there is no list of calls");
    return STEP_MORE;
}

/* Does the text hold a complete argument: a comma or ) outside of strings and brackets? Its end, or
 * 0. The place of the search and what it stands in (a quote, and brackets, in fields that only the
 * reader of JSON uses) are kept, so that text is looked at once. */
static size_t argument_end(struct tool_reader *r)
{
    size_t depth = r->json.depth, i;
    char in = r->json.word[0];

    for (i = r->scanned; i < r->text.size; i++) {
        char c = r->text.data[i];

        if (in) {
            if (c == '\\' && i + 1 == r->text.size)
                break;
            if (c == '\\')
                i++;
            else if (c == in)
                in = '\0';
        } else if (c == '"' || c == '\'') {
            in = c;
        } else if (c == '(' || c == '[' || c == '{') {
            depth++;
        } else if (depth && (c == ')' || c == ']' || c == '}')) {
            depth--;
        } else if (!depth && (c == ',' || c == ')')) {
            r->json = (struct json_text){0};
            return i + 1;
        }
    }
    r->json.word[0] = in;
    r->json.depth = (uint16_t)(depth < UINT16_MAX ? depth : UINT16_MAX);
    r->scanned = i;
    return 0;
}

static enum step stream_start(struct tool_reader *r)
{
    size_t found = reader_find_one(r, SPAN("["));

    return found == SIZE_MAX ? STEP_MORE : reader_go(r, found + 1, CALL);
}

static enum step stream_call(struct tool_reader *r)
{
    struct span rest = reader_rest(r);
    size_t open = reader_find_one(r, SPAN("(")), n;

    if (open == SIZE_MAX)
        return STEP_MORE;
    reader_clear(r, &r->name);
    n = call_name(span_first(rest, open + 1 - r->at), &r->name);
    if (!n)
        return reader_go(r, r->at, WAIT);
    reader_begin_call(r, (struct span){r->name.data, r->name.size}, (struct span){0});
    r->json = (struct json_text){0};
    return reader_go(r, r->at + n, ARGUMENT);
}

static enum step stream_argument(struct tool_reader *r)
{
    size_t end, n, space = python_space(reader_rest(r));
    struct span key;
    bool last = false;

    if (r->at + space < r->text.size && r->text.data[r->at + space] == ')') {
        reader_end_call(r);
        return reader_go(r, r->at + space + 1, AFTER_CALL);
    }
    end = argument_end(r);
    if (!end)
        return STEP_MORE;
    reader_clear(r, &r->piece);
    n = call_argument(reader_between(r, r->at, end), &key, &r->piece, &last);
    if (!n)
        return reader_go(r, r->at, WAIT);
    say_argument(r, key, &r->piece);
    if (last)
        reader_end_call(r);
    return reader_go(r, r->at + n, last ? AFTER_CALL : ARGUMENT);
}

static enum step stream_after_call(struct tool_reader *r)
{
    size_t space = python_space(reader_rest(r));

    if (r->at + space == r->text.size)
        return STEP_MORE;
    return reader_go(r, r->at + space + 1, r->text.data[r->at + space] == ',' ? CALL : WAIT);
}

enum step read_pythonic(struct tool_reader *r)
{
    if (r->state == DONE)
        return STEP_MORE;
    if (r->final)
        return whole(r);
    switch (r->state) {
    case START:
        return stream_start(r);
    case CALL:
        return stream_call(r);
    case ARGUMENT:
        return stream_argument(r);
    case AFTER_CALL:
        return stream_after_call(r);
    default:
        return STEP_MORE;
    }
}

/* One call without a list around it: NAME.call(KEY=VALUE), the form of built-in tools. */
static enum step builtin(struct tool_reader *r)
{
    struct span s = reader_rest(r);
    struct strbuf list = {0};
    bool ok;

    if (!r->final)
        return STEP_MORE;
    s = span_strip(s);
    strbuf_add_char(&list, '[');
    strbuf_add(&list, s.at, s.size);
    strbuf_add_char(&list, ']');
    if (list.failed) {
        r->no_memory = true;
        strbuf_release(&list);
        return STEP_MORE;
    }
    ok = list_of_calls(r, (struct span){list.data, list.size}, false);
    if (ok)
        list_of_calls(r, (struct span){list.data, list.size}, true);
    strbuf_release(&list);
    r->state = DONE;
    return ok ? STEP_MORE : reader_fail(r, "this is no call");
}

/* <function=NAME>{...}</function>, after the first <function=. */
static enum step function(struct tool_reader *r)
{
    struct span open = SPAN("<function=");
    enum json_text_status status;
    size_t found;

    if (!r->out.open) {
        found = reader_find_one(r, SPAN(">"));
        if (found == SIZE_MAX)
            return STEP_MORE;
        reader_begin_call(r, reader_between(r, r->at + open.size, found), (struct span){0});
        reader_json_start(r);
        reader_advance(r, found + 1);
    }
    status = reader_json_arguments(r, r->text.size);
    if (status == JSON_TEXT_BAD)
        return reader_fail(r, "the arguments are no JSON");
    if (status == JSON_TEXT_MORE)
        return STEP_MORE;
    reader_end_call(r);
    return reader_go(r, r->at + r->json_size, DONE);
}

static enum step llama_start(struct tool_reader *r)
{
    struct span open = SPAN("<function="), rest;

    reader_advance(r, r->at + space_at_start(reader_rest(r)));
    rest = reader_rest(r);
    if (!rest.size)
        return STEP_MORE;
    if (rest.at[0] == '{') {
        read_json_begin(r, r->at);
        return STEP_AGAIN;
    }
    if (span_starts(rest, open))
        return reader_go(r, r->at, FUNCTION);
    if (!r->final && rest.size < open.size && span_starts(open, rest))
        return STEP_MORE;
    if (rest.at[0] != '[')
        return reader_go(r, r->at, BUILTIN);
    return r->final ? whole(r) : reader_go(r, r->at + 1, CALL);
}

enum step read_llama(struct tool_reader *r)
{
    if (r->state >= JSON_STATES)
        return read_json_as(r, &json_llama);
    switch (r->state) {
    case START:
        return llama_start(r);
    case BUILTIN:
        return builtin(r);
    case FUNCTION:
        return function(r);
    default:
        return read_pythonic(r);
    }
}
