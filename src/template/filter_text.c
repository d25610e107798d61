#include "template/filters.h"

#include <stdio.h>

#include "base/utf8.h"
#include "template/characters.h"

#define UNUSED ((void)p, (void)args)

FILTER(upper)
{
    struct value text;

    UNUSED;
    return to_string(r, &self, &text) || string_case(r, &text, CASE_UPPER, out) ? -1 : 0;
}

FILTER(lower)
{
    struct value text;

    UNUSED;
    return to_string(r, &self, &text) || string_case(r, &text, CASE_LOWER, out) ? -1 : 0;
}

FILTER(capitalize)
{
    struct value text;

    UNUSED;
    return to_string(r, &self, &text) || string_case(r, &text, CASE_CAPITALIZE, out) ? -1 : 0;
}

FILTER(title)
{
    struct value text;

    UNUSED;
    return to_string(r, &self, &text) || string_title(r, &text, out) ? -1 : 0;
}

FILTER(string)
{
    UNUSED;
    return to_string(r, &self, out);
}

FILTER(trim)
{
    struct value text;

    (void)args;
    return to_string(r, &self, &text) || string_strip(r, &text, &p[0], STRIP_BOTH, out) ? -1 : 0;
}

FILTER(center)
{
    struct value text;
    int64_t width = 80;

    (void)args;
    return to_string(r, &self, &text) || arg_int(r, &p[0], "center: width", &width) ||
                   string_center(r, &text, width, NULL, out)
               ? -1
               : 0;
}

FILTER(replace)
{
    struct value text, old, new;
    int64_t count = -1;

    (void)args;
    if (to_string(r, &self, &text) || to_string(r, &p[0], &old) || to_string(r, &p[1], &new))
        return -1;
    if (p[2].kind != V_NONE && arg_int(r, &p[2], "replace: count", &count))
        return -1;
    text.flags &= (uint8_t)~STRING_MARKUP;
    return string_replace(r, &text, &old, &new, count, out);
}

static int escape_text(struct render *r, const struct value *text, struct value *out)
{
    size_t mark = emit_mark(r);

    if (emit_escaped(r, text->s, text->size) || emit_capture(r, mark, out))
        return -1;
    out->flags = STRING_MARKUP;
    return render_scan(r, text->size);
}

FILTER(forceescape)
{
    struct value text;

    UNUSED;
    return to_string(r, &self, &text) || escape_text(r, &text, out) ? -1 : 0;
}

FILTER(escape)
{
    if (self.kind == V_STRING && (self.flags & STRING_MARKUP)) {
        *out = self;
        return 0;
    }
    return filter_forceescape(r, self, p, args, out);
}

FILTER(safe)
{
    UNUSED;
    if (to_string(r, &self, out))
        return -1;
    out->flags |= STRING_MARKUP;
    return 0;
}

/* The characters that &name; and &#n; stand for are few in what striptags is used on. */
static int emit_unescaped(struct render *r, const char *s, size_t n)
{
    static const struct {
        const char *name;
        const char *text;
    } entities[] = {{"&amp;", "&"},  {"&lt;", "<"},  {"&gt;", ">"},   {"&quot;", "\""},
                    {"&#34;", "\""}, {"&#39;", "'"}, {"&apos;", "'"}, {"&nbsp;", "\xC2\xA0"}};
    size_t begin = 0;

    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; s[i] == '&' && k < COUNT(entities); k++) {
            size_t size = strlen(entities[k].name);

            if (n - i < size || memcmp(s + i, entities[k].name, size))
                continue;
            if (emit_bytes(r, s + begin, i - begin) || emit_text(r, entities[k].text))
                return -1;
            begin = i + size;
            i = begin - 1;
            break;
        }
    }
    return emit_bytes(r, s + begin, n - begin);
}

/* Text without what lies between two marks; an opening mark without a closing one stays. */
static int without(struct render *r, const struct value *text, const char *open, const char *close,
                   struct value *out)
{
    size_t mark = emit_mark(r);
    const char *at = text->s, *end = text->s + text->size;

    for (;;) {
        const char *from = memmem(at, (size_t)(end - at), open, strlen(open));
        const char *to = from ? memmem(from, (size_t)(end - from), close, strlen(close)) : NULL;

        if (!to)
            break;
        if (emit_bytes(r, at, (size_t)(from - at)))
            return -1;
        at = to + strlen(close);
    }
    return emit_bytes(r, at, (size_t)(end - at)) || emit_capture(r, mark, out) ? -1 : 0;
}

FILTER(striptags)
{
    static const struct value space = {.kind = V_STRING, .size = 1, .s = " "};
    static const struct value missing;
    struct value text, words;
    size_t mark;

    UNUSED;
    if (to_string(r, &self, &text) || without(r, &text, "<!--", "-->", &text) ||
        without(r, &text, "<", ">", &text) || string_split(r, &text, &missing, -1, false, &words) ||
        string_join(r, &space, &words, true, &text))
        return -1;
    mark = emit_mark(r);
    return emit_unescaped(r, text.s, text.size) || emit_capture(r, mark, out) ? -1 : 0;
}

FILTER(format)
{
    struct value format, arg;

    (void)p;
    if (args->n_positional && args->n_named)
        return render_fail(r, "can't handle positional and keyword arguments at the same time");
    if (to_string(r, &self, &format))
        return -1;
    if (args->n_named) {
        struct dict *d = dict_new(r, args->n_named);

        if (!d)
            return -1;
        for (uint32_t i = 0; i < args->n_named; i++)
            if (dict_set(r, d, &args->named[i].name, args->named[i].value))
                return -1;
        arg = value_dict(d);
    } else {
        struct list *l = list_new(r, args->n_positional);

        if (!l)
            return -1;
        if (l->size)
            memcpy(l->items, args->positional, l->size * sizeof *l->items);
        arg = value_tuple(l);
    }
    return format_percent(r, &format, &arg, out);
}

static int indentation(struct render *r, const struct value *width, struct value *out)
{
    size_t mark = emit_mark(r);
    int64_t n = 4;

    if (width->kind == V_STRING) {
        *out = *width;
        return 0;
    }
    if (arg_int(r, width, "indent: width", &n))
        return -1;
    return emit_char(r, ' ', n > 0 ? (size_t)n : 0) || emit_capture(r, mark, out) ? -1 : 0;
}

FILTER(indent)
{
    struct value indent, lines;
    bool blank = value_truth(&p[2]);
    size_t mark;

    (void)args;
    if (self.kind == V_UNDEFINED)
        return undefined_error(r, &self);
    if (self.kind != V_STRING)
        return render_fail(r, "indent: a string is expected, not %s", type_name(&self));
    if (indentation(r, &p[0], &indent) || string_lines(r, &self, false, &lines))
        return -1;
    mark = emit_mark(r);
    if (value_truth(&p[1]) && emit_str(r, &indent))
        return -1;
    /* Jinja adds a newline first: then there is always one line, and a text that ends in one has
     * an empty line behind it. */
    uint32_t n = lines.list->size;
    bool ends_line = !self.size;

    if (self.size) {
        struct value kept;

        if (string_lines(r, &self, true, &kept))
            return -1;
        ends_line = n && kept.list->items[n - 1].size != lines.list->items[n - 1].size;
        /* "\r" and the added "\n" are one line end */
        if (ends_line && self.s[self.size - 1] == '\r')
            ends_line = false;
    }
    for (uint32_t i = 0; i < n + (ends_line ? 1 : 0); i++) {
        struct value line = i < n ? lines.list->items[i] : value_string("", 0);

        if (i && (emit_char(r, '\n', 1) || ((blank || line.size) && emit_str(r, &indent))))
            return -1;
        if (emit_str(r, &line))
            return -1;
    }
    if (emit_capture(r, mark, out))
        return -1;
    out->flags = self.flags & STRING_MARKUP;
    return 0;
}

FILTER(truncate)
{
    static const struct value space = {.kind = V_STRING, .size = 1, .s = " "};
    struct value end = value_string("...", 3), kept, parts;
    int64_t length = 255, leeway = 5, size, n_end;

    (void)args;
    if (arg_int(r, &p[0], "truncate: length", &length) ||
        (p[2].kind != V_MISSING && arg_text(r, &p[2], "truncate: end", &end)) ||
        (p[3].kind != V_NONE && arg_int(r, &p[3], "truncate: leeway", &leeway)) ||
        value_length(r, &self, &size))
        return -1;
    n_end = (int64_t)character_count(end.s, end.size);
    if (length < n_end)
        return render_fail(r, "expected length >= %lld, got %lld", (long long)n_end,
                           (long long)length);
    if (leeway < 0)
        return render_fail(r, "expected leeway >= 0, got %lld", (long long)leeway);
    if (size <= leeway || size - leeway <= length) {
        *out = self;
        return 0;
    }
    if (self.kind != V_STRING)
        return render_fail(r, "truncate: a string is expected, not %s", type_name(&self));
    kept = value_string(self.s, character_offset(self.s, self.size, (size_t)(length - n_end)));
    if (!value_truth(&p[1])) {
        if (string_split(r, &kept, &space, 1, true, &parts))
            return -1;
        kept = parts.list->items[0];
    }
    return string_join2(r, &kept, &end, out);
}

static bool is_word(int32_t c)
{
    return c == '_' || character_is_alnum(c);
}

FILTER(wordcount)
{
    struct value text;
    int64_t n = 0;
    bool inside = false;

    UNUSED;
    if (to_string(r, &self, &text) || render_scan(r, text.size))
        return -1;
    for (size_t i = 0; i < text.size;) {
        int32_t c;

        i += utf8_decode(text.s + i, text.size - i, &c);
        n += is_word(c) && !inside;
        inside = is_word(c);
    }
    *out = value_int(n);
    return 0;
}

static int emit_url(struct render *r, const struct value *v, bool query)
{
    struct value text;

    if (v->kind == V_BYTES)
        text = *v;
    else if (to_string(r, v, &text))
        return -1;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.s[i], hex[4];
        bool plain = ((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9') ||
                     (c && strchr("_.-~", c)) || (c == '/' && !query);

        snprintf(hex, sizeof hex, "%%%02X", (unsigned char)c);
        if (plain               ? emit_bytes(r, &c, 1)
            : c == ' ' && query ? emit_bytes(r, "+", 1)
                                : emit_bytes(r, hex, 3))
            return -1;
    }
    return render_scan(r, text.size);
}

FILTER(urlencode)
{
    size_t mark = emit_mark(r);
    struct value items, pair;
    struct iter it;
    bool first = true;
    int more;

    UNUSED;
    if (self.kind == V_STRING || !is_iterable(&self))
        return emit_url(r, &self, false) || emit_capture(r, mark, out) ? -1 : 0;
    items = self;
    if (self.kind == V_DICT)
        items = (struct value){.kind = V_VIEW, .flags = VIEW_ITEMS, .dict = self.dict};
    if (iter_begin(r, &items, &it))
        return -1;
    while ((more = iter_next(r, &it, &pair)) > 0) {
        struct value parts;

        if (to_list(r, &pair, &parts))
            return -1;
        if (parts.list->size != 2)
            return render_fail(r, "urlencode: pairs of key and value are expected");
        if ((!first && emit_bytes(r, "&", 1)) || emit_url(r, &parts.list->items[0], true) ||
            emit_bytes(r, "=", 1) || emit_url(r, &parts.list->items[1], true))
            return -1;
        first = false;
    }
    return more < 0 ? -1 : emit_capture(r, mark, out);
}

static int emit_attribute(struct render *r, const struct value *key, const struct value *v)
{
    struct value text;

    if (key->kind != V_STRING)
        return render_fail(r, "expected string or bytes-like object, got '%s'", type_name(key));
    for (uint32_t i = 0; i < key->size; i++)
        if (strchr(" \t\n\r\f\v/>=", key->s[i]) && key->s[i])
            return render_fail(r, "Invalid character in attribute name: %.*s", (int)key->size,
                               key->s);
    if (to_string(r, v, &text))
        return -1;
    return emit_escaped(r, key->s, key->size) || emit_bytes(r, "=\"", 2) ||
                   (text.flags & STRING_MARKUP ? emit_str(r, &text)
                                               : emit_escaped(r, text.s, text.size)) ||
                   emit_bytes(r, "\"", 1)
               ? -1
               : 0;
}

FILTER(xmlattr)
{
    bool space = p[0].kind == V_MISSING || value_truth(&p[0]), first = true;
    size_t mark = emit_mark(r);

    (void)args;
    if (self.kind == V_UNDEFINED)
        return undefined_error(r, &self);
    if (self.kind != V_DICT)
        return render_fail(r, "'%s' object has no attribute 'items'", type_name(&self));
    for (uint32_t i = 0; i < self.dict->size; i++) {
        const struct value *key = &self.dict->entries[i].key;
        const struct value *item = &self.dict->entries[i].value;

        if (item->kind == V_NONE || item->kind == V_UNDEFINED)
            continue;
        if (((space || !first) && emit_bytes(r, " ", 1)) || emit_attribute(r, key, item))
            return -1;
        first = false;
    }
    return emit_capture(r, mark, out);
}
