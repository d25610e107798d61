#include "template/methods.h"

#include "base/utf8.h"
#include "template/characters.h"
#include "template/strings.h"

#define CASE_METHOD(name, how)                                                                     \
    METHOD(name)                                                                                   \
    {                                                                                              \
        METHOD_UNUSED;                                                                             \
        return string_case(r, &self, how, out);                                                    \
    }

CASE_METHOD(upper, CASE_UPPER)
CASE_METHOD(lower, CASE_LOWER)
CASE_METHOD(title, CASE_TITLE)
CASE_METHOD(capitalize, CASE_CAPITALIZE)
CASE_METHOD(swapcase, CASE_SWAP)
CASE_METHOD(casefold, CASE_FOLD)

static bool is_ascii(int32_t c)
{
    return c < 0x80;
}

#define CHARACTER_METHOD(name, test, when_empty)                                                   \
    METHOD(name)                                                                                   \
    {                                                                                              \
        METHOD_UNUSED;                                                                             \
        *out = value_bool(self.size ? string_all(&self, test) : when_empty);                       \
        return render_scan(r, self.size);                                                          \
    }

CHARACTER_METHOD(isalnum, character_is_alnum, false)
CHARACTER_METHOD(isalpha, character_is_alpha, false)
CHARACTER_METHOD(isascii, is_ascii, true)
CHARACTER_METHOD(isdecimal, character_is_decimal, false)
CHARACTER_METHOD(isdigit, character_is_digit, false)
CHARACTER_METHOD(isnumeric, character_is_numeric, false)
CHARACTER_METHOD(isprintable, character_is_printable, true)
CHARACTER_METHOD(isspace, character_is_space, false)

METHOD(islower)
{
    METHOD_UNUSED;
    *out = value_bool(string_is_lower(&self));
    return render_scan(r, self.size);
}

METHOD(isupper)
{
    METHOD_UNUSED;
    *out = value_bool(string_is_upper(&self));
    return render_scan(r, self.size);
}

METHOD(istitle)
{
    METHOD_UNUSED;
    *out = value_bool(string_is_title(&self));
    return render_scan(r, self.size);
}

static bool is_identifier_part(int32_t c)
{
    return c == '_' || character_is_alnum(c) || character_is_mark(c);
}

METHOD(isidentifier)
{
    int32_t first = '0';

    METHOD_UNUSED;
    if (self.size)
        utf8_decode(self.s, self.size, &first);
    *out = value_bool((first == '_' || character_is_alpha(first)) &&
                      string_all(&self, is_identifier_part));
    return render_scan(r, self.size);
}

METHOD(strip)
{
    METHOD_UNUSED;
    return string_strip(r, &self, &p[0], STRIP_BOTH, out);
}

METHOD(lstrip)
{
    METHOD_UNUSED;
    return string_strip(r, &self, &p[0], STRIP_LEFT, out);
}

METHOD(rstrip)
{
    METHOD_UNUSED;
    return string_strip(r, &self, &p[0], STRIP_RIGHT, out);
}

METHOD(split)
{
    int64_t max = -1;

    METHOD_UNUSED;
    return arg_int(r, &p[1], "split: maxsplit", &max) ||
                   string_split(r, &self, &p[0], max, false, out)
               ? -1
               : 0;
}

METHOD(rsplit)
{
    int64_t max = -1;

    METHOD_UNUSED;
    return arg_int(r, &p[1], "rsplit: maxsplit", &max) ||
                   string_split(r, &self, &p[0], max, true, out)
               ? -1
               : 0;
}

METHOD(splitlines)
{
    METHOD_UNUSED;
    return string_lines(r, &self, value_truth(&p[0]), out);
}

METHOD(join)
{
    METHOD_UNUSED;
    return string_join(r, &self, &p[0], false, out);
}

METHOD(replace)
{
    struct value old, new;
    int64_t count = -1;

    METHOD_UNUSED;
    return arg_text(r, &p[0], "replace() argument 1", &old) ||
                   arg_text(r, &p[1], "replace() argument 2", &new) ||
                   arg_int(r, &p[2], "replace: count", &count) ||
                   string_replace(r, &self, &old, &new, count, out)
               ? -1
               : 0;
}

/* s[start:stop] as optional arguments of find and its like; false when start is past the end. */
static int part(struct render *r, const struct value *s, const struct value *start,
                const struct value *stop, struct value *out, int64_t *offset, bool *inside)
{
    static const struct value none = {.kind = V_NONE};
    int64_t size, from = 0;

    *inside = true;
    *offset = 0;
    *out = *s;
    if (start->kind == V_MISSING && stop->kind == V_MISSING)
        return 0;
    if (start->kind != V_NONE && arg_int(r, start, "start", &from))
        return -1;
    size = (int64_t)character_count(s->s, s->size);
    if (from < 0)
        from = from + size < 0 ? 0 : from + size;
    *offset = from;
    *inside = from <= size;
    return get_slice(r, s, start->kind == V_MISSING ? &none : start,
                     stop->kind == V_MISSING ? &none : stop, &none, out);
}

static const char *search_back(const struct value *in, const struct value *what)
{
    for (const char *at = in->s + in->size - what->size; in->size >= what->size && at >= in->s;
         at--)
        if (!memcmp(at, what->s, what->size))
            return at;
    return NULL;
}

/* The position of a part in characters, or -1. */
static int find_position(struct render *r, const struct value *self, const struct value *p,
                         bool back, int64_t *out)
{
    struct value what, in;
    const char *found;
    int64_t offset;
    bool inside;

    if (arg_text(r, &p[0], "the part looked for", &what) ||
        part(r, self, &p[1], &p[2], &in, &offset, &inside) || render_scan(r, self->size) ||
        (back && render_work(r, (uint64_t)in.size * what.size / 64)))
        return -1;
    found = back        ? search_back(&in, &what)
            : what.size ? memmem(in.s, in.size, what.s, what.size)
                        : in.s;
    *out = found && inside ? offset + (int64_t)character_count(in.s, (size_t)(found - in.s)) : -1;
    return 0;
}

METHOD(find)
{
    int64_t at;

    METHOD_UNUSED;
    if (find_position(r, &self, p, false, &at))
        return -1;
    *out = value_int(at);
    return 0;
}

METHOD(rfind)
{
    int64_t at;

    METHOD_UNUSED;
    if (find_position(r, &self, p, true, &at))
        return -1;
    *out = value_int(at);
    return 0;
}

static int found_or_error(struct render *r, int64_t at, struct value *out)
{
    if (at < 0)
        return render_fail(r, "substring not found");
    *out = value_int(at);
    return 0;
}

METHOD(text_index)
{
    int64_t at;

    METHOD_UNUSED;
    return find_position(r, &self, p, false, &at) || found_or_error(r, at, out) ? -1 : 0;
}

METHOD(rindex)
{
    int64_t at;

    METHOD_UNUSED;
    return find_position(r, &self, p, true, &at) || found_or_error(r, at, out) ? -1 : 0;
}

METHOD(text_count)
{
    struct value what, in;
    int64_t offset, n = 0;
    bool inside;

    METHOD_UNUSED;
    if (arg_text(r, &p[0], "the part counted", &what) ||
        part(r, &self, &p[1], &p[2], &in, &offset, &inside) || render_scan(r, self.size))
        return -1;
    if (!what.size) {
        *out = value_int(inside ? (int64_t)character_count(in.s, in.size) + 1 : 0);
        return 0;
    }
    for (const char *at = in.s, *end = in.s + in.size;
         (at = memmem(at, (size_t)(end - at), what.s, what.size)); at += what.size)
        n++;
    *out = value_int(n);
    return 0;
}

static bool has_end(const struct value *s, const struct value *what, bool front)
{
    return s->size >= what->size &&
           !memcmp(front ? s->s : s->s + s->size - what->size, what->s, what->size);
}

static int test_end(struct render *r, const struct value *self, const struct value *p, bool front,
                    struct value *out)
{
    const struct value *what = &p[0];
    struct value in;
    int64_t offset;
    bool inside, holds = false;

    if (part(r, self, &p[1], &p[2], &in, &offset, &inside))
        return -1;
    if (what->kind == V_STRING) {
        holds = has_end(&in, what, front);
    } else if (what->kind == V_TUPLE) {
        for (uint32_t i = 0; i < what->list->size && !holds; i++) {
            if (what->list->items[i].kind != V_STRING)
                return render_fail(r, "tuple for startswith must only contain str, not %s",
                                   type_name(&what->list->items[i]));
            holds = has_end(&in, &what->list->items[i], front);
        }
    } else {
        return render_fail(r, "%s first arg must be str or a tuple of str, not %s",
                           front ? "startswith" : "endswith", type_name(what));
    }
    *out = value_bool(holds && inside);
    return 0;
}

METHOD(startswith)
{
    METHOD_UNUSED;
    return test_end(r, &self, p, true, out);
}

METHOD(endswith)
{
    METHOD_UNUSED;
    return test_end(r, &self, p, false, out);
}

METHOD(removeprefix)
{
    struct value what;

    METHOD_UNUSED;
    if (arg_text(r, &p[0], "removeprefix() argument", &what))
        return -1;
    *out = self;
    if (has_end(&self, &what, true)) {
        out->s += what.size;
        out->size -= what.size;
    }
    return 0;
}

METHOD(removesuffix)
{
    struct value what;

    METHOD_UNUSED;
    if (arg_text(r, &p[0], "removesuffix() argument", &what))
        return -1;
    *out = self;
    if (has_end(&self, &what, false))
        out->size -= what.size;
    return 0;
}

/* (before, separator, after); where it is not found, the whole is first or, from the right, last.
 */
static int partition(struct render *r, const struct value *self, const struct value *p, bool back,
                     struct value *out)
{
    struct list *l = list_new(r, 3);
    struct value what;
    const char *found;

    if (!l || arg_text(r, &p[0], "the separator", &what))
        return -1;
    if (!what.size)
        return render_fail(r, "empty separator");
    if (render_scan(r, self->size) ||
        (back && render_work(r, (uint64_t)self->size * what.size / 64)))
        return -1;
    found = back ? search_back(self, &what) : memmem(self->s, self->size, what.s, what.size);
    for (int i = 0; i < 3; i++)
        l->items[i] = value_string("", 0);
    if (!found) {
        l->items[back ? 2 : 0] = *self;
    } else {
        size_t before = (size_t)(found - self->s);

        l->items[0] = value_string(self->s, before);
        l->items[1] = value_string(found, what.size);
        l->items[2] = value_string(found + what.size, self->size - before - what.size);
    }
    for (int i = 0; i < 3; i++)
        l->items[i].flags |= self->flags & STRING_MARKUP;
    *out = value_tuple(l);
    return 0;
}

METHOD(partition)
{
    METHOD_UNUSED;
    return partition(r, &self, p, false, out);
}

METHOD(rpartition)
{
    METHOD_UNUSED;
    return partition(r, &self, p, true, out);
}

METHOD(center)
{
    int64_t width;

    METHOD_UNUSED;
    return arg_int(r, &p[0], "center: width", &width) || string_center(r, &self, width, &p[1], out)
               ? -1
               : 0;
}

METHOD(ljust)
{
    int64_t width;

    METHOD_UNUSED;
    return arg_int(r, &p[0], "ljust: width", &width) ||
                   string_pad(r, &self, 0, width - (int64_t)character_count(self.s, self.size),
                              &p[1], out)
               ? -1
               : 0;
}

METHOD(rjust)
{
    int64_t width;

    METHOD_UNUSED;
    return arg_int(r, &p[0], "rjust: width", &width) ||
                   string_pad(r, &self, width - (int64_t)character_count(self.s, self.size), 0,
                              &p[1], out)
               ? -1
               : 0;
}

METHOD(zfill)
{
    struct value sign = value_string(self.s, 0), rest = self;
    static const struct value zero = {.kind = V_STRING, .size = 1, .s = "0"};
    int64_t width;

    METHOD_UNUSED;
    if (arg_int(r, &p[0], "zfill: width", &width))
        return -1;
    if (self.size && (self.s[0] == '-' || self.s[0] == '+')) {
        sign.size = 1;
        rest = value_string(self.s + 1, self.size - 1);
    }
    return string_pad(r, &rest, width - (int64_t)character_count(self.s, self.size), 0, &zero,
                      &rest) ||
                   string_join2(r, &sign, &rest, out)
               ? -1
               : 0;
}

METHOD(expandtabs)
{
    size_t mark = emit_mark(r);
    int64_t width = 8, column = 0;

    METHOD_UNUSED;
    if (arg_int(r, &p[0], "expandtabs: tabsize", &width))
        return -1;
    for (size_t i = 0; i < self.size;) {
        size_t n = utf8_length((unsigned char)self.s[i]);

        if (self.s[i] == '\t') {
            int64_t fill = width > 0 ? width - column % width : 0;

            column += fill;
            if (emit_char(r, ' ', (size_t)fill))
                return -1;
        } else {
            column = self.s[i] == '\n' || self.s[i] == '\r' ? 0 : column + 1;
            if (emit_bytes(r, self.s + i, n))
                return -1;
        }
        i += n;
    }
    return emit_capture(r, mark, out);
}

METHOD(format)
{
    METHOD_UNUSED;
    return format_braces(r, &self, args, out);
}

METHOD(format_map)
{
    struct args named = {0};
    struct named_value *all;

    METHOD_UNUSED;
    if (p[0].kind != V_DICT)
        return render_fail(r, "format_map: a mapping is expected, not %s", type_name(&p[0]));
    all = render_alloc(r, (size_t)p[0].dict->size + 1, sizeof *all);
    if (!all)
        return -1;
    for (uint32_t i = 0; i < p[0].dict->size; i++) {
        const struct dict_entry *e = &p[0].dict->entries[i];

        if (e->key.kind == V_STRING)
            all[named.n_named++] = (struct named_value){e->key, e->value};
    }
    named.named = all;
    return format_braces(r, &self, &named, out);
}

METHOD(encode)
{
    METHOD_UNUSED;
    if (p[0].kind != V_MISSING && !string_is(&p[0], "utf-8") && !string_is(&p[0], "utf8") &&
        !string_is(&p[0], "UTF-8"))
        return render_fail(r, "encode: only utf-8 is supported");
    *out = self;
    out->kind = V_BYTES;
    out->flags = 0;
    return 0;
}

METHOD(decode)
{
    METHOD_UNUSED;
    if (!utf8_valid(self.s, self.size))
        return render_fail(r, "'utf-8' codec can't decode the bytes");
    *out = value_string(self.s, self.size);
    return 0;
}

/* What a table of str.translate says of one character: code point or text or None. */
static int emit_translated(struct render *r, const struct value *table, int32_t c, const char *s,
                           size_t n)
{
    struct value key = value_int(c);
    const struct value *to;
    int found = dict_get(r, table->dict, &key, &to);

    if (found < 0)
        return -1;
    if (!found)
        return emit_bytes(r, s, n);
    if (to->kind == V_NONE)
        return 0;
    if (to->kind == V_INT && to->i >= 0 && to->i <= 0x10FFFF)
        return emit_character(r, (int32_t)to->i);
    if (to->kind == V_STRING)
        return emit_str(r, to);
    return render_fail(r, "character mapping must return integer, None or str");
}

METHOD(translate)
{
    size_t mark = emit_mark(r);

    METHOD_UNUSED;
    if (p[0].kind != V_DICT)
        return render_fail(r, "translate: a mapping is expected, not %s", type_name(&p[0]));
    for (size_t i = 0; i < self.size;) {
        int32_t c;
        size_t n = utf8_decode(self.s + i, self.size - i, &c);

        if (emit_translated(r, &p[0], c, self.s + i, n))
            return -1;
        i += n;
    }
    return render_scan(r, self.size) || emit_capture(r, mark, out) ? -1 : 0;
}
