#include "parse/reply.h"

#include "base/memory.h"

/* States of the sections. MESSAGE is one of the first three, by the message's header. */
enum { CONTENT, REASONING, TOOL, HEADER, MESSAGE, DROPPED };

static const char *const cohere_dropped[] = {"<|START_RESPONSE|>", "<|END_RESPONSE|>",
                                             "<|START_TEXT|>", "<|END_TEXT|>", NULL};
static const char *const xtml_dropped[] = {"<|open|>response<|sep|>", "<|close|>response<|sep|>",
                                           "<|close|>message<|sep|>", NULL};

struct reply_format reply_format_infer(const struct model_traits *m)
{
    struct reply_format f = {.syntax = syntax_infer(m), .thinking = thinking_infer(m)};

    if (f.syntax && strcmp(f.syntax->name, "harmony") == 0)
        f.layout = REPLY_HARMONY;
    else if (f.syntax && strcmp(f.syntax->name, "muse_spark") == 0)
        f.layout = REPLY_MUSE;
    else if (f.syntax && strcmp(f.syntax->name, "kimi_k3") == 0)
        f.dropped = xtml_dropped;
    else if (f.syntax && strcmp(f.syntax->name, "command_r") == 0)
        f.dropped = cohere_dropped;
    return f;
}

static int add(struct sections *s, int from, const char *marker, int to)
{
    return marker ? sections_add(s, from, marker, strlen(marker), to) : 0;
}

static int add_tags(struct sections *s, const struct reply_format *f)
{
    const char *start = f->syntax ? f->syntax->start : NULL;
    int bad = 0;

    bad |= add(s, CONTENT, f->thinking.start, REASONING);
    bad |= add(s, REASONING, f->thinking.end, CONTENT);
    bad |= add(s, CONTENT, start, TOOL);
    bad |= f->thinking.start ? add(s, REASONING, start, TOOL) : 0;
    if (f->syntax && !start) /* calls without a marker may have this one */
        bad |= add(s, CONTENT, "<|python_tag|>", TOOL);
    bad |= f->syntax ? add(s, TOOL, f->syntax->end, CONTENT) : 0;
    for (const char *const *d = f->dropped; d && *d; d++)
        bad |= add(s, CONTENT, *d, CONTENT);
    return bad;
}

/* <|start|>ROLE [to=WHOM]<|channel|>CHANNEL [to=WHOM] [<|constrain|>TYPE]<|message|>TEXT<|end|> */
static int add_harmony(struct sections *s)
{
    static const char *const in_header[] = {"<|start|>", "<|channel|>", "<|constrain|>"};
    static const char *const ends[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>"};
    int bad = add(s, HEADER, "<|message|>", MESSAGE);

    for (size_t i = 0; i < COUNT(in_header); i++)
        bad |= add(s, HEADER, in_header[i], HEADER);
    for (size_t i = 0; i < COUNT(ends); i++)
        bad |= add(s, MESSAGE, ends[i], HEADER);
    return bad;
}

static int add_muse(struct sections *s, const struct reply_format *f)
{
    int bad = add(s, DROPPED, "to=self<|message|>", REASONING);

    bad |= add(s, DROPPED, "to=user<|message|>", CONTENT);
    bad |= add(s, DROPPED, "to=commentary<|message|>", CONTENT);
    bad |= add(s, DROPPED, f->syntax ? f->syntax->start : NULL, TOOL);
    bad |= add(s, TOOL, f->syntax ? f->syntax->end : NULL, CONTENT);
    bad |= add(s, REASONING, "<|eom|>", DROPPED);
    bad |= add(s, CONTENT, "<|eom|>", DROPPED);
    bad |= add(s, CONTENT, "<|eot|>", CONTENT);
    return bad;
}

int reply_rules_init(struct reply_rules *r, const struct reply_format *format,
                     const struct stop_set *stops, clm_error *err)
{
    static const struct stop_set none;
    int bad;

    *r = (struct reply_rules){.format = *format, .stops = stops ? stops : &none};
    bad = format->layout == REPLY_HARMONY ? add_harmony(&r->sections)
          : format->layout == REPLY_MUSE  ? add_muse(&r->sections, format)
                                          : add_tags(&r->sections, format);
    if (!bad && !sections_build(&r->sections))
        return 0;
    reply_rules_release(r);
    return fail(err, CLM_ERR_NOMEM, "the markers of a reply");
}

void reply_rules_release(struct reply_rules *r)
{
    sections_release(&r->sections);
    *r = (struct reply_rules){0};
}

static void say(struct reply *r, enum parse_event_kind kind, const char *text, size_t n)
{
    if (n)
        r->sink(r->user, &(struct parse_event){.kind = kind, .text = text, .size = n});
}

/* Events of the reader. Where no marker said that a call comes, one that is none of the request's
 * tools, or fails before its name is known, was text. */
static void reader_event(void *user, const struct parse_event *e)
{
    struct reply *r = user;

    if (r->lead_refused)
        return;
    if (r->lead_is == LEAD_CALLS && !r->reader.n_calls &&
        ((e->kind == PARSE_CALL_BEGIN &&
          !schema_has_function(r->tools, (struct span){e->text, e->size})) ||
         (e->kind == PARSE_CALL_FAILED && !r->reader.out.open))) {
        r->lead_refused = true;
        return;
    }
    r->sink(r->user, e);
}

void reply_start(struct reply *r, const struct reply_rules *rules, const json *tools,
                 bool in_thinking, parse_sink *sink, void *user)
{
    enum reply_layout layout = rules->format.layout;
    struct reply kept = *r;
    int state = layout == REPLY_HARMONY ? HEADER
                : layout == REPLY_MUSE  ? DROPPED
                : in_thinking           ? REASONING
                                        : CONTENT;

    *r = (struct reply){.rules = rules, .sink = sink, .user = user, .tools = tools};
    r->passed = kept.passed;
    r->header = kept.header;
    r->lead = kept.lead;
    r->reader = kept.reader;
    strbuf_clear(&r->header);
    strbuf_clear(&r->lead);
    stop_start(&r->stops, rules->stops);
    r->stops.held = kept.stops.held;
    strbuf_clear(&r->stops.held);
    sections_start(&r->place, &rules->sections, state);
    r->place.held = kept.place.held;
    strbuf_clear(&r->place.held);
    r->section = state;
    r->reader.syntax = rules->format.syntax;
    r->reader.tools = tools;
    r->reader.out.sink = reader_event;
    r->reader.out.user = r;
    r->reader.out.next_call = 0;
    r->lead_is = LEAD_TEXT;
    if (layout == REPLY_TAGS && rules->format.syntax && !rules->format.syntax->start && tools)
        r->lead_is = LEAD_OPEN;
}

/* The marker-less calls turned out to be text: all of it is, and what follows too. */
static void refuse_lead(struct reply *r)
{
    r->lead_is = LEAD_TEXT;
    r->lead_refused = false;
    r->section = CONTENT;
    say(r, PARSE_CONTENT, r->reader.text.data, r->reader.text.size);
}

static void read_call(struct reply *r, const char *text, size_t n)
{
    if (reader_feed(&r->reader, text, n))
        r->failed = true;
    else if (r->lead_refused)
        refuse_lead(r);
}

static void end_calls(struct reply *r)
{
    if (reader_finish(&r->reader))
        r->failed = true;
    else if (r->lead_refused)
        refuse_lead(r);
}

static bool is_identifier(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

enum lead { IS_TEXT, IS_CALL, IS_OPEN };

/* {"name": with one of the keys that a call has. */
static enum lead object_lead(struct span s)
{
    static const char *const keys[] = {"name\"",       "type\"", "function\"",
                                       "parameters\"", "id\"",   "arguments\""};

    s = span_from(s, json_space_at_start(s));
    if (!s.size)
        return IS_OPEN;
    if (s.at[0] != '"')
        return IS_TEXT;
    s = span_from(s, 1);
    for (size_t i = 0; i < COUNT(keys); i++) {
        if (span_starts(s, span_of(keys[i])))
            return IS_CALL;
        if (span_starts(span_of(keys[i]), s))
            return IS_OPEN;
    }
    return IS_TEXT;
}

/* [NAME( or [{. */
static enum lead list_lead(struct span s)
{
    size_t i = 0;

    s = span_from(s, json_space_at_start(s));
    if (!s.size)
        return IS_OPEN;
    if (s.at[0] == '{')
        return object_lead(span_from(s, 1));
    while (i < s.size && is_identifier(s.at[i]))
        i++;
    if (i == s.size)
        return IS_OPEN;
    return i && s.at[i] == '(' ? IS_CALL : IS_TEXT;
}

static enum lead lead_of(struct span s)
{
    struct span function = SPAN("<function=");

    s = span_from(s, json_space_at_start(s));
    if (!s.size)
        return IS_OPEN;
    if (s.at[0] == '{')
        return object_lead(span_from(s, 1));
    if (s.at[0] == '[')
        return list_lead(span_from(s, 1));
    if (span_starts(s, function))
        return IS_CALL;
    return span_starts(function, s) ? IS_OPEN : IS_TEXT;
}

/* The beginning of a reply, until it is clear what it is; end: no more comes. */
static void take_lead(struct reply *r, const char *text, size_t n, bool end)
{
    enum lead lead;

    strbuf_add(&r->lead, text, n);
    if (r->lead.failed) {
        r->failed = true;
        return;
    }
    lead = lead_of((struct span){r->lead.data ? r->lead.data : "", r->lead.size});
    if (lead == IS_OPEN && !end)
        return;
    r->lead_is = lead == IS_CALL ? LEAD_CALLS : LEAD_TEXT;
    if (lead == IS_CALL) {
        r->section = TOOL;
        reader_section(&r->reader);
        read_call(r, r->lead.data, r->lead.size);
    } else {
        say(r, PARSE_CONTENT, r->lead.data, r->lead.size);
    }
    strbuf_clear(&r->lead);
}

/* A marker ends what might have become a call; white space alone leaves that open. */
static void close_lead(struct reply *r, int state)
{
    struct span lead = {r->lead.data ? r->lead.data : "", r->lead.size};

    if (r->lead_is != LEAD_OPEN)
        return;
    if (json_space_at_start(lead) == lead.size && state != TOOL) {
        say(r, PARSE_CONTENT, lead.at, lead.size);
        strbuf_clear(&r->lead);
        return;
    }
    take_lead(r, "", 0, true);
    r->lead_is = LEAD_TEXT;
}

/* A message's header is complete: what is its text? */
static void begin_message(struct reply *r)
{
    struct span header = {r->header.data ? r->header.data : "", r->header.size};

    r->any_message = true;
    if (span_find(header, 0, SPAN("to=")) != SIZE_MAX && r->rules->format.syntax) {
        r->section = TOOL;
        reader_section(&r->reader);
        read_call(r, header.at, header.size);
        read_call(r, "\n", 1);
    } else if (span_find(header, 0, SPAN("analysis")) != SIZE_MAX) {
        r->section = REASONING;
    } else {
        r->section = CONTENT;
    }
}

/* A marker has led to a state. */
static void enter(struct reply *r, int state)
{
    close_lead(r, state);
    if (r->section == TOOL)
        end_calls(r);
    if (state == HEADER && r->section == HEADER)
        strbuf_add_char(&r->header, ' ');
    else if (state == HEADER)
        strbuf_clear(&r->header);
    r->failed |= r->header.failed;
    if (state == MESSAGE) {
        begin_message(r);
        return;
    }
    r->section = state;
    if (state == TOOL)
        reader_section(&r->reader);
}

static void take_section(void *user, int state, const char *text, size_t n, bool entered)
{
    struct reply *r = user;

    if (r->failed)
        return;
    if (entered) {
        enter(r, state);
        return;
    }
    switch (r->section) {
    case CONTENT:
        if (r->lead_is == LEAD_OPEN)
            take_lead(r, text, n, false);
        else
            say(r, PARSE_CONTENT, text, n);
        break;
    case REASONING:
        say(r, PARSE_REASONING, text, n);
        break;
    case TOOL:
        read_call(r, text, n);
        break;
    case HEADER:
        /* A line end closes the header for its reader. */
        for (size_t i = 0; i < n; i++)
            strbuf_add_char(&r->header, text[i] == '\n' ? ' ' : text[i]);
        r->failed |= r->header.failed;
        break;
    default:
        break;
    }
}

int reply_feed(struct reply *r, const char *text, size_t n)
{
    bool stopped;

    if (r->failed)
        return -1;
    strbuf_clear(&r->passed);
    stopped = stop_text(&r->stops, text, n, &r->passed);
    if (r->passed.failed || r->stops.held.failed ||
        sections_feed(&r->place, r->passed.data ? r->passed.data : "", r->passed.size, take_section,
                      r))
        r->failed = true;
    if (r->failed)
        return -1;
    return stopped ? 1 : 0;
}

int reply_finish(struct reply *r)
{
    if (r->failed)
        return -1;
    strbuf_clear(&r->passed);
    stop_flush(&r->stops, &r->passed);
    if (r->passed.failed || sections_feed(&r->place, r->passed.data ? r->passed.data : "",
                                          r->passed.size, take_section, r))
        r->failed = true;
    if (r->failed)
        return -1;
    sections_flush(&r->place, take_section, r);
    if (r->lead_is == LEAD_OPEN && r->section == CONTENT)
        take_lead(r, "", 0, true);
    if (r->section == TOOL)
        end_calls(r);
    else if (r->section == HEADER && !r->any_message)
        say(r, PARSE_CONTENT, r->header.data, r->header.size);
    return r->failed ? -1 : 0;
}

void reply_release(struct reply *r)
{
    strbuf_release(&r->passed);
    strbuf_release(&r->header);
    strbuf_release(&r->lead);
    strbuf_release(&r->stops.held);
    strbuf_release(&r->place.held);
    reader_release(&r->reader);
    *r = (struct reply){0};
}
