/* What GLM writes in place of tags: JSON in several shapes, "NAME {json}", "NAME key=value ..." */
#include "parse/read_pairs.h"

#include "parse/literal.h"

static void say(struct tool_reader *r, struct span name, struct span arguments)
{
    reader_begin_call(r, name, (struct span){0});
    call_text(&r->out, arguments);
    r->saw_arguments = arguments.size > 0;
    reader_end_call(r);
}

static void say_raw(struct tool_reader *r, struct span name, struct span text)
{
    reader_clear(r, &r->piece);
    strbuf_add_str(&r->piece, "{\"raw\": ");
    strbuf_add_json(&r->piece, text.size ? text.at : "", text.size);
    strbuf_add_char(&r->piece, '}');
    if (!r->piece.failed)
        say(r, name, (struct span){r->piece.data, r->piece.size});
}

/* JSON, or a Python literal, or neither. */
static bool deserialize(struct span text, struct strbuf *out)
{
    return json_text_whole(text, false, out) || literal_to_json(text, out);
}

/* str() of a value that is no string, as near to it as JSON is. */
static void add_as_string(struct span value, struct strbuf *out)
{
    if (span_is(value, "true"))
        value = SPAN("True");
    else if (span_is(value, "false"))
        value = SPAN("False");
    else if (span_is(value, "null"))
        value = SPAN("None");
    strbuf_add_json(out, value.at, value.size);
}

/* A value of an argument by its schema: declared strings are strings, other strings are read. */
static void add_normalized(struct span value, const json *schema, struct strbuf *out)
{
    struct strbuf text = {0};

    if (convert_always_string_literal(schema)) {
        if (value.at[0] == '"')
            strbuf_add(out, value.at, value.size);
        else
            add_as_string(value, out);
        return;
    }
    if (value.at[0] == '"')
        json_text_decode(value, &text);
    if (value.at[0] != '"' ||
        !deserialize((struct span){text.data ? text.data : "", text.size}, out))
        strbuf_add(out, value.at, value.size);
    if (text.failed)
        out->failed = true;
    strbuf_release(&text);
}

/* An object of arguments, in r->piece, member by member. False where it is no object. */
static bool normalize(struct tool_reader *r, struct span name, struct span object)
{
    struct json_text_iter it = {.rest = object};
    struct strbuf key = {0};
    bool first = true;

    if (!object.size || object.at[0] != '{')
        return false;
    reader_clear(r, &r->piece);
    strbuf_add_char(&r->piece, '{');
    while (json_text_next(&it)) {
        const json *schema;

        strbuf_clear(&key);
        json_text_decode(it.key, &key);
        if (key.failed)
            break;
        schema = schema_argument(r->tools, name, (struct span){key.data, key.size});
        strbuf_add_str(&r->piece, first ? "" : ", ");
        strbuf_add(&r->piece, it.key.at, it.key.size);
        strbuf_add_str(&r->piece, ": ");
        add_normalized(it.value, schema, &r->piece);
        first = false;
    }
    strbuf_add_char(&r->piece, '}');
    if (key.failed)
        r->no_memory = true;
    strbuf_release(&key);
    return true;
}

/* A call whose parts are known: arguments are an object, a string that holds one, or nothing. */
static bool say_parts(struct tool_reader *r, struct span name, struct span arguments)
{
    struct strbuf held = {0}, text = {0};
    bool ok = name.size && name.at[0] == '"';

    if (!ok)
        return false;
    reader_clear(r, &r->name);
    json_text_decode(name, &r->name);
    if (arguments.size && arguments.at[0] == '"') {
        json_text_decode(arguments, &text);
        ok = deserialize((struct span){text.data ? text.data : "", text.size}, &held);
        arguments = (struct span){held.data, held.size};
    }
    name = (struct span){r->name.data ? r->name.data : "", r->name.size};
    if (ok && (!arguments.size || span_is(arguments, "null")))
        say(r, name, (struct span){0});
    else if (ok && (ok = normalize(r, name, arguments)))
        say(r, name, (struct span){r->piece.data, r->piece.size});
    if (held.failed || text.failed)
        r->no_memory = true;
    strbuf_release(&held);
    strbuf_release(&text);
    return ok;
}

/* The shapes of JSON: {name, arguments}, {function, arguments}, {tool: {name, arguments}}, and a
 * name that is itself such an object; in a list, the first. */
static bool say_json(struct tool_reader *r, struct span object)
{
    struct span name = json_text_get(object, "name"), tool = json_text_get(object, "tool");
    struct span arguments = json_text_get(object, "arguments");

    if (!name.size || !arguments.size)
        name = json_text_get(object, "function");
    if (!name.size || !arguments.size) {
        if (!tool.size || tool.at[0] != '{')
            return false;
        name = json_text_get(tool, "name");
        arguments = json_text_get(tool, "arguments");
    }
    if (name.size && name.at[0] == '{') {
        if (!arguments.size || span_is(arguments, "null"))
            arguments = json_text_get(name, "arguments");
        name = json_text_get(name, "name");
    }
    return say_parts(r, name, arguments);
}

static bool plain_json(struct tool_reader *r, struct span text)
{
    struct strbuf copy = {0};
    struct span value;
    bool ok = json_text_whole(text, false, &copy) && copy.size;

    if (ok) {
        value = (struct span){copy.data, copy.size};
        if (value.at[0] == '[') {
            struct json_text_iter it = {.rest = value};

            value = json_text_next(&it) ? it.value : (struct span){0};
        }
        ok = value.size && value.at[0] == '{' && say_json(r, value);
    }
    if (copy.failed)
        r->no_memory = true;
    strbuf_release(&copy);
    return ok;
}

/* Arguments as JSON or a Python literal, where that is an object. */
static bool plain_object(struct tool_reader *r, struct span name, struct span text)
{
    struct strbuf held = {0};
    bool ok = deserialize(text, &held) && normalize(r, name, (struct span){held.data, held.size});

    if (ok)
        say(r, name, (struct span){r->piece.data, r->piece.size});
    if (held.failed)
        r->no_memory = true;
    strbuf_release(&held);
    return ok;
}

static bool shell_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/**
 * The next word of a shell's line, as Python's shlex.split has it, at the start of *s, which is not
 * white space. False where a quote or a backslash has no other side.
 */
static bool shell_word(struct span *s, struct strbuf *word)
{
    char quote = '\0';

    while (s->size && (quote || !shell_space(s->at[0]))) {
        char c = s->at[0];

        *s = span_from(*s, 1);
        if (quote && c == quote) {
            quote = '\0';
        } else if (!quote && (c == '"' || c == '\'')) {
            quote = c;
        } else if (c == '\\' && quote != '\'') {
            if (!s->size)
                return false;
            if (quote && s->at[0] != '"' && s->at[0] != '\\')
                strbuf_add_char(word, c);
            strbuf_add_char(word, s->at[0]);
            *s = span_from(*s, 1);
        } else {
            strbuf_add_char(word, c);
        }
    }
    return !quote;
}

/* key=value, added to r->piece. */
static bool add_pair(struct tool_reader *r, struct span name, struct span word, bool first)
{
    size_t equals = span_find(word, 0, SPAN("="));
    struct span key, value;
    const char *why;

    if (equals == SIZE_MAX)
        return false;
    key = span_strip(span_first(word, equals));
    value = span_from(word, equals + 1);
    if (!key.size)
        return false;
    strbuf_add_str(&r->piece, first ? "" : ", ");
    strbuf_add_json(&r->piece, key.at, key.size);
    strbuf_add_str(&r->piece, ": ");
    convert_literal(value, schema_argument(r->tools, name, key), &r->piece, &why);
    return true;
}

static bool plain_pairs(struct tool_reader *r, struct span name, struct span text)
{
    struct strbuf word = {0};
    bool ok = true, first = true;

    reader_clear(r, &r->piece);
    strbuf_add_char(&r->piece, '{');
    for (;;) {
        while (text.size && shell_space(text.at[0]))
            text = span_from(text, 1);
        if (!text.size || !ok)
            break;
        strbuf_clear(&word);
        ok = shell_word(&text, &word) && !word.failed &&
             add_pair(r, name, (struct span){word.data ? word.data : "", word.size}, first);
        first = false;
    }
    strbuf_add_char(&r->piece, '}');
    if (word.failed)
        r->no_memory = true;
    strbuf_release(&word);
    if (ok && !first && !r->piece.failed)
        say(r, name, (struct span){r->piece.data, r->piece.size});
    return ok && !first;
}

void read_glm47_plain(struct tool_reader *r)
{
    struct span text = span_strip(reader_between(r, 0, r->text.size)), name, rest;
    size_t cut;

    reader_advance(r, r->text.size);
    if (plain_json(r, text))
        return;
    if (!text.size) {
        say_raw(r, SPAN("unknown"), text);
        return;
    }
    cut = span_find(text, 0, SPAN("\n"));
    if (cut != SIZE_MAX) {
        name = span_strip(span_first(text, cut));
        rest = span_strip(span_from(text, cut + 1));
        if (name.size && rest.size && plain_object(r, name, rest))
            return;
    }
    cut = span_find(text, 0, SPAN(" "));
    name = cut == SIZE_MAX ? text : span_first(text, cut);
    rest = cut == SIZE_MAX ? (struct span){0} : span_strip(span_from(text, cut + 1));
    if (!rest.size)
        say(r, name, (struct span){0});
    else if (!plain_object(r, name, rest) && !plain_pairs(r, name, rest))
        say_raw(r, name, rest);
}
