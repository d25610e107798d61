#include "template/scope.h"

#include "base/memory.h"
#include "template/builtin.h"

#define MAX_SLOTS 4096

struct unit {
    struct function *function;
    struct unit *outer;
    uint16_t level;
};

struct symbol {
    struct value name;
    uint64_t hash;
    struct variable alias;
    uint16_t slot;
    uint8_t how;
    bool stored;
};

struct scope {
    struct scope *parent;
    struct unit *unit;
    struct symbol *symbols;
    size_t size, room;
};

struct binder {
    struct template *t;
    struct scope *root;
    unsigned loops; /* around what is being bound, in whatever function */
    const struct bound_block {
        struct value name;
        const struct bound_block *next;
    } * blocks;
    clm_error *err;
};

struct name {
    struct value text;
    uint64_t hash;
};

static int bind_nodes(struct binder *b, struct scope *s, const struct nodes *list, bool soft);
static int bind(struct binder *b, struct scope *s, struct node *n, bool soft);
static int collect(struct binder *b, struct scope *s, const struct node *n);

static struct name name_of(const struct value *text)
{
    return (struct name){*text, hash_bytes(text->s, text->size)};
}

static int no_memory(struct binder *b)
{
    return fail(b->err, CLM_ERR_NOMEM, "%s: no memory for the template", b->t->name);
}

static struct symbol *own_symbol(const struct scope *s, const struct name *name)
{
    for (size_t i = 0; i < s->size; i++)
        if (s->symbols[i].hash == name->hash && string_same(&s->symbols[i].name, &name->text))
            return &s->symbols[i];
    return NULL;
}

/* The innermost symbol of that name, and the scope that has it. */
static struct symbol *find_symbol(struct scope *s, const struct name *name, struct scope **where)
{
    for (; s; s = s->parent) {
        struct symbol *found = own_symbol(s, name);

        if (found) {
            *where = s;
            return found;
        }
    }
    return NULL;
}

static struct variable variable_of(const struct unit *from, const struct scope *s,
                                   const struct symbol *symbol)
{
    return (struct variable){(uint16_t)(from->level - s->unit->level), symbol->slot};
}

static struct symbol *define(struct binder *b, struct scope *s, const struct name *name,
                             enum load_kind how)
{
    struct function *f = s->unit->function;
    struct symbol *symbol;

    if (f->n_slots >= MAX_SLOTS)
        return fail_null(b->err, CLM_ERR_FORMAT, "%s: more than %d variables", b->t->name,
                         MAX_SLOTS);
    if (s->size == s->room) {
        size_t room = s->room ? 2 * s->room : 8;
        struct symbol *larger = arena_array(b->t->memory, struct symbol, room);

        if (!larger) {
            no_memory(b);
            return NULL;
        }
        if (s->size)
            memcpy(larger, s->symbols, s->size * sizeof *larger);
        s->symbols = larger;
        s->room = room;
    }
    symbol = &s->symbols[s->size++];
    *symbol = (struct symbol){.name = name->text, .hash = name->hash, .how = (uint8_t)how};
    symbol->slot = f->n_slots++;
    return symbol;
}

/* The scope enters with this name set. */
static struct symbol *declare(struct binder *b, struct scope *s, const struct value *text)
{
    struct name name = name_of(text);
    struct symbol *symbol = own_symbol(s, &name);

    if (symbol)
        symbol->how = LOAD_PARAMETER;
    else
        symbol = define(b, s, &name, LOAD_PARAMETER);
    if (symbol)
        symbol->stored = true;
    return symbol;
}

static int load(struct binder *b, struct scope *s, const struct value *text)
{
    struct name name = name_of(text);
    struct scope *where;

    return find_symbol(s, &name, &where) || define(b, s, &name, LOAD_RESOLVE) ? 0 : -1;
}

/* An own name begins as a copy of the outer one where there is one. */
static bool alias_outer(struct scope *s, struct symbol *symbol)
{
    struct name name = {symbol->name, symbol->hash};
    struct scope *where;
    struct symbol *outer = s->parent ? find_symbol(s->parent, &name, &where) : NULL;

    if (!outer)
        return false;
    symbol->how = LOAD_ALIAS;
    symbol->alias = variable_of(s->unit, where, outer);
    return true;
}

static int store(struct binder *b, struct scope *s, const struct value *text)
{
    struct name name = name_of(text);
    struct symbol *symbol = own_symbol(s, &name);

    if (!symbol) {
        symbol = define(b, s, &name, LOAD_UNDEFINED);
        if (!symbol)
            return -1;
        alias_outer(s, symbol);
    }
    symbol->stored = true;
    return 0;
}

static int collect_nodes(struct binder *b, struct scope *s, const struct nodes *list)
{
    for (uint32_t i = 0; i < list->size; i++)
        if (collect(b, s, list->items[i]))
            return -1;
    return 0;
}

/* Names that are assigned to. */
static int collect_target(struct binder *b, struct scope *s, const struct node *n, bool parameter)
{
    if (n->kind == N_NSREF)
        return load(b, s, &n->nsref.name);
    if (n->kind == N_NAME)
        return parameter ? (declare(b, s, &n->name.name) ? 0 : -1) : store(b, s, &n->name.name);
    for (uint32_t i = 0; i < n->list.size; i++)
        if (collect_target(b, s, n->list.items[i], parameter))
            return -1;
    return 0;
}

static int collect_arguments(struct binder *b, struct scope *s, const struct arguments *a)
{
    if (collect_nodes(b, s, &a->positional))
        return -1;
    for (uint32_t i = 0; i < a->n_keywords; i++)
        if (collect(b, s, a->keywords[i].value))
            return -1;
    return collect(b, s, a->star) || collect(b, s, a->star_star) ? -1 : 0;
}

/* A name set in one branch of an if is, in the others, what it was outside of the scope. */
static int collect_if(struct binder *b, struct scope *s, const struct node *n)
{
    size_t size = s->size;
    bool *before = mem_alloc(size + 1);

    if (!before)
        return no_memory(b);
    for (size_t i = 0; i < size; i++)
        before[i] = s->symbols[i].stored;
    for (uint32_t i = 0; i < n->cases.size; i++) {
        const struct branch *branch = &n->cases.branches[i];

        if (collect(b, s, branch->test) || collect_nodes(b, s, &branch->body)) {
            mem_free(before);
            return -1;
        }
    }
    for (size_t i = 0; i < s->size; i++) {
        struct symbol *symbol = &s->symbols[i];

        if (symbol->stored && !(i < size && before[i]) && !alias_outer(s, symbol))
            symbol->how = LOAD_RESOLVE;
    }
    mem_free(before);
    return 0;
}

/* The names that a piece of code mentions in its own scope; what opens a scope is not entered. */
static int collect(struct binder *b, struct scope *s, const struct node *n)
{
    if (!n)
        return 0;
    switch ((enum node_kind)n->kind) {
    case N_CONST:
    case N_BREAK:
    case N_CONTINUE:
    case N_REFUSED:
    case N_SCOPE:
    case N_BLOCK:
    case N_GENERATION:
        return 0;
    case N_NAME:
        return load(b, s, &n->name.name);
    case N_NSREF:
        return load(b, s, &n->nsref.name);
    case N_TUPLE:
    case N_LIST:
    case N_DICT:
    case N_CONCAT:
    case N_OUTPUT:
        return collect_nodes(b, s, &n->list);
    case N_GETATTR:
        return collect(b, s, n->attr.object);
    case N_SLICE:
        return collect(b, s, n->slice.start) || collect(b, s, n->slice.stop) ||
                       collect(b, s, n->slice.step)
                   ? -1
                   : 0;
    case N_CALL:
    case N_FILTER:
    case N_TEST:
        return collect(b, s, n->call.subject) || collect_arguments(b, s, n->call.arguments) ? -1
                                                                                            : 0;
    case N_COND:
        return collect(b, s, n->cond.test) || collect(b, s, n->cond.then) ||
                       collect(b, s, n->cond.otherwise)
                   ? -1
                   : 0;
    case N_COMPARE:
        return collect(b, s, n->compare.first) || collect_nodes(b, s, &n->compare.rest) ? -1 : 0;
    case N_GETITEM:
    case N_AND:
    case N_OR:
    case N_NOT:
    case N_NEG:
    case N_POS:
    case N_ADD:
    case N_SUB:
    case N_MUL:
    case N_DIV:
    case N_FLOORDIV:
    case N_MOD:
    case N_POW:
        return collect(b, s, n->pair.left) || collect(b, s, n->pair.right) ? -1 : 0;
    case N_FOR:
        return collect(b, s, n->loop->iterable);
    case N_IF:
        return collect_if(b, s, n);
    case N_SET:
        return collect(b, s, n->set.value) || collect_target(b, s, n->set.target, false) ? -1 : 0;
    case N_SET_BLOCK:
        return collect_target(b, s, n->capture.target, false);
    case N_FILTER_BLOCK:
        return collect(b, s, n->capture.filter);
    case N_MACRO:
        return store(b, s, &n->macro.code->name);
    case N_CALL_BLOCK:
        return collect(b, s, n->macro.call);
    case N_WITH:
        return collect_nodes(b, s, &n->with.values);
    }
    return 0;
}

/* Whether code mentions a name, in whatever scope. */
static bool mentions(const struct node *n, const char *name);

static bool any_mentions(const struct nodes *list, const char *name)
{
    for (uint32_t i = 0; i < list->size; i++)
        if (mentions(list->items[i], name))
            return true;
    return false;
}

static bool arguments_mention(const struct arguments *a, const char *name)
{
    if (any_mentions(&a->positional, name))
        return true;
    for (uint32_t i = 0; i < a->n_keywords; i++)
        if (mentions(a->keywords[i].value, name))
            return true;
    return mentions(a->star, name) || mentions(a->star_star, name);
}

static bool code_mentions(const struct macro_code *code, const char *name)
{
    for (uint32_t i = 0; i < code->n_parameters; i++)
        if (mentions(code->parameters[i].fallback, name))
            return true;
    return any_mentions(&code->body, name);
}

static bool mentions(const struct node *n, const char *name)
{
    if (!n)
        return false;
    switch ((enum node_kind)n->kind) {
    case N_NAME:
        return string_is(&n->name.name, name);
    case N_NSREF:
        return string_is(&n->nsref.name, name);
    case N_TUPLE:
    case N_LIST:
    case N_DICT:
    case N_CONCAT:
    case N_OUTPUT:
        return any_mentions(&n->list, name);
    case N_GETATTR:
        return mentions(n->attr.object, name);
    case N_SLICE:
        return mentions(n->slice.start, name) || mentions(n->slice.stop, name) ||
               mentions(n->slice.step, name);
    case N_CALL:
    case N_FILTER:
    case N_TEST:
        return mentions(n->call.subject, name) || arguments_mention(n->call.arguments, name);
    case N_COND:
        return mentions(n->cond.test, name) || mentions(n->cond.then, name) ||
               mentions(n->cond.otherwise, name);
    case N_COMPARE:
        return mentions(n->compare.first, name) || any_mentions(&n->compare.rest, name);
    case N_FOR:
        return mentions(n->loop->iterable, name) || mentions(n->loop->test, name) ||
               any_mentions(&n->loop->body, name) || any_mentions(&n->loop->otherwise, name);
    case N_IF:
        for (uint32_t i = 0; i < n->cases.size; i++)
            if (mentions(n->cases.branches[i].test, name) ||
                any_mentions(&n->cases.branches[i].body, name))
                return true;
        return false;
    case N_SET:
        return mentions(n->set.value, name);
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
        return mentions(n->capture.filter, name) || any_mentions(&n->capture.body, name);
    case N_MACRO:
    case N_CALL_BLOCK:
    case N_GENERATION:
        return code_mentions(n->macro.code, name) || mentions(n->macro.call, name);
    case N_WITH:
        return any_mentions(&n->with.values, name) || any_mentions(&n->with.body, name);
    case N_SCOPE:
        return any_mentions(&n->scope.body, name);
    case N_BLOCK:
        return n->flag && code_mentions(n->block.code, name);
    case N_CONST:
    case N_BREAK:
    case N_CONTINUE:
    case N_REFUSED:
        return false;
    default:
        return mentions(n->pair.left, name) || mentions(n->pair.right, name);
    }
}

/* In a block the names come from the top level: what it has set so far, or else the input. */
static const struct variable *top_level_variable(struct binder *b, struct scope *s,
                                                 const struct symbol *symbol)
{
    struct name name = {symbol->name, symbol->hash};
    struct symbol *found;
    struct variable *v;
    struct scope *outermost = s;

    while (outermost->parent)
        outermost = outermost->parent;
    found = outermost != b->root ? own_symbol(b->root, &name) : NULL;
    v = found ? arena_array(b->t->memory, struct variable, 1) : NULL;
    if (v)
        *v = variable_of(s->unit, b->root, found);
    return v;
}

/* After a scope's names are collected: how each begins. */
static int finish_scope(struct binder *b, struct scope *s, struct scope_loads *loads)
{
    *loads = (struct scope_loads){0};
    loads->items = arena_array(b->t->memory, struct load, s->size);
    if (!loads->items)
        return no_memory(b);
    if (s->size) {
        loads->first = s->symbols[0].slot;
        loads->count = (uint16_t)s->size;
    }
    for (size_t i = 0; i < s->size; i++) {
        const struct symbol *symbol = &s->symbols[i];

        if (symbol->how == LOAD_PARAMETER)
            continue;
        loads->items[loads->size++] = (struct load){
            .slot = symbol->slot,
            .how = symbol->how,
            .source = symbol->alias,
            .name = symbol->name,
            .hash = symbol->hash,
            .global = global_find(symbol->name.s, symbol->name.size),
            .outer = symbol->how == LOAD_RESOLVE ? top_level_variable(b, s, symbol) : NULL,
        };
    }
    return 0;
}

static int bind_name(struct binder *b, struct scope *s, const struct value *text,
                     struct variable *out)
{
    struct name name = name_of(text);
    struct scope *where;
    struct symbol *symbol = find_symbol(s, &name, &where);

    if (!symbol) /* only the arguments of a set block's filter are not collected before */
        return fail(b->err, CLM_ERR_FORMAT, "%s: the name '%.*s' cannot be used here", b->t->name,
                    (int)text->size, text->s);
    *out = variable_of(s->unit, where, symbol);
    return 0;
}

static int bind_target(struct binder *b, struct scope *s, struct node *n)
{
    if (n->kind == N_NAME && b->loops && string_is(&n->name.name, "loop"))
        return fail(b->err, CLM_ERR_FORMAT,
                    "%s:%u: Can't assign to special loop variable in for-loop target", b->t->name,
                    n->line);
    if (n->kind == N_NAME)
        return bind_name(b, s, &n->name.name, &n->name.variable);
    if (n->kind == N_NSREF)
        return bind_name(b, s, &n->nsref.name, &n->nsref.variable);
    for (uint32_t i = 0; i < n->list.size; i++)
        if (bind_target(b, s, n->list.items[i]))
            return -1;
    return 0;
}

static int bind_arguments(struct binder *b, struct scope *s, struct arguments *a, bool soft)
{
    if (bind_nodes(b, s, &a->positional, soft))
        return -1;
    for (uint32_t i = 0; i < a->n_keywords; i++)
        if (bind(b, s, a->keywords[i].value, soft))
            return -1;
    return bind(b, s, a->star, soft) || bind(b, s, a->star_star, soft) ? -1 : 0;
}

static int bind_call(struct binder *b, struct scope *s, struct node *n, bool soft)
{
    if (n->kind != N_CALL && !n->call.builtin && !soft)
        return fail(b->err, CLM_ERR_FORMAT, "%s:%u: No %s named '%.*s'.", b->t->name, n->line,
                    n->kind == N_FILTER ? "filter" : "test", (int)n->call.name.size,
                    n->call.name.s);
    return bind(b, s, n->call.subject, soft) || bind_arguments(b, s, n->call.arguments, soft) ? -1
                                                                                              : 0;
}

/* A function's frame can outlive it when another function inside refers to it. */
static struct unit inner_unit(struct scope *s, struct function *f)
{
    s->unit->function->keeps_frame = true;
    return (struct unit){f, s->unit, (uint16_t)(s->unit->level + 1)};
}

static int bind_loop_test(struct binder *b, struct scope *parent, struct unit *unit,
                          struct for_code *loop)
{
    struct scope s = {.parent = parent, .unit = unit};

    unit->function->keeps_frame =
        true; /* the loop evaluates the test when it wants the next item */
    if (collect_target(b, &s, loop->test_target, true) || collect(b, &s, loop->test) ||
        finish_scope(b, &s, &loop->test_loads))
        return -1;
    return bind_target(b, &s, loop->test_target) || bind(b, &s, loop->test, false) ? -1 : 0;
}

static int bind_for_parts(struct binder *b, struct scope *s, struct node *n, bool soft)
{
    static const struct value loop_name = {.kind = V_STRING, .size = 4, .s = "loop"};
    struct for_code *loop = n->loop;
    struct unit inner;
    struct unit *unit = s->unit;
    struct symbol *symbol;

    if (bind(b, s, loop->iterable, soft))
        return -1;
    if (loop->recursive) {
        inner = inner_unit(s, &loop->function);
        unit = &inner;
    }
    loop->extended = loop->recursive || any_mentions(&loop->body, "loop");
    if (loop->test && bind_loop_test(b, s, unit, loop))
        return -1;
    struct scope body = {.parent = s, .unit = unit};
    if (loop->extended) {
        symbol = declare(b, &body, &loop_name);
        if (!symbol)
            return -1;
        loop->loop_slot = symbol->slot;
    }
    if (collect_target(b, &body, loop->target, true) || collect_nodes(b, &body, &loop->body) ||
        finish_scope(b, &body, &loop->body_loads) || bind_target(b, &body, loop->target) ||
        bind_nodes(b, &body, &loop->body, false))
        return -1;
    struct scope otherwise = {.parent = s, .unit = unit};
    return collect_nodes(b, &otherwise, &loop->otherwise) ||
                   finish_scope(b, &otherwise, &loop->else_loads) ||
                   bind_nodes(b, &otherwise, &loop->otherwise, false)
               ? -1
               : 0;
}

static int bind_for(struct binder *b, struct scope *s, struct node *n, bool soft)
{
    int rc;

    b->loops++;
    rc = bind_for_parts(b, s, n, soft);
    b->loops--;
    return rc;
}

static int declare_special(struct binder *b, struct scope *s, struct macro_code *code,
                           const char *name, bool *uses, uint16_t *slot)
{
    struct value text = value_cstring(name);
    struct symbol *symbol;

    for (uint32_t i = 0; i < code->n_parameters; i++)
        if (string_same(&code->parameters[i].name, &text)) {
            code->explicit_caller |= !strcmp(name, "caller");
            return 0;
        }
    if (!any_mentions(&code->body, name))
        return 0;
    symbol = declare(b, s, &text);
    if (!symbol)
        return -1;
    *uses = true;
    *slot = symbol->slot;
    return 0;
}

/* A macro, the body of a call, a block: a function with the parent's variables around it. */
static int bind_macro(struct binder *b, struct scope *s, struct scope *parent,
                      struct macro_code *code)
{
    struct unit unit = inner_unit(s, &code->function);
    struct scope inner = {.parent = parent, .unit = &unit};

    for (uint32_t i = 0; i < code->n_parameters; i++) {
        struct symbol *symbol = declare(b, &inner, &code->parameters[i].name);

        if (!symbol)
            return -1;
        code->parameters[i].slot = symbol->slot;
    }
    for (uint32_t i = 0; i < code->n_parameters; i++)
        if (collect(b, &inner, code->parameters[i].fallback))
            return -1;
    if (collect_nodes(b, &inner, &code->body) ||
        declare_special(b, &inner, code, "caller", &code->uses_caller, &code->caller_slot) ||
        declare_special(b, &inner, code, "kwargs", &code->uses_kwargs, &code->kwargs_slot) ||
        declare_special(b, &inner, code, "varargs", &code->uses_varargs, &code->varargs_slot) ||
        finish_scope(b, &inner, &code->function.loads))
        return -1;
    for (uint32_t i = 0; i < code->n_parameters; i++)
        if (bind(b, &inner, code->parameters[i].fallback, false))
            return -1;
    return bind_nodes(b, &inner, &code->body, false);
}

static int bind_capture(struct binder *b, struct scope *parent, struct node *n)
{
    struct scope s = {.parent = parent, .unit = parent->unit};

    if (n->capture.target && bind_target(b, parent, n->capture.target))
        return -1;
    return collect_nodes(b, &s, &n->capture.body) || collect(b, &s, n->capture.filter) ||
                   finish_scope(b, &s, n->capture.loads) ||
                   bind_nodes(b, &s, &n->capture.body, false) ||
                   bind(b, &s, n->capture.filter, false)
               ? -1
               : 0;
}

static int bind_with(struct binder *b, struct scope *parent, struct node *n, bool soft)
{
    struct scope s = {.parent = parent, .unit = parent->unit};

    if (bind_nodes(b, parent, &n->with.values, soft))
        return -1;
    for (uint32_t i = 0; i < n->with.targets.size; i++)
        if (collect_target(b, &s, n->with.targets.items[i], true))
            return -1;
    if (collect_nodes(b, &s, &n->with.body) || finish_scope(b, &s, n->with.loads))
        return -1;
    unsigned loops = b->loops;

    b->loops = 0; /* these may be called loop */
    for (uint32_t i = 0; i < n->with.targets.size; i++)
        if (bind_target(b, &s, n->with.targets.items[i]))
            return -1;
    b->loops = loops;
    return bind_nodes(b, &s, &n->with.body, false);
}

static int bind_scope(struct binder *b, struct scope *parent, struct node *n)
{
    struct scope s = {.parent = parent, .unit = parent->unit};

    return collect_nodes(b, &s, &n->scope.body) || finish_scope(b, &s, n->scope.loads) ||
                   bind_nodes(b, &s, &n->scope.body, false)
               ? -1
               : 0;
}

static int bind_if(struct binder *b, struct scope *s, struct node *n)
{
    for (uint32_t i = 0; i < n->cases.size; i++)
        if (bind(b, s, n->cases.branches[i].test, true) ||
            bind_nodes(b, s, &n->cases.branches[i].body, true))
            return -1;
    return 0;
}

/* A scoped block sees the variables around it, another one those of the top level. */
static int bind_block(struct binder *b, struct scope *s, struct node *n)
{
    struct bound_block *known = arena_array(b->t->memory, struct bound_block, 1);

    if (!known)
        return no_memory(b);
    for (const struct bound_block *k = b->blocks; k; k = k->next)
        if (string_same(&k->name, &n->block.name))
            return fail(b->err, CLM_ERR_FORMAT, "%s:%u: block '%.*s' defined twice", b->t->name,
                        n->line, (int)n->block.name.size, n->block.name.s);
    *known = (struct bound_block){n->block.name, b->blocks};
    b->blocks = known;
    if (n->flag)
        return bind_macro(b, s, s, n->block.code);
    return bind_macro(b, b->root, NULL, n->block.code);
}

/* Gives every name below its variable; s holds the names of the scope already. */
static int bind(struct binder *b, struct scope *s, struct node *n, bool soft)
{
    if (!n)
        return 0;
    switch ((enum node_kind)n->kind) {
    case N_CONST:
    case N_BREAK:
    case N_CONTINUE:
    case N_REFUSED:
        return 0;
    case N_NAME:
        return bind_name(b, s, &n->name.name, &n->name.variable);
    case N_NSREF:
        return bind_name(b, s, &n->nsref.name, &n->nsref.variable);
    case N_TUPLE:
    case N_LIST:
    case N_DICT:
    case N_CONCAT:
    case N_OUTPUT:
        return bind_nodes(b, s, &n->list, soft);
    case N_GETATTR:
        return bind(b, s, n->attr.object, soft);
    case N_SLICE:
        return bind(b, s, n->slice.start, soft) || bind(b, s, n->slice.stop, soft) ||
                       bind(b, s, n->slice.step, soft)
                   ? -1
                   : 0;
    case N_CALL:
    case N_FILTER:
    case N_TEST:
        return bind_call(b, s, n, soft);
    case N_COND:
        return bind(b, s, n->cond.test, true) || bind(b, s, n->cond.then, true) ||
                       bind(b, s, n->cond.otherwise, true)
                   ? -1
                   : 0;
    case N_COMPARE:
        return bind(b, s, n->compare.first, soft) || bind_nodes(b, s, &n->compare.rest, soft) ? -1
                                                                                              : 0;
    case N_FOR:
        return bind_for(b, s, n, soft);
    case N_IF:
        return bind_if(b, s, n);
    case N_SET:
        return bind(b, s, n->set.value, soft) || bind_target(b, s, n->set.target) ? -1 : 0;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
        return bind_capture(b, s, n);
    case N_MACRO:
        return bind_name(b, s, &n->macro.code->name, &n->macro.variable) ||
                       bind_macro(b, s, s, n->macro.code)
                   ? -1
                   : 0;
    case N_CALL_BLOCK:
        return bind(b, s, n->macro.call, soft) || bind_macro(b, s, s, n->macro.code) ? -1 : 0;
    case N_GENERATION:
        return bind_macro(b, s, s, n->macro.code);
    case N_WITH:
        return bind_with(b, s, n, soft);
    case N_SCOPE:
        return bind_scope(b, s, n);
    case N_BLOCK:
        return bind_block(b, s, n);
    default:
        return bind(b, s, n->pair.left, soft) || bind(b, s, n->pair.right, soft) ? -1 : 0;
    }
}

static int bind_nodes(struct binder *b, struct scope *s, const struct nodes *list, bool soft)
{
    for (uint32_t i = 0; i < list->size; i++)
        if (bind(b, s, list->items[i], soft))
            return -1;
    return 0;
}

int scope_bind(struct template *t, clm_error *err)
{
    struct unit unit = {.function = &t->root};
    struct scope root = {.unit = &unit};
    struct binder b = {.t = t, .root = &root, .err = err};

    if (collect_nodes(&b, &root, &t->body) || finish_scope(&b, &root, &t->root.loads))
        return -1;
    return bind_nodes(&b, &root, &t->body, false);
}
