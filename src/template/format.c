#include "template/format.h"

#include <math.h>
#include <stdio.h>

#include "template/bigint.h"
#include "template/characters.h"
#include "template/number.h"

#define MAX_PRECISION 800
#define MAX_WIDTH 1000000

/* A number's text in parts: sign, prefix such as 0x, and digits with all that follows them. */
struct parts {
    char sign;
    char prefix[3];
    char *digits;
    size_t n_whole; /* of the digits, those before the point */
    size_t n;
};

static int pad_field(struct render *r, const struct format_spec *f, size_t mark, char align,
                     size_t head)
{
    struct value text, before, rest;
    int64_t room;

    if (f->width <= 0)
        return 0;
    if (f->width > MAX_WIDTH)
        return render_fail(r, "format: a width of %lld is too large", (long long)f->width);
    room = f->width -
           (int64_t)character_count(r->out->data ? r->out->data + mark : "", emit_mark(r) - mark);
    if (room <= 0)
        return 0;
    if (emit_capture(r, mark, &text))
        return -1;
    before = value_string(text.s, head);
    rest = value_string(text.s + head, text.size - head);
    if (align == '=')
        return emit_str(r, &before) || string_pad(r, &rest, room, 0, &f->fill, &rest) ||
                       emit_str(r, &rest)
                   ? -1
                   : 0;
    int64_t left = align == '<' ? 0 : align == '^' ? room / 2 : room;

    return string_pad(r, &text, left, room - left, &f->fill, &text) || emit_str(r, &text) ? -1 : 0;
}

int format_text(struct render *r, const struct format_spec *f, const struct value *text)
{
    size_t mark = emit_mark(r), size = text->size;

    if (f->precision >= 0)
        size = character_offset(text->s, text->size, (size_t)f->precision);
    return emit_bytes(r, text->s, size) || pad_field(r, f, mark, f->align ? f->align : '<', 0) ? -1
                                                                                               : 0;
}

/* Digits with a separator between groups; with '0' padding the zeros are grouped too. */
static int emit_grouped(struct render *r, const struct format_spec *f, const struct parts *p)
{
    size_t every = strchr("boxX", f->type) && f->type ? 4 : 3;
    size_t head = (p->sign != 0) + strlen(p->prefix) + (p->n - p->n_whole);
    size_t zeros = 0, whole = p->n_whole;
    bool fill_zero = f->zero || (f->align == '=' && string_is(&f->fill, "0"));

    while (fill_zero && f->width <= MAX_WIDTH &&
           (int64_t)(head + whole + zeros + (whole + zeros - 1) / every) < f->width)
        zeros++;
    /* a separator may not stand in front: then there is one zero more */
    for (size_t i = 0; i < zeros + whole; i++) {
        size_t left = zeros + whole - i;

        if (i && left % every == 0 && emit_bytes(r, &f->group, 1))
            return -1;
        if (emit_bytes(r, i < zeros ? "0" : p->digits + (i - zeros), 1))
            return -1;
    }
    return emit_bytes(r, p->digits + p->n_whole, p->n - p->n_whole);
}

static int emit_parts(struct render *r, const struct format_spec *f, const struct parts *p)
{
    size_t mark = emit_mark(r);
    struct format_spec field = *f;
    size_t head = (p->sign != 0) + strlen(p->prefix);

    if ((p->sign && emit_bytes(r, &p->sign, 1)) || emit_text(r, p->prefix))
        return -1;
    if (f->group ? emit_grouped(r, f, p) : emit_bytes(r, p->digits, p->n))
        return -1;
    if (f->zero && !f->align)
        field.align = '=';
    if (f->zero && f->fill.kind == V_MISSING)
        field.fill = value_string("0", 1);
    return pad_field(r, &field, mark, field.align ? field.align : '>', head);
}

static char sign_of(const struct format_spec *f, bool negative)
{
    if (negative)
        return '-';
    return f->sign == '+' || f->sign == ' ' ? f->sign : '\0';
}

/* ---- integers ---- */

static int integer_digits(struct render *r, const struct value *v, int base, bool upper,
                          char **digits, size_t *n)
{
    struct value rest = *v, radix = value_int(base), digit;
    size_t room = 4 * BIGINT_MAX_DIGITS, at = room;
    char *text = (char *)render_alloc(r, room, 1);

    if (!text)
        return -1;
    do {
        if (operate(r, N_MOD, &rest, &radix, &digit) ||
            operate(r, N_FLOORDIV, &rest, &radix, &rest))
            return -1;
        text[--at] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[digit.i];
    } while (value_truth(&rest) && at);
    *digits = text + at;
    *n = room - at;
    return 0;
}

static int format_integer(struct render *r, const struct format_spec *f, const struct value *v)
{
    struct parts p = {0};
    struct value size = v->kind == V_BOOL ? value_int(v->i) : *v;
    bool negative = v->kind == V_BIGINT ? v->big->negative : v->i < 0;
    int base = f->type == 'x' || f->type == 'X' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;

    if (negative && operate_unary(r, &size, true, &size))
        return -1;
    if (integer_digits(r, &size, base, f->type == 'X', &p.digits, &p.n))
        return -1;
    p.n_whole = p.n;
    p.sign = sign_of(f, negative);
    if (f->alternate && base != 10) {
        p.prefix[0] = '0';
        p.prefix[1] = f->type;
    }
    if (f->precision > (int64_t)p.n) { /* only % has it: at least so many digits */
        size_t zeros = (size_t)f->precision - p.n;
        char *longer = f->precision > MAX_WIDTH ? NULL : render_alloc(r, (size_t)f->precision, 1);

        if (!longer)
            return render_fail(r, "format: the precision is too large");
        memset(longer, '0', zeros);
        memcpy(longer + zeros, p.digits, p.n);
        p.digits = longer;
        p.n = p.n_whole = (size_t)f->precision;
    }
    return emit_parts(r, f, &p);
}

static int format_character(struct render *r, const struct format_spec *f, const struct value *v)
{
    size_t mark = emit_mark(r);
    struct value text;

    if (v->kind != V_INT || v->i < 0 || v->i > 0x10FFFF)
        return render_fail(r, "%%c arg not in range(0x110000)");
    if (emit_character(r, (int32_t)v->i) || emit_capture(r, mark, &text))
        return -1;
    return format_text(r, f, &text);
}

/* ---- floats ---- */

static size_t put_exponent(char *out, int exponent, bool upper)
{
    return (size_t)snprintf(out, 8, "%c%c%02d", upper ? 'E' : 'e', exponent < 0 ? '-' : '+',
                            exponent < 0 ? -exponent : exponent);
}

/* d.ddde+xx */
static size_t scientific(double f, int precision, bool alternate, bool upper, char *out)
{
    char digits[MAX_PRECISION + 8];
    int exponent;
    size_t n = 1;

    number_digits(f, precision + 1, digits, &exponent);
    out[0] = digits[0];
    if (precision || alternate)
        out[n++] = '.';
    memcpy(out + n, digits + 1, (size_t)precision);
    n += (size_t)precision;
    return n + put_exponent(out + n, exponent, upper);
}

static size_t fixed(double f, int precision, bool alternate, char *out, size_t room)
{
    int n = snprintf(out, room, alternate ? "%#.*f" : "%.*f", precision, fabs(f));

    for (int i = 0; i < n; i++)
        if (out[i] < '0' || out[i] > '9')
            out[i] = '.';
    return (size_t)n;
}

/* Trailing zeros of the fraction, and a point that is left without one, go away. */
static size_t trim_fraction(char *out, size_t n)
{
    size_t point = 0, end = n;

    while (point < n && out[point] != '.')
        point++;
    if (point == n)
        return n;
    while (end > point + 1 && out[end - 1] == '0')
        end--;
    return end == point + 1 ? point : end;
}

/* g: fixed or scientific, whichever is shorter, with so many significant digits. */
static size_t general(double f, int precision, bool alternate, bool upper, char *out, size_t room)
{
    char digits[MAX_PRECISION + 8];
    int exponent;
    size_t n, tail;

    if (!precision)
        precision = 1;
    number_digits(f, precision, digits, &exponent);
    if (exponent >= -4 && exponent < precision) {
        n = fixed(f, precision - 1 - exponent, alternate, out, room);
        return alternate ? n : trim_fraction(out, n);
    }
    out[0] = digits[0];
    out[1] = '.';
    memcpy(out + 2, digits + 1, (size_t)precision - 1);
    n = 1 + (size_t)precision;
    if (!alternate)
        n = trim_fraction(out, n);
    tail = put_exponent(out + n, exponent, upper);
    return n + tail;
}

static int format_float(struct render *r, const struct format_spec *f, double v)
{
    static const size_t room = 1400;
    struct parts p = {.sign = sign_of(f, signbit(v) && !isnan(v))};
    int precision = f->precision < 0 ? 6 : (int)f->precision;
    bool upper = f->type == 'E' || f->type == 'G' || f->type == 'F';

    if (f->precision > MAX_PRECISION)
        return render_fail(r, "format: a precision of %lld is too large", (long long)f->precision);
    p.digits = render_alloc(r, room, 1);
    if (!p.digits)
        return -1;
    if (f->type == '%')
        v *= 100;
    if (!isfinite(v)) {
        memcpy(p.digits, isnan(v) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf", 3);
        p.n = 3;
    } else if (f->type == 'e' || f->type == 'E') {
        p.n = scientific(v, precision, f->alternate, upper, p.digits);
    } else if (f->type == 'f' || f->type == 'F' || f->type == '%') {
        p.n = fixed(v, precision, f->alternate, p.digits, room);
    } else if (f->type == 'g' || f->type == 'G' || f->precision >= 0) {
        p.n = general(v, precision, f->alternate, upper, p.digits, room);
        /* without a type there is always a fraction */
        if (!f->type && !memchr(p.digits, '.', p.n) && !memchr(p.digits, 'e', p.n)) {
            memcpy(p.digits + p.n, ".0", 2);
            p.n += 2;
        }
    } else {
        p.n = number_repr(fabs(v), p.digits);
    }
    if (f->type == '%')
        p.digits[p.n++] = '%';
    while (p.n_whole < p.n && p.digits[p.n_whole] >= '0' && p.digits[p.n_whole] <= '9')
        p.n_whole++;
    return emit_parts(r, f, &p);
}

int format_number(struct render *r, const struct format_spec *f, const struct value *v)
{
    double d;

    if (f->type == 'c')
        return format_character(r, f, v);
    if (v->kind != V_FLOAT && (!f->type || strchr("dnboxX", f->type)))
        return format_integer(r, f, v);
    if (v->kind == V_FLOAT && f->type && strchr("dboxX", f->type))
        return render_fail(r, "Unknown format code '%c' for object of type 'float'", f->type);
    return to_double(r, v, &d) || format_float(r, f, d) ? -1 : 0;
}
