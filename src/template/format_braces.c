#include "template/format.h"

#include "base/utf8.h"
#include "template/bigint.h"
#include "template/characters.h"

/* str.format: numbering of the fields, automatic or by hand, but not both. */
struct braces {
    const struct args *args;
    int64_t next;
    bool automatic, manual, escape;
};

static int format_part(struct render *r, struct braces *b, const char *s, const char *end,
                       int depth);

/* The first part of a field's name: a position, or a keyword. */
static int first_value(struct render *r, struct braces *b, const char *s, size_t n,
                       struct value *out)
{
    struct value name = value_string(s, n);
    int64_t at = 0;
    bool digits = n > 0;

    for (size_t i = 0; i < n; i++)
        digits &= s[i] >= '0' && s[i] <= '9';
    if (!n) {
        if (b->manual)
            return render_fail(r, "cannot switch from manual field specification to automatic "
                                  "field numbering");
        b->automatic = true;
        at = b->next++;
    } else if (digits) {
        if (b->automatic)
            return render_fail(r, "cannot switch from automatic field numbering to manual field "
                                  "specification");
        b->manual = true;
        if (!bigint_small_from_text(s, n, 10, &at))
            at = INT64_MAX;
    }
    if (!n || digits) {
        if (at >= b->args->n_positional)
            return render_fail(r, "Replacement index %lld out of range for positional args tuple",
                               (long long)at);
        *out = b->args->positional[at];
        return 0;
    }
    for (uint32_t i = 0; i < b->args->n_named; i++)
        if (string_same(&b->args->named[i].name, &name)) {
            *out = b->args->named[i].value;
            return 0;
        }
    return render_fail(r, "there is no argument '%.*s' for the format", (int)n, s);
}

/* a.b[c]: attributes and items, through the sandbox. */
static int field_value(struct render *r, struct braces *b, const char *s, const char *end,
                       struct value *out)
{
    const char *stop = s;

    while (stop < end && *stop != '.' && *stop != '[')
        stop++;
    if (first_value(r, b, s, (size_t)(stop - s), out))
        return -1;
    while (stop < end) {
        bool item = *stop == '[';
        const char *from = ++stop;
        struct value key, object = *out;
        int64_t index;

        while (stop < end && (item ? *stop != ']' : *stop != '.' && *stop != '['))
            stop++;
        key = value_string(from, (size_t)(stop - from));
        if (!key.size)
            return render_fail(r, "Empty attribute in format string");
        if (item && stop++ == end)
            return render_fail(r, "expected '}' before end of string");
        if (item && key.s[0] >= '0' && key.s[0] <= '9' && strspn(key.s, "0123456789") >= key.size &&
            bigint_small_from_text(key.s, key.size, 10, &index))
            key = value_int(index);
        if (item ? get_item(r, &object, &key, out)
                 : get_attribute(r, &object, &key, hash_bytes(key.s, key.size),
                                 methods_named(key.s, key.size), out))
            return -1;
    }
    return 0;
}

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '=' || c == '^';
}

static const char *read_number(const char *s, const char *end, int64_t *out)
{
    if (s == end || *s < '0' || *s > '9')
        return s;
    for (*out = 0; s < end && *s >= '0' && *s <= '9'; s++)
        if (*out < 1000000000)
            *out = *out * 10 + (*s - '0');
    return s;
}

static int read_spec(struct render *r, const struct value *text, struct format_spec *f)
{
    const char *s = text->s, *end = s + text->size;
    size_t first = text->size ? utf8_length((unsigned char)*s) : 0;

    *f = (struct format_spec){.width = -1, .precision = -1};
    if (first && first < text->size && is_align(s[first])) {
        f->fill = value_string(s, first);
        f->align = s[first];
        s += first + 1;
    } else if (s < end && is_align(*s)) {
        f->align = *s++;
    }
    if (s < end && (*s == '+' || *s == '-' || *s == ' '))
        f->sign = *s++;
    if (s < end && *s == '#')
        f->alternate = *s++ == '#';
    if (s < end && *s == '0')
        f->zero = *s++ == '0';
    s = read_number(s, end, &f->width);
    if (s < end && (*s == ',' || *s == '_'))
        f->group = *s++;
    if (s < end && *s == '.') {
        const char *from = ++s;

        s = read_number(s, end, &f->precision);
        if (s == from)
            return render_fail(r, "Format specifier missing precision");
    }
    if (s < end)
        f->type = *s++;
    if (s < end || (f->type && !strchr("sdboxXnceEfFgG%", f->type)))
        return render_fail(r, "Invalid format specifier '%.*s'", (int)text->size, text->s);
    return 0;
}

/* format(value, spec) */
static int put_field(struct render *r, const struct value *v, const struct value *spec)
{
    struct format_spec f;

    if (!spec->size)
        return emit_str(r, v);
    if (!is_number(v) && v->kind != V_STRING)
        return render_fail(r, "unsupported format string passed to %s.__format__", type_name(v));
    if (read_spec(r, spec, &f))
        return -1;
    if (is_number(v)) {
        if (f.type == 's' ||
            (f.precision >= 0 && v->kind != V_FLOAT && (!f.type || strchr("dboxXnc", f.type))))
            return render_fail(r, "the format '%.*s' does not suit type '%s'", (int)spec->size,
                               spec->s, type_name(v));
        return format_number(r, &f, v);
    }
    if ((f.type && f.type != 's') || f.sign || f.align == '=' || f.group)
        return render_fail(r, "the format '%.*s' does not suit type 'str'", (int)spec->size,
                           spec->s);
    if (f.zero && f.fill.kind == V_MISSING)
        f.fill = value_string("0", 1);
    return format_text(r, &f, v);
}

/* The field between braces: name, conversion, and a spec that may hold fields itself. */
static int put_replacement(struct render *r, struct braces *b, const char *s, const char *end,
                           int depth)
{
    const char *name_end = s;
    size_t mark = emit_mark(r);
    struct value v, spec = value_string("", 0);
    bool bracket = false;

    while (name_end < end && (bracket || (*name_end != '!' && *name_end != ':'))) {
        bracket = *name_end == '[' || (bracket && *name_end != ']');
        name_end++;
    }
    if (field_value(r, b, s, name_end, &v))
        return -1;
    s = name_end;
    if (s < end && *s == '!') {
        if (s + 1 == end || (s + 2 < end && s[2] != ':') || !strchr("rsa", s[1]))
            return render_fail(r, "the conversion after '!' must be r, s or a");
        if ((s[1] == 's' ? emit_str(r, &v) : emit_repr(r, &v)) || emit_capture(r, mark, &v))
            return -1;
        s += 2;
    }
    if (s < end && (format_part(r, b, s + 1, end, depth + 1) || emit_capture(r, mark, &spec)))
        return -1;
    if (put_field(r, &v, &spec))
        return -1;
    if (b->escape && !depth && !(v.kind == V_STRING && (v.flags & STRING_MARKUP)))
        return emit_capture(r, mark, &v) || emit_escaped(r, v.s, v.size) ? -1 : 0;
    return 0;
}

/* The brace that closes the one before s, or NULL. */
static const char *closing_brace(const char *s, const char *end)
{
    int depth = 1;

    for (; s < end; s++) {
        depth += *s == '{' ? 1 : *s == '}' ? -1 : 0;
        if (!depth)
            return s;
    }
    return NULL;
}

static int format_part(struct render *r, struct braces *b, const char *s, const char *end,
                       int depth)
{
    if (depth > 2)
        return render_fail(r, "Max string recursion exceeded");
    while (s < end) {
        const char *stop = s;

        while (stop < end && *stop != '{' && *stop != '}')
            stop++;
        if (render_work(r, 1) || emit_bytes(r, s, (size_t)(stop - s)))
            return -1;
        if (stop == end)
            break;
        if (!depth && stop + 1 < end && stop[1] == *stop) {
            if (emit_bytes(r, stop, 1))
                return -1;
            s = stop + 2;
            continue;
        }
        if (*stop == '}')
            return render_fail(r, "Single '}' encountered in format string");
        s = stop + 1;
        stop = closing_brace(s, end);
        if (!stop)
            return render_fail(r, "expected '}' before end of string");
        if (put_replacement(r, b, s, stop, depth))
            return -1;
        s = stop + 1;
    }
    return 0;
}

int format_braces(struct render *r, const struct value *format, const struct args *args,
                  struct value *out)
{
    struct braces b = {.args = args, .escape = format->flags & STRING_MARKUP};
    size_t mark = emit_mark(r);

    if (format_part(r, &b, format->s, format->s + format->size, 0) || emit_capture(r, mark, out))
        return -1;
    out->flags = format->flags & STRING_MARKUP;
    return 0;
}
