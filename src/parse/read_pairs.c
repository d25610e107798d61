/* NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>...       GLM 4.5 to 4.7, Laguna
 * The same with other names of the tags                           LongCat
 */
#include "parse/read_pairs.h"

#include "base/utf8.h"
#include "parse/read_json.h"

enum state { START, NAME, BODY, KEY, VALUE, PLAIN };

struct pair_tags {
    struct span key_open, key_close, value_open, value_close;
};

static const struct pair_tags glm = {SPAN_INIT("<arg_key>"), SPAN_INIT("</arg_key>"),
                                     SPAN_INIT("<arg_value>"), SPAN_INIT("</arg_value>")};
static const struct pair_tags longcat = {
    SPAN_INIT("<longcat_arg_key>"), SPAN_INIT("</longcat_arg_key>"),
    SPAN_INIT("<longcat_arg_value>"), SPAN_INIT("</longcat_arg_value>")};

static enum step name(struct tool_reader *r, const struct pair_tags *t)
{
    size_t found = reader_find_one(r, t->key_open);
    struct span text;

    if (found == SIZE_MAX)
        return STEP_MORE;
    text = span_strip(reader_between(r, r->at, found));
    reader_clear(r, &r->name);
    strbuf_add(&r->name, text.at, text.size);
    reader_clear(r, &r->id);
    reader_begin_call(r, text, (struct span){0});
    call_object_open(&r->out);
    r->object_open = true;
    return reader_go(r, found, BODY);
}

static enum step body(struct tool_reader *r, const struct pair_tags *t)
{
    size_t found = reader_find_one(r, t->key_open);

    if (found != SIZE_MAX)
        return reader_go(r, found + t->key_open.size, KEY);
    if (r->final)
        reader_end_call(r);
    return STEP_MORE;
}

/* White space, and \n written out, between a key and its value. */
static size_t gap(struct span s)
{
    size_t i = 0, space;

    do {
        space = regex_space_at_start(span_from(s, i));
        i += space;
        if (span_starts(span_from(s, i), SPAN("\\n"))) {
            i += 2;
            space = 2;
        }
    } while (space);
    return i;
}

/* The key goes up to the first closing tag that a value follows. */
static enum step key(struct tool_reader *r, const struct pair_tags *t)
{
    size_t found;

    while ((found = reader_find_one(r, t->key_close)) != SIZE_MAX) {
        size_t after = found + t->key_close.size;
        struct span rest, text;

        after += gap(reader_between(r, after, r->text.size));
        rest = reader_between(r, after, r->text.size);
        if (span_starts(rest, t->value_open)) {
            text = span_strip(reader_between(r, r->at, found));
            reader_clear(r, &r->key);
            strbuf_add(&r->key, text.at, text.size);
            r->schema = schema_argument(r->tools, (struct span){r->name.data, r->name.size},
                                        (struct span){r->key.data, r->key.size});
            return reader_go(r, after + t->value_open.size, VALUE);
        }
        if (!r->final && rest.size < t->value_open.size &&
            (span_starts(t->value_open, rest) || span_starts(SPAN("\\n"), rest) ||
             (unsigned char)rest.at[0] >= 0x80))
            return STEP_MORE;
        r->scanned = found + 1;
    }
    return r->final ? reader_go(r, r->text.size, BODY) : STEP_MORE;
}

/* A declared string, as far as it is known to belong to the value. */
static void stream_value(struct tool_reader *r)
{
    struct span text = reader_between(r, r->at, r->scanned), piece;
    size_t begin;

    text = span_from(text, space_at_start(text));
    text.size -= space_at_end(text);
    text.size -= utf8_incomplete_tail(text.at, text.size);
    begin = (size_t)(text.at - r->text.data);
    if (!text.size)
        return;
    if (!r->string_open) {
        call_key(&r->out, (struct span){r->key.data, r->key.size});
        call_string_open(&r->out);
        r->string_open = true;
        r->string_at = begin;
    }
    if (begin + text.size <= r->string_at)
        return;
    piece = reader_between(r, r->string_at, begin + text.size);
    call_string_piece(&r->out, piece);
    r->string_at += piece.size;
}

static void finish_value(struct tool_reader *r, struct span text)
{
    const char *why;

    text = span_strip(text);
    if (r->string_open) {
        size_t end = (size_t)(text.at - r->text.data) + text.size;

        if (end > r->string_at)
            call_string_piece(&r->out, reader_between(r, r->string_at, end));
        call_string_close(&r->out);
        r->string_open = false;
        return;
    }
    call_key(&r->out, (struct span){r->key.data, r->key.size});
    reader_clear(r, &r->piece);
    convert_literal(text, r->schema, &r->piece, &why);
    call_text(&r->out, (struct span){r->piece.data, r->piece.size});
}

static enum step value(struct tool_reader *r, const struct pair_tags *t)
{
    size_t found = reader_find_one(r, t->value_close);

    if (found != SIZE_MAX) {
        finish_value(r, reader_between(r, r->at, found));
        return reader_go(r, found + t->value_close.size, BODY);
    }
    if (!r->final) {
        if (convert_always_string_literal(r->schema))
            stream_value(r);
        return STEP_MORE;
    }
    if (r->string_open)
        return reader_fail(r, "an argument has no end");
    return reader_go(r, r->text.size, BODY);
}

static enum step read_pairs(struct tool_reader *r, const struct pair_tags *t)
{
    switch (r->state) {
    case NAME:
        return name(r, t);
    case BODY:
        return r->out.open ? body(r, t) : STEP_MORE;
    case KEY:
        return key(r, t);
    default:
        return value(r, t);
    }
}

enum step read_glm47(struct tool_reader *r)
{
    if (r->state == START)
        r->state = NAME;
    if (r->state == NAME && r->final && reader_find_one(r, glm.key_open) == SIZE_MAX) {
        read_glm47_plain(r);
        r->state = PLAIN;
    }
    return r->state == PLAIN ? STEP_MORE : read_pairs(r, &glm);
}

/* LongCat may write a JSON object instead. */
enum step read_longcat(struct tool_reader *r)
{
    struct span rest = reader_rest(r);

    if (r->state >= JSON_STATES)
        return read_json_as(r, &json_tools);
    if (r->state != START)
        return read_pairs(r, &longcat);
    rest = span_strip(rest);
    if (!rest.size && !r->final)
        return STEP_MORE;
    if (!rest.size || rest.at[0] != '{' || (r->final && !json_text_whole(rest, false, NULL)))
        return reader_go(r, r->at, NAME);
    read_json_begin(r, r->at);
    return STEP_AGAIN;
}
