#include "template/render.h"

static int run_output(struct render *r, const struct node *n)
{
    for (uint32_t i = 0; i < n->list.size; i++)
        if (emit_expression(r, n->list.items[i]))
            return -1;
    return 0;
}

/* ---- statements ---- */

static int assign_attribute(struct render *r, const struct node *target, const struct value *v)
{
    const struct value *ns = variable_slot(r, target->nsref.variable);
    struct dict_entry *e;

    if (ns->kind != V_NAMESPACE)
        return render_fail(r, "cannot assign attribute on non-namespace object");
    if (target->nsref.attr.s[0] == '_')
        return render_fail(r, "the attribute '%.*s' of a namespace begins with an underscore",
                           (int)target->nsref.attr.size, target->nsref.attr.s);
    e = dict_find_text(ns->dict, &target->nsref.attr, target->nsref.hash);
    if (!e)
        return dict_add_new(r, ns->dict, &target->nsref.attr, target->nsref.hash, v);
    e->value = *v;
    return 0;
}

static int assign_tuple(struct render *r, const struct node *target, const struct value *v)
{
    struct iter it;
    struct value item;
    int more;

    if (!is_iterable(v) && v->kind != V_UNDEFINED)
        return render_fail(r, "cannot unpack non-iterable %s object", type_name(v));
    if (iter_begin(r, v, &it))
        return -1;
    for (uint32_t i = 0; i < target->list.size; i++) {
        more = iter_next(r, &it, &item);
        if (more < 0)
            return -1;
        if (!more)
            return render_fail(r, "not enough values to unpack (expected %u, got %u)",
                               target->list.size, i);
        if (assign_target(r, target->list.items[i], &item))
            return -1;
    }
    more = iter_next(r, &it, &item);
    if (more > 0)
        return render_fail(r, "too many values to unpack (expected %u)", target->list.size);
    return more;
}

int assign_target(struct render *r, const struct node *target, const struct value *v)
{
    if (target->kind == N_NSREF)
        return assign_attribute(r, target, v);
    if (target->kind == N_TUPLE)
        return assign_tuple(r, target, v);
    *variable_slot(r, target->name.variable) = *v;
    return 0;
}

/* The same: mostly it is a variable. */
static inline int assign(struct render *r, const struct node *target, const struct value *v)
{
    if (target->kind != N_NAME)
        return assign_target(r, target, v);
    *variable_slot(r, target->name.variable) = *v;
    return 0;
}

static int run_set(struct render *r, const struct node *n)
{
    struct value v;

    r->line = n->line;
    return eval_node(r, n->set.value, &v) || assign(r, n->set.target, &v) ? -1 : 0;
}

/* {% set x %}...{% endset %} and {% filter f %}...{% endfilter %} */
static enum flow run_capture(struct render *r, const struct node *n)
{
    size_t mark = emit_mark(r);
    struct value text;
    enum flow flow;

    scope_enter(r, n->capture.loads);
    flow = run_nodes(r, &n->capture.body);
    if (flow != FLOW_ON) { /* the loop around is left: what was made is dropped */
        if (flow != FLOW_ERROR)
            r->out->size = mark;
        return flow;
    }
    if (emit_capture(r, mark, &text))
        return FLOW_ERROR;
    if (n->capture.filter) {
        struct value body = text;

        if (eval_filtered(r, n->capture.filter, &body, &text))
            return FLOW_ERROR;
    }
    scope_leave(r, n->capture.loads);
    if (n->capture.target ? assign_target(r, n->capture.target, &text) : emit_str(r, &text))
        return FLOW_ERROR;
    return FLOW_ON;
}

static enum flow run_if(struct render *r, const struct node *n)
{
    struct branch_subject subject;

    for (uint32_t i = 0; i < n->cases.size; i++) {
        const struct branch *b = &n->cases.branches[i];
        int test = 1;

        r->line = n->line;
        if (b->test)
            test = branch_truth(r, b, &subject);
        if (test)
            return test < 0 ? FLOW_ERROR : run_nodes(r, &b->body);
    }
    return FLOW_ON;
}

static enum flow run_with(struct render *r, const struct node *n)
{
    enum flow flow;

    scope_enter(r, n->with.loads);
    for (uint32_t i = 0; i < n->with.values.size; i++) {
        struct value v;

        if (eval_node(r, n->with.values.items[i], &v) ||
            assign_target(r, n->with.targets.items[i], &v))
            return FLOW_ERROR;
    }
    flow = run_nodes(r, &n->with.body);
    scope_leave(r, n->with.loads);
    return flow;
}

static int make_macro(struct render *r, const struct macro_code *code, struct value *out)
{
    struct macro *m = render_alloc(r, 1, sizeof *m);

    if (!m)
        return -1;
    *m = (struct macro){code, r->frame};
    *out = (struct value){.kind = V_MACRO, .macro = m};
    return 0;
}

static int run_macro(struct render *r, const struct node *n)
{
    struct value v;

    if (make_macro(r, n->macro.code, &v))
        return -1;
    *variable_slot(r, n->macro.variable) = v;
    return 0;
}

static int run_call_block(struct render *r, const struct node *n)
{
    struct value caller;

    r->line = n->line;
    return make_macro(r, n->macro.code, &caller) || emit_call(r, n->macro.call, &caller) ? -1 : 0;
}

static int run_code(struct render *r, const struct macro_code *code, struct frame *frame)
{
    struct macro m = {code, frame};
    struct args none = {0};
    struct value unused;

    return call_macro(r, &m, &none, true, &unused);
}

static int run_block(struct render *r, const struct node *n)
{
    struct frame *f = r->frame;

    while (!n->flag && f->outer)
        f = f->outer;
    return run_code(r, n->block.code, f);
}

static enum flow run_scope(struct render *r, const struct node *n)
{
    enum flow flow;

    scope_enter(r, n->scope.loads);
    flow = run_nodes(r, &n->scope.body);
    scope_leave(r, n->scope.loads);
    return flow;
}

/* The next item of a loop: mostly one of a list, for which no call is needed. */
static inline int next_item(struct render *r, struct iter *it, struct loop *loop, struct value *out)
{
    if (loop)
        return loop_next(r, loop, out);
    if (it->source != ITER_LIST || it->at >= it->end)
        return iter_next(r, it, out);
    *out = it->over.list->items[it->at++];
    return 1;
}

#define PASS_LOADS 6

/* Each pass of a loop begins with the same values: nothing in it sets a variable around it. */
static inline void enter_pass(struct render *r, const struct scope_loads *loads,
                              struct value *begin, bool again)
{
    struct value *slots = r->frame->slots;

    if (loads->size > PASS_LOADS || !again)
        scope_enter(r, loads);
    if (loads->size > PASS_LOADS)
        return;
    for (uint32_t i = 0; i < loads->size; i++) {
        struct value *slot = &slots[loads->items[i].slot];

        if (again)
            *slot = begin[i];
        else
            begin[i] = *slot;
    }
}

/* Walks over the iterable in the present frame. */
static enum flow run_loop(struct render *r, const struct for_code *code,
                          const struct value *iterable, int64_t depth0, struct frame *outer)
{
    struct value begin[PASS_LOADS];
    struct iter plain, *it = &plain;
    struct loop *loop = NULL;
    struct value item;
    bool completed = false; /* as in Jinja: only a pass that ran to its end spares the else part */
    int more;

    if (code->extended) {
        loop = render_alloc(r, 1, sizeof *loop);
        if (!loop)
            return FLOW_ERROR;
        *loop = (struct loop){.index0 = -1,
                              .length = -1,
                              .depth0 = depth0,
                              .iterable = *iterable,
                              .code = code->recursive ? code : NULL,
                              .frame = outer};
        it = &loop->iter;
        r->frame->slots[code->loop_slot] = (struct value){.kind = V_LOOP, .loop = loop};
    }
    if (iter_begin(r, iterable, it))
        return FLOW_ERROR;
    if (code->test) {
        struct iter *inner = render_alloc(r, 1, sizeof *inner);

        if (!inner)
            return FLOW_ERROR;
        *inner = *it;
        *it =
            (struct iter){.source = ITER_FILTERED, .inner = inner, .loop = code, .frame = r->frame};
        if (loop)
            loop->iterable = value_none(); /* a generator has no length */
    }
    for (bool again = false; (more = next_item(r, it, loop, &item)) > 0; again = true) {
        enum flow flow;

        if (render_work(r, 1))
            return FLOW_ERROR;
        enter_pass(r, &code->body_loads, begin, again);
        if (assign(r, code->target, &item))
            return FLOW_ERROR;
        flow = run_nodes(r, &code->body);
        if (flow == FLOW_ERROR)
            return flow;
        if (flow == FLOW_BREAK)
            break;
        if (flow == FLOW_ON)
            completed = true;
    }
    if (more < 0)
        return FLOW_ERROR;
    scope_leave(r, &code->body_loads);
    if (completed || !code->has_else)
        return FLOW_ON;
    enum flow flow;
    scope_enter(r, &code->else_loads);
    flow = run_nodes(r, &code->otherwise);
    scope_leave(r, &code->else_loads);
    return flow;
}

enum flow run_recursive(struct render *r, const struct for_code *code, const struct value *iterable,
                        int64_t depth0, struct frame *outer)
{
    struct frame *before = r->frame;
    struct frame *frame = frame_new(r, &code->function, outer);
    enum flow flow;

    if (!frame || render_enter(r))
        return FLOW_ERROR;
    r->frame = frame;
    flow = run_loop(r, code, iterable, depth0, outer);
    r->frame = before;
    render_leave(r);
    if (flow != FLOW_ERROR)
        frame_release(r, &code->function, frame);
    return flow;
}

static enum flow run_for(struct render *r, const struct node *n)
{
    struct value iterable;

    r->line = n->line;
    if (eval_node(r, n->loop->iterable, &iterable))
        return FLOW_ERROR;
    if (n->loop->recursive)
        return run_recursive(r, n->loop, &iterable, 0, r->frame);
    return run_loop(r, n->loop, &iterable, 0, r->frame);
}

static enum flow run_statement(struct render *r, const struct node *n)
{
    switch ((enum node_kind)n->kind) {
    case N_OUTPUT:
        return run_output(r, n) ? FLOW_ERROR : FLOW_ON;
    case N_FOR:
        return run_for(r, n);
    case N_IF:
        return run_if(r, n);
    case N_SET:
        return run_set(r, n) ? FLOW_ERROR : FLOW_ON;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
        return run_capture(r, n);
    case N_MACRO:
        return run_macro(r, n) ? FLOW_ERROR : FLOW_ON;
    case N_CALL_BLOCK:
        return run_call_block(r, n) ? FLOW_ERROR : FLOW_ON;
    case N_GENERATION:
        return run_code(r, n->macro.code, r->frame) ? FLOW_ERROR : FLOW_ON;
    case N_WITH:
        return run_with(r, n);
    case N_SCOPE:
        return run_scope(r, n);
    case N_BLOCK:
        return run_block(r, n) ? FLOW_ERROR : FLOW_ON;
    case N_BREAK:
        return FLOW_BREAK;
    case N_CONTINUE:
        return FLOW_CONTINUE;
    default:
        r->line = n->line;
        render_fail(r, "%.*s: there is no loader for other templates here", (int)n->value.size,
                    n->value.s);
        return FLOW_ERROR;
    }
}

enum flow run_nodes(struct render *r, const struct nodes *list)
{
    enum flow flow = FLOW_ON;

    if (render_enter(r) || render_work(r, list->size))
        return FLOW_ERROR;
    for (uint32_t i = 0; i < list->size && flow == FLOW_ON; i++)
        flow = run_statement(r, list->items[i]);
    render_leave(r);
    return flow;
}
