#include "template/render.h"

/* The position of a name among parameters, or -1. */
static int parameter_index(const char *params, const struct value *name)
{
    int index = 0;

    while (*params) {
        size_t n = strcspn(params, " ");

        if (n == name->size && !memcmp(params, name->s, n))
            return index;
        params += n + (params[n] == ' ');
        index++;
    }
    return -1;
}

static unsigned parameter_count(const char *params)
{
    unsigned n = *params != '\0';

    for (; *params; params++)
        n += *params == ' ';
    return n;
}

static int too_many_arguments(struct render *r, const struct builtin *b, const struct args *args)
{
    unsigned count = parameter_count(b->params);

    return render_fail(r, "%s() takes at most %u argument%s (%u given)", b->name, count,
                       count == 1 ? "" : "s", args->n_positional);
}

static int bind_parameters(struct render *r, const struct builtin *b, const struct args *args,
                           struct value p[BUILTIN_MAX_PARAMS])
{
    if (args->n_positional > (*b->params != '\0') &&
        args->n_positional > parameter_count(b->params))
        return too_many_arguments(r, b, args);
    memset(p, 0, BUILTIN_MAX_PARAMS * sizeof *p);
    if (args->n_positional)
        memcpy(p, args->positional, args->n_positional * sizeof *p);
    for (uint32_t i = 0; i < args->n_named; i++) {
        const struct value *name = &args->named[i].name;
        int at = parameter_index(b->params, name);

        if (at < 0)
            return render_fail(r, "%s() got an unexpected keyword argument '%.*s'", b->name,
                               (int)name->size, name->s);
        if (p[at].kind != V_MISSING)
            return render_fail(r, "%s() got multiple values for argument '%.*s'", b->name,
                               (int)name->size, name->s);
        p[at] = args->named[i].value;
    }
    for (unsigned i = 0; i < b->required; i++)
        if (p[i].kind == V_MISSING)
            return render_fail(r, "%s() misses a required argument", b->name);
    return 0;
}

int call_builtin(struct render *r, const struct builtin *b, struct value self,
                 const struct args *args, struct value *out)
{
    static const struct value none[BUILTIN_MAX_PARAMS];
    struct value p[BUILTIN_MAX_PARAMS];

    if (!b->params)
        return b->fn(r, self, NULL, args, out);
    if (!args->n_positional && !args->n_named && !b->required)
        return b->fn(r, self, none, args, out);
    if (bind_parameters(r, b, args, p))
        return -1;
    return b->fn(r, self, p, args, out);
}

/* A keyword argument that was not yet used up. */
static const struct value *take_named(const struct args *args, uint64_t *used,
                                      const struct value *name)
{
    for (uint32_t i = 0; i < args->n_named && i < 64; i++)
        if (!(*used >> i & 1) && string_same(&args->named[i].name, name)) {
            *used |= (uint64_t)1 << i;
            return &args->named[i].value;
        }
    return NULL;
}

static int rest_of_named(struct render *r, const struct args *args, uint64_t used,
                         struct value *out)
{
    struct dict *d = dict_new(r, args->n_named);

    if (!d)
        return -1;
    for (uint32_t i = 0; i < args->n_named; i++)
        if (!(used >> i & 1) && dict_set(r, d, &args->named[i].name, args->named[i].value))
            return -1;
    *out = value_dict(d);
    return 0;
}

static int rest_of_positional(struct render *r, const struct args *args, uint32_t from,
                              struct value *out)
{
    struct list *l = list_new(r, args->n_positional > from ? args->n_positional - from : 0);

    if (!l)
        return -1;
    if (l->size)
        memcpy(l->items, args->positional + from, l->size * sizeof *l->items);
    *out = value_tuple(l);
    return 0;
}

static int check_leftover(struct render *r, const struct macro_code *code, const struct args *args,
                          uint64_t used)
{
    int n_name = code->name.kind == V_STRING ? (int)code->name.size : 6;
    const char *name = code->name.kind == V_STRING ? code->name.s : "caller";

    for (uint32_t i = 0; !code->uses_kwargs && i < args->n_named; i++)
        if (!(used >> i & 1))
            return render_fail(r, "macro '%.*s' takes no keyword argument '%.*s'", n_name, name,
                               (int)args->named[i].name.size, args->named[i].name.s);
    if (!code->uses_varargs && args->n_positional > code->n_parameters)
        return render_fail(r, "macro '%.*s' takes not more than %u argument(s)", n_name, name,
                           code->n_parameters);
    return 0;
}

/* What the caller gave, into the slots of the frame; what was not given stays missing. */
static int pass_arguments(struct render *r, const struct macro_code *code, const struct args *args,
                          struct frame *frame)
{
    static const struct value caller_name = {.kind = V_STRING, .size = 6, .s = "caller"};
    static const char no_caller[] = "No caller defined";
    uint64_t used = 0;

    if (args->n_named > 64)
        return render_fail(r, "more than 64 keyword arguments");
    for (uint32_t i = 0; i < code->n_parameters; i++) {
        const struct value *v;

        if (i < args->n_positional)
            v = &args->positional[i];
        else
            v = take_named(args, &used, &code->parameters[i].name);
        if (v)
            frame->slots[code->parameters[i].slot] = *v;
    }
    if (code->uses_caller) {
        const struct value *v = take_named(args, &used, &caller_name);

        frame->slots[code->caller_slot] =
            v ? *v : value_undefined(UNDEFINED_HINT, no_caller, sizeof no_caller - 1, 0);
    }
    if (check_leftover(r, code, args, used))
        return -1;
    if (code->uses_kwargs && rest_of_named(r, args, used, &frame->slots[code->kwargs_slot]))
        return -1;
    if (code->uses_varargs &&
        rest_of_positional(r, args, code->n_parameters, &frame->slots[code->varargs_slot]))
        return -1;
    return 0;
}

static int fill_defaults(struct render *r, const struct macro_code *code)
{
    for (uint32_t i = 0; i < code->n_parameters; i++) {
        const struct parameter *p = &code->parameters[i];
        struct value v;

        if (r->frame->slots[p->slot].kind != V_MISSING)
            continue;
        if (!p->fallback)
            v = value_undefined(UNDEFINED_NAME, p->name.s, p->name.size, 0);
        else if (eval_node(r, p->fallback, &v))
            return -1;
        r->frame->slots[p->slot] = v;
    }
    return 0;
}

int call_macro(struct render *r, const struct macro *m, const struct args *args, bool keep,
               struct value *out)
{
    const struct macro_code *code = m->code;
    struct frame *before = r->frame;
    uint32_t line = r->line;
    size_t mark = emit_mark(r);
    struct frame *frame;

    if (render_work(r, 1) || render_enter(r))
        return -1;
    frame = frame_new(r, &code->function, m->frame);
    if (!frame || pass_arguments(r, code, args, frame))
        return -1;
    r->frame = frame;
    scope_enter(r, &code->function.loads);
    if (fill_defaults(r, code) || run_nodes(r, &code->body) == FLOW_ERROR)
        return -1;
    r->frame = before;
    r->line = line;
    render_leave(r);
    frame_release(r, &code->function, frame);
    return keep ? 0 : emit_capture(r, mark, out);
}

bool is_callable(const struct value *v)
{
    switch (v->kind) {
    case V_MACRO:
    case V_LOOP:
    case V_BUILTIN:
    case V_METHOD:
    case V_JOINER:
    case V_UNDEFINED: /* has __call__, though it only raises */
        return true;
    default:
        return false;
    }
}

static int call_joiner(struct render *r, struct joiner *j, const struct args *args,
                       struct value *out)
{
    if (args->n_positional || args->n_named)
        return render_fail(r, "a joiner takes no arguments");
    *out = j->used ? j->separator : value_string("", 0);
    j->used = true;
    return 0;
}

int call_value(struct render *r, const struct value *callee, const struct args *args,
               struct value *out)
{
    switch (callee->kind) {
    case V_MACRO:
        return call_macro(r, callee->macro, args, false, out);
    case V_BUILTIN:
        return call_builtin(r, callee->builtin, (struct value){0}, args, out);
    case V_METHOD:
        return call_builtin(r, callee->method->builtin, callee->method->self, args, out);
    case V_LOOP:
        return loop_call(r, callee->loop, args, out);
    case V_JOINER:
        return call_joiner(r, callee->joiner, args, out);
    case V_UNDEFINED:
        return undefined_error(r, callee);
    default:
        return render_fail(r, "'%s' object is not callable", type_name(callee));
    }
}
