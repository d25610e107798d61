#include "template/parse.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/memory.h"

/* The tags that may end a section; NULL-terminated. */
typedef const char *const *end_tags;

static int parse_body(struct parser *p, end_tags ends, struct nodes *out);

size_t parse_mark(const struct parser *p)
{
    return p->n_scratch;
}

int parse_push(struct parser *p, struct node *n)
{
    if (!n)
        return -1;
    if (p->n_scratch == p->scratch_room) {
        size_t room = p->scratch_room ? 2 * p->scratch_room : 64;
        struct node **larger = mem_resize(p->scratch, room * sizeof *larger);

        if (!larger)
            return fail(p->err, CLM_ERR_NOMEM, "%s: no memory for the template", p->name);
        p->scratch = larger;
        p->scratch_room = room;
    }
    p->scratch[p->n_scratch++] = n;
    return 0;
}

int parse_take(struct parser *p, size_t mark, struct nodes *out)
{
    size_t n = p->n_scratch - mark;

    *out = (struct nodes){0};
    p->n_scratch = mark;
    if (!n)
        return 0;
    out->items = parse_alloc(p, n, sizeof *out->items);
    if (!out->items)
        return -1;
    out->size = (uint32_t)n;
    memcpy(out->items, p->scratch + mark, n * sizeof *out->items);
    return 0;
}

void *parse_alloc(struct parser *p, size_t count, size_t size)
{
    void *memory = arena_zeroed(p->memory, count, size);

    if (!memory)
        fail(p->err, CLM_ERR_NOMEM, "%s: no memory for the template", p->name);
    return memory;
}

struct node *parse_new(struct parser *p, enum node_kind kind, uint32_t line)
{
    struct node *n = parse_alloc(p, 1, sizeof *n);

    if (n) {
        n->kind = (uint8_t)kind;
        n->line = line;
        n->depth = 1;
    }
    return n;
}

int parse_fail(struct parser *p, uint32_t line, const char *format, ...)
{
    char message[300];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return fail(p->err, CLM_ERR_FORMAT, "%s:%u: %s", p->name, line, message);
}

int parse_enter(struct parser *p)
{
    if (p->depth >= PARSE_MAX_DEPTH)
        return parse_fail(p, p->at->line, "nested deeper than %d levels", PARSE_MAX_DEPTH);
    p->depth++;
    return 0;
}

void parse_leave(struct parser *p)
{
    p->depth--;
}

bool parse_is(const struct parser *p, const char *name)
{
    return p->at->kind == T_NAME && string_is(&p->at->value, name);
}

bool parse_skip_name(struct parser *p, const char *name)
{
    if (!parse_is(p, name))
        return false;
    p->at++;
    return true;
}

bool parse_skip(struct parser *p, enum token_kind kind)
{
    if (p->at->kind != kind)
        return false;
    p->at++;
    return true;
}

int parse_expect(struct parser *p, enum token_kind kind)
{
    if (parse_skip(p, kind))
        return 0;
    if (p->at->kind == T_NAME)
        return parse_fail(p, p->at->line, "expected token '%s', got '%.*s'", token_name(kind),
                          (int)p->at->value.size, p->at->value.s);
    return parse_fail(p, p->at->line, "expected token '%s', got '%s'", token_name(kind),
                      token_name(p->at->kind));
}

/* What may be on the left of "=": names, tuples of them, and a.b of a namespace. */
static int check_target(struct parser *p, struct node *n)
{
    if (n->kind == N_TUPLE) {
        for (uint32_t i = 0; i < n->list.size; i++)
            if (check_target(p, n->list.items[i]))
                return -1;
        return 0;
    }
    if (n->kind != N_NAME && n->kind != N_NSREF)
        return parse_fail(p, n->line, "can't assign to this: a name is expected");
    return 0;
}

static struct node *parse_target(struct parser *p, bool namespaces)
{
    struct node *n = parse_tuple(p, (struct tuple_mode){.targets = true, .namespaces = namespaces});

    return n && !check_target(p, n) ? n : NULL;
}

/* The tag ends here and the section up to one of the tags follows; that tag's name is next. */
static int parse_section(struct parser *p, end_tags ends, struct nodes *out)
{
    parse_skip(p, T_COLON);
    if (parse_expect(p, T_BLOCK_END))
        return -1;
    return parse_body(p, ends, out);
}

/* The same for a section that only one tag can end; the tag's name is taken. */
static int parse_whole_section(struct parser *p, const char *end, struct nodes *out)
{
    const char *const ends[] = {end, NULL};

    if (parse_section(p, ends, out))
        return -1;
    p->at++;
    return 0;
}

/* A section that becomes a function: no loop around it can be left from inside. */
static int parse_function_section(struct parser *p, const char *end, struct nodes *out)
{
    unsigned loops = p->loops;
    int rc;

    p->loops = 0;
    rc = parse_whole_section(p, end, out);
    p->loops = loops;
    return rc;
}

static struct node *parse_set(struct parser *p, uint32_t line)
{
    struct node *target = parse_target(p, true);
    struct node *n;

    if (!target)
        return NULL;
    if (parse_skip(p, T_ASSIGN)) {
        n = parse_new(p, N_SET, line);
        if (!n || !(n->set.value = parse_tuple(p, (struct tuple_mode){0})))
            return NULL;
        n->set.target = target;
        return n;
    }
    n = parse_new(p, N_SET_BLOCK, line);
    if (!n)
        return NULL;
    n->capture.target = target;
    if (p->at->kind == T_PIPE && !(n->capture.filter = parse_filters(p, NULL, false)))
        return NULL;
    n->capture.loads = parse_alloc(p, 1, sizeof *n->capture.loads);
    if (!n->capture.loads || parse_whole_section(p, "endset", &n->capture.body))
        return NULL;
    return n;
}

/* A copy of a target, whose names can be bound in another scope. */
static struct node *clone_target(struct parser *p, const struct node *n)
{
    struct node *copy = parse_new(p, n->kind, n->line);
    size_t mark = parse_mark(p);

    if (!copy)
        return NULL;
    if (n->kind != N_TUPLE) {
        copy->name = n->name;
        return copy;
    }
    for (uint32_t i = 0; i < n->list.size; i++)
        if (parse_push(p, clone_target(p, n->list.items[i])))
            return NULL;
    return parse_take(p, mark, &copy->list) ? NULL : copy;
}

static int parse_for_head(struct parser *p, struct for_code *loop)
{
    loop->target = parse_target(p, false);
    if (!loop->target)
        return -1;
    if (!parse_skip_name(p, "in"))
        return parse_fail(p, p->at->line, "expected token 'in' in the for statement");
    loop->iterable = parse_tuple(p, (struct tuple_mode){.no_condition = true});
    if (!loop->iterable)
        return -1;
    if (parse_skip_name(p, "if")) {
        loop->test = parse_expression(p, true);
        loop->test_target = clone_target(p, loop->target);
        if (!loop->test || !loop->test_target)
            return -1;
    }
    loop->recursive = parse_skip_name(p, "recursive");
    return 0;
}

static struct node *parse_for(struct parser *p, uint32_t line)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    struct node *n = parse_new(p, N_FOR, line);
    struct for_code *loop = n ? parse_alloc(p, 1, sizeof *loop) : NULL;
    unsigned loops = p->loops;

    if (!loop || parse_for_head(p, loop))
        return NULL;
    n->loop = loop;
    p->loops++;
    if (parse_section(p, ends, &loop->body))
        return NULL;
    p->loops = loop->recursive ? 0 : loops;
    if (string_is(&p->at++->value, "else")) {
        if (parse_whole_section(p, "endfor", &loop->otherwise))
            return NULL;
        loop->has_else = loop->otherwise.size;
    }
    p->loops = loops;
    return n;
}

/* Do both read the same variable, or the same item of one, which nothing changes in between? */
static bool same_subject(const struct node *a, const struct node *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == N_NAME)
        return string_same(&a->name.name, &b->name.name);
    return a->kind == N_GETATTR && a->attr.simple && b->attr.simple && a->flag == b->flag &&
           string_same(&a->attr.name, &b->attr.name) &&
           same_subject(a->attr.object, b->attr.object);
}

/* What the tests of the branches can share. */
static void relate_branches(struct branch *branches, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct branch *b = &branches[i], *before = i ? b - 1 : NULL;

        b->compares = b->test && b->test->kind == N_COMPARE && b->test->flag == COMPARE_TEXT;
        b->same_subject = b->compares && before && before->compares &&
                          same_subject(before->test->compare.first, b->test->compare.first);
    }
}

static struct node *parse_if(struct parser *p, uint32_t line)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct node *n = parse_new(p, N_IF, line);
    struct branch *branches = NULL;
    size_t size = 0, room = 0;
    bool is_else = false, more = true;

    while (n && more) {
        struct branch b = {0};

        if (!is_else && !(b.test = parse_tuple(p, (struct tuple_mode){.no_condition = true})))
            return NULL;
        if (is_else ? parse_whole_section(p, "endif", &b.body) : parse_section(p, ends, &b.body))
            return NULL;
        if (size == room) {
            struct branch *larger = parse_alloc(p, room = room ? 2 * room : 2, sizeof *larger);

            if (!larger)
                return NULL;
            if (size)
                memcpy(larger, branches, size * sizeof *larger);
            branches = larger;
        }
        branches[size++] = b;
        if (is_else)
            break;
        is_else = parse_is(p, "else");
        more = !parse_is(p, "endif");
        p->at++;
    }
    if (n) {
        relate_branches(branches, size);
        n->cases.branches = branches;
        n->cases.size = (uint32_t)size;
    }
    return n;
}

static struct node *parse_with(struct parser *p, uint32_t line)
{
    struct node *n = parse_new(p, N_WITH, line);
    size_t mark = parse_mark(p);
    size_t pairs = 0;

    if (!n)
        return NULL;
    while (p->at->kind != T_BLOCK_END) {
        if (pairs && parse_expect(p, T_COMMA))
            return NULL;
        if (parse_push(p, parse_target(p, false)) || parse_expect(p, T_ASSIGN) ||
            parse_push(p, parse_expression(p, true)))
            return NULL;
        pairs++;
    }
    n->with.targets.items = parse_alloc(p, pairs, sizeof(struct node *));
    n->with.values.items = parse_alloc(p, pairs, sizeof(struct node *));
    n->with.loads = parse_alloc(p, 1, sizeof *n->with.loads);
    if (!n->with.targets.items || !n->with.values.items || !n->with.loads)
        return NULL;
    for (size_t i = 0; i < pairs; i++) {
        n->with.targets.items[i] = p->scratch[mark + 2 * i];
        n->with.values.items[i] = p->scratch[mark + 2 * i + 1];
    }
    n->with.targets.size = n->with.values.size = (uint32_t)pairs;
    p->n_scratch = mark;
    return parse_whole_section(p, "endwith", &n->with.body) ? NULL : n;
}

/* "(a, b=1)" */
static int parse_signature(struct parser *p, struct macro_code *code)
{
    struct parameter found[64];
    size_t n = 0;
    bool has_fallback = false;

    if (parse_expect(p, T_LPAREN))
        return -1;
    while (p->at->kind != T_RPAREN) {
        if (n && parse_expect(p, T_COMMA))
            return -1;
        if (n == COUNT(found))
            return parse_fail(p, p->at->line, "more than %zu parameters", n);
        found[n] = (struct parameter){.name = p->at->value};
        if (parse_expect(p, T_NAME))
            return -1;
        if (parse_skip(p, T_ASSIGN)) {
            has_fallback = true;
            if (!(found[n].fallback = parse_expression(p, true)))
                return -1;
        } else if (has_fallback) {
            return parse_fail(p, p->at->line, "non-default argument follows default argument");
        }
        n++;
    }
    p->at++;
    code->parameters = parse_alloc(p, n, sizeof found[0]);
    if (!code->parameters)
        return -1;
    if (n)
        memcpy(code->parameters, found, n * sizeof found[0]);
    code->n_parameters = (uint32_t)n;
    return 0;
}

static struct node *macro_node(struct parser *p, enum node_kind kind, uint32_t line)
{
    struct node *n = parse_new(p, kind, line);

    if (!n || !(n->macro.code = parse_alloc(p, 1, sizeof *n->macro.code)))
        return NULL;
    n->macro.code->name = value_none();
    return n;
}

static struct node *parse_macro(struct parser *p, uint32_t line)
{
    struct node *n = macro_node(p, N_MACRO, line);

    if (!n)
        return NULL;
    n->macro.code->name = p->at->value;
    if (parse_expect(p, T_NAME) || parse_signature(p, n->macro.code) ||
        parse_function_section(p, "endmacro", &n->macro.code->body))
        return NULL;
    return n;
}

static struct node *parse_call_block(struct parser *p, uint32_t line)
{
    struct node *n = macro_node(p, N_CALL_BLOCK, line);

    if (!n || (p->at->kind == T_LPAREN && parse_signature(p, n->macro.code)))
        return NULL;
    n->macro.call = parse_expression(p, true);
    if (!n->macro.call)
        return NULL;
    if (n->macro.call->kind != N_CALL)
        return parse_fail(p, line, "expected call"), NULL;
    return parse_function_section(p, "endcall", &n->macro.code->body) ? NULL : n;
}

static struct node *parse_generation(struct parser *p, uint32_t line)
{
    struct node *n = macro_node(p, N_GENERATION, line);

    return n && !parse_function_section(p, "endgeneration", &n->macro.code->body) ? n : NULL;
}

static struct node *parse_filter_block(struct parser *p, uint32_t line)
{
    struct node *n = parse_new(p, N_FILTER_BLOCK, line);

    if (!n || !(n->capture.filter = parse_filters(p, NULL, true)))
        return NULL;
    n->capture.loads = parse_alloc(p, 1, sizeof *n->capture.loads);
    if (!n->capture.loads || parse_whole_section(p, "endfilter", &n->capture.body))
        return NULL;
    return n;
}

static struct node *parse_autoescape(struct parser *p, uint32_t line)
{
    struct node *n = parse_new(p, N_SCOPE, line);

    if (!n || !(n->scope.setting = parse_expression(p, true)))
        return NULL;
    if (n->scope.setting->kind != N_CONST || n->scope.setting->value.kind != V_BOOL ||
        n->scope.setting->value.i)
        return parse_fail(p, line, "automatic escaping is not supported: use the escape filter"),
               NULL;
    n->scope.loads = parse_alloc(p, 1, sizeof *n->scope.loads);
    if (!n->scope.loads || parse_whole_section(p, "endautoescape", &n->scope.body))
        return NULL;
    return n;
}

static struct node *parse_block(struct parser *p, uint32_t line)
{
    struct node *n = parse_new(p, N_BLOCK, line);

    if (!n || !(n->block.code = parse_alloc(p, 1, sizeof *n->block.code)))
        return NULL;
    n->block.name = n->block.code->name = p->at->value;
    if (parse_expect(p, T_NAME))
        return NULL;
    n->flag = parse_skip_name(p, "scoped");
    if (parse_is(p, "required"))
        return parse_fail(p, line, "a required block needs a template that extends this one"), NULL;
    if (parse_function_section(p, "endblock", &n->block.code->body))
        return NULL;
    if (p->at->kind == T_NAME && string_same(&p->at->value, &n->block.name))
        p->at++;
    return n;
}

static struct node *parse_print(struct parser *p, uint32_t line)
{
    struct node *n = parse_new(p, N_OUTPUT, line);
    size_t mark = parse_mark(p);
    bool first = true;

    while (p->at->kind != T_BLOCK_END) {
        if (!first && parse_expect(p, T_COMMA))
            return NULL;
        if (parse_push(p, parse_expression(p, true)))
            return NULL;
        first = false;
    }
    return n && !parse_take(p, mark, &n->list) ? n : NULL;
}

static struct node *parse_loop_control(struct parser *p, uint32_t line)
{
    bool is_break = string_is(&p->at[-1].value, "break");

    if (!p->loops)
        return parse_fail(p, line, "'%s' outside loop", is_break ? "break" : "continue"), NULL;
    return parse_new(p, is_break ? N_BREAK : N_CONTINUE, line);
}

/* include, import, from, extends: well formed, but there is nowhere to load from. */
static struct node *parse_refused(struct parser *p, uint32_t line)
{
    struct node *n = parse_new(p, N_REFUSED, line);

    if (!n)
        return NULL;
    n->value = p->at[-1].value;
    if (p->at->kind == T_BLOCK_END)
        return parse_fail(p, line, "expected an expression"), NULL;
    while (p->at->kind != T_BLOCK_END && p->at->kind != T_END)
        p->at++;
    return n;
}

static const struct statement {
    const char *tag;
    struct node *(*parse)(struct parser *p, uint32_t line);
} statements[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"generation", parse_generation},
    {"break", parse_loop_control},
    {"continue", parse_loop_control},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"print", parse_print},
    {"block", parse_block},
    {"autoescape", parse_autoescape},
    {"include", parse_refused},
    {"import", parse_refused},
    {"from", parse_refused},
    {"extends", parse_refused},
};

static int unknown_tag(struct parser *p, end_tags ends)
{
    const struct token *t = p->at;

    if (ends)
        return parse_fail(p, t->line,
                          "Encountered unknown tag '%.*s'. Jinja was looking for the tag '%s'.",
                          (int)t->value.size, t->value.s, ends[0]);
    return parse_fail(p, t->line, "Encountered unknown tag '%.*s'.", (int)t->value.size,
                      t->value.s);
}

static struct node *parse_statement(struct parser *p, end_tags ends)
{
    const struct token *tag = p->at;
    struct node *n;

    if (tag->kind != T_NAME)
        return parse_fail(p, tag->line, "tag name expected"), NULL;
    for (size_t i = 0; i < COUNT(statements); i++) {
        if (!string_is(&tag->value, statements[i].tag))
            continue;
        if (parse_enter(p))
            return NULL;
        p->at++;
        n = statements[i].parse(p, tag->line);
        parse_leave(p);
        return n && !parse_expect(p, T_BLOCK_END) ? n : NULL;
    }
    return unknown_tag(p, ends), NULL;
}

static bool is_end_tag(const struct parser *p, end_tags ends)
{
    for (; ends && *ends; ends++)
        if (parse_is(p, *ends))
            return true;
    return false;
}

/* Text and {{ ... }} that follow one another are one node. */
static int parse_output(struct parser *p)
{
    struct node *n = parse_new(p, N_OUTPUT, p->at->line);
    size_t mark = parse_mark(p);

    if (!n)
        return -1;
    while (p->at->kind == T_DATA || p->at->kind == T_VARIABLE_BEGIN) {
        struct node *item;

        if (p->at->kind == T_DATA) {
            item = parse_new(p, N_CONST, p->at->line);
            if (item)
                item->value = p->at->value;
            p->at++;
        } else {
            p->at++;
            item = parse_tuple(p, (struct tuple_mode){0});
            if (!item || parse_expect(p, T_VARIABLE_END))
                return -1;
        }
        if (parse_push(p, item))
            return -1;
    }
    if (parse_take(p, mark, &n->list))
        return -1;
    return parse_push(p, n);
}

static int parse_body(struct parser *p, end_tags ends, struct nodes *out)
{
    size_t mark = parse_mark(p);

    while (p->at->kind != T_END) {
        if (p->at->kind != T_BLOCK_BEGIN) {
            if (parse_output(p))
                return -1;
            continue;
        }
        p->at++;
        if (is_end_tag(p, ends))
            return parse_take(p, mark, out);
        if (parse_push(p, parse_statement(p, ends)))
            return -1;
    }
    if (ends)
        return parse_fail(p, p->at->line,
                          "Unexpected end of template. Jinja was looking for the tag '%s'.",
                          ends[0]);
    return parse_take(p, mark, out);
}

int parse_template(struct template *t, const struct tokens *tokens, clm_error *err)
{
    struct parser p = {.at = tokens->items, .name = t->name, .memory = t->memory, .err = err};
    int rc = parse_body(&p, NULL, &t->body);

    mem_free(p.scratch);
    return rc;
}
