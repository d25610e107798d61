#include "template/filters.h"

#include <math.h>
#include <stdio.h>

#include "template/bigint.h"
#include "template/characters.h"
#include "template/number.h"

FILTER(abs)
{
    bool negative;

    (void)p;
    (void)args;
    if (self.kind == V_UNDEFINED)
        return undefined_error(r, &self);
    if (!is_number(&self))
        return render_fail(r, "bad operand type for abs(): '%s'", type_name(&self));
    if (self.kind == V_FLOAT) {
        *out = value_float(fabs(self.f));
        return 0;
    }
    negative = self.kind == V_BIGINT ? self.big->negative : self.i < 0;
    return operate_unary(r, &self, negative, out);
}

/* The whole part of a finite float. */
static int float_to_int(struct render *r, double f, struct value *out)
{
    const struct bigint *b;

    if (fabs(f) < 9e18) {
        *out = value_int((int64_t)f);
        return 0;
    }
    b = bigint_from_double(&r->heap, f);
    if (!b)
        return render_no_memory(r);
    *out = int_value(r, b);
    return 0;
}

static bool base_prefix(const char *s, const char *end, int64_t *base)
{
    int of;

    if (end - s < 2 || *s != '0')
        return false;
    of = (s[1] | 32) == 'x' ? 16 : (s[1] | 32) == 'o' ? 8 : (s[1] | 32) == 'b' ? 2 : 0;
    if (!of || (*base && *base != of))
        return false;
    *base = of;
    return true;
}

static int text_to_int(struct render *r, const struct value *text, int64_t base, struct value *out,
                       bool *valid)
{
    const char *end = text->s + text->size, *s = character_skip_space(text->s, end);
    char digits[BIGINT_MAX_DIGITS + 1];
    size_t n = 0;
    bool negative, after_digit = false;

    *valid = false;
    if (base && (base < 2 || base > 36))
        return render_fail(r, "int() base must be >= 2 and <= 36, or 0");
    end = character_strip_end(s, end);
    negative = s < end && *s == '-';
    if (s < end && (*s == '-' || *s == '+'))
        s++;
    if (base_prefix(s, end, &base)) {
        s += 2;
        after_digit = true; /* an underscore may follow the prefix */
    } else if (!base) {
        base = 10;
    }
    for (; s < end; s++) {
        if (*s == '_' && after_digit) {
            after_digit = false;
            continue;
        }
        if (digit_value(*s) >= base || n == sizeof digits)
            return 0;
        digits[n++] = *s;
        after_digit = true;
    }
    if (!n || !after_digit)
        return 0;
    if (bigint_small_from_text(digits, n, (int)base, &out->i)) {
        *out = value_int(negative ? -out->i : out->i);
    } else {
        const struct bigint *b = bigint_from_text(&r->heap, digits, n, (int)base);
        struct value v = {.kind = V_BIGINT, .big = b};

        if (!b)
            return render_no_memory(r);
        *out = v;
        if (negative && operate_unary(r, &v, true, out))
            return -1;
    }
    *valid = true;
    return 0;
}

FILTER(int)
{
    struct value otherwise = p[0].kind == V_MISSING ? value_int(0) : p[0];
    int64_t base = 10;
    bool valid;
    double f;

    (void)args;
    if (arg_int(r, &p[1], "int: base", &base))
        return -1;
    *out = otherwise;
    switch (self.kind) {
    case V_BOOL:
    case V_INT:
        *out = value_int(self.i);
        return 0;
    case V_BIGINT:
        *out = self;
        return 0;
    case V_FLOAT:
        if (isinf(self.f))
            return render_fail(r, "cannot convert float infinity to integer");
        return isnan(self.f) ? 0 : float_to_int(r, self.f, out);
    case V_UNDEFINED:
        return undefined_error(r, &self);
    case V_STRING:
        if (text_to_int(r, &self, base, out, &valid))
            return -1;
        if (valid)
            return 0;
        *out = otherwise;
        if (!number_from_text(self.s, self.size, &f) || !isfinite(f))
            return 0;
        return float_to_int(r, f, out);
    default:
        return 0;
    }
}

FILTER(float)
{
    double f;

    (void)args;
    *out = p[0].kind == V_MISSING ? value_float(0) : p[0];
    if (self.kind == V_UNDEFINED)
        return undefined_error(r, &self);
    if (self.kind == V_STRING) {
        if (number_from_text(self.s, self.size, &f))
            *out = value_float(f);
        return 0;
    }
    if (!is_number(&self))
        return 0;
    if (to_double(r, &self, &f))
        return -1;
    *out = value_float(f);
    return 0;
}

/* round(integer, -places): half to even. */
static int round_integer(struct render *r, const struct value *v, int64_t places, struct value *out)
{
    struct value ten = value_int(10), power, half, rest, twice, result, two = value_int(2);
    struct value exponent = value_int(-places);
    int order;

    *out = v->kind == V_BOOL ? value_int(v->i) : *v;
    if (places >= 0)
        return 0;
    if (places < -BIGINT_MAX_DIGITS) {
        *out = value_int(0);
        return 0;
    }
    if (operate(r, N_POW, &ten, &exponent, &power) || operate(r, N_MOD, v, &power, &rest) ||
        operate(r, N_SUB, v, &rest, &result) || operate(r, N_MUL, &rest, &two, &twice))
        return -1;
    order = value_less(r, &twice, &power, OP_LT) ? -1 : value_less(r, &twice, &power, OP_GT);
    if (!order) { /* exactly half way: to the even multiple */
        if (operate(r, N_FLOORDIV, &result, &power, &half) || operate(r, N_MOD, &half, &two, &half))
            return -1;
        order = value_truth(&half) ? 1 : -1;
    }
    *out = result;
    return order > 0 ? operate(r, N_ADD, &result, &power, out) : 0;
}

static int round_directed(struct render *r, const struct value *v, int64_t places, bool up,
                          struct value *out)
{
    struct value ten = value_int(10), exponent = value_int(places), power, scaled;
    double f;

    if (operate(r, N_POW, &ten, &exponent, &power) || operate(r, N_MUL, v, &power, &scaled))
        return -1;
    if (scaled.kind == V_FLOAT) {
        f = up ? ceil(scaled.f) : floor(scaled.f);
        if (!isfinite(f))
            return render_fail(r, "cannot convert float %s to integer",
                               isnan(f) ? "NaN" : "infinity");
        if (float_to_int(r, f, &scaled))
            return -1;
    }
    return operate(r, N_DIV, &scaled, &power, out);
}

FILTER(round)
{
    int64_t places = 0;
    bool common = p[1].kind == V_MISSING || string_is(&p[1], "common");

    (void)args;
    if (self.kind == V_UNDEFINED)
        return undefined_error(r, &self);
    if (!common && !string_is(&p[1], "ceil") && !string_is(&p[1], "floor"))
        return render_fail(r, "method must be common, ceil or floor");
    if (arg_int(r, &p[0], "round: precision", &places))
        return -1;
    if (!is_number(&self))
        return render_fail(r, "type %s doesn't define __round__ method", type_name(&self));
    if (!common)
        return round_directed(r, &self, places, string_is(&p[1], "ceil"), out);
    if (self.kind != V_FLOAT)
        return round_integer(r, &self, places, out);
    *out = self;
    if (isfinite(self.f))
        out->f = number_round(self.f, places);
    return 0;
}

static int bytes_value(struct render *r, const struct value *v, double *out)
{
    if (v->kind == V_STRING ? !number_from_text(v->s, v->size, out)
                            : !is_number(v) || to_double(r, v, out))
        return render_fail(r, "filesizeformat: a number is expected, not %s", type_name(v));
    return 0;
}

FILTER(filesizeformat)
{
    static const char prefixes[] = "kMGTPEZY";
    bool binary = value_truth(&p[0]);
    double base = binary ? 1024 : 1000, bytes, unit;
    char text[NUMBER_ROOM];
    int i = 0, n;

    (void)args;
    if (bytes_value(r, &self, &bytes))
        return -1;
    if (bytes == 1)
        return *out = value_string("1 Byte", 6), 0;
    if (!isfinite(bytes))
        return render_fail(r, "cannot convert float infinity to integer");
    if (bytes < base) {
        n = snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
        return string_copy(r, text, (size_t)n, out);
    }
    for (unit = base * base; i < 7 && bytes >= unit; i++)
        unit *= base;
    n = snprintf(text, sizeof text, "%.1f %c%sB", base * bytes / unit,
                 binary && !i ? 'K' : prefixes[i], binary ? "i" : "");
    for (int k = 0; k < n; k++)
        if (text[k] == ',') /* another locale's point */
            text[k] = '.';
    return string_copy(r, text, (size_t)n, out);
}
