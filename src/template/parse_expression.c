#include "template/parse.h"

#include "base/memory.h"
#include "template/builtin.h"

static struct node *parse_condition(struct parser *p);
static struct node *parse_or(struct parser *p);
static struct node *parse_unary(struct parser *p, bool with_filters);
static struct node *parse_primary(struct parser *p, bool namespaces);

#define NULL_AFTER(call) ((void)(call), NULL)

static struct node *unexpected(struct parser *p)
{
    const struct token *t = p->at;

    if (t->kind == T_NAME)
        return NULL_AFTER(
            parse_fail(p, t->line, "unexpected '%.*s'", (int)t->value.size, t->value.s));
    return NULL_AFTER(parse_fail(p, t->line, "unexpected '%s'", token_name(t->kind)));
}

/* A node above others: left-leaning chains (a + b + c ...) are deep without nested calls. */
static struct node *above(struct parser *p, struct node *n, const struct node *a,
                          const struct node *b)
{
    unsigned depth = a ? a->depth : 0;

    if (!n)
        return NULL;
    if (b && b->depth > depth)
        depth = b->depth;
    if (depth >= 2 * PARSE_MAX_DEPTH)
        return NULL_AFTER(parse_fail(p, n->line, "the expression is nested too deep"));
    n->depth = (uint16_t)(depth + 1);
    return n;
}

static struct node *pair(struct parser *p, enum node_kind kind, uint32_t line, struct node *left,
                         struct node *right)
{
    struct node *n = parse_new(p, kind, line);

    if (!n)
        return NULL;
    n->pair.left = left;
    n->pair.right = right;
    return above(p, n, left, right);
}

static struct node *constant(struct parser *p, uint32_t line, struct value v)
{
    struct node *n = parse_new(p, N_CONST, line);

    if (n)
        n->value = v;
    return n;
}

/* A node of the children pushed since the mark. */
static struct node *list_node(struct parser *p, enum node_kind kind, uint32_t line, size_t mark)
{
    struct node *n = parse_new(p, kind, line);

    if (!n || parse_take(p, mark, &n->list))
        return NULL;
    for (uint32_t i = 0; i < n->list.size; i++)
        if (n->list.items[i]->depth >= n->depth && !above(p, n, n->list.items[i], NULL))
            return NULL;
    return n;
}

struct node *parse_expression(struct parser *p, bool with_condition)
{
    struct node *n;

    if (parse_enter(p))
        return NULL;
    n = with_condition ? parse_condition(p) : parse_or(p);
    parse_leave(p);
    return n;
}

static struct node *parse_condition(struct parser *p)
{
    struct node *left = parse_or(p);

    while (left && parse_is(p, "if")) {
        struct node *n = parse_new(p, N_COND, p->at->line);

        p->at++;
        if (!n || !(n->cond.test = parse_or(p)))
            return NULL;
        n->cond.then = left;
        if (parse_skip_name(p, "else") && !(n->cond.otherwise = parse_expression(p, true)))
            return NULL;
        if (!above(p, n, left, n->cond.test) || !above(p, n, n, n->cond.otherwise))
            return NULL;
        left = n;
    }
    return left;
}

static struct node *parse_not(struct parser *p);

/* a or b or c becomes a or (b or c), which means the same and is walked without recursion. */
static struct node *parse_chain(struct parser *p, enum node_kind kind, const char *word,
                                struct node *(*parse_term)(struct parser *p))
{
    size_t mark = parse_mark(p);
    struct node *term = parse_term(p);
    uint32_t line = p->at->line;
    struct nodes terms;

    if (!term || !parse_is(p, word))
        return term;
    if (parse_push(p, term))
        return NULL;
    while (parse_skip_name(p, word))
        if (parse_push(p, parse_term(p)))
            return NULL;
    if (parse_take(p, mark, &terms))
        return NULL;
    term = terms.items[terms.size - 1];
    for (uint32_t i = terms.size - 1; term && i-- > 0;)
        term = pair(p, kind, line, terms.items[i], term);
    return term;
}

static struct node *parse_and(struct parser *p)
{
    return parse_chain(p, N_AND, "and", parse_not);
}

static struct node *parse_or(struct parser *p)
{
    return parse_chain(p, N_OR, "or", parse_and);
}

static struct node *parse_concat(struct parser *p);

static struct node *parse_math1(struct parser *p)
{
    struct node *left = parse_concat(p);

    while (left && (p->at->kind == T_ADD || p->at->kind == T_SUB)) {
        enum node_kind kind = p->at->kind == T_ADD ? N_ADD : N_SUB;
        uint32_t line = p->at++->line;
        struct node *right = parse_concat(p);

        left = right ? pair(p, kind, line, left, right) : NULL;
    }
    return left;
}

/* The comparison at this token, or -1; it is taken. */
static int take_comparison(struct parser *p)
{
    int op = -1;

    switch (p->at->kind) {
    case T_EQ:
        op = OP_EQ;
        break;
    case T_NE:
        op = OP_NE;
        break;
    case T_LT:
        op = OP_LT;
        break;
    case T_LE:
        op = OP_LE;
        break;
    case T_GT:
        op = OP_GT;
        break;
    case T_GE:
        op = OP_GE;
        break;
    case T_NAME:
        if (parse_is(p, "in")) {
            op = OP_IN;
        } else if (parse_is(p, "not") && p->at[1].kind == T_NAME &&
                   string_is(&p->at[1].value, "in")) {
            op = OP_NOT_IN;
            p->at++;
        }
        break;
    default:
        break;
    }
    if (op >= 0)
        p->at++;
    return op;
}

static bool is_text(const struct node *n)
{
    return n->kind == N_CONST && n->value.kind == V_STRING;
}

static struct node *parse_compare(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *first = parse_math1(p);
    size_t mark = parse_mark(p);
    uint8_t ops[64];
    size_t n_ops = 0;
    struct nodes rest;
    struct node *n;
    uint8_t *kept;
    int op;

    while (first && (op = take_comparison(p)) >= 0) {
        if (n_ops == sizeof ops)
            return NULL_AFTER(parse_fail(p, line, "too many comparisons in a row"));
        ops[n_ops++] = (uint8_t)op;
        if (parse_push(p, parse_math1(p)))
            return NULL;
    }
    if (!first || !n_ops)
        return first;
    n = list_node(p, N_COMPARE, line, mark);
    kept = parse_alloc(p, n_ops, 1);
    if (!n || !kept)
        return NULL;
    memcpy(kept, ops, n_ops);
    rest = n->list;
    n->compare.first = first;
    n->compare.rest = rest;
    n->compare.ops = kept;
    if (n_ops == 1 && ops[0] <= OP_NE && is_text(rest.items[0])) {
        n->flag = COMPARE_TEXT;
    } else if (n_ops == 1 && ops[0] >= OP_IN && is_text(first)) {
        n->flag = COMPARE_KEY;
        n->compare.hash = hash_bytes(first->value.s, first->value.size);
    }
    return above(p, n, n, first);
}

static struct node *parse_not(struct parser *p)
{
    struct node *inner;
    uint32_t line = p->at->line;

    if (!parse_is(p, "not"))
        return parse_compare(p);
    if (parse_enter(p))
        return NULL;
    p->at++;
    inner = parse_not(p);
    parse_leave(p);
    return inner ? pair(p, N_NOT, line, inner, NULL) : NULL;
}

static struct node *parse_pow(struct parser *p)
{
    struct node *left = parse_unary(p, true);

    while (left && p->at->kind == T_POW) {
        uint32_t line = p->at++->line;
        struct node *right = parse_unary(p, true);

        left = right ? pair(p, N_POW, line, left, right) : NULL;
    }
    return left;
}

static struct node *parse_math2(struct parser *p)
{
    struct node *left = parse_pow(p);

    while (left) {
        enum node_kind kind;
        uint32_t line = p->at->line;
        struct node *right;

        switch (p->at->kind) {
        case T_MUL:
            kind = N_MUL;
            break;
        case T_DIV:
            kind = N_DIV;
            break;
        case T_FLOORDIV:
            kind = N_FLOORDIV;
            break;
        case T_MOD:
            kind = N_MOD;
            break;
        default:
            return left;
        }
        p->at++;
        right = parse_pow(p);
        left = right ? pair(p, kind, line, left, right) : NULL;
    }
    return NULL;
}

static struct node *parse_concat(struct parser *p)
{
    uint32_t line = p->at->line;
    size_t mark = parse_mark(p);
    struct node *first = parse_math2(p);

    if (!first || p->at->kind != T_TILDE)
        return first;
    if (parse_push(p, first))
        return NULL;
    while (parse_skip(p, T_TILDE))
        if (parse_push(p, parse_math2(p)))
            return NULL;
    return list_node(p, N_CONCAT, line, mark);
}

static int parse_argument(struct parser *p, struct arguments *a, struct keyword *keywords,
                          size_t room)
{
    if (p->at->kind == T_MUL && !a->star && !a->star_star) {
        p->at++;
        return (a->star = parse_expression(p, true)) ? 0 : -1;
    }
    if (p->at->kind == T_POW && !a->star_star) {
        p->at++;
        return (a->star_star = parse_expression(p, true)) ? 0 : -1;
    }
    if (p->at->kind == T_NAME && p->at[1].kind == T_ASSIGN && !a->star_star) {
        if (a->n_keywords == room)
            return parse_fail(p, p->at->line, "more than %zu keyword arguments", room);
        keywords[a->n_keywords].name = p->at->value;
        p->at += 2;
        return (keywords[a->n_keywords++].value = parse_expression(p, true)) ? 0 : -1;
    }
    if (p->at->kind == T_MUL || p->at->kind == T_POW || a->star || a->star_star || a->n_keywords)
        return parse_fail(p, p->at->line, "invalid syntax for function call expression");
    return parse_push(p, parse_expression(p, true));
}

/* "(...)", or nothing when the next token is another. */
static struct arguments *parse_arguments(struct parser *p)
{
    struct keyword keywords[32];
    struct arguments *a = parse_alloc(p, 1, sizeof *a);
    size_t mark = parse_mark(p);

    if (!a || !parse_skip(p, T_LPAREN))
        return a;
    while (p->at->kind != T_RPAREN) {
        if (parse_argument(p, a, keywords, COUNT(keywords)))
            return NULL;
        if (p->at->kind != T_RPAREN && parse_expect(p, T_COMMA))
            return NULL;
    }
    p->at++;
    if (parse_take(p, mark, &a->positional))
        return NULL;
    if (a->n_keywords) {
        a->keywords = parse_alloc(p, a->n_keywords, sizeof keywords[0]);
        if (!a->keywords)
            return NULL;
        memcpy(a->keywords, keywords, a->n_keywords * sizeof keywords[0]);
    }
    return a;
}

/* The deepest argument counts for the depth of a call. */
static struct node *with_arguments(struct parser *p, struct node *n)
{
    struct arguments *a = n->call.arguments;

    a->none = !a->positional.size && !a->n_keywords && !a->star && !a->star_star;
    for (uint32_t i = 0; i < a->positional.size; i++)
        if (a->positional.items[i]->depth >= n->depth && !above(p, n, a->positional.items[i], NULL))
            return NULL;
    for (uint32_t i = 0; i < a->n_keywords; i++)
        if (a->keywords[i].value->depth >= n->depth && !above(p, n, a->keywords[i].value, NULL))
            return NULL;
    if (a->star && a->star->depth >= n->depth && !above(p, n, a->star, NULL))
        return NULL;
    if (a->star_star && a->star_star->depth >= n->depth && !above(p, n, a->star_star, NULL))
        return NULL;
    return n;
}

static struct node *parse_call(struct parser *p, struct node *callee)
{
    struct node *n = parse_new(p, N_CALL, p->at->line);

    if (!n || !(n->call.arguments = parse_arguments(p)))
        return NULL;
    n->call.subject = callee;
    return above(p, n, callee, NULL) ? with_arguments(p, n) : NULL;
}

/* A name with dots, as filters and tests may have. */
static int dotted_name(struct parser *p, struct value *name)
{
    const char *begin = p->at->value.s;

    *name = p->at->value;
    if (parse_expect(p, T_NAME))
        return -1;
    while (parse_skip(p, T_DOT)) {
        const struct value *part = &p->at->value;

        if (parse_expect(p, T_NAME))
            return -1;
        name->size = (uint32_t)(part->s + part->size - begin);
    }
    return 0;
}

struct node *parse_filters(struct parser *p, struct node *subject, bool at_name)
{
    while (at_name || parse_skip(p, T_PIPE)) {
        struct node *n = parse_new(p, N_FILTER, p->at->line);

        at_name = false;
        if (!n || dotted_name(p, &n->call.name) || !(n->call.arguments = parse_arguments(p)))
            return NULL;
        n->call.builtin = filter_find(n->call.name.s, n->call.name.size);
        n->call.subject = subject;
        if (!above(p, n, subject, NULL) || !with_arguments(p, n))
            return NULL;
        subject = n;
    }
    return subject;
}

static struct node *parse_postfix(struct parser *p, struct node *n);

/* The argument of a test without parentheses, as in "x is divisibleby 3". */
static bool test_argument_follows(const struct parser *p)
{
    switch (p->at->kind) {
    case T_STRING:
    case T_INTEGER:
    case T_FLOAT:
    case T_LBRACKET:
    case T_LBRACE:
        return true;
    case T_NAME:
        return !parse_is(p, "else") && !parse_is(p, "or") && !parse_is(p, "and");
    default:
        return false;
    }
}

static struct arguments *test_arguments(struct parser *p)
{
    struct arguments *a;
    size_t mark = parse_mark(p);
    struct node *argument;

    if (p->at->kind == T_LPAREN)
        return parse_arguments(p);
    a = parse_alloc(p, 1, sizeof *a);
    if (!a || !test_argument_follows(p))
        return a;
    if (parse_is(p, "is")) {
        parse_fail(p, p->at->line, "You cannot chain multiple tests with is");
        return NULL;
    }
    argument = parse_primary(p, false);
    if (argument)
        argument = parse_postfix(p, argument);
    if (parse_push(p, argument) || parse_take(p, mark, &a->positional))
        return NULL;
    return a;
}

static struct node *parse_test(struct parser *p, struct node *subject)
{
    uint32_t line = p->at++->line;
    struct node *n = parse_new(p, N_TEST, line);
    bool negated = parse_skip_name(p, "not");

    if (!n || dotted_name(p, &n->call.name) || !(n->call.arguments = test_arguments(p)))
        return NULL;
    n->call.builtin = test_find(n->call.name.s, n->call.name.size);
    n->call.subject = subject;
    if (!above(p, n, subject, NULL) || !with_arguments(p, n))
        return NULL;
    if (n->call.builtin && n->call.arguments->none && !*n->call.builtin->params)
        n->flag = TEST_PLAIN;
    return negated ? pair(p, N_NOT, line, n, NULL) : n;
}

/* An index or a slice; *empty_part stays false where something was written. */
static struct node *parse_subscribed(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *first = NULL, *n;

    if (p->at->kind != T_COLON) {
        first = parse_expression(p, true);
        if (!first || p->at->kind != T_COLON)
            return first;
    }
    p->at++;
    n = parse_new(p, N_SLICE, line);
    if (!n)
        return NULL;
    n->slice.start = first;
    if (p->at->kind != T_COLON && p->at->kind != T_RBRACKET && p->at->kind != T_COMMA &&
        !(n->slice.stop = parse_expression(p, true)))
        return NULL;
    if (parse_skip(p, T_COLON) && p->at->kind != T_RBRACKET && p->at->kind != T_COMMA &&
        !(n->slice.step = parse_expression(p, true)))
        return NULL;
    if (!above(p, n, first, n->slice.stop) || !above(p, n, n, n->slice.step))
        return NULL;
    return n;
}

/* object.name, or object['name'] */
static struct node *attribute(struct parser *p, uint32_t line, struct node *object,
                              const struct value *name, bool as_item)
{
    struct node *n = parse_new(p, N_GETATTR, line);

    if (!n)
        return NULL;
    n->flag = as_item;
    n->attr.object = object;
    n->attr.name = *name;
    n->attr.hash = hash_bytes(name->s, name->size);
    n->attr.methods = methods_named(name->s, name->size);
    n->attr.simple = object->kind == N_NAME && (as_item || !n->attr.methods) && name->size <= 16;
    return above(p, n, object, NULL);
}

static struct node *parse_brackets(struct parser *p, struct node *object, uint32_t line)
{
    size_t mark = parse_mark(p);
    struct node *key = NULL;
    size_t n = 0;

    while (p->at->kind != T_RBRACKET) {
        if (n && parse_expect(p, T_COMMA))
            return NULL;
        key = parse_subscribed(p);
        if (parse_push(p, key))
            return NULL;
        n++;
    }
    p->at++;
    if (n == 1)
        p->n_scratch = mark;
    else
        key = list_node(p, N_TUPLE, line, mark);
    if (key && is_text(key))
        return attribute(p, line, object, &key->value, true);
    return key ? pair(p, N_GETITEM, line, object, key) : NULL;
}

static struct node *parse_dot(struct parser *p, struct node *object, uint32_t line)
{
    const struct token *t = p->at++;

    if (t->kind == T_INTEGER) {
        struct node *n = constant(p, t->line, t->value);

        return n ? pair(p, N_GETITEM, line, object, n) : NULL;
    }
    if (t->kind != T_NAME)
        return NULL_AFTER(parse_fail(p, t->line, "expected name or number"));
    return attribute(p, line, object, &t->value, false);
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    while (n) {
        uint32_t line = p->at->line;

        if (parse_skip(p, T_DOT))
            n = parse_dot(p, n, line);
        else if (parse_skip(p, T_LBRACKET))
            n = parse_brackets(p, n, line);
        else if (p->at->kind == T_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static struct node *parse_unary(struct parser *p, bool with_filters)
{
    uint32_t line = p->at->line;
    struct node *n;

    if (p->at->kind == T_SUB || p->at->kind == T_ADD) {
        enum node_kind kind = p->at++->kind == T_SUB ? N_NEG : N_POS;
        struct node *inner;

        if (parse_enter(p))
            return NULL;
        inner = parse_unary(p, false);
        parse_leave(p);
        n = inner ? pair(p, kind, line, inner, NULL) : NULL;
    } else {
        n = parse_primary(p, false);
    }
    n = n ? parse_postfix(p, n) : NULL;
    while (n && with_filters) {
        if (p->at->kind == T_PIPE)
            n = parse_filters(p, n, false);
        else if (parse_is(p, "is"))
            n = parse_test(p, n);
        else if (p->at->kind == T_LPAREN)
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static struct node *parse_list(struct parser *p)
{
    uint32_t line = p->at++->line;
    size_t mark = parse_mark(p);

    while (p->at->kind != T_RBRACKET) {
        if (parse_push(p, parse_expression(p, true)))
            return NULL;
        if (p->at->kind != T_RBRACKET && parse_expect(p, T_COMMA))
            return NULL;
    }
    p->at++;
    return list_node(p, N_LIST, line, mark);
}

static struct node *parse_dict(struct parser *p)
{
    uint32_t line = p->at++->line;
    size_t mark = parse_mark(p);

    while (p->at->kind != T_RBRACE) {
        if (parse_push(p, parse_expression(p, true)) || parse_expect(p, T_COLON) ||
            parse_push(p, parse_expression(p, true)))
            return NULL;
        if (p->at->kind != T_RBRACE && parse_expect(p, T_COMMA))
            return NULL;
    }
    p->at++;
    return list_node(p, N_DICT, line, mark);
}

/* Strings side by side are one. */
static struct node *parse_string(struct parser *p)
{
    const struct token *first = p->at;
    size_t size = 0;
    char *text;

    for (; p->at->kind == T_STRING; p->at++)
        size += p->at->value.size;
    if (p->at == first + 1)
        return constant(p, first->line, first->value);
    text = parse_alloc(p, size + 1, 1);
    if (!text)
        return NULL;
    size = 0;
    for (const struct token *t = first; t < p->at; t++) {
        memcpy(text + size, t->value.s, t->value.size);
        size += t->value.size;
    }
    return constant(p, first->line, value_string(text, size));
}

static struct node *parse_name(struct parser *p, bool namespaces)
{
    const struct token *t = p->at++;
    const struct value *name = &t->value;
    struct node *n;

    if (string_is(name, "true") || string_is(name, "True"))
        return constant(p, t->line, value_bool(true));
    if (string_is(name, "false") || string_is(name, "False"))
        return constant(p, t->line, value_bool(false));
    if (string_is(name, "none") || string_is(name, "None"))
        return constant(p, t->line, value_none());
    if (namespaces && parse_skip(p, T_DOT)) {
        n = parse_new(p, N_NSREF, t->line);
        if (!n)
            return NULL;
        n->nsref.name = *name;
        n->nsref.attr = p->at->value;
        if (parse_expect(p, T_NAME))
            return NULL;
        n->nsref.hash = hash_bytes(n->nsref.attr.s, n->nsref.attr.size);
        return n;
    }
    n = parse_new(p, N_NAME, t->line);
    if (n)
        n->name.name = *name;
    return n;
}

static struct node *parse_primary(struct parser *p, bool namespaces)
{
    const struct token *t = p->at;
    struct node *n;

    switch (t->kind) {
    case T_NAME:
        return parse_name(p, namespaces);
    case T_STRING:
        return parse_string(p);
    case T_INTEGER:
    case T_FLOAT:
        p->at++;
        return constant(p, t->line, t->value);
    case T_LPAREN:
        p->at++;
        n = parse_tuple(p, (struct tuple_mode){.parentheses = true});
        return !n || parse_expect(p, T_RPAREN) ? NULL : n;
    case T_LBRACKET:
        return parse_list(p);
    case T_LBRACE:
        return parse_dict(p);
    default:
        return unexpected(p);
    }
}

static bool tuple_ends(const struct parser *p)
{
    return p->at->kind == T_VARIABLE_END || p->at->kind == T_BLOCK_END || p->at->kind == T_RPAREN;
}

struct node *parse_tuple(struct parser *p, struct tuple_mode mode)
{
    uint32_t line = p->at->line;
    size_t mark = parse_mark(p);
    struct node *n = NULL;
    bool is_tuple = false;
    size_t size = 0;

    if (parse_enter(p))
        return NULL;
    for (;;) {
        if (tuple_ends(p))
            break;
        n = mode.targets ? parse_primary(p, mode.namespaces)
                         : parse_expression(p, !mode.no_condition);
        if (parse_push(p, n))
            return NULL;
        size++;
        if (!parse_skip(p, T_COMMA))
            break;
        is_tuple = true;
    }
    parse_leave(p);
    if (!is_tuple && size) {
        p->n_scratch = mark;
        return n;
    }
    if (!is_tuple && !mode.parentheses)
        return NULL_AFTER(
            parse_fail(p, line, "Expected an expression, got '%s'", token_name(p->at->kind)));
    return list_node(p, N_TUPLE, line, mark);
}
