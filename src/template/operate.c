#include "template/render.h"

#include <math.h>

#include "template/bigint.h"

static int type_error(struct render *r, enum node_kind op, const struct value *a,
                      const struct value *b)
{
    static const char *const signs[] = {
        [N_ADD] = "+",       [N_SUB] = "-", [N_MUL] = "*",           [N_DIV] = "/",
        [N_FLOORDIV] = "//", [N_MOD] = "%", [N_POW] = "** or pow()",
    };

    if (op == N_ADD && a->kind == V_STRING)
        return render_fail(r, "can only concatenate str (not \"%s\") to str", type_name(b));
    return render_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", signs[op],
                       type_name(a), type_name(b));
}

struct value int_value(struct render *r, const struct bigint *b)
{
    struct value v = {.kind = V_BIGINT, .big = b};
    int64_t small;

    (void)r;
    return bigint_to_int(b, &small) ? value_int(small) : v;
}

static const struct bigint *int_big(struct render *r, const struct value *v)
{
    const struct bigint *b = v->kind == V_BIGINT ? v->big : bigint_from_int(&r->heap, v->i);

    if (!b)
        render_no_memory(r);
    return b;
}

int to_double(struct render *r, const struct value *v, double *out)
{
    if (v->kind == V_FLOAT) {
        *out = v->f;
    } else if (v->kind == V_BIGINT) {
        *out = bigint_to_double(v->big);
        if (isinf(*out))
            return render_fail(r, "int too large to convert to float");
    } else {
        *out = (double)v->i;
    }
    return 0;
}

static int too_large(struct render *r)
{
    if (r->heap.over_limit)
        return render_no_memory(r);
    return render_fail(r, "an integer of more than %d digits", BIGINT_MAX_DIGITS);
}

static int big_result(struct render *r, const struct bigint *b, struct value *out)
{
    if (!b)
        return too_large(r);
    *out = int_value(r, b);
    return 0;
}

static int operate_big(struct render *r, enum node_kind op, const struct value *a,
                       const struct value *b, struct value *out)
{
    const struct bigint *x = int_big(r, a), *y = int_big(r, b), *quotient, *rest;

    if (!x || !y || render_work(r, ((uint64_t)x->size + 1) * (y->size + 1)))
        return -1;
    switch (op) {
    case N_ADD:
        return big_result(r, bigint_add(&r->heap, x, y), out);
    case N_SUB:
        return big_result(r, bigint_sub(&r->heap, x, y), out);
    case N_MUL:
        return big_result(r, bigint_mul(&r->heap, x, y), out);
    default:
        if (!y->size)
            return render_fail(r, "integer division or modulo by zero");
        if (bigint_divmod(&r->heap, x, y, &quotient, &rest))
            return too_large(r);
        return big_result(r, op == N_MOD ? rest : quotient, out);
    }
}

static int divide_small(struct render *r, enum node_kind op, int64_t a, int64_t b,
                        struct value *out)
{
    int64_t quotient, rest;

    if (!b)
        return render_fail(r, "integer division or modulo by zero");
    if (b == -1) /* INT64_MIN / -1 does not fit */
        return op == N_MOD ? (*out = value_int(0), 0)
                           : operate(r, N_SUB, &(struct value){.kind = V_INT},
                                     &(struct value){.kind = V_INT, .i = a}, out);
    quotient = a / b;
    rest = a % b;
    if (rest && (rest < 0) != (b < 0)) {
        quotient--;
        rest += b;
    }
    *out = value_int(op == N_MOD ? rest : quotient);
    return 0;
}

/* base ** exponent, exponent >= 0. */
static int power_int(struct render *r, const struct value *base, int64_t exponent,
                     struct value *out)
{
    struct value result = value_int(1), square = *base;

    while (exponent) {
        if ((exponent & 1) && operate(r, N_MUL, &result, &square, &result))
            return -1;
        exponent >>= 1;
        if (exponent && operate(r, N_MUL, &square, &square, &square))
            return -1;
    }
    *out = result;
    return 0;
}

static int operate_ints(struct render *r, enum node_kind op, const struct value *a,
                        const struct value *b, struct value *out)
{
    int64_t i;

    if (a->kind == V_BIGINT || b->kind == V_BIGINT)
        return operate_big(r, op, a, b, out);
    switch (op) {
    case N_ADD:
        if (__builtin_add_overflow(a->i, b->i, &i))
            return operate_big(r, op, a, b, out);
        break;
    case N_SUB:
        if (__builtin_sub_overflow(a->i, b->i, &i))
            return operate_big(r, op, a, b, out);
        break;
    case N_MUL:
        if (__builtin_mul_overflow(a->i, b->i, &i))
            return operate_big(r, op, a, b, out);
        break;
    default:
        return divide_small(r, op, a->i, b->i, out);
    }
    *out = value_int(i);
    return 0;
}

static double float_modulo(double a, double b)
{
    double rest = fmod(a, b);

    if (rest == 0)
        return copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}

static double float_floor_divide(double a, double b)
{
    double rest = fmod(a, b);
    double quotient = (a - rest) / b;
    double whole;

    if (rest != 0 && (b < 0) != (rest < 0))
        quotient -= 1;
    if (quotient == 0)
        return copysign(0.0, a / b);
    whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}

static int float_power(struct render *r, double a, double b, struct value *out)
{
    double result;

    if (a == 0 && b < 0)
        return render_fail(r, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        return render_fail(r, "a negative number raised to a fraction is not a real number");
    result = pow(a, b);
    if (isinf(result) && isfinite(a) && isfinite(b))
        return render_fail(r, "(34, 'Numerical result out of range')");
    *out = value_float(result);
    return 0;
}

static int operate_floats(struct render *r, enum node_kind op, const struct value *a,
                          const struct value *b, struct value *out)
{
    double x, y;

    if (to_double(r, a, &x) || to_double(r, b, &y))
        return -1;
    if (y == 0 && (op == N_DIV || op == N_FLOORDIV || op == N_MOD))
        return render_fail(r, op == N_DIV ? "division by zero" : "float floor division by zero");
    switch (op) {
    case N_ADD:
        *out = value_float(x + y);
        break;
    case N_SUB:
        *out = value_float(x - y);
        break;
    case N_MUL:
        *out = value_float(x * y);
        break;
    case N_DIV:
        *out = value_float(x / y);
        break;
    case N_FLOORDIV:
        *out = value_float(float_floor_divide(x, y));
        break;
    case N_MOD:
        *out = value_float(float_modulo(x, y));
        break;
    default:
        return float_power(r, x, y, out);
    }
    return 0;
}

static int operate_numbers(struct render *r, enum node_kind op, const struct value *a,
                           const struct value *b, struct value *out)
{
    if (a->kind == V_FLOAT || b->kind == V_FLOAT || op == N_DIV)
        return operate_floats(r, op, a, b, out);
    if (op != N_POW)
        return operate_ints(r, op, a, b, out);
    if (b->kind == V_BIGINT ? b->big->negative : b->i < 0)
        return operate_floats(r, op, a, b, out);
    if (b->kind == V_BIGINT) {
        if (a->kind == V_BIGINT || a->i > 1 || a->i < -1)
            return too_large(r);
        /* 0, 1 or -1: only whether the exponent is odd matters */
        return power_int(r, a, 2 + (int64_t)(b->big->limbs[0] & 1), out);
    }
    return power_int(r, a, b->i, out);
}

static int repeat_string(struct render *r, const struct value *s, int64_t times, struct value *out)
{
    size_t total;
    char *copy;

    *out = value_string("", 0);
    out->flags = s->flags;
    if (times <= 0 || !s->size)
        return 0;
    if (!size_mul(s->size, (size_t)times, &total) || total > r->heap.limit || total > UINT32_MAX)
        return fail(r->err, CLM_ERR_FULL, "%s:%u: the repeated string is larger than allowed",
                    r->t->name, r->line);
    copy = heap_bytes(&r->heap, total);
    if (!copy)
        return render_no_memory(r);
    if (s->size == 1)
        memset(copy, s->s[0], total);
    else
        for (size_t at = 0; at < total; at += s->size)
            memcpy(copy + at, s->s, s->size);
    out->s = copy;
    out->size = (uint32_t)total;
    return render_scan(r, total);
}

static int repeat_list(struct render *r, const struct value *v, int64_t times, struct value *out)
{
    size_t total = 0;
    struct list *l;

    if (times > 0 && (!size_mul(v->list->size, (size_t)times, &total) || total > UINT32_MAX))
        return fail(r->err, CLM_ERR_FULL, "%s:%u: the repeated list is larger than allowed",
                    r->t->name, r->line);
    if (render_work(r, total))
        return -1;
    l = list_new(r, total);
    if (!l)
        return -1;
    for (size_t at = 0; at < total; at += v->list->size)
        memcpy(l->items + at, v->list->items, v->list->size * sizeof *l->items);
    *out = v->kind == V_TUPLE ? value_tuple(l) : value_list(l);
    return 0;
}

/* str, list, tuple times int, either way around; 1 when it is no such pair. */
static int repeat(struct render *r, const struct value *a, const struct value *b, struct value *out)
{
    const struct value *sequence = a, *times = b;
    int64_t n;

    if (a->kind >= V_BOOL && a->kind <= V_BIGINT) {
        sequence = b;
        times = a;
    }
    if (sequence->kind != V_STRING && sequence->kind != V_LIST && sequence->kind != V_TUPLE)
        return 1;
    if (times->kind < V_BOOL || times->kind > V_BIGINT)
        return 1;
    if (times->kind == V_BIGINT && !times->big->negative)
        return render_fail(r, "cannot fit 'int' into an index-sized integer");
    n = times->kind == V_BIGINT ? 0 : times->i;
    return sequence->kind == V_STRING ? repeat_string(r, sequence, n, out)
                                      : repeat_list(r, sequence, n, out);
}

static int add_lists(struct render *r, const struct value *a, const struct value *b,
                     struct value *out)
{
    const struct value *left = a->list->items, *items;
    size_t size = (size_t)a->list->size + b->list->size;
    struct list *l = render_alloc(r, 1, sizeof *l);

    if (!l)
        return -1;
    if (size >= UINT32_MAX)
        return render_fail(r, "a list of more than 4 billion items");
    items = heap_join(&r->heap, left, a->list->size * sizeof *items, b->list->items,
                      b->list->size * sizeof *items, true);
    if (!items)
        return render_no_memory(r);
    if (render_work(r, (items == left ? b->list->size : size) / 8))
        return -1;
    *l = (struct list){(uint32_t)size, (struct value *)items};
    *out = a->kind == V_TUPLE ? value_tuple(l) : value_list(l);
    return 0;
}

static int escaped(struct render *r, const struct value *v, struct value *out)
{
    size_t mark = emit_mark(r);

    if (v->flags & STRING_MARKUP) {
        *out = *v;
        return 0;
    }
    return emit_escaped(r, v->s, v->size) || emit_capture(r, mark, out) ? -1 : 0;
}

static int add_strings(struct render *r, const struct value *a, const struct value *b,
                       struct value *out)
{
    struct value x, y;

    if (!((a->flags | b->flags) & STRING_MARKUP))
        return string_join2(r, a, b, out);
    if (escaped(r, a, &x) || escaped(r, b, &y) || string_join2(r, &x, &y, out))
        return -1;
    out->flags |= STRING_MARKUP;
    return 0;
}

int operate(struct render *r, enum node_kind op, const struct value *a, const struct value *b,
            struct value *out)
{
    if (is_number(a) && is_number(b))
        return operate_numbers(r, op, a, b, out);
    if (op == N_MOD && a->kind == V_STRING)
        return format_percent(r, a, b, out);
    if (a->kind == V_UNDEFINED || b->kind == V_UNDEFINED)
        return undefined_error(r, a->kind == V_UNDEFINED ? a : b);
    if (op == N_ADD && a->kind == V_STRING && b->kind == V_STRING)
        return add_strings(r, a, b, out);
    if (op == N_ADD && a->kind == b->kind && (a->kind == V_LIST || a->kind == V_TUPLE))
        return add_lists(r, a, b, out);
    if (op == N_MUL) {
        int rc = repeat(r, a, b, out);

        if (rc <= 0)
            return rc;
    }
    return type_error(r, op, a, b);
}

int operate_unary(struct render *r, const struct value *v, bool minus, struct value *out)
{
    static const struct value zero = {.kind = V_INT};

    if (v->kind == V_UNDEFINED)
        return undefined_error(r, v);
    if (!is_number(v))
        return render_fail(r, "bad operand type for unary %c: '%s'", minus ? '-' : '+',
                           type_name(v));
    if (v->kind == V_FLOAT) {
        *out = value_float(minus ? -v->f : v->f);
        return 0;
    }
    return operate_ints(r, minus ? N_SUB : N_ADD, &zero, v, out);
}
