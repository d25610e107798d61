#include "template/filters.h"

#define TEST(name)                                                                                 \
    static int test_##name(struct render *r, struct value self, const struct value *p,             \
                           const struct args *args, struct value *out)

/* A test that only looks at its subject. */
#define PLAIN_TEST(name, condition)                                                                \
    TEST(name)                                                                                     \
    {                                                                                              \
        (void)r;                                                                                   \
        (void)p;                                                                                   \
        (void)args;                                                                                \
        *out = value_bool(condition);                                                              \
        return 0;                                                                                  \
    }

PLAIN_TEST(defined, self.kind != V_UNDEFINED)
PLAIN_TEST(undefined, self.kind == V_UNDEFINED)
PLAIN_TEST(none, self.kind == V_NONE)
PLAIN_TEST(boolean, self.kind == V_BOOL)
PLAIN_TEST(is_false, self.kind == V_BOOL && !self.i)
PLAIN_TEST(is_true, self.kind == V_BOOL && self.i)
PLAIN_TEST(integer, self.kind == V_INT || self.kind == V_BIGINT)
PLAIN_TEST(float, self.kind == V_FLOAT)
PLAIN_TEST(number, is_number(&self))
PLAIN_TEST(string, self.kind == V_STRING)
PLAIN_TEST(mapping, self.kind == V_DICT)
PLAIN_TEST(iterable, is_iterable(&self))
PLAIN_TEST(callable, is_callable(&self))
PLAIN_TEST(escaped, self.kind == V_STRING && (self.flags & STRING_MARKUP))
/* has a length and can be indexed, if only to raise an error */
PLAIN_TEST(sequence, self.kind == V_UNDEFINED || self.kind == V_STRING || self.kind == V_BYTES ||
                         self.kind == V_LIST || self.kind == V_TUPLE || self.kind == V_DICT ||
                         self.kind == V_RANGE)
PLAIN_TEST(filter, self.kind == V_STRING && filter_find(self.s, self.size))
PLAIN_TEST(test, self.kind == V_STRING && test_find(self.s, self.size))

/* self % divisor == rest */
static int modulo_is(struct render *r, const struct value *self, const struct value *divisor,
                     int64_t rest, struct value *out)
{
    struct value wanted = value_int(rest), found;
    int equal;

    if (operate(r, N_MOD, self, divisor, &found))
        return -1;
    equal = value_equal(r, &found, &wanted);
    *out = value_bool(equal > 0);
    return equal < 0 ? -1 : 0;
}

TEST(odd)
{
    struct value two = value_int(2);

    (void)p;
    (void)args;
    return modulo_is(r, &self, &two, 1, out);
}

TEST(even)
{
    struct value two = value_int(2);

    (void)p;
    (void)args;
    return modulo_is(r, &self, &two, 0, out);
}

TEST(divisibleby)
{
    (void)args;
    return modulo_is(r, &self, &p[0], 0, out);
}

TEST(lower)
{
    struct value text;

    (void)p;
    (void)args;
    if (to_string(r, &self, &text) || render_scan(r, text.size))
        return -1;
    *out = value_bool(string_is_lower(&text));
    return 0;
}

TEST(upper)
{
    struct value text;

    (void)p;
    (void)args;
    if (to_string(r, &self, &text) || render_scan(r, text.size))
        return -1;
    *out = value_bool(string_is_upper(&text));
    return 0;
}

TEST(sameas)
{
    (void)r;
    (void)args;
    *out = value_bool(value_same(&self, &p[0]) || (self.kind == V_STRING && p[0].kind == V_STRING &&
                                                   self.s == p[0].s && self.size == p[0].size));
    return 0;
}

static int comparison(struct render *r, const struct value *a, const struct value *b,
                      enum compare_op op, struct value *out)
{
    int result = value_compare(r, a, b, op);

    *out = value_bool(result > 0);
    return result < 0 ? -1 : 0;
}

#define COMPARISON(name, op)                                                                       \
    TEST(name)                                                                                     \
    {                                                                                              \
        (void)args;                                                                                \
        return comparison(r, &self, &p[0], op, out);                                               \
    }

COMPARISON(eq, OP_EQ)
COMPARISON(ne, OP_NE)
COMPARISON(lt, OP_LT)
COMPARISON(le, OP_LE)
COMPARISON(gt, OP_GT)
COMPARISON(ge, OP_GE)
COMPARISON(in, OP_IN)

/* Sorted by name. */
static const struct builtin tests[] = {
    {"!=", test_ne, "other", 1, 0},
    {"<", test_lt, "other", 1, 0},
    {"<=", test_le, "other", 1, 0},
    {"==", test_eq, "other", 1, 0},
    {">", test_gt, "other", 1, 0},
    {">=", test_ge, "other", 1, 0},
    {"boolean", test_boolean, "", 0, 0},
    {"callable", test_callable, "", 0, 0},
    {"defined", test_defined, "", 0, 0},
    {"divisibleby", test_divisibleby, "num", 1, 0},
    {"eq", test_eq, "other", 1, 0},
    {"equalto", test_eq, "other", 1, 0},
    {"escaped", test_escaped, "", 0, 0},
    {"even", test_even, "", 0, 0},
    {"false", test_is_false, "", 0, 0},
    {"filter", test_filter, "", 0, 0},
    {"float", test_float, "", 0, 0},
    {"ge", test_ge, "other", 1, 0},
    {"greaterthan", test_gt, "other", 1, 0},
    {"gt", test_gt, "other", 1, 0},
    {"in", test_in, "seq", 1, 0},
    {"integer", test_integer, "", 0, 0},
    {"iterable", test_iterable, "", 0, 0},
    {"le", test_le, "other", 1, 0},
    {"lessthan", test_lt, "other", 1, 0},
    {"lower", test_lower, "", 0, 0},
    {"lt", test_lt, "other", 1, 0},
    {"mapping", test_mapping, "", 0, 0},
    {"ne", test_ne, "other", 1, 0},
    {"none", test_none, "", 0, 0},
    {"number", test_number, "", 0, 0},
    {"odd", test_odd, "", 0, 0},
    {"sameas", test_sameas, "other", 1, 0},
    {"sequence", test_sequence, "", 0, 0},
    {"string", test_string, "", 0, 0},
    {"test", test_test, "", 0, 0},
    {"true", test_is_true, "", 0, 0},
    {"undefined", test_undefined, "", 0, 0},
    {"upper", test_upper, "", 0, 0},
};

const struct builtin *test_find(const char *name, size_t size)
{
    return builtin_search(tests, COUNT(tests), name, size);
}
