/* Calls written as nested tags: a call with a name in its head, arguments in tags of their own.
 *
 *     <function=NAME> <parameter=KEY> VALUE </parameter> </function>              Qwen3-Coder
 *     <invoke name="NAME"> <parameter name="KEY">VALUE</parameter> </invoke>      MiniMax-M2
 *     <atem:invoke name="NAME"> <atem:parameter name="KEY">VALUE</atem:parameter> </atem:invoke>
 *     <function name="NAME"> <param name="KEY">VALUE</param> </function>          MiniCPM5
 *     <|open|>call tool="NAME"<|sep|> <|open|>argument key="KEY" type="TYPE"<|sep|>VALUE
 *         <|close|>argument<|sep|> <|close|>call<|sep|>                           Kimi K3
 *     <｜DSML｜invoke name="NAME"> <｜DSML｜parameter name="KEY" string="true">VALUE ...  DeepSeek
 */
#include "parse/read_tags.h"

#include "base/memory.h"
#include "base/utf8.h"

/* A head that is not complete by then will not be: it would have to be looked at again and again.
 */
#define MAX_HEAD 4096

enum state { SEEK, SKIP, BODY, VALUE, RAW };

static const struct tag_format *format_of(const struct tool_reader *r)
{
    return r->syntax->format;
}

/* The call that has begun ends with this text. */
static bool ends_with_close(const struct tool_reader *r)
{
    struct span rest = reader_rest(r), close = format_of(r)->call_close;

    if (rest.size && rest.at[rest.size - 1] == '\n')
        rest.size--;
    return rest.size >= close.size && span_starts(span_from(rest, rest.size - close.size), close);
}

/* The text is whole: is there a call at all, after a head that ends at this place? */
static bool closed(const struct tool_reader *r, size_t head_end)
{
    const struct tag_format *f = format_of(r);

    switch (f->close) {
    case CLOSE_LAST:
        return ends_with_close(r);
    case CLOSE_REQUIRED:
        return span_find(reader_between(r, 0, r->text.size), head_end, f->call_close) != SIZE_MAX;
    default:
        return true;
    }
}

/* Where a block with all arguments is complete, between two places; or SIZE_MAX. */
static size_t whole_block(const struct tool_reader *r, size_t begin, size_t end)
{
    const struct tag_format *f = format_of(r);
    struct span text = reader_between(r, 0, end);
    size_t open = span_find(text, begin, f->raw_open), at = open;

    if (at != SIZE_MAX)
        at = span_find(text, at, f->head_end);
    if (at != SIZE_MAX)
        at = span_find(text, at, f->raw_close);
    return at == SIZE_MAX ? at : open;
}

/* Kimi K3: a JSON block anywhere in the call replaces its arguments. */
static enum step enter_body(struct tool_reader *r, size_t at)
{
    const struct tag_format *f = format_of(r);
    size_t close, block;

    if (!f->raw_open.size || !r->final)
        return reader_go(r, at, BODY);
    close = span_find(reader_between(r, 0, r->text.size), at, f->call_close);
    block = whole_block(r, at, close == SIZE_MAX ? r->text.size : close);
    return reader_go(r, block == SIZE_MAX ? at : block, BODY);
}

/* A call without a name, which is none. */
static enum step skip(struct tool_reader *r)
{
    size_t close = reader_find_one(r, format_of(r)->call_close);

    if (close == SIZE_MAX)
        return STEP_MORE;
    return reader_go(r, close + format_of(r)->call_close.size, SEEK);
}

static enum step seek(struct tool_reader *r)
{
    const struct tag_format *f = format_of(r);
    struct tag_head head = {0};
    enum tag_match match;
    size_t open = f->call_open.size ? reader_find_one(r, f->call_open) : r->at;
    size_t at = open + f->call_open.size;

    if (open == SIZE_MAX)
        return STEP_MORE;
    match = f->call_head(reader_between(r, at, r->text.size), r->final, &head);
    if (match == TAG_MORE && !r->final) {
        reader_advance(r, open);
        if (r->text.size - at > MAX_HEAD)
            return reader_fail(r, "the head of a call has no end");
        return STEP_MORE;
    }
    if (match == TAG_YES && r->final && !r->streamed && !closed(r, at + head.size))
        match = TAG_NO;
    if (match != TAG_YES) {
        if (f->close == CLOSE_LAST)
            return reader_fail(r, "a call has no name, or does not end where it should");
        if (at >= r->text.size)
            return STEP_MORE;
        return reader_go(r, f->call_open.size ? open + 1 : at + (head.size ? head.size : 1), SEEK);
    }
    reader_clear(r, &r->name);
    f->unescape(head.name, &r->name);
    if (!head.name.size)
        return reader_go(r, at + head.size, f->close == CLOSE_REQUIRED ? SKIP : SEEK);
    reader_clear(r, &r->id);
    reader_begin_call(r, (struct span){r->name.data, r->name.size}, (struct span){0});
    return enter_body(r, at + head.size);
}

static enum step end_call(struct tool_reader *r, size_t at)
{
    reader_end_call(r);
    return reader_go(r, at, SEEK);
}

static void begin_value(struct tool_reader *r, const struct tag_head *head)
{
    const struct tag_format *f = format_of(r);

    reader_clear(r, &r->key);
    f->unescape(head->name, &r->key);
    r->no_key = !head->name.at;
    r->schema = schema_argument(r->tools, (struct span){r->name.data, r->name.size},
                                (struct span){r->key.data, r->key.size});
    r->value_kind = f->value_kind;
    if (f->value_kind == VALUE_TYPED_BY_TAG)
        r->value_kind = head->is_string ? VALUE_STRING : VALUE_JSON;
    else if (f->value_kind == VALUE_TYPED_BY_SCHEMA)
        r->value_kind = f->always_string(r->schema) ? VALUE_STRING : VALUE_CONVERT;
    r->string_open = false;
    reader_json_start(r);
}

/* At a tag that may open an argument. */
static enum step parameter(struct tool_reader *r, size_t open)
{
    const struct tag_format *f = format_of(r);
    struct tag_head head = {0};
    size_t at = open + f->parameter_open.size;
    enum tag_match match = f->parameter_head(reader_between(r, at, r->text.size), r->final, &head);

    if (match == TAG_MORE && !r->final && r->text.size - at > MAX_HEAD)
        return reader_fail(r, "the head of an argument has no end");
    if (match == TAG_MORE && !r->final)
        return STEP_MORE;
    if (match != TAG_YES)
        return reader_go(r, open + 1, BODY);
    begin_value(r, &head);
    return reader_go(r, at + head.size, VALUE);
}

/* At a tag that may open arguments in one piece. What looks like its head may hold the tag of an
 * argument, which counts where the block turns out to be none: then it is waited for. */
static enum step raw_block(struct tool_reader *r, size_t open)
{
    const struct tag_format *f = format_of(r);
    struct span text = reader_between(r, 0, r->text.size);
    size_t at = span_find(text, open, f->head_end), close = span_find(text, open, f->call_close);
    bool whole = r->final || close != SIZE_MAX;

    if (whole && (at == SIZE_MAX || close < at ||
                  whole_block(r, open, close == SIZE_MAX ? text.size : close) == SIZE_MAX))
        return reader_go(r, open + 1, BODY);
    if (!whole &&
        (at == SIZE_MAX || span_find(span_first(text, at), open, f->parameter_open) != SIZE_MAX)) {
        if (text.size - open > MAX_HEAD)
            return reader_fail(r, "the head of a block has no end");
        return STEP_MORE;
    }
    if (r->object_open) {
        reader_skip_call(r, "arguments in two ways");
        return reader_go(r, at, SKIP);
    }
    reader_json_start(r);
    return reader_go(r, at + f->head_end.size, RAW);
}

static enum step body(struct tool_reader *r)
{
    const struct tag_format *f = format_of(r);
    struct span markers[3] = {f->parameter_open};
    size_t n = 1, which, found;

    if (f->close != CLOSE_LAST)
        markers[n++] = f->call_close;
    if (f->raw_open.size)
        markers[n++] = f->raw_open;
    found = reader_find(r, markers, n, &which);
    if (found != SIZE_MAX && which == 0)
        return parameter(r, found);
    if (found != SIZE_MAX && which == 1)
        return end_call(r, found + f->call_close.size);
    if (found != SIZE_MAX)
        return raw_block(r, found);
    if (!r->final)
        return STEP_MORE;
    if (f->close == CLOSE_LAST && !ends_with_close(r))
        return reader_fail(r, "the call does not end where it should");
    return f->close == CLOSE_REQUIRED ? STEP_MORE : end_call(r, r->text.size);
}

static struct span trimmed(struct span s, enum tag_trim trim)
{
    if (trim == TRIM_SPACE)
        return span_strip(s);
    if (trim == TRIM_NEWLINES) {
        if (s.size && s.at[0] == '\n')
            s = span_from(s, 1);
        if (s.size && s.at[s.size - 1] == '\n')
            s.size--;
    }
    return s;
}

/* What stands in <![CDATA[...]]>, where that is all of s. */
static bool in_cdata(struct span s, struct span *inner)
{
    struct span open = SPAN("<![CDATA["), close = SPAN("]]>");
    struct span all = span_from(s, regex_space_at_start(s));

    all.size -= space_at_end(all);
    if (all.size < open.size + close.size || !span_starts(all, open) ||
        !span_starts(span_from(all, all.size - close.size), close))
        return false;
    *inner = (struct span){all.at + open.size, all.size - open.size - close.size};
    return true;
}

static struct span value_text(const struct tool_reader *r, struct span raw)
{
    const struct tag_format *f = format_of(r);
    struct span inner;

    return f->cdata && in_cdata(raw, &inner) ? inner : trimmed(raw, f->trim);
}

static void key(struct tool_reader *r)
{
    if (!r->object_open)
        call_object_open(&r->out);
    r->object_open = true;
    call_key(&r->out, (struct span){r->key.data, r->key.size});
}

/* Gives out a string up to a place that is sure to belong to it. */
static void stream_string(struct tool_reader *r, struct span visible)
{
    size_t end = (size_t)(visible.at - r->text.data) + visible.size;
    size_t begin = (size_t)(visible.at - r->text.data);
    struct span piece;

    if (!r->string_open) {
        if (!visible.size)
            return;
        key(r);
        call_string_open(&r->out);
        r->string_open = true;
        r->string_begin = r->string_at = begin;
    }
    if (end <= r->string_at)
        return;
    piece = reader_between(r, r->string_at, end);
    piece.size -= utf8_incomplete_tail(piece.at, piece.size);
    call_string_piece(&r->out, piece);
    r->string_at += piece.size;
}

/* Could this still become null, or CDATA, which must not be given out as text? */
static bool undecided(const struct tag_format *f, struct span s)
{
    char prefix[5] = "null";

    if (f->nullable && s.size <= 4) {
        prefix[s.size] = '\0';
        if (span_is_nocase(s, prefix))
            return true;
    }
    return f->cdata && s.size < 9 && span_starts(SPAN("<![CDATA["), s);
}

/* The part of CDATA that cannot be its end. */
static struct span cdata_so_far(const struct tool_reader *r, struct span s)
{
    struct span inner = span_from(s, 9);
    size_t from = r->string_open ? r->string_at - (size_t)(inner.at - r->text.data) : 0;
    size_t end = span_find(inner, from < inner.size ? from : inner.size, SPAN("]]>"));

    return span_first(inner, end == SIZE_MAX ? inner.size - span_partial(inner, SPAN("]]>")) : end);
}

/* A value that has no end yet. */
static void stream_value(struct tool_reader *r)
{
    const struct tag_format *f = format_of(r);
    struct span raw = reader_between(r, r->at, r->scanned), s = raw;

    if (r->value_kind == VALUE_JSON) {
        if (r->json_size <= raw.size && reader_json(r, r->scanned, NULL) != JSON_TEXT_BAD)
            return;
        r->value_kind = VALUE_STRING;
    }
    if (r->value_kind != VALUE_STRING || r->no_key)
        return;
    if (f->trim == TRIM_SPACE)
        s = span_from(s, space_at_start(s));
    else if (f->trim == TRIM_NEWLINES && s.size && s.at[0] == '\n')
        s = span_from(s, 1);
    if (f->cdata && span_starts(s, SPAN("<![CDATA["))) {
        stream_string(r, cdata_so_far(r, s));
        return;
    }
    if (f->trim == TRIM_SPACE)
        s.size -= space_at_end(s);
    else if (f->trim == TRIM_NEWLINES && s.size && s.at[s.size - 1] == '\n')
        s.size--;
    if (r->string_open || !undecided(f, s))
        stream_string(r, s);
}

static enum step finish_value(struct tool_reader *r, struct span raw)
{
    const struct tag_format *f = format_of(r);
    struct span text = value_text(r, raw);
    const char *why = "a value";

    if (r->string_open) {
        size_t begin = (size_t)(text.at - r->text.data);

        if (begin != r->string_begin || begin + text.size < r->string_at)
            return reader_fail(r, "the end of an argument contradicts its beginning");
        call_string_piece(&r->out, reader_between(r, r->string_at, begin + text.size));
        call_string_close(&r->out);
        r->string_open = false;
        return STEP_AGAIN;
    }
    key(r);
    reader_clear(r, &r->piece);
    if (f->value_kind != VALUE_TYPED_BY_TAG) {
        if (f->convert(f->convert == convert_json ? raw : text, r->schema, &r->piece, &why)) {
            r->why = why;
            return reader_fail(r, "an argument's value is not of the declared type");
        }
    } else if (r->value_kind == VALUE_STRING || !json_text_whole(text, false, &r->piece)) {
        strbuf_add_json(&r->piece, text.size ? text.at : "", text.size);
    }
    call_text(&r->out, (struct span){r->piece.data, r->piece.size});
    return STEP_AGAIN;
}

static enum step value(struct tool_reader *r)
{
    const struct tag_format *f = format_of(r);
    struct span markers[2] = {f->parameter_close, f->call_close};
    size_t which = 0, found, begin = r->at;
    bool hidden = f->close == CLOSE_LAST || f->values_hide_close;

    found = reader_find(r, markers, hidden ? 1 : 2, &which);
    if (found != SIZE_MAX && which == 0 && r->no_key) {
        reader_skip_call(r, "an argument has no name");
        return reader_go(r, found, SKIP);
    }
    if (found != SIZE_MAX && which == 0) {
        if (finish_value(r, reader_between(r, begin, found)) == STEP_FAIL)
            return STEP_FAIL;
        return reader_go(r, found + f->parameter_close.size, BODY);
    }
    if (found == SIZE_MAX && !r->final) {
        stream_value(r);
        return STEP_MORE;
    }
    if (r->string_open)
        return reader_fail(r, "an argument has no end");
    return reader_go(r, begin, BODY); /* it was no argument */
}

/* Gives out what there is of a JSON object, and says whether this is one as far as it goes. */
static bool raw_object(struct tool_reader *r, size_t end, bool whole)
{
    struct span text = reader_between(r, r->at, end);
    size_t space = json_space_at_start(text);
    enum json_text_status status;

    if (space == text.size)
        return !whole;
    if (text.at[space] != '{')
        return false;
    status = reader_json_arguments(r, end);
    if (status != JSON_TEXT_DONE)
        return status == JSON_TEXT_MORE && !whole;
    return r->json_size + json_space_at_start(span_from(text, r->json_size)) == text.size;
}

/* Arguments as one JSON object. Whether they are is decided at the end of the block. */
static enum step raw(struct tool_reader *r)
{
    const struct tag_format *f = format_of(r);
    struct span markers[] = {f->raw_close, f->call_close};
    size_t which = 0, close = reader_find(r, markers, 2, &which);

    if (close == SIZE_MAX && !r->final) {
        raw_object(r, r->scanned, false);
        return STEP_MORE;
    }
    if (close != SIZE_MAX && which == 0) {
        if (raw_object(r, close, true))
            return reader_go(r, close + f->raw_close.size, BODY);
        reader_skip_call(r, "the arguments are no JSON object");
        return reader_go(r, close, SKIP);
    }
    if (!call_has_text(&r->out))
        return reader_go(r, r->at, BODY); /* it was no such block */
    reader_skip_call(r, "the arguments have no end");
    return reader_go(r, r->at, SKIP);
}

enum step read_tags(struct tool_reader *r)
{
    switch (r->state) {
    case SEEK:
        return seek(r);
    case SKIP:
        return skip(r);
    case BODY:
        return body(r);
    case VALUE:
        return value(r);
    default:
        return raw(r);
    }
}
