#include "template/filters.h"

_Static_assert(V_KINDS <= 32, "a bit for each kind");

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

/* One that asks for the kind alone; its row in the table says so too. */
#define KIND_TEST(name) PLAIN_TEST(name, KINDS_##name >> self.kind & 1)
#define KIND(kind) (1u << (kind))
#define KINDS_defined (~KIND(V_UNDEFINED))
#define KINDS_undefined KIND(V_UNDEFINED)
#define KINDS_none KIND(V_NONE)
#define KINDS_boolean KIND(V_BOOL)
#define KINDS_integer (KIND(V_INT) | KIND(V_BIGINT))
#define KINDS_float KIND(V_FLOAT)
#define KINDS_number (KINDS_boolean | KINDS_integer | KINDS_float)
#define KINDS_string KIND(V_STRING)
#define KINDS_mapping KIND(V_DICT)
/* has a length and can be indexed, if only to raise an error */
#define KINDS_sequence                                                                             \
    (KIND(V_UNDEFINED) | KIND(V_STRING) | KIND(V_BYTES) | KIND(V_LIST) | KIND(V_TUPLE) |           \
     KIND(V_DICT) | KIND(V_RANGE))

KIND_TEST(defined)
KIND_TEST(undefined)
KIND_TEST(none)
KIND_TEST(boolean)
KIND_TEST(integer)
KIND_TEST(float)
KIND_TEST(number)
KIND_TEST(string)
KIND_TEST(mapping)
KIND_TEST(sequence)
PLAIN_TEST(is_false, self.kind == V_BOOL && !self.i)
PLAIN_TEST(is_true, self.kind == V_BOOL && self.i)
PLAIN_TEST(iterable, is_iterable(&self))
PLAIN_TEST(callable, is_callable(&self))
PLAIN_TEST(escaped, self.kind == V_STRING && (self.flags & STRING_MARKUP))
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
    {"boolean", test_boolean, "", 0, KINDS_boolean},
    {"callable", test_callable, "", 0, 0},
    {"defined", test_defined, "", 0, KINDS_defined},
    {"divisibleby", test_divisibleby, "num", 1, 0},
    {"eq", test_eq, "other", 1, 0},
    {"equalto", test_eq, "other", 1, 0},
    {"escaped", test_escaped, "", 0, 0},
    {"even", test_even, "", 0, 0},
    {"false", test_is_false, "", 0, 0},
    {"filter", test_filter, "", 0, 0},
    {"float", test_float, "", 0, KINDS_float},
    {"ge", test_ge, "other", 1, 0},
    {"greaterthan", test_gt, "other", 1, 0},
    {"gt", test_gt, "other", 1, 0},
    {"in", test_in, "seq", 1, 0},
    {"integer", test_integer, "", 0, KINDS_integer},
    {"iterable", test_iterable, "", 0, 0},
    {"le", test_le, "other", 1, 0},
    {"lessthan", test_lt, "other", 1, 0},
    {"lower", test_lower, "", 0, 0},
    {"lt", test_lt, "other", 1, 0},
    {"mapping", test_mapping, "", 0, KINDS_mapping},
    {"ne", test_ne, "other", 1, 0},
    {"none", test_none, "", 0, KINDS_none},
    {"number", test_number, "", 0, KINDS_number},
    {"odd", test_odd, "", 0, 0},
    {"sameas", test_sameas, "other", 1, 0},
    {"sequence", test_sequence, "", 0, KINDS_sequence},
    {"string", test_string, "", 0, KINDS_string},
    {"test", test_test, "", 0, 0},
    {"true", test_is_true, "", 0, 0},
    {"undefined", test_undefined, "", 0, KINDS_undefined},
    {"upper", test_upper, "", 0, 0},
};

const struct builtin *test_find(const char *name, size_t size)
{
    return builtin_search(tests, COUNT(tests), name, size);
}
