/* tokenizer/onig.c: groups, quantifiers, anchors and literals of an Oniguruma expression. */
#include "tokenizer/onig.h"

#include <ctype.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/onig_class.h"

#define MAX_GROUPS 64

struct translation {
    struct onig o;
    struct strbuf *out;
    size_t atom;         /* where in out the last quantifiable thing begins, SIZE_MAX for none */
    int32_t last_letter; /* the literal just before, for pairs that fold to one character */
    struct {
        size_t start;
        bool caseless;
    } groups[MAX_GROUPS];
    int n_groups;
};

static void insert(struct strbuf *out, size_t at, const char *s)
{
    size_t n = strlen(s);

    strbuf_add_str(out, s);
    if (out->failed)
        return;
    memmove(out->data + at + n, out->data + at, out->size - n - at);
    memcpy(out->data + at, s, n);
}

static void begin_atom(struct translation *t)
{
    t->atom = t->out->size;
    t->last_letter = 0;
}

static bool at_text(const struct translation *t, const char *s)
{
    size_t n = strlen(s);

    return t->o.n - t->o.at >= n && !memcmp(t->o.s + t->o.at, s, n);
}

/* \w on exactly one side of here, or on both sides or none. */
static int add_boundary(struct translation *t, bool boundary)
{
    struct strbuf word = {0};
    struct onig w = {.s = "w", .n = 1, .r = t->o.r};

    onig_shorthand(&w, &word);
    if (word.data)
        strbuf_addf(t->out,
                    boundary ? "(?:(?<=%s)(?!%s)|(?<!%s)(?=%s))"
                             : "(?:(?<=%s)(?=%s)|(?<!%s)(?!%s))",
                    word.data, word.data, word.data, word.data);
    t->out->failed |= word.failed;
    strbuf_release(&word);
    return 0;
}

/* Two letters that Oniguruma, without regard to case, matches with one character (U+00DF, U+FB00
 * and the like), which PCRE2 does not. */
static int check_fold(struct translation *t, int32_t c)
{
    static const char pairs[][3] = {"ss", "st", "ff", "fi", "fl"};
    int32_t lower = c < 0x80 ? tolower((int)c) : c;

    for (size_t i = 0; t->o.caseless && i < sizeof pairs / sizeof pairs[0]; i++) {
        if (t->last_letter == pairs[i][0] && lower == pairs[i][1])
            return onig_unsupported(&t->o, "this pair of letters without regard to case");
    }
    t->last_letter = lower;
    return 0;
}

static int add_literal(struct translation *t, int32_t c)
{
    int32_t before = t->last_letter;

    begin_atom(t);
    t->last_letter = before;
    onig_add_char(t->out, c);
    return check_fold(t, c);
}

static int read_escape(struct translation *t)
{
    int32_t c;
    int rc;

    t->o.at++;
    if (t->o.at < t->o.n && strchr("bBAzZ", t->o.s[t->o.at])) {
        char kind = t->o.s[t->o.at++];

        begin_atom(t);
        t->atom = SIZE_MAX;
        if (kind == 'b' || kind == 'B')
            return add_boundary(t, kind == 'b');
        strbuf_addf(t->out, "\\%c", kind);
        return 0;
    }
    begin_atom(t);
    rc = onig_shorthand(&t->o, t->out);
    if (rc)
        return rc < 0 ? -1 : 0;
    rc = onig_escaped_char(&t->o, &c);
    if (rc <= 0)
        return rc ? -1 : onig_unsupported(&t->o, "this escape");
    return add_literal(t, c);
}

/* (?i: (?i) (?m: and the like, o->at behind "(?". */
static int read_options(struct translation *t)
{
    struct onig *o = &t->o;
    bool on = true, start = t->out->size == 0 || t->out->data[t->out->size - 1] == '(';
    bool caseless = o->caseless;

    strbuf_add_str(t->out, "(?");
    for (; o->at < o->n && o->s[o->at] != ':' && o->s[o->at] != ')'; o->at++) {
        char c = o->s[o->at];

        if (c == 'i')
            caseless = on;
        if (c == '-' && on)
            on = false;
        else if (c != 'i' && c != 'm')
            return onig_unsupported(o, "this option");
        strbuf_add_char(t->out, c == 'm' ? 's' : c);
    }
    if (o->at >= o->n)
        return onig_unsupported(o, "an open group");
    if (o->s[o->at] == ')') {
        /* Here the two differ on what the option covers, unless it stands first. */
        if (!start || t->n_groups)
            return onig_unsupported(o, "an option that is not at the start");
        o->caseless = caseless;
        strbuf_add_char(t->out, ')');
        o->at++;
        t->atom = SIZE_MAX;
        return 0;
    }
    strbuf_add_char(t->out, ':');
    o->at++;
    t->groups[t->n_groups].caseless = o->caseless;
    t->n_groups++;
    o->caseless = caseless;
    return 0;
}

static int read_group(struct translation *t)
{
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    struct onig *o = &t->o;

    if (t->n_groups == MAX_GROUPS)
        return onig_unsupported(o, "nesting this deep");
    t->groups[t->n_groups].start = t->out->size;
    t->groups[t->n_groups].caseless = o->caseless;
    t->last_letter = 0;
    t->atom = SIZE_MAX;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (at_text(t, kinds[i])) {
            strbuf_add_str(t->out, kinds[i]);
            o->at += strlen(kinds[i]);
            t->n_groups++;
            return 0;
        }
    }
    /* What is captured, by number or by name, is never asked for. */
    if (at_text(t, "(?<")) {
        const char *end = memchr(o->s + o->at, '>', o->n - o->at);

        if (!end)
            return onig_unsupported(o, "this group");
        o->at = (size_t)(end - o->s);
    } else if (at_text(t, "(?")) {
        o->at += 2;
        return read_options(t);
    }
    strbuf_add_str(t->out, "(?:");
    o->at++;
    t->n_groups++;
    return 0;
}

static int end_group(struct translation *t)
{
    if (!t->n_groups)
        return onig_unsupported(&t->o, "this parenthesis");
    t->n_groups--;
    t->o.caseless = t->groups[t->n_groups].caseless;
    t->atom = t->groups[t->n_groups].start;
    t->last_letter = 0;
    strbuf_add_char(t->out, ')');
    t->o.at++;
    return 0;
}

/* {n} {n,} {,m} {n,m} at o->at: its length, or 0 where the brace stands for itself. */
static size_t interval(const struct onig *o, bool *fixed)
{
    const char *s = o->s + o->at;
    size_t n = o->n - o->at, i = 1, digits = 0;

    for (*fixed = true; i < n && s[i] != '}'; i++) {
        if (s[i] == ',' && *fixed)
            *fixed = false;
        else if (isdigit((unsigned char)s[i]))
            digits++;
        else
            return 0;
    }
    return i < n && digits && digits < 8 ? i + 1 : 0;
}

static int read_interval(struct translation *t, size_t size, bool fixed)
{
    struct onig *o = &t->o;

    if (t->atom == SIZE_MAX)
        return onig_unsupported(o, "a quantifier of nothing");
    strbuf_add_str(t->out, o->s[o->at + 1] == ',' ? "{0" : "{");
    strbuf_add(t->out, o->s + o->at + 1, size - 1);
    o->at += size;
    t->last_letter = 0;
    if (o->at < o->n && o->s[o->at] == '+') {
        insert(t->out, t->atom, "(?:");
        strbuf_add_str(t->out, ")+");
        o->at++;
    } else if (o->at < o->n && o->s[o->at] == '?') {
        if (fixed)
            return onig_unsupported(o, "a lazy fixed count");
        strbuf_add_char(t->out, '?');
        o->at++;
    }
    if (o->at < o->n && strchr("*+?", o->s[o->at]))
        return onig_unsupported(o, "a quantifier of a quantifier");
    t->atom = SIZE_MAX;
    return 0;
}

static int read_quantifier(struct translation *t)
{
    struct onig *o = &t->o;

    if (t->atom == SIZE_MAX)
        return onig_unsupported(o, "a quantifier of nothing");
    strbuf_add_char(t->out, o->s[o->at++]);
    if (o->at < o->n && (o->s[o->at] == '+' || o->s[o->at] == '?'))
        strbuf_add_char(t->out, o->s[o->at++]);
    if (o->at < o->n && strchr("*+?", o->s[o->at]))
        return onig_unsupported(o, "a quantifier of a quantifier");
    t->atom = SIZE_MAX;
    t->last_letter = 0;
    return 0;
}

static int read_plain(struct translation *t)
{
    struct onig *o = &t->o;
    int32_t c;

    o->at += utf8_decode(o->s + o->at, o->n - o->at, &c);
    if (c == 0)
        return onig_unsupported(o, "a NUL");
    return add_literal(t, c);
}

static int read_one(struct translation *t)
{
    struct onig *o = &t->o;
    size_t size;
    bool fixed;

    switch (o->s[o->at]) {
    case '\\':
        return read_escape(t);
    case '[':
        begin_atom(t);
        o->at++;
        return onig_class(o, t->out);
    case '(':
        return read_group(t);
    case ')':
        return end_group(t);
    case '|':
        t->atom = SIZE_MAX;
        t->last_letter = 0;
        strbuf_add_char(t->out, '|');
        o->at++;
        return 0;
    case '.':
        begin_atom(t);
        strbuf_add_char(t->out, '.');
        o->at++;
        return 0;
    case '^':
    case '$':
        begin_atom(t);
        t->atom = SIZE_MAX;
        strbuf_addf(t->out, "(?m:%c)", o->s[o->at++]);
        return 0;
    case '*':
    case '+':
    case '?':
        return read_quantifier(t);
    case '{':
        size = interval(o, &fixed);
        if (size)
            return read_interval(t, size, fixed);
        return read_plain(t);
    default:
        return read_plain(t);
    }
}

int onig_translate(const char *s, size_t n, struct strbuf *out, struct reader *r)
{
    struct translation t = {.o = {.s = s, .n = n, .r = r}, .out = out, .atom = SIZE_MAX};

    while (t.o.at < n && !out->failed) {
        if (read_one(&t))
            return -1;
    }
    if (out->failed)
        return no_memory(r);
    return t.n_groups ? onig_unsupported(&t.o, "an open group") : 0;
}
