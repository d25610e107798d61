/* call:NAME{KEY:VALUE,...}
 *
 * FunctionGemma puts strings between <escape> and <escape>; the arguments end with the first
 * closing brace. Gemma 4 puts them between <|"|> and <|"|>; values nest, and are JSON but for these
 * strings and for keys without quotes.
 */
#include "parse/read_gemma.h"

#include "base/utf8.h"

/* As long as a word is not complete, it is looked at again: not longer than this. */
#define MAX_WORD 4096

enum state { SEEK, KEY, VALUE, STRING, AFTER_STRING, OBJECT, DONE };

/* call:NAME{ with name characters \w, and `also`. A place that cannot be one is passed over. */
static enum step seek(struct tool_reader *r, char also, int next)
{
    struct span call = SPAN("call:"), rest;
    size_t found = reader_find_one(r, call), word;

    if (found == SIZE_MAX)
        return STEP_MORE;
    reader_advance(r, found);
    rest = reader_between(r, found + call.size, r->text.size);
    word = word_at_start(rest, also);
    if (!r->final && word > MAX_WORD)
        return reader_fail(r, "the name of a call has no end");
    if (!r->final &&
        (word == rest.size || utf8_incomplete_tail(rest.at, rest.size) == rest.size - word))
        return STEP_MORE;
    if (!word || word == rest.size || rest.at[word] != '{')
        return reader_go(r, found + 1, SEEK);
    reader_clear(r, &r->name);
    strbuf_add(&r->name, rest.at, word);
    return reader_go(r, found + call.size + word + 1, next);
}

static void begin(struct tool_reader *r)
{
    reader_begin_call(r, (struct span){r->name.data, r->name.size}, (struct span){0});
}

/* FunctionGemma */

static const struct span escape = SPAN_INIT("<escape>");

/* The brace that closes the call, where it is known. */
static size_t brace(struct tool_reader *r)
{
    return span_find(reader_between(r, 0, r->text.size), r->scanned, SPAN("}"));
}

static enum step gemma_key(struct tool_reader *r)
{
    struct span markers[] = {SPAN(":"), SPAN("}")};
    size_t which = 0, found;

    if (!r->out.open) {
        if (r->final && brace(r) == SIZE_MAX)
            return STEP_MORE;
        begin(r);
        call_object_open(&r->out);
        r->object_open = true;
    }
    found = reader_find(r, markers, 2, &which);
    if (found == SIZE_MAX)
        return STEP_MORE;
    if (which == 1 && found > r->at)
        return reader_fail(r, "an argument has no value");
    if (which == 1) {
        reader_end_call(r);
        return reader_go(r, found + 1, DONE);
    }
    call_key(&r->out, reader_between(r, r->at, found));
    return reader_go(r, found + 1, VALUE);
}

static enum step gemma_value(struct tool_reader *r)
{
    struct span markers[] = {SPAN(","), SPAN("}")}, rest = reader_rest(r), text;
    size_t which = 0, found;

    if (span_starts(rest, escape)) {
        call_string_open(&r->out);
        return reader_go(r, r->at + escape.size, STRING);
    }
    if (rest.size < escape.size && span_starts(escape, rest))
        return STEP_MORE;
    found = reader_find(r, markers, 2, &which);
    if (found == SIZE_MAX)
        return STEP_MORE;
    text = reader_between(r, r->at, found);
    reader_clear(r, &r->piece);
    if (!json_text_whole(text, false, &r->piece))
        strbuf_add_json(&r->piece, text.at, text.size);
    call_text(&r->out, (struct span){r->piece.data, r->piece.size});
    return reader_go(r, found + (which == 0), KEY);
}

static enum step gemma_string(struct tool_reader *r)
{
    struct span markers[] = {escape, SPAN("}")}, piece;
    size_t which = 0, found = reader_find(r, markers, 2, &which);
    size_t end = found == SIZE_MAX ? r->scanned : found;

    if (found != SIZE_MAX && which == 1)
        return reader_fail(r, "a string has no end before the call's");
    piece = reader_between(r, r->at, end);
    if (found == SIZE_MAX)
        piece.size -= utf8_incomplete_tail(piece.at, piece.size);
    call_string_piece(&r->out, piece);
    if (found == SIZE_MAX) {
        r->at += piece.size;
        return STEP_MORE;
    }
    call_string_close(&r->out);
    return reader_go(r, found + escape.size, AFTER_STRING);
}

/* One character stands between a string and the next key, whichever it is. */
static enum step gemma_after_string(struct tool_reader *r)
{
    struct span rest = reader_rest(r);

    if (!rest.size)
        return STEP_MORE;
    if (rest.at[0] == '}')
        return reader_go(r, r->at, KEY);
    if (!r->final && rest.size < utf8_length((unsigned char)rest.at[0]))
        return STEP_MORE;
    int32_t c;
    return reader_go(r, r->at + utf8_decode(rest.at, rest.size, &c), KEY);
}

enum step read_function_gemma(struct tool_reader *r)
{
    switch (r->state) {
    case SEEK:
        return seek(r, '\0', KEY);
    case KEY:
        return gemma_key(r);
    case VALUE:
        return gemma_value(r);
    case STRING:
        return gemma_string(r);
    case AFTER_STRING:
        return gemma_after_string(r);
    default:
        return STEP_MORE; /* a section holds one call */
    }
}

/* Gemma 4 */

static const struct span quote = SPAN_INIT("<|\"|>");

/* The text is whole: do the braces from here on close again? */
static bool balanced(struct span s)
{
    size_t depth = 1;

    for (size_t i = 0; i < s.size; i++) {
        if (s.at[i] == '{')
            depth++;
        else if (s.at[i] == '}' && --depth == 0)
            return true;
        if (!span_starts(span_from(s, i), quote))
            continue;
        i = span_find(s, i + quote.size, quote);
        if (i == SIZE_MAX)
            return false;
        i += quote.size - 1;
    }
    return false;
}

static enum json_text_status gemma4_put(struct tool_reader *r, struct span text)
{
    size_t taken;
    enum json_text_status status = json_text_feed(&r->json, text, &r->piece, &taken);

    /* What follows a complete object would be text after it. */
    return status == JSON_TEXT_DONE && taken < text.size ? JSON_TEXT_BAD : status;
}

/* The characters of a string, without its quotes. */
static enum json_text_status gemma4_characters(struct tool_reader *r, struct span text)
{
    struct strbuf literal = {0};
    enum json_text_status status = JSON_TEXT_MORE;

    if (!text.size)
        return status;
    strbuf_add_json(&literal, text.at, text.size);
    if (literal.failed)
        r->no_memory = true;
    else
        status = gemma4_put(r, (struct span){literal.data + 1, literal.size - 2});
    strbuf_release(&literal);
    return status;
}

/* A word directly after { or , and before : is a key. Returns what it took; 0: more is needed. */
static size_t gemma4_word(struct tool_reader *r, struct span rest, enum json_text_status *status)
{
    size_t word = word_at_start(rest, '\0');

    if (!r->final &&
        (word == rest.size || utf8_incomplete_tail(rest.at, rest.size) == rest.size - word))
        return 0;
    if (word && word < rest.size && rest.at[word] == ':') {
        gemma4_put(r, SPAN("\""));
        gemma4_characters(r, span_first(rest, word));
        *status = gemma4_put(r, SPAN("\""));
        return word;
    }
    if (!word)
        word = 1;
    *status = gemma4_put(r, span_first(rest, word));
    return word;
}

/* The inside of a string and its end, as far as they are there. */
static size_t gemma4_string(struct tool_reader *r, struct span rest, enum json_text_status *status)
{
    size_t end = span_find(rest, 0, quote);

    if (end == SIZE_MAX) {
        rest.size -= span_partial(rest, quote);
        rest.size -= utf8_incomplete_tail(rest.at, rest.size);
        *status = gemma4_characters(r, rest);
        return rest.size;
    }
    gemma4_characters(r, span_first(rest, end));
    *status = gemma4_put(r, SPAN("\""));
    r->string_open = false;
    return end + quote.size;
}

/* One piece of the object from at on: of a string, a key, or a byte. 0: more is needed. */
static size_t gemma4_piece(struct tool_reader *r, struct span rest, enum json_text_status *status)
{
    if (r->string_open)
        return gemma4_string(r, rest, status);
    if (span_starts(rest, quote)) {
        *status = gemma4_put(r, SPAN("\""));
        r->string_open = true;
        return quote.size;
    }
    if (!r->final && rest.size < quote.size && span_starts(quote, rest))
        return 0;
    if (r->at && (r->text.data[r->at - 1] == '{' || r->text.data[r->at - 1] == ','))
        return gemma4_word(r, rest, status);
    *status = gemma4_put(r, span_first(rest, 1));
    return 1;
}

static enum step gemma4_object(struct tool_reader *r)
{
    enum json_text_status status = JSON_TEXT_MORE;
    enum step step = STEP_MORE;
    size_t taken;

    if (!r->out.open) {
        if (r->final && !balanced(reader_rest(r)))
            return reader_go(r, r->at - 1, SEEK);
        begin(r);
        reader_json_start(r);
        r->json_size = 1; /* depth of the braces */
        reader_clear(r, &r->piece);
        gemma4_put(r, SPAN("{"));
    } else {
        reader_clear(r, &r->piece);
    }
    r->saw_arguments = true;
    while (step == STEP_MORE && r->at < r->text.size) {
        char c = r->string_open ? '"' : r->text.data[r->at];

        taken = gemma4_piece(r, reader_rest(r), &status);
        if (!taken)
            break;
        r->json_size += c == '{';
        r->json_size -= c == '}';
        reader_advance(r, r->at + taken);
        if (status == JSON_TEXT_BAD || (r->json_size == 0 && status != JSON_TEXT_DONE))
            step = reader_fail(r, "the arguments are no object");
        else if (r->json_size == 0)
            step = STEP_AGAIN;
    }
    call_text(&r->out, (struct span){r->piece.data, r->piece.size});
    if (step == STEP_AGAIN) {
        reader_end_call(r);
        r->state = SEEK;
    }
    return step;
}

enum step read_gemma4(struct tool_reader *r)
{
    return r->state == SEEK ? seek(r, '-', OBJECT) : gemma4_object(r);
}
