#include "template/filters.h"
#include "template/render.h"

/* As much of an expression as is looked at everywhere: its callers are many and small, and a call
 * of it costs what it does. */
#define INLINE static inline __attribute__((always_inline))

static inline const struct value *name_ref(const struct render *r, const struct node *n,
                                           struct value *room)
{
    const struct value *v = variable_slot(r, n->name.variable);

    if (v->kind != V_MISSING)
        return v;
    *room = value_undefined(UNDEFINED_NAME, n->name.name.s, n->name.name.size, 0);
    return room;
}

/* The object of an attribute or item. */
static inline const struct value *object_ref(struct render *r, const struct node *n,
                                             struct value *room)
{
    if (n->kind == N_NAME)
        return name_ref(r, n, room);
    return eval_node(r, n, room) ? NULL : room;
}

/* a.b and a['b']: they differ in which comes first, a key of a mapping or a method. */
static const struct value *attribute_ref(struct render *r, const struct node *n, struct value *room)
{
    struct value held;
    const struct value *object = object_ref(r, n->attr.object, &held);
    struct dict_entry *e;

    if (!object)
        return NULL;
    if (object->kind == V_DICT && (n->flag || !n->attr.methods)) {
        e = dict_find_text(object->dict, &n->attr.name, n->attr.hash);
        if (e)
            return &e->value;
        r->line = n->line;
        if (!n->attr.methods) {
            missing_attribute(object, &n->attr.name, room);
            return room;
        }
    }
    r->line = n->line;
    return get_attribute(r, object, &n->attr.name, n->attr.hash, n->attr.methods, room) ? NULL
                                                                                        : room;
}

/* a.b of a variable where all it takes is to look, or NULL: a leaf of most expressions, without
 * calls, and kept apart for that. */
static inline const struct value *look_up(const struct render *r, const struct node *n)
{
    const struct value *object, *name = &n->attr.name;
    const struct dict *d;

    if (!n->attr.simple)
        return NULL;
    object = variable_slot(r, n->attr.object->name.variable);
    if (object->kind != V_DICT || object->dict->index)
        return NULL;
    d = object->dict;
    for (uint32_t i = 0; i < d->size; i++)
        if (entry_is(&d->entries[i], name, n->attr.hash))
            return &d->entries[i].value;
    return NULL;
}

/* The value of an expression, in *room or where it is held: to be used before anything else is
 * evaluated. NULL: an error. */
INLINE const struct value *eval_ref(struct render *r, const struct node *n, struct value *room)
{
    if (n->kind == N_GETATTR) {
        const struct value *held = look_up(r, n);

        return held || render_work(r, 1) ? held : attribute_ref(r, n, room);
    }
    if (n->kind == N_CONST)
        return &n->value;
    if (n->kind == N_NAME)
        return name_ref(r, n, room);
    return eval_node(r, n, room) ? NULL : room;
}

static int eval_list(struct render *r, const struct node *n, struct value *out)
{
    struct list *l = list_new(r, n->list.size);

    if (!l)
        return -1;
    for (uint32_t i = 0; i < n->list.size; i++)
        if (eval_node(r, n->list.items[i], &l->items[i]))
            return -1;
    *out = n->kind == N_TUPLE ? value_tuple(l) : value_list(l);
    return 0;
}

static int eval_dict(struct render *r, const struct node *n, struct value *out)
{
    struct dict *d = dict_new(r, n->list.size / 2);

    if (!d)
        return -1;
    for (uint32_t i = 0; i < n->list.size; i += 2) {
        struct value key, v;

        if (eval_node(r, n->list.items[i], &key) || eval_node(r, n->list.items[i + 1], &v) ||
            dict_set(r, d, &key, v))
            return -1;
    }
    *out = value_dict(d);
    return 0;
}

static int eval_optional(struct render *r, const struct node *n, struct value *out)
{
    *out = value_none();
    return n ? eval_node(r, n, out) : 0;
}

static int eval_getitem(struct render *r, const struct node *n, struct value *out)
{
    const struct node *key = n->pair.right;
    struct value object, index, stop, step;

    if (eval_node(r, n->pair.left, &object))
        return -1;
    if (key->kind != N_SLICE) {
        if (eval_node(r, key, &index))
            return -1;
        r->line = n->line;
        return get_item(r, &object, &index, out);
    }
    if (eval_optional(r, key->slice.start, &index) || eval_optional(r, key->slice.stop, &stop) ||
        eval_optional(r, key->slice.step, &step))
        return -1;
    r->line = n->line;
    return get_slice(r, &object, &index, &stop, &step, out);
}

/* 1, 0, -1 */
static inline int compare_once(struct render *r, const struct value *a, const struct value *b,
                               enum compare_op op)
{
    if (op <= OP_NE && a->kind == V_STRING && b->kind == V_STRING &&
        (a->size != b->size || a->size < 32))
        return string_same(a, b) == (op == OP_EQ);
    return value_compare(r, a, b, op);
}

static int compare_chain(struct render *r, const struct node *n)
{
    struct value left, room;
    const struct value *v = eval_ref(r, n->compare.first, &room);
    int holds = 1;

    for (uint32_t i = 0; v && i < n->compare.rest.size && holds; i++) {
        left = *v;
        v = eval_ref(r, n->compare.rest.items[i], &room);
        if (!v)
            break;
        r->line = n->line;
        holds = compare_once(r, &left, v, n->compare.ops[i]);
        if (holds < 0)
            return -1;
    }
    return v ? holds : -1;
}

/* a == 'text', the test of most templates: 1, 0, -1. */
static inline int compare_text(struct render *r, const struct node *n)
{
    const struct value *text = &n->compare.rest.items[0]->value, *v;
    struct value room;

    v = eval_ref(r, n->compare.first, &room);
    if (!v)
        return -1;
    r->line = n->line;
    return compare_once(r, v, text, n->compare.ops[0]);
}

int branch_truth(struct render *r, const struct branch *b, struct branch_subject *s)
{
    const struct node *n = b->test;

    if (!b->compares)
        return eval_truth(r, n);
    if (render_work(r, 1))
        return -1;
    if (!b->same_subject)
        s->held = eval_ref(r, n->compare.first, &s->room);
    if (!s->held)
        return -1;
    r->line = n->line;
    return compare_once(r, s->held, &n->compare.rest.items[0]->value, n->compare.ops[0]);
}

static int compare_key(struct render *r, const struct node *n)
{
    const struct value *key = &n->compare.first->value, *v;
    struct value room;

    v = eval_ref(r, n->compare.rest.items[0], &room);
    if (!v)
        return -1;
    r->line = n->line;
    if (v->kind != V_DICT)
        return value_compare(r, key, v, n->compare.ops[0]);
    return (dict_find_text(v->dict, key, n->compare.hash) != NULL) == (n->compare.ops[0] == OP_IN);
}

static inline int compare(struct render *r, const struct node *n)
{
    switch (n->flag) {
    case COMPARE_TEXT:
        return compare_text(r, n);
    case COMPARE_KEY:
        return compare_key(r, n);
    default:
        return compare_chain(r, n);
    }
}

static const struct args no_args;

static int plain_test(struct render *r, const struct node *n)
{
    struct value room, result;
    const struct value *v;

    if (render_work(r, 1))
        return -1;
    v = eval_ref(r, n->call.subject, &room);
    if (!v)
        return -1;
    if (n->call.builtin->kinds)
        return n->call.builtin->kinds >> v->kind & 1;
    r->line = n->line;
    return n->call.builtin->fn(r, *v, NULL, &no_args, &result) ? -1 : value_truth(&result);
}

/* The left part of a chain of tests, which often is one that asks for no other. */
static int eval_left(struct render *r, const struct node *n)
{
    int truth;

    if (n->kind == N_COMPARE)
        return render_work(r, 1) ? -1 : compare(r, n);
    if (n->kind == N_TEST && n->flag == TEST_PLAIN)
        return plain_test(r, n);
    if (render_enter(r))
        return -1;
    truth = eval_truth(r, n);
    render_leave(r);
    return truth;
}

/* What is said of the last part of a chain of tests is said of the whole: only the parts before it
 * are calls. */
int eval_truth(struct render *r, const struct node *n)
{
    const struct value *v;
    struct value room;
    int negate = 0, left;

    for (;;) {
        switch (n->kind) {
        case N_COMPARE:
            if (render_work(r, 1))
                return -1;
            left = compare(r, n);
            return left < 0 ? -1 : left ^ negate;
        case N_NOT:
            negate ^= 1;
            n = n->pair.left;
            break;
        case N_AND:
        case N_OR:
            if (render_work(r, 1))
                return -1;
            left = eval_left(r, n->pair.left);
            if (left < 0 || left == (n->kind == N_OR))
                return left < 0 ? -1 : left ^ negate;
            n = n->pair.right;
            break;
        case N_TEST:
            if (n->flag == TEST_PLAIN) {
                left = plain_test(r, n);
                return left < 0 ? -1 : left ^ negate;
            }
            /* fallthrough */
        default:
            v = eval_ref(r, n, &room);
            return v ? (int)value_truth(v) ^ negate : -1;
        }
    }
}

static int eval_concat(struct render *r, const struct node *n, struct value *out)
{
    struct value sum = value_string("", 0);

    for (uint32_t i = 0; i < n->list.size; i++) {
        struct value room, text;
        const struct value *v = eval_ref(r, n->list.items[i], &room);

        if (!v || to_string(r, v, &text) || string_join2(r, &sum, &text, &sum))
            return -1;
    }
    sum.flags &= (uint8_t)~STRING_MARKUP;
    *out = sum;
    return 0;
}

static int eval_cond(struct render *r, const struct node *n, struct value *out)
{
    static const char hint[] =
        "the inline if-expression evaluated to false and no else section was "
        "defined.";
    int test = eval_truth(r, n->cond.test);

    if (test < 0)
        return -1;
    if (test)
        return eval_node(r, n->cond.then, out);
    if (n->cond.otherwise)
        return eval_node(r, n->cond.otherwise, out);
    *out = value_undefined(UNDEFINED_HINT, hint, sizeof hint - 1, 0);
    return 0;
}

/* ---- arguments ---- */

static int add_star(struct render *r, const struct node *n, struct list_builder *b)
{
    struct value v, item;
    struct iter it;
    int more;

    if (eval_node(r, n, &v) || iter_begin(r, &v, &it))
        return -1;
    while ((more = iter_next(r, &it, &item)) > 0)
        if (list_add(r, b, item))
            return -1;
    return more;
}

static int add_star_star(struct render *r, const struct node *n, struct named_value **named,
                         uint32_t *size)
{
    struct named_value *all;
    struct value v;

    if (eval_node(r, n, &v))
        return -1;
    if (v.kind != V_DICT)
        return render_fail(r, "argument after ** must be a mapping, not %s", type_name(&v));
    all = render_alloc(r, (size_t)*size + v.dict->size + 1, sizeof *all);
    if (!all)
        return -1;
    if (*size)
        memcpy(all, *named, *size * sizeof *all);
    for (uint32_t i = 0; i < v.dict->size; i++) {
        const struct dict_entry *e = &v.dict->entries[i];

        if (e->key.kind != V_STRING)
            return render_fail(r, "keywords must be strings");
        all[*size + i] = (struct named_value){e->key, e->value};
    }
    *size += v.dict->size;
    *named = all;
    return 0;
}

static int eval_named(struct render *r, const struct arguments *a, const struct value *caller,
                      struct args *out)
{
    struct named_value *named = NULL;
    uint32_t n = 0;

    if (a->n_keywords || caller) {
        named = render_alloc(r, (size_t)a->n_keywords + 1, sizeof *named);
        if (!named)
            return -1;
    }
    for (; n < a->n_keywords; n++) {
        named[n].name = a->keywords[n].name;
        if (eval_node(r, a->keywords[n].value, &named[n].value))
            return -1;
    }
    if (caller)
        named[n++] = (struct named_value){value_string("caller", 6), *caller};
    if (a->star_star && add_star_star(r, a->star_star, &named, &n))
        return -1;
    out->named = named;
    out->n_named = n;
    for (uint32_t i = 0; i < n; i++) {
        if (render_work(r, i))
            return -1;
        for (uint32_t j = 0; j < i; j++)
            if (string_same(&named[i].name, &named[j].name))
                return render_fail(r, "keyword argument repeated: %.*s", (int)named[i].name.size,
                                   named[i].name.s);
    }
    return 0;
}

static int eval_some_args(struct render *r, const struct arguments *a, const struct value *caller,
                          struct args *out)
{
    struct list_builder b = {0};

    if (a->positional.size) {
        b.room = a->positional.size;
        b.items = render_alloc(r, b.room, sizeof *b.items);
        if (!b.items)
            return -1;
        for (; b.size < b.room; b.size++)
            if (eval_node(r, a->positional.items[b.size], &b.items[b.size]))
                return -1;
    }
    if (a->star && add_star(r, a->star, &b))
        return -1;
    out->positional = b.items;
    out->n_positional = (uint32_t)b.size;
    if (!a->n_keywords && !a->star_star && !caller)
        return 0;
    return eval_named(r, a, caller, out);
}

static inline int eval_args(struct render *r, const struct arguments *a, const struct value *caller,
                            struct args *out)
{
    *out = (struct args){0};
    if (a->none && !caller)
        return 0;
    return eval_some_args(r, a, caller, out);
}

/* The callee of a call. Where it is a method, *builtin and *self are set, and no object is made. */
static int eval_callee(struct render *r, const struct node *n, const struct builtin **builtin,
                       struct value *callee)
{
    *builtin = NULL;
    if (n->kind != N_GETATTR || n->flag || !n->attr.methods)
        return eval_node(r, n, callee);
    if (eval_node(r, n->attr.object, callee))
        return -1;
    *builtin = method_for(n->attr.methods, callee->kind);
    if (*builtin && (*builtin)->fn)
        return 0;
    *builtin = NULL;
    r->line = n->line;
    struct value object = *callee;
    return get_attribute(r, &object, &n->attr.name, n->attr.hash, n->attr.methods, callee);
}

/* keep: text that a macro makes may stay in the output; *kept says that it did. */
static int eval_call(struct render *r, const struct node *n, const struct value *caller, bool keep,
                     bool *kept, struct value *out)
{
    const struct builtin *builtin;
    struct value callee;
    struct args args;

    if (eval_callee(r, n->call.subject, &builtin, &callee) ||
        eval_args(r, n->call.arguments, caller, &args))
        return -1;
    r->line = n->line;
    if (builtin)
        return call_builtin(r, builtin, callee, &args, out);
    if (callee.kind == V_MACRO) {
        *kept = keep;
        return call_macro(r, callee.macro, &args, keep, out);
    }
    return call_value(r, &callee, &args, out);
}

int eval_filtered(struct render *r, const struct node *n, const struct value *body,
                  struct value *out)
{
    const struct node *inner = n->call.subject;
    const struct value *held = body;
    struct value subject;
    struct args args;

    if (inner && inner->kind == N_FILTER && body)
        held = eval_filtered(r, inner, body, &subject) ? NULL : &subject;
    else if (inner)
        held = eval_ref(r, inner, &subject);
    if (!held)
        return -1;
    subject = *held;
    if (eval_args(r, n->call.arguments, NULL, &args))
        return -1;
    r->line = n->line;
    if (!n->call.builtin)
        return render_fail(r, "No %s named '%.*s' found.", n->kind == N_FILTER ? "filter" : "test",
                           (int)n->call.name.size, n->call.name.s);
    return call_builtin(r, n->call.builtin, subject, &args, out);
}

static int eval_binary(struct render *r, const struct node *n, struct value *out)
{
    struct value a, room;
    const struct value *b = eval_ref(r, n->pair.left, &a);

    if (!b)
        return -1;
    if (b != &a)
        a = *b;
    b = eval_ref(r, n->pair.right, &room);
    if (!b)
        return -1;
    if (n->kind == N_ADD && a.kind == V_STRING && b->kind == V_STRING &&
        !((a.flags | b->flags) & STRING_MARKUP))
        return string_join2(r, &a, b, out);
    r->line = n->line;
    return operate(r, n->kind, &a, b, out);
}

static int eval_inner(struct render *r, const struct node *n, struct value *out)
{
    const struct value *held;
    bool kept;
    int truth;

    switch ((enum node_kind)n->kind) {
    case N_TUPLE:
    case N_LIST:
        return eval_list(r, n, out);
    case N_DICT:
        return eval_dict(r, n, out);
    case N_GETATTR:
        held = attribute_ref(r, n, out);
        break;
    case N_GETITEM:
        return eval_getitem(r, n, out);
    case N_CALL:
        return eval_call(r, n, NULL, false, &kept, out);
    case N_FILTER:
    case N_TEST:
        return eval_filtered(r, n, NULL, out);
    case N_COND:
        return eval_cond(r, n, out);
    case N_AND:
        return eval_node(r, n->pair.left, out) ||
                       (value_truth(out) && eval_node(r, n->pair.right, out))
                   ? -1
                   : 0;
    case N_OR:
        return eval_node(r, n->pair.left, out) ||
                       (!value_truth(out) && eval_node(r, n->pair.right, out))
                   ? -1
                   : 0;
    case N_NOT:
    case N_COMPARE:
        truth = eval_truth(r, n);
        *out = value_bool(truth > 0);
        return truth < 0 ? -1 : 0;
    case N_NEG:
    case N_POS: {
        struct value v;

        return eval_node(r, n->pair.left, &v) || operate_unary(r, &v, n->kind == N_NEG, out) ? -1
                                                                                             : 0;
    }
    case N_CONCAT:
        return eval_concat(r, n, out);
    case N_SLICE:
        r->line = n->line;
        return render_fail(r, "a slice cannot be used here");
    default:
        return eval_binary(r, n, out);
    }
    if (held && held != out)
        *out = *held;
    return held ? 0 : -1;
}

int eval_node(struct render *r, const struct node *n, struct value *out)
{
    int rc;

    if (n->kind == N_CONST) {
        *out = n->value;
        return 0;
    }
    if (n->kind == N_NAME) {
        const struct value *held = name_ref(r, n, out);

        if (held != out)
            *out = *held;
        return 0;
    }
    if (n->kind == N_GETATTR) {
        const struct value *held = look_up(r, n);

        if (held) {
            *out = *held;
            return 0;
        }
    }
    if (render_work(r, 1) || render_enter(r))
        return -1;
    rc = eval_inner(r, n, out);
    render_leave(r);
    return rc;
}

/* ---- output ---- */

#define SUM_TERMS 16

/* Adds the right side of a + b to what is in *sum or, if out, in the output: as emit_sum. */
static int add_term(struct render *r, const struct node *n, struct value *sum, int out)
{
    struct value room, a;
    const struct value *b = eval_ref(r, n->pair.right, &room);

    if (!b)
        return -1;
    r->line = n->line;
    if (b->kind == V_STRING && !(b->flags & STRING_MARKUP)) {
        if (out)
            return emit_string(r, b) ? -1 : 1;
        if (sum->kind == V_STRING && !(sum->flags & STRING_MARKUP))
            return emit_string(r, sum) || emit_string(r, b) ? -1 : 1;
    }
    /* Of a left side that is out already only the type matters for what happens now. */
    a = out ? value_string("", 0) : *sum;
    if (operate(r, N_ADD, &a, b, sum))
        return -1;
    return out ? (emit_string(r, sum) ? -1 : 1) : 0;
}

/* a + b + c, where all are strings, goes out piece by piece. 1: it did; 0: *sum holds the value
 * of what is no such sum. */
static int emit_sum(struct render *r, const struct node *n, struct value *sum)
{
    const struct node *terms[SUM_TERMS];
    const struct value *first;
    struct value room;
    unsigned size = 0;
    int out = 0;

    for (; n->kind == N_ADD && size < SUM_TERMS; n = n->pair.left)
        terms[size++] = n;
    if (n->kind == N_ADD) {
        if (render_enter(r))
            return -1;
        out = emit_sum(r, n, sum);
        render_leave(r);
    } else {
        first = eval_ref(r, n, &room);
        if (!first)
            return -1;
        *sum = *first;
    }
    while (size-- && out >= 0)
        out = add_term(r, terms[size], sum, out);
    return out;
}

int emit_call(struct render *r, const struct node *n, const struct value *caller)
{
    struct value v;
    bool kept = false;

    if (render_work(r, 1) || render_enter(r) || eval_call(r, n, caller, true, &kept, &v))
        return -1;
    render_leave(r);
    return kept ? 0 : emit_str(r, &v);
}

static inline int emit_value(struct render *r, const struct value *v)
{
    return v->kind == V_STRING ? emit_string(r, v) : emit_str(r, v);
}

/* What tojson makes needs no string of its own on its way out. */
static int emit_filter(struct render *r, const struct node *n)
{
    struct builtin direct;
    struct value v;
    struct args args;

    if (!n->call.builtin || n->call.builtin->fn != filter_tojson)
        return eval_node(r, n, &v) || emit_value(r, &v) ? -1 : 0;
    if (render_work(r, 1) || render_enter(r))
        return -1;
    if (eval_node(r, n->call.subject, &v) || eval_args(r, n->call.arguments, NULL, &args))
        return -1;
    r->line = n->line;
    direct = *n->call.builtin;
    direct.fn = emit_tojson;
    if (call_builtin(r, &direct, v, &args, &v))
        return -1;
    render_leave(r);
    return 0;
}

int emit_expression(struct render *r, const struct node *n)
{
    const struct value *held;
    struct value v;
    int out;

    r->line = n->line;
    switch (n->kind) {
    case N_CONST:
        return emit_value(r, &n->value);
    case N_ADD:
        out = emit_sum(r, n, &v);
        return out ? (out < 0 ? -1 : 0) : emit_value(r, &v);
    case N_CALL:
        return emit_call(r, n, NULL);
    case N_COND:
        out = eval_truth(r, n->cond.test);
        if (out < 0)
            return -1;
        if (out)
            return emit_expression(r, n->cond.then);
        return n->cond.otherwise ? emit_expression(r, n->cond.otherwise) : 0;
    case N_FILTER:
        return emit_filter(r, n);
    default:
        held = eval_ref(r, n, &v);
        return held ? emit_value(r, held) : -1;
    }
}
