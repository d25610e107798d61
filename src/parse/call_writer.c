#include "parse/call_writer.h"

/* Ends a part of the log: no text of a format holds it unescaped in arguments, and in a name it
 * only makes a comparison stricter. */
#define SEPARATOR SPAN("\x1e")

void call_writer_release(struct call_writer *w)
{
    strbuf_release(&w->log);
    strbuf_release(&w->scratch);
}

void call_section(struct call_writer *w)
{
    w->failed |= w->log.failed;
    strbuf_clear(&w->log);
    w->given = w->replay_at = 0;
    w->open = w->replaying = w->differs = w->any_member = false;
}

static void clear_scratch(struct call_writer *w)
{
    w->failed |= w->scratch.failed;
    strbuf_clear(&w->scratch);
}

/* Adds to the log what is not in it yet; true where all of it was. */
static bool say(struct call_writer *w, struct span s)
{
    if (w->log.failed)
        return true;
    if (w->replaying) {
        size_t known = w->log.size - w->replay_at, n = s.size < known ? s.size : known;

        if (n && memcmp(w->log.data + w->replay_at, s.at, n) != 0)
            w->differs = true;
        w->replay_at += n;
        if (n == s.size && n > 0)
            return true;
        s = span_from(s, n);
        if (known > n || w->differs)
            return true;
        w->replay_at += s.size;
    }
    if (s.size)
        strbuf_add(&w->log, s.at, s.size);
    return false;
}

void call_flush(struct call_writer *w)
{
    if (w->open && !w->log.failed && w->log.size > w->given)
        w->sink(w->user, &(struct parse_event){.kind = PARSE_CALL_ARGUMENTS,
                                               .text = w->log.data + w->given,
                                               .size = w->log.size - w->given,
                                               .call = w->next_call});
    w->given = w->log.size;
}

void call_begin(struct call_writer *w, struct span name, struct span id)
{
    bool known;

    if (w->differs || w->log.failed)
        return;
    say(w, id);
    say(w, SEPARATOR);
    say(w, name);
    known = say(w, SEPARATOR);
    w->any_member = false;
    if (known || w->differs || w->log.failed)
        return;
    w->open = true;
    w->given = w->log.size;
    w->sink(w->user, &(struct parse_event){.kind = PARSE_CALL_BEGIN,
                                           .text = name.at,
                                           .size = name.size,
                                           .call = w->next_call,
                                           .id = id.at,
                                           .id_size = id.size});
}

void call_text(struct call_writer *w, struct span json)
{
    if (json.size)
        say(w, json);
}

void call_end(struct call_writer *w, struct span id)
{
    if (w->differs || w->log.failed)
        return;
    if (w->open)
        call_flush(w);
    if (say(w, SEPARATOR) || w->differs || w->log.failed)
        return;
    w->given = w->log.size;
    w->open = false;
    w->sink(w->user,
            &(struct parse_event){
                .kind = PARSE_CALL_END, .call = w->next_call++, .id = id.at, .id_size = id.size});
}

void call_object_open(struct call_writer *w)
{
    w->any_member = false;
    call_text(w, SPAN("{"));
}

void call_key(struct call_writer *w, struct span key)
{
    clear_scratch(w);
    if (w->any_member)
        strbuf_add_str(&w->scratch, ", ");
    strbuf_add_json(&w->scratch, key.size ? key.at : "", key.size);
    strbuf_add_str(&w->scratch, ": ");
    w->any_member = true;
    if (!w->scratch.failed)
        call_text(w, (struct span){w->scratch.data, w->scratch.size});
}

void call_string_open(struct call_writer *w)
{
    call_text(w, SPAN("\""));
}

void call_string_piece(struct call_writer *w, struct span text)
{
    if (!text.size)
        return;
    clear_scratch(w);
    strbuf_add_json(&w->scratch, text.at, text.size);
    if (!w->scratch.failed)
        call_text(w, (struct span){w->scratch.data + 1, w->scratch.size - 2});
}

void call_string_close(struct call_writer *w)
{
    call_text(w, SPAN("\""));
}

void call_object_close(struct call_writer *w)
{
    call_text(w, SPAN("}"));
}

bool call_has_text(const struct call_writer *w)
{
    return w->log.size > 0 && w->open && w->log.data[w->log.size - 1] != '\x1e';
}

void call_replay(struct call_writer *w)
{
    call_flush(w);
    w->replaying = true;
    w->replay_at = 0;
}

void call_fail(struct call_writer *w, const char *why, struct span raw)
{
    call_flush(w);
    w->sink(w->user, &(struct parse_event){.kind = PARSE_CALL_FAILED,
                                           .text = why,
                                           .size = strlen(why),
                                           .call = w->next_call++,
                                           .raw = raw.at,
                                           .raw_size = raw.size});
    w->open = false;
    w->given = w->log.size;
}

bool call_writer_failed(const struct call_writer *w)
{
    return w->failed || w->log.failed || w->scratch.failed;
}
