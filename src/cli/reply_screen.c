#include "cli/reply_screen.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"

#define DIM "\033[2m"
#define PLAIN "\033[0m"

bool reply_screen_can_dim(void)
{
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR");

    return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0 && !(no && *no);
}

static bool is_dimmed(const struct reply_screen *s)
{
    return s->dims && s->begun && s->part == PARSE_REASONING;
}

static void end_part(struct reply_screen *s)
{
    if (is_dimmed(s))
        strbuf_add_str(&s->out, PLAIN);
    if (s->line_open)
        strbuf_add_char(&s->out, '\n');
    s->line_open = false;
}

static void begin_part(struct reply_screen *s, enum parse_event_kind part)
{
    if (s->begun) {
        end_part(s);
        strbuf_add_char(&s->out, '\n');
    }
    s->begun = true;
    s->part = part;
    if (is_dimmed(s))
        strbuf_add_str(&s->out, DIM);
}

static void add(struct reply_screen *s, const char *text, size_t size)
{
    if (!size)
        return;
    if (s->terminal)
        output_add_safely(&s->out, text, size);
    else
        strbuf_add(&s->out, text, size);
    s->line_open = text[size - 1] != '\n';
}

/* Blank lines around tags are no text. */
static void add_text(struct reply_screen *s, const struct parse_event *e)
{
    const char *text = e->text;
    size_t size = e->size;

    if (!s->begun || s->part != e->kind) {
        while (size && (*text == '\n' || *text == '\r')) {
            text++;
            size--;
        }
        if (!size)
            return;
        begin_part(s, e->kind);
    }
    add(s, text, size);
}

/* Calls, and what failed to be one, are lines of one part. */
static void add_word(struct reply_screen *s, const char *word)
{
    if (!s->begun || s->part != PARSE_CALL_BEGIN)
        begin_part(s, PARSE_CALL_BEGIN);
    add(s, word, strlen(word));
}

void reply_screen_add(struct reply_screen *s, const struct parse_event *e)
{
    switch (e->kind) {
    case PARSE_CONTENT:
    case PARSE_REASONING:
        add_text(s, e);
        break;
    case PARSE_CALL_BEGIN:
        add_word(s, "call: ");
        add(s, e->text, e->size);
        add_word(s, " ");
        break;
    case PARSE_CALL_ARGUMENTS:
        add(s, e->text, e->size);
        break;
    case PARSE_CALL_FAILED:
        add_word(s, "");
        add_word(s, s->line_open ? " (not a call: " : "(not a call: ");
        add(s, e->text, e->size);
        add_word(s, ")\n");
        break;
    case PARSE_CALL_END:
        add_word(s, "\n");
        break;
    }
}

void reply_screen_end(struct reply_screen *s)
{
    end_part(s);
    if (s->terminal)
        strbuf_add_char(&s->out, '\n');
}

int reply_screen_flush(struct reply_screen *s, clm_error *err)
{
    return output_buffer(&s->out, err);
}
