#include "template/render.h"

#include <math.h>

#include "template/bigint.h"
#include "template/characters.h"

const char *type_name(const struct value *v)
{
    static const char *const names[V_KINDS] = {
        [V_MISSING] = "missing",
        [V_UNDEFINED] = "Undefined",
        [V_NONE] = "NoneType",
        [V_BOOL] = "bool",
        [V_INT] = "int",
        [V_BIGINT] = "int",
        [V_FLOAT] = "float",
        [V_STRING] = "str",
        [V_BYTES] = "bytes",
        [V_LIST] = "list",
        [V_TUPLE] = "tuple",
        [V_DICT] = "dict",
        [V_NAMESPACE] = "Namespace",
        [V_RANGE] = "range",
        [V_VIEW] = "dict view",
        [V_ITER] = "generator",
        [V_MACRO] = "Macro",
        [V_LOOP] = "LoopContext",
        [V_BUILTIN] = "function",
        [V_METHOD] = "method",
        [V_CYCLER] = "Cycler",
        [V_JOINER] = "Joiner",
    };

    return names[v->kind];
}

bool value_truth(const struct value *v)
{
    switch (v->kind) {
    case V_MISSING:
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
    case V_INT:
        return v->i != 0;
    case V_BIGINT:
        return v->big->size != 0;
    case V_FLOAT:
        return v->f != 0;
    case V_STRING:
    case V_BYTES:
        return v->size != 0;
    case V_LIST:
    case V_TUPLE:
        return v->list->size != 0;
    case V_DICT:
    case V_VIEW:
        return v->dict->size != 0;
    case V_RANGE:
        return v->range->size != 0;
    default:
        return true;
    }
}

bool is_number(const struct value *v)
{
    return v->kind >= V_BOOL && v->kind <= V_FLOAT;
}

static bool is_integer(const struct value *v)
{
    return v->kind >= V_BOOL && v->kind <= V_BIGINT;
}

bool value_has_length(const struct value *v)
{
    switch (v->kind) {
    case V_UNDEFINED:
    case V_STRING:
    case V_BYTES:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_VIEW:
    case V_RANGE:
    case V_LOOP:
        return true;
    default:
        return false;
    }
}

int value_length(struct render *r, const struct value *v, int64_t *out)
{
    struct value length;
    bool found;

    switch (v->kind) {
    case V_UNDEFINED:
        *out = 0;
        return 0;
    case V_STRING:
        if (render_scan(r, v->size))
            return -1;
        *out = (int64_t)character_count(v->s, v->size);
        return 0;
    case V_BYTES:
        *out = v->size;
        return 0;
    case V_LIST:
    case V_TUPLE:
        *out = v->list->size;
        return 0;
    case V_DICT:
    case V_VIEW:
        *out = v->dict->size;
        return 0;
    case V_RANGE:
        *out = v->range->size;
        return 0;
    case V_LOOP: {
        static const struct value name = {.kind = V_STRING, .size = 6, .s = "length"};

        if (loop_attribute(r, v->loop, &name, &length, &found))
            return -1;
        *out = length.i;
        return 0;
    }
    default:
        return render_fail(r, "object of type '%s' has no len()", type_name(v));
    }
}

static uint64_t hash_number(uint64_t i)
{
    i = (i ^ i >> 32) * 0xD6E8FEB86659FD93u;
    return i ^ i >> 32;
}

static int hash_tuple(struct render *r, const struct list *l, uint64_t *out)
{
    uint64_t h = 0x345678 + l->size;

    if (render_enter(r) || render_work(r, l->size))
        return -1;
    for (uint32_t i = 0; i < l->size; i++) {
        uint64_t item;

        if (value_hash(r, &l->items[i], &item))
            return -1;
        h = hash_number(h ^ item);
    }
    render_leave(r);
    *out = h;
    return 0;
}

int value_hash(struct render *r, const struct value *v, uint64_t *out)
{
    switch (v->kind) {
    case V_BOOL:
    case V_INT:
        *out = hash_number((uint64_t)v->i);
        return 0;
    case V_BIGINT:
        *out = hash_number(v->big->limbs[0] + (uint64_t)v->big->size);
        return 0;
    case V_FLOAT: /* a whole number hashes as the integer that it equals */
        if (fabs(v->f) < 9e18 && v->f == trunc(v->f)) {
            *out = hash_number((uint64_t)(int64_t)v->f);
        } else if (isfinite(v->f) && v->f == trunc(v->f)) {
            const struct bigint *b = bigint_from_double(&r->heap, v->f);
            struct value big = {.kind = V_BIGINT, .big = b};

            return b ? value_hash(r, &big, out) : render_no_memory(r);
        } else {
            *out = hash_bytes((const char *)&v->f, sizeof v->f);
        }
        return 0;
    case V_STRING:
        *out = hash_bytes(v->s, v->size);
        return render_scan(r, v->size);
    case V_BYTES:
        *out = hash_bytes(v->s, v->size) + 1;
        return render_scan(r, v->size);
    case V_TUPLE:
        return hash_tuple(r, v->list, out);
    case V_LIST:
    case V_DICT:
    case V_VIEW:
        return render_fail(r, "unhashable type: '%s'", type_name(v));
    case V_UNDEFINED:
    case V_NONE:
        *out = hash_number(v->kind);
        return 0;
    default:
        *out = hash_bytes((const char *)&v->p, sizeof v->p);
        return 0;
    }
}

/* Numbers of all kinds, exactly: -1, 0, 1; 2 when one is not a number. */
static int compare_numbers(struct render *r, const struct value *a, const struct value *b)
{
    if (is_integer(a) && is_integer(b)) {
        if (a->kind != V_BIGINT && b->kind != V_BIGINT)
            return a->i < b->i ? -1 : a->i > b->i;
        if (a->kind == V_BIGINT && b->kind == V_BIGINT)
            return bigint_compare(a->big, b->big);
        /* a big one lies outside of what the other can be */
        return a->kind == V_BIGINT ? (a->big->negative ? -1 : 1) : (b->big->negative ? 1 : -1);
    }
    if (a->kind == V_FLOAT && b->kind == V_FLOAT) {
        if (isnan(a->f) || isnan(b->f))
            return 2;
        return a->f < b->f ? -1 : a->f > b->f;
    }
    if (b->kind == V_FLOAT) {
        int order = compare_numbers(r, b, a);

        return order == 2 ? 2 : -order;
    }
    /* a float against an integer */
    if (isnan(a->f))
        return 2;
    if (b->kind == V_BIGINT || fabs(a->f) > 9e18) {
        double other = b->kind == V_BIGINT ? bigint_to_double(b->big) : (double)b->i;

        return a->f < other ? -1 : a->f > other;
    }
    int64_t whole = (int64_t)a->f;

    if (whole != b->i)
        return whole < b->i ? -1 : 1;
    return a->f < (double)whole ? -1 : a->f > (double)whole;
}

static int equal_lists(struct render *r, const struct list *a, const struct list *b)
{
    int equal = 1;

    if (a->size != b->size)
        return 0;
    if (render_enter(r))
        return -1;
    for (uint32_t i = 0; i < a->size && equal > 0; i++) {
        if (render_work(r, 1))
            return -1;
        equal =
            value_same(&a->items[i], &b->items[i]) ? 1 : value_equal(r, &a->items[i], &b->items[i]);
    }
    render_leave(r);
    return equal;
}

static int equal_dicts(struct render *r, const struct dict *a, const struct dict *b)
{
    int equal = 1;

    if (a->size != b->size)
        return 0;
    if (a == b)
        return 1;
    if (render_enter(r))
        return -1;
    for (uint32_t i = 0; i < a->size && equal > 0; i++) {
        const struct value *own = &a->entries[i].value, *other;

        if (render_work(r, 1))
            return -1;
        equal = dict_get(r, b, &a->entries[i].key, &other);
        if (equal > 0 && !value_same(own, other))
            equal = value_equal(r, own, other);
    }
    render_leave(r);
    return equal;
}

static int equal_ranges(const struct range *a, const struct range *b)
{
    if (a->size != b->size)
        return 0;
    return !a->size || (a->start == b->start && (a->size == 1 || a->step == b->step));
}

int value_equal(struct render *r, const struct value *a, const struct value *b)
{
    if (is_number(a) && is_number(b))
        return compare_numbers(r, a, b) == 0;
    if (a->kind != b->kind)
        return 0;
    switch (a->kind) {
    case V_UNDEFINED:
    case V_NONE:
        return 1;
    case V_STRING:
    case V_BYTES:
        if (a->size != b->size)
            return 0;
        return render_scan(r, a->size) ? -1 : string_same(a, b);
    case V_LIST:
    case V_TUPLE:
        return equal_lists(r, a->list, b->list);
    case V_DICT:
        return equal_dicts(r, a->dict, b->dict);
    case V_RANGE:
        return equal_ranges(a->range, b->range);
    case V_VIEW:
        if (a->flags == VIEW_VALUES || a->flags != b->flags)
            return a->dict == b->dict && a->flags == b->flags && a->flags != VIEW_VALUES;
        if (a->flags == VIEW_ITEMS)
            return equal_dicts(r, a->dict, b->dict);
        for (uint32_t i = 0; i < a->dict->size; i++) {
            const struct value *unused;
            int found = dict_get(r, b->dict, &a->dict->entries[i].key, &unused);

            if (found <= 0)
                return found;
        }
        return a->dict->size == b->dict->size;
    default:
        return a->p == b->p;
    }
}

bool value_same(const struct value *a, const struct value *b)
{
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case V_NONE:
        return true;
    case V_BOOL:
        return a->i == b->i;
    case V_INT: /* CPython keeps one object for each small integer */
        return a->i == b->i && a->i >= -5 && a->i <= 256;
    case V_FLOAT:
        return !memcmp(&a->f, &b->f, sizeof a->f) && isnan(a->f); /* the same NaN, most likely */
    case V_STRING:
        return a->size == b->size && (a->s == b->s || (a->size <= 1 && string_same(a, b)));
    case V_UNDEFINED:
        return a->s == b->s && a->size == b->size && a->flags == b->flags;
    default:
        return a->p == b->p;
    }
}

static int holds(int order, enum compare_op op)
{
    if (order == 2)
        return 0;
    switch (op) {
    case OP_LT:
        return order < 0;
    case OP_LE:
        return order <= 0;
    case OP_GT:
        return order > 0;
    default:
        return order >= 0;
    }
}

static int compare_bytes(const struct value *a, const struct value *b)
{
    size_t n = a->size < b->size ? a->size : b->size;
    int order = n ? memcmp(a->s, b->s, n) : 0; /* UTF-8 sorts as code points do */

    if (!order)
        return a->size < b->size ? -1 : a->size > b->size;
    return order < 0 ? -1 : 1;
}

static int not_ordered(struct render *r, const struct value *a, const struct value *b,
                       enum compare_op op)
{
    static const char *const signs[] = {
        [OP_LT] = "<", [OP_LE] = "<=", [OP_GT] = ">", [OP_GE] = ">="};

    return render_fail(r, "'%s' not supported between instances of '%s' and '%s'", signs[op],
                       type_name(a), type_name(b));
}

static int order_lists(struct render *r, const struct value *a, const struct value *b,
                       enum compare_op op)
{
    const struct list *x = a->list, *y = b->list;
    int result = -2;

    if (render_enter(r))
        return -1;
    for (uint32_t i = 0; result == -2 && i < x->size && i < y->size; i++) {
        int equal = render_work(r, 1) ? -1
                    : value_same(&x->items[i], &y->items[i])
                        ? 1
                        : value_equal(r, &x->items[i], &y->items[i]);

        if (equal < 0)
            result = -1;
        else if (!equal)
            result = value_less(r, &x->items[i], &y->items[i], op);
    }
    render_leave(r);
    if (result != -2)
        return result;
    return holds(x->size < y->size ? -1 : x->size > y->size, op);
}

/* a < b, or one of the other three comparisons of order. */
int value_less(struct render *r, const struct value *a, const struct value *b, enum compare_op op)
{
    if (a->kind == V_UNDEFINED || b->kind == V_UNDEFINED)
        return undefined_error(r, a->kind == V_UNDEFINED ? a : b);
    if (is_number(a) && is_number(b))
        return holds(compare_numbers(r, a, b), op);
    if (a->kind != b->kind)
        return not_ordered(r, a, b, op);
    switch (a->kind) {
    case V_STRING:
    case V_BYTES:
        return render_scan(r, a->size < b->size ? a->size : b->size)
                   ? -1
                   : holds(compare_bytes(a, b), op);
    case V_LIST:
    case V_TUPLE:
        return order_lists(r, a, b, op);
    default:
        return not_ordered(r, a, b, op);
    }
}

static int in_list(struct render *r, const struct value *item, const struct list *l)
{
    int equal = 0;

    for (uint32_t i = 0; i < l->size && !equal; i++)
        equal = render_work(r, 1)                ? -1
                : value_same(item, &l->items[i]) ? 1
                                                 : value_equal(r, item, &l->items[i]);
    return equal;
}

static int in_sequence(struct render *r, const struct value *item, const struct value *container)
{
    struct iter it;
    struct value member;
    int more;

    if (iter_begin(r, container, &it))
        return -1;
    while ((more = iter_next(r, &it, &member)) > 0) {
        int equal = render_work(r, 1)           ? -1
                    : value_same(item, &member) ? 1
                                                : value_equal(r, item, &member);

        if (equal)
            return equal;
    }
    return more;
}

/* memchr is many times as fast as memmem, unless it stops often. */
static bool has_text(const char *s, size_t n, const struct value *what)
{
    const char *at, *end = s + n;

    if (!what->size || n < what->size)
        return !what->size;
    for (int stops = 0; stops < 4; stops++) {
        at = memchr(s, what->s[0], (size_t)(end - s) - what->size + 1);
        if (!at || bytes_same(at, what->s, what->size))
            return at;
        s = at + 1;
        if ((size_t)(end - s) < what->size)
            return false;
    }
    return memmem(s, (size_t)(end - s), what->s, what->size);
}

static int value_in(struct render *r, const struct value *item, const struct value *container)
{
    const struct value *unused;

    switch (container->kind) {
    case V_STRING:
        if (item->kind == V_UNDEFINED)
            return render_fail(r, "'in <string>' requires string as left operand, not Undefined");
        if (item->kind != V_STRING)
            return render_fail(r, "'in <string>' requires string as left operand, not %s",
                               type_name(item));
        if (render_scan(r, container->size))
            return -1;
        return has_text(container->s, container->size, item);
    case V_LIST:
    case V_TUPLE:
        return in_list(r, item, container->list);
    case V_DICT:
        return dict_get(r, container->dict, item, &unused);
    case V_VIEW:
        if (container->flags == VIEW_KEYS)
            return dict_get(r, container->dict, item, &unused);
        return in_sequence(r, item, container);
    default:
        if (container->kind != V_UNDEFINED && !is_iterable(container))
            return render_fail(r, "argument of type '%s' is not iterable", type_name(container));
        return in_sequence(r, item, container);
    }
}

int value_compare(struct render *r, const struct value *a, const struct value *b,
                  enum compare_op op)
{
    int result;

    switch (op) {
    case OP_EQ:
        return value_equal(r, a, b);
    case OP_NE:
        result = value_equal(r, a, b);
        return result < 0 ? -1 : !result;
    case OP_IN:
        return value_in(r, a, b);
    case OP_NOT_IN:
        result = value_in(r, a, b);
        return result < 0 ? -1 : !result;
    default:
        return value_less(r, a, b, op);
    }
}

int undefined_error(struct render *r, const struct value *v)
{
    struct value kind = {.kind = (uint8_t)v->aux};

    switch ((enum undefined_kind)v->flags) {
    case UNDEFINED_NAME:
        return render_fail(r, "'%.*s' is undefined", (int)v->size, v->s);
    case UNDEFINED_ATTR:
        return render_fail(r, "'%s object' has no attribute '%.*s'", type_name(&kind), (int)v->size,
                           v->s);
    case UNDEFINED_ELEMENT:
        return render_fail(r, "%s object has no element %.*s", type_name(&kind), (int)v->size,
                           v->s);
    case UNDEFINED_UNSAFE:
        return render_fail(r, "access to attribute '%.*s' of '%s' object is unsafe.", (int)v->size,
                           v->s, type_name(&kind));
    default:
        return render_fail(r, "%.*s", (int)v->size, v->s);
    }
}
