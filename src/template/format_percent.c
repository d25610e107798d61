#include "template/format.h"

#include <math.h>

#include "template/bigint.h"
#include "template/characters.h"

/* "format % argument" while it is read. */
struct percent {
    const char *s, *end;
    const struct value *arg;
    uint32_t next; /* of a tuple's items */
    bool single_used;
    bool named; /* %(key)s was seen */
};

static int next_argument(struct render *r, struct percent *p, struct value *out)
{
    if (p->arg->kind == V_TUPLE) {
        if (p->next >= p->arg->list->size)
            return render_fail(r, "not enough arguments for format string");
        *out = p->arg->list->items[p->next++];
        return 0;
    }
    if (p->single_used)
        return render_fail(r, "not enough arguments for format string");
    p->single_used = true;
    *out = *p->arg;
    return 0;
}

/* (key) after the percent sign. */
static int named_argument(struct render *r, struct percent *p, struct value *out)
{
    const char *from = ++p->s;
    const struct value *held;
    struct value key;
    int depth = 1;

    while (p->s < p->end && depth) {
        depth += *p->s == '(' ? 1 : *p->s == ')' ? -1 : 0;
        p->s++;
    }
    if (depth)
        return render_fail(r, "incomplete format key");
    if (p->arg->kind != V_DICT)
        return render_fail(r, "format requires a mapping");
    key = value_string(from, (size_t)(p->s - 1 - from));
    p->named = true;
    if (dict_get(r, p->arg->dict, &key, &held) <= 0)
        return render_fail(r, "there is no key '%.*s' for the format", (int)key.size, key.s);
    *out = *held;
    return 0;
}

/* A number in the format, or * for one among the arguments. */
static int size_argument(struct render *r, struct percent *p, int64_t *out)
{
    struct value v;

    if (p->s < p->end && *p->s == '*') {
        p->s++;
        return next_argument(r, p, &v) || arg_int(r, &v, "* wants int", out) ? -1 : 0;
    }
    for (*out = 0; p->s < p->end && *p->s >= '0' && *p->s <= '9'; p->s++)
        if (*out < 1000000000)
            *out = *out * 10 + (*p->s - '0');
    return 0;
}

static void read_flags(struct percent *p, struct format_spec *f)
{
    for (; p->s < p->end; p->s++) {
        if (*p->s == '-')
            f->align = '<';
        else if (*p->s == '+')
            f->sign = '+';
        else if (*p->s == ' ')
            f->sign = f->sign ? f->sign : ' ';
        else if (*p->s == '#')
            f->alternate = true;
        else if (*p->s == '0')
            f->zero = true;
        else
            break;
    }
}

/* d and its like: a float is cut to its whole part. */
static int whole_number(struct render *r, char type, const struct value *v, struct value *out)
{
    *out = *v;
    if (v->kind == V_UNDEFINED)
        return undefined_error(r, v);
    if (!is_number(v) || (v->kind == V_FLOAT && type != 'd' && type != 'i' && type != 'u'))
        return render_fail(r, "%%%c format: a real number is required, not %s", type, type_name(v));
    if (v->kind != V_FLOAT)
        return 0;
    if (!isfinite(v->f))
        return render_fail(r, "cannot convert float infinity or NaN to integer");
    const struct bigint *b = bigint_from_double(&r->heap, v->f);

    if (!b)
        return render_no_memory(r);
    *out = int_value(r, b);
    return 0;
}

static int convert(struct render *r, struct format_spec *f, const struct value *v, bool escape)
{
    size_t mark = emit_mark(r);
    struct value text;

    switch (f->type) {
    case 's':
    case 'r':
    case 'a':
        if (f->type == 's' ? emit_str(r, v) : emit_repr(r, v))
            return -1;
        if (emit_capture(r, mark, &text))
            return -1;
        if (escape && !(v->kind == V_STRING && (v->flags & STRING_MARKUP)) &&
            (emit_escaped(r, text.s, text.size) || emit_capture(r, mark, &text)))
            return -1;
        f->zero = false;
        f->align = f->align ? f->align : '>';
        return format_text(r, f, &text);
    case 'c':
        f->align = f->align ? f->align : '>';
        if (v->kind == V_STRING && character_count(v->s, v->size) == 1)
            return format_text(r, f, v);
        return format_number(r, f, v);
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X':
        if (whole_number(r, f->type, v, &text))
            return -1;
        if (f->type == 'i' || f->type == 'u')
            f->type = 'd';
        break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (v->kind == V_UNDEFINED)
            return undefined_error(r, v);
        if (!is_number(v))
            return render_fail(r, "must be real number, not %s", type_name(v));
        text = *v;
        break;
    default:
        return render_fail(r, "unsupported format character '%c'", f->type);
    }
    if (f->align == '<')
        f->zero = false;
    return format_number(r, f, &text);
}

/* One conversion, after the percent sign. */
static int conversion(struct render *r, struct percent *p, bool escape)
{
    struct format_spec f = {.width = -1, .precision = -1};
    struct value v;
    bool named = false;

    if (p->s < p->end && *p->s == '(') {
        if (named_argument(r, p, &v))
            return -1;
        named = true;
    }
    read_flags(p, &f);
    if (size_argument(r, p, &f.width))
        return -1;
    if (f.width < 0) { /* from *: to the left */
        f.align = '<';
        f.width = f.width == INT64_MIN ? INT64_MAX : -f.width;
    }
    if (p->s < p->end && *p->s == '.') {
        p->s++;
        if (size_argument(r, p, &f.precision))
            return -1;
        f.precision = f.precision < 0 ? 0 : f.precision;
    }
    while (p->s < p->end && (*p->s == 'l' || *p->s == 'h' || *p->s == 'L'))
        p->s++;
    if (p->s == p->end)
        return render_fail(r, "incomplete format");
    f.type = *p->s++;
    if (f.type == '%')
        return emit_char(r, '%', 1);
    if (!named && next_argument(r, p, &v))
        return -1;
    return convert(r, &f, &v, escape);
}

int format_percent(struct render *r, const struct value *format, const struct value *arg,
                   struct value *out)
{
    struct percent p = {.s = format->s, .end = format->s + format->size, .arg = arg};
    bool escape = format->flags & STRING_MARKUP;
    size_t mark = emit_mark(r);

    while (p.s < p.end) {
        const char *next = memchr(p.s, '%', (size_t)(p.end - p.s));
        const char *stop = next ? next : p.end;

        if (emit_bytes(r, p.s, (size_t)(stop - p.s)))
            return -1;
        p.s = stop;
        if (!next)
            break;
        p.s++;
        if (render_work(r, 1) || conversion(r, &p, escape))
            return -1;
    }
    /* a mapping (or list) may be there without being used */
    if (arg->kind == V_TUPLE
            ? p.next < arg->list->size
            : !p.single_used && !p.named && arg->kind != V_DICT && arg->kind != V_LIST &&
                  arg->kind != V_RANGE && arg->kind != V_BYTES && arg->kind != V_UNDEFINED)
        return render_fail(r, "not all arguments converted during string formatting");
    if (emit_capture(r, mark, out))
        return -1;
    out->flags = format->flags & STRING_MARKUP;
    return 0;
}
