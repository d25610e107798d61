#include "template/strings.h"

#include "base/utf8.h"
#include "template/characters.h"

#define METHOD(name)                                                                               \
    static int method_##name(struct render *r, struct value self, const struct value *p,           \
                             const struct args *args, struct value *out)
#define UNUSED ((void)r, (void)self, (void)p, (void)args)

/* ---- strings ---- */

#define CASE_METHOD(name, how)                                                                     \
    METHOD(name)                                                                                   \
    {                                                                                              \
        UNUSED;                                                                                    \
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
        UNUSED;                                                                                    \
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
    UNUSED;
    *out = value_bool(string_is_lower(&self));
    return render_scan(r, self.size);
}

METHOD(isupper)
{
    UNUSED;
    *out = value_bool(string_is_upper(&self));
    return render_scan(r, self.size);
}

METHOD(istitle)
{
    UNUSED;
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

    UNUSED;
    if (self.size)
        utf8_decode(self.s, self.size, &first);
    *out = value_bool((first == '_' || character_is_alpha(first)) &&
                      string_all(&self, is_identifier_part));
    return render_scan(r, self.size);
}

METHOD(strip)
{
    UNUSED;
    return string_strip(r, &self, &p[0], STRIP_BOTH, out);
}

METHOD(lstrip)
{
    UNUSED;
    return string_strip(r, &self, &p[0], STRIP_LEFT, out);
}

METHOD(rstrip)
{
    UNUSED;
    return string_strip(r, &self, &p[0], STRIP_RIGHT, out);
}

METHOD(split)
{
    int64_t max = -1;

    UNUSED;
    return arg_int(r, &p[1], "split: maxsplit", &max) ||
                   string_split(r, &self, &p[0], max, false, out)
               ? -1
               : 0;
}

METHOD(rsplit)
{
    int64_t max = -1;

    UNUSED;
    return arg_int(r, &p[1], "rsplit: maxsplit", &max) ||
                   string_split(r, &self, &p[0], max, true, out)
               ? -1
               : 0;
}

METHOD(splitlines)
{
    UNUSED;
    return string_lines(r, &self, value_truth(&p[0]), out);
}

METHOD(join)
{
    UNUSED;
    return string_join(r, &self, &p[0], false, out);
}

METHOD(replace)
{
    struct value old, new;
    int64_t count = -1;

    UNUSED;
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

    UNUSED;
    if (find_position(r, &self, p, false, &at))
        return -1;
    *out = value_int(at);
    return 0;
}

METHOD(rfind)
{
    int64_t at;

    UNUSED;
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

    UNUSED;
    return find_position(r, &self, p, false, &at) || found_or_error(r, at, out) ? -1 : 0;
}

METHOD(rindex)
{
    int64_t at;

    UNUSED;
    return find_position(r, &self, p, true, &at) || found_or_error(r, at, out) ? -1 : 0;
}

METHOD(text_count)
{
    struct value what, in;
    int64_t offset, n = 0;
    bool inside;

    UNUSED;
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
    UNUSED;
    return test_end(r, &self, p, true, out);
}

METHOD(endswith)
{
    UNUSED;
    return test_end(r, &self, p, false, out);
}

METHOD(removeprefix)
{
    struct value what;

    UNUSED;
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

    UNUSED;
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
    UNUSED;
    return partition(r, &self, p, false, out);
}

METHOD(rpartition)
{
    UNUSED;
    return partition(r, &self, p, true, out);
}

METHOD(center)
{
    int64_t width;

    UNUSED;
    return arg_int(r, &p[0], "center: width", &width) || string_center(r, &self, width, &p[1], out)
               ? -1
               : 0;
}

METHOD(ljust)
{
    int64_t width;

    UNUSED;
    return arg_int(r, &p[0], "ljust: width", &width) ||
                   string_pad(r, &self, 0, width - (int64_t)character_count(self.s, self.size),
                              &p[1], out)
               ? -1
               : 0;
}

METHOD(rjust)
{
    int64_t width;

    UNUSED;
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

    UNUSED;
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

    UNUSED;
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
    UNUSED;
    return format_braces(r, &self, args, out);
}

METHOD(format_map)
{
    struct args named = {0};
    struct named_value *all;

    UNUSED;
    if (p[0].kind != V_DICT)
        return render_fail(r, "format_map: a mapping is expected, not %s", type_name(&p[0]));
    all = render_alloc(r, (size_t)p[0].dict->size + 1, sizeof *all);
    if (!all)
        return -1;
    for (uint32_t i = 0; i < p[0].dict->size; i++) {
        const struct value *item = entry_value(r, &p[0].dict->entries[i]);

        if (!item)
            return -1;
        if (p[0].dict->entries[i].key.kind == V_STRING)
            all[named.n_named++] = (struct named_value){p[0].dict->entries[i].key, *item};
    }
    named.named = all;
    return format_braces(r, &self, &named, out);
}

METHOD(encode)
{
    UNUSED;
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
    UNUSED;
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

    UNUSED;
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

/* ---- mappings ---- */

static struct value view_of(const struct value *d, enum view_kind kind)
{
    return (struct value){.kind = V_VIEW, .flags = (uint8_t)kind, .dict = d->dict};
}

METHOD(keys)
{
    UNUSED;
    *out = view_of(&self, VIEW_KEYS);
    return 0;
}

METHOD(values)
{
    UNUSED;
    *out = view_of(&self, VIEW_VALUES);
    return 0;
}

METHOD(items)
{
    UNUSED;
    *out = view_of(&self, VIEW_ITEMS);
    return 0;
}

METHOD(get)
{
    const struct value *held;
    int found = dict_get(r, self.dict, &p[0], &held);

    UNUSED;
    if (found < 0)
        return -1;
    *out = found ? *held : p[1].kind == V_MISSING ? value_none() : p[1];
    return 0;
}

METHOD(copy)
{
    UNUSED;
    *out = self; /* it never changes */
    return 0;
}

METHOD(fromkeys)
{
    struct dict *d = dict_new(r, 0);
    struct value key;
    struct iter it;
    int more;

    UNUSED;
    if (!d || iter_begin(r, &p[0], &it))
        return -1;
    while ((more = iter_next(r, &it, &key)) > 0)
        if (render_work(r, 1) || dict_set(r, d, &key, p[1].kind == V_MISSING ? value_none() : p[1]))
            return -1;
    *out = value_dict(d);
    return more;
}

/* ---- lists ---- */

METHOD(item_count)
{
    int64_t n = 0;
    struct value item;
    struct iter it;

    UNUSED;
    if (iter_begin(r, &self, &it))
        return -1;
    while (iter_next(r, &it, &item) > 0) {
        int equal = render_work(r, 1)          ? -1
                    : value_same(&item, &p[0]) ? 1
                                               : value_equal(r, &item, &p[0]);

        if (equal < 0)
            return -1;
        n += equal;
    }
    *out = value_int(n);
    return 0;
}

METHOD(item_index)
{
    int64_t at = 0, start = 0, stop = INT64_MAX, size;
    struct value item;
    struct iter it;

    UNUSED;
    if (arg_int(r, &p[1], "index: start", &start) || arg_int(r, &p[2], "index: stop", &stop) ||
        value_length(r, &self, &size) || iter_begin(r, &self, &it))
        return -1;
    start = start < 0 ? start + size : start;
    stop = stop < 0 ? stop + size : stop;
    for (; iter_next(r, &it, &item) > 0; at++) {
        int equal = render_work(r, 1)          ? -1
                    : value_same(&item, &p[0]) ? 1
                                               : value_equal(r, &item, &p[0]);

        if (equal < 0)
            return -1;
        if (equal && at >= start && at < stop)
            return *out = value_int(at), 0;
    }
    return render_fail(r, "the item is not in the %s", type_name(&self));
}

/* ---- numbers ---- */

METHOD(is_integer)
{
    UNUSED;
    *out = value_bool(self.kind != V_FLOAT ||
                      (self.f - self.f == 0 && self.f == __builtin_trunc(self.f)));
    return 0;
}

METHOD(bit_length)
{
    uint64_t i = self.i < 0 ? -(uint64_t)self.i : (uint64_t)self.i;

    UNUSED;
    *out = value_int(i ? 64 - __builtin_clzll(i) : 0);
    return 0;
}

METHOD(conjugate)
{
    UNUSED;
    *out = self.kind == V_BOOL ? value_int(self.i) : self;
    return 0;
}

/* ---- cyclers ---- */

METHOD(next)
{
    struct cycler *c = self.cycler;

    UNUSED;
    *out = c->items->items[c->at];
    c->at = (c->at + 1) % c->items->size;
    return 0;
}

METHOD(reset)
{
    UNUSED;
    self.cycler->at = 0;
    *out = value_none();
    return 0;
}

#define BIT(kind) (1u << (kind))
#define TEXT BIT(V_STRING)
#define DICT BIT(V_DICT)
#define LIST BIT(V_LIST)
#define ITEMS (BIT(V_LIST) | BIT(V_TUPLE) | BIT(V_RANGE))
#define INTS (BIT(V_BOOL) | BIT(V_INT))

/* Sorted by name; those without a function change their object, which the sandbox refuses. */
static const struct builtin methods[] = {
    {"append", NULL, "", 0, LIST},
    {"bit_length", method_bit_length, "", 0, INTS},
    {"capitalize", method_capitalize, "", 0, TEXT},
    {"casefold", method_casefold, "", 0, TEXT},
    {"center", method_center, "width fillchar", 1, TEXT},
    {"clear", NULL, "", 0, LIST | DICT},
    {"conjugate", method_conjugate, "", 0, INTS | BIT(V_FLOAT)},
    {"copy", method_copy, "", 0, LIST | DICT},
    {"count", method_item_count, "value", 1, ITEMS},
    {"count", method_text_count, "sub start end", 1, TEXT},
    {"decode", method_decode, "encoding errors", 0, BIT(V_BYTES)},
    {"encode", method_encode, "encoding errors", 0, TEXT},
    {"endswith", method_endswith, "suffix start end", 1, TEXT},
    {"expandtabs", method_expandtabs, "tabsize", 0, TEXT},
    {"extend", NULL, "", 0, LIST},
    {"find", method_find, "sub start end", 1, TEXT},
    {"format", method_format, NULL, 0, TEXT},
    {"format_map", method_format_map, "mapping", 1, TEXT},
    {"fromkeys", method_fromkeys, "iterable value", 1, DICT | BIT(V_BUILTIN)}, /* dict itself */
    {"get", method_get, "key default", 1, DICT},
    {"index", method_item_index, "value start stop", 1, ITEMS},
    {"index", method_text_index, "sub start end", 1, TEXT},
    {"insert", NULL, "", 0, LIST},
    {"is_integer", method_is_integer, "", 0, INTS | BIT(V_FLOAT)},
    {"isalnum", method_isalnum, "", 0, TEXT},
    {"isalpha", method_isalpha, "", 0, TEXT},
    {"isascii", method_isascii, "", 0, TEXT},
    {"isdecimal", method_isdecimal, "", 0, TEXT},
    {"isdigit", method_isdigit, "", 0, TEXT},
    {"isidentifier", method_isidentifier, "", 0, TEXT},
    {"islower", method_islower, "", 0, TEXT},
    {"isnumeric", method_isnumeric, "", 0, TEXT},
    {"isprintable", method_isprintable, "", 0, TEXT},
    {"isspace", method_isspace, "", 0, TEXT},
    {"istitle", method_istitle, "", 0, TEXT},
    {"isupper", method_isupper, "", 0, TEXT},
    {"items", method_items, "", 0, DICT},
    {"join", method_join, "iterable", 1, TEXT},
    {"keys", method_keys, "", 0, DICT},
    {"ljust", method_ljust, "width fillchar", 1, TEXT},
    {"lower", method_lower, "", 0, TEXT},
    {"lstrip", method_lstrip, "chars", 0, TEXT},
    {"next", method_next, "", 0, BIT(V_CYCLER)},
    {"partition", method_partition, "sep", 1, TEXT},
    {"pop", NULL, "", 0, LIST | DICT},
    {"popitem", NULL, "", 0, DICT},
    {"remove", NULL, "", 0, LIST},
    {"removeprefix", method_removeprefix, "prefix", 1, TEXT},
    {"removesuffix", method_removesuffix, "suffix", 1, TEXT},
    {"replace", method_replace, "old new count", 2, TEXT},
    {"reset", method_reset, "", 0, BIT(V_CYCLER)},
    {"reverse", NULL, "", 0, LIST},
    {"rfind", method_rfind, "sub start end", 1, TEXT},
    {"rindex", method_rindex, "sub start end", 1, TEXT},
    {"rjust", method_rjust, "width fillchar", 1, TEXT},
    {"rpartition", method_rpartition, "sep", 1, TEXT},
    {"rsplit", method_rsplit, "sep maxsplit", 0, TEXT},
    {"rstrip", method_rstrip, "chars", 0, TEXT},
    {"setdefault", NULL, "", 0, DICT},
    {"sort", NULL, "", 0, LIST},
    {"split", method_split, "sep maxsplit", 0, TEXT},
    {"splitlines", method_splitlines, "keepends", 0, TEXT},
    {"startswith", method_startswith, "prefix start end", 1, TEXT},
    {"strip", method_strip, "chars", 0, TEXT},
    {"swapcase", method_swapcase, "", 0, TEXT},
    {"title", method_title, "", 0, TEXT},
    {"translate", method_translate, "table", 1, TEXT},
    {"update", NULL, "", 0, DICT},
    {"upper", method_upper, "", 0, TEXT},
    {"values", method_values, "", 0, DICT},
    {"zfill", method_zfill, "width", 1, TEXT},
};

const struct builtin *methods_named(const char *name, size_t size)
{
    return builtin_search(methods, COUNT(methods), name, size);
}

const struct builtin *method_for(const struct builtin *named, enum value_kind kind)
{
    const struct builtin *end = methods + COUNT(methods);

    for (const struct builtin *b = named; b < end && !strcmp(b->name, named->name); b++)
        if (b->kinds >> kind & 1)
            return b;
    return NULL;
}
