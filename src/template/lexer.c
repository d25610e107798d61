#include "template/lexer.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/decimal.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "template/bigint.h"
#include "template/characters.h"
#include "template/lex_string.h"
#include "template/number.h"

#define MAX_NESTING 200
#define MAX_TEMPLATE ((size_t)1 << 20)

struct lexer {
    const char *s, *end; /* what is left */
    const char *begin;
    uint32_t line;
    bool line_starting; /* the last match ended a line */
    struct token *items;
    size_t size, capacity;
    char closers[MAX_NESTING]; /* brackets that are open */
    unsigned n_closers;
    const char *name;
    arena *memory;
    clm_error *err;
};

static int lex_fail(struct lexer *l, const char *what)
{
    return fail(l->err, CLM_ERR_FORMAT, "%s:%u: %s", l->name, l->line, what);
}

static int no_memory(struct lexer *l)
{
    return fail(l->err, CLM_ERR_NOMEM, "%s: no memory for the template", l->name);
}

static void count_lines(struct lexer *l, const char *from, const char *to)
{
    while (from < to && (from = memchr(from, '\n', (size_t)(to - from)))) {
        l->line++;
        from++;
    }
}

/* Moves on to a place further right. */
static void advance(struct lexer *l, const char *to)
{
    count_lines(l, l->s, to);
    if (to > l->s)
        l->line_starting = to[-1] == '\n';
    l->s = to;
}

static int push(struct lexer *l, enum token_kind kind, struct value v)
{
    if (l->size == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 256;
        struct token *items = arena_array(l->memory, struct token, capacity);

        if (!items)
            return no_memory(l);
        if (l->size)
            memcpy(items, l->items, l->size * sizeof *items);
        l->items = items;
        l->capacity = capacity;
    }
    l->items[l->size++] = (struct token){.kind = (uint8_t)kind, .line = l->line, .value = v};
    return 0;
}

static int push_plain(struct lexer *l, enum token_kind kind)
{
    return push(l, kind, (struct value){0});
}

static const char *skip_space(const char *s, const char *end)
{
    while (s < end) {
        int32_t c;
        size_t n = utf8_decode(s, (size_t)(end - s), &c);

        if (!character_is_space(c))
            break;
        s += n;
    }
    return s;
}

/* The end of s[0, end) without its trailing white space. */
static const char *strip_end(const char *s, const char *end)
{
    while (end > s) {
        const char *last = end - 1;
        int32_t c;

        while (last > s && ((unsigned char)*last & 0xC0) == 0x80)
            last--;
        utf8_decode(last, (size_t)(end - last), &c);
        if (!character_is_space(c))
            break;
        end = last;
    }
    return end;
}

static bool starts_with(const char *s, const char *end, const char *word)
{
    size_t n = strlen(word);

    return (size_t)(end - s) >= n && !memcmp(s, word, n);
}

/* The text before a tag, shortened as the tag's sign and lstrip_blocks demand. */
static int push_data(struct lexer *l, const char *to, char sign, bool variable)
{
    const char *end = to;

    if (sign == '-') {
        end = strip_end(l->s, to);
    } else if (sign != '+' && !variable) {
        const char *start = to;

        while (start > l->s && start[-1] != '\n')
            start--;
        if ((start > l->s || l->line_starting) && skip_space(start, to) == to)
            end = start;
    }
    if (end > l->s && push(l, T_DATA, value_string(l->s, (size_t)(end - l->s))))
        return -1;
    advance(l, to);
    return 0;
}

/* The word between tag brackets, as in "{%- raw -%}": its end, or NULL where it is not there. At
 * the end of a raw section the newline after it is dropped; not so at its beginning. */
static const char *match_tag(struct lexer *l, const char *s, const char *word, bool closing)
{
    s += 2;
    if (s < l->end && (*s == '-' || *s == '+'))
        s++;
    s = skip_space(s, l->end);
    if (!starts_with(s, l->end, word))
        return NULL;
    s = skip_space(s + strlen(word), l->end);
    if (starts_with(s, l->end, "-%}"))
        return skip_space(s + 3, l->end);
    if (closing && starts_with(s, l->end, "+%}"))
        return s + 3;
    if (!starts_with(s, l->end, "%}"))
        return NULL;
    s += 2;
    return closing && s < l->end && *s == '\n' ? s + 1 : s;
}

static char sign_after(const struct lexer *l, const char *s)
{
    return s + 2 < l->end && (s[2] == '-' || s[2] == '+') ? s[2] : '\0';
}

static const char *find(const char *s, const char *end, const char *pair)
{
    while (s < end && (s = memchr(s, pair[0], (size_t)(end - s)))) {
        if (s + 1 < end && s[1] == pair[1])
            return s;
        s++;
    }
    return NULL;
}

/* After "{% raw %}": the text up to "{% endraw %}", as it stands. */
static int lex_raw(struct lexer *l)
{
    const char *s = l->s;

    if (s == l->end) /* Jinja too lets the very end pass */
        return 0;
    while ((s = find(s, l->end, "{%"))) {
        const char *after = match_tag(l, s, "endraw", true);

        if (after) {
            if (push_data(l, s, sign_after(l, s), false))
                return -1;
            advance(l, after);
            return 0;
        }
        s++;
    }
    return lex_fail(l, "Missing end of raw directive.");
}

static int lex_comment(struct lexer *l)
{
    const char *close = find(l->s, l->end, "#}");
    const char *after;

    if (!close && l->s == l->end)
        return 0;
    if (!close)
        return lex_fail(l, "Missing end of comment tag.");
    after = close + 2;
    if (close > l->s && close[-1] == '-')
        after = skip_space(after, l->end);
    else if (!(close > l->s && close[-1] == '+') && after < l->end && *after == '\n')
        after++;
    advance(l, after);
    return 0;
}

/* [0-9]+ with single underscores between digits; the end of it. */
static const char *digits(const char *s, const char *end)
{
    while (s < end && *s >= '0' && *s <= '9') {
        s++;
        if (s + 1 < end && *s == '_' && s[1] >= '0' && s[1] <= '9')
            s++;
    }
    return s;
}

static bool is_digit_of(char c, int base)
{
    return digit_value(c) < base;
}

/* 0b..., 0o..., 0x...: the end, or NULL. */
static const char *based_integer(const char *s, const char *end, int *base)
{
    const char *start = s + 2;

    if (end - s < 3 || *s != '0')
        return NULL;
    *base = (s[1] | 32) == 'b' ? 2 : (s[1] | 32) == 'o' ? 8 : (s[1] | 32) == 'x' ? 16 : 0;
    if (!*base)
        return NULL;
    s = start;
    for (;;) {
        const char *next = s < end && *s == '_' ? s + 1 : s;

        if (next >= end || !is_digit_of(*next, *base))
            break;
        s = next + 1;
    }
    return s > start ? s : NULL;
}

/* The end of a float that begins with the digits s[0, whole), or NULL when it is an integer. */
static const char *float_end(const struct lexer *l, const char *whole)
{
    const char *s = whole;

    if (l->s > l->begin && l->s[-1] == '.')
        return NULL;
    if (s + 1 < l->end && *s == '.' && s[1] >= '0' && s[1] <= '9')
        s = digits(s + 1, l->end);
    if (s < l->end && (*s | 32) == 'e') {
        const char *exponent = s + 1;

        if (exponent < l->end && (*exponent == '+' || *exponent == '-'))
            exponent++;
        if (exponent < l->end && *exponent >= '0' && *exponent <= '9')
            return digits(exponent, l->end);
    }
    return s > whole ? s : NULL;
}

/* The characters of [from, to) but underscores, NUL-terminated. */
static char *without_underscores(struct lexer *l, const char *from, const char *to)
{
    char *copy = arena_array(l->memory, char, to - from + 1);
    size_t n = 0;

    for (; copy && from < to; from++)
        if (*from != '_')
            copy[n++] = *from;
    return copy;
}

static int push_integer(struct lexer *l, const char *from, const char *to, int base)
{
    char *text = without_underscores(l, from, to);
    struct value v;

    if (!text)
        return no_memory(l);
    if (!bigint_small_from_text(text, strlen(text), base, &v.i)) {
        const struct bigint *big = bigint_from_text_arena(l->memory, text, strlen(text), base);

        if (!big)
            return lex_fail(l, "the integer has too many digits");
        v = (struct value){.kind = V_BIGINT, .big = big};
    } else {
        v = value_int(v.i);
    }
    if (push(l, T_INTEGER, v))
        return -1;
    advance(l, to);
    return 0;
}

static int lex_number(struct lexer *l)
{
    const char *whole = digits(l->s, l->end);
    const char *end = float_end(l, whole);
    int base;

    if (end) {
        char *text = without_underscores(l, l->s, end);

        if (!text)
            return no_memory(l);
        if (push(l, T_FLOAT, value_float(decimal_parse(text, strlen(text)))))
            return -1;
        advance(l, end);
        return 0;
    }
    end = based_integer(l->s, l->end, &base);
    if (end)
        return push_integer(l, l->s + 2, end, base);
    if (*l->s == '0') /* zeros only: 012 is not a number */
        for (whole = l->s + 1; whole < l->end;) {
            const char *next = *whole == '_' ? whole + 1 : whole;

            if (next >= l->end || *next != '0')
                break;
            whole = next + 1;
        }
    return push_integer(l, l->s, whole, 10);
}

static bool is_name_start(int32_t c)
{
    return c == '_' || character_is_alpha(c);
}

/* Takes a name when there is one: 1, else 0; -1 on error. */
static int lex_name(struct lexer *l)
{
    const char *s = l->s;
    int32_t c;
    size_t n = utf8_decode(s, (size_t)(l->end - s), &c);

    if (!is_name_start(c))
        return 0;
    do {
        s += n;
        if (s == l->end)
            break;
        n = utf8_decode(s, (size_t)(l->end - s), &c);
    } while (c == '_' || character_is_alnum(c) || character_is_mark(c));
    if (push(l, T_NAME, value_string(l->s, (size_t)(s - l->s))))
        return -1;
    advance(l, s);
    return 1;
}

static int lex_quoted(struct lexer *l)
{
    char quote = *l->s;
    const char *s = l->s + 1;
    struct value v = {0};
    const char *problem = NULL;

    while (s < l->end && *s != quote)
        s += *s == '\\' && s + 1 < l->end ? 2 : 1;
    if (s >= l->end)
        return lex_fail(l, quote == '"' ? "unexpected char '\"': the string does not end"
                                        : "unexpected char \"'\": the string does not end");
    if (lex_unescape(l->memory, l->s + 1, (size_t)(s - l->s - 1), &v, &problem))
        return problem ? lex_fail(l, problem) : no_memory(l);
    if (push(l, T_STRING, v))
        return -1;
    advance(l, s + 1);
    return 0;
}

/* Longer ones first. */
static const struct operator
{
    char text[3];
    uint8_t kind;
}
operators[] = {
    {"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},      {">=", T_GE},
    {"<=", T_LE},       {"+", T_ADD},    {"-", T_SUB},      {"/", T_DIV},      {"*", T_MUL},
    {"%", T_MOD},       {"~", T_TILDE},  {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
    {")", T_RPAREN},    {"{", T_LBRACE}, {"}", T_RBRACE},   {">", T_GT},       {"<", T_LT},
    {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},    {"|", T_PIPE},     {",", T_COMMA},
    {";", T_SEMICOLON},
};

static int balance(struct lexer *l, enum token_kind kind)
{
    static const char closers[] = {[T_LBRACKET] = ']', [T_LPAREN] = ')', [T_LBRACE] = '}'};
    char message[64];

    if (kind == T_LBRACKET || kind == T_LPAREN || kind == T_LBRACE) {
        if (l->n_closers == MAX_NESTING)
            return lex_fail(l, "brackets are nested too deep");
        l->closers[l->n_closers++] = closers[kind];
    } else if (kind == T_RBRACKET || kind == T_RPAREN || kind == T_RBRACE) {
        char expected = l->n_closers ? l->closers[--l->n_closers] : '\0';

        if (expected == *l->s)
            return 0;
        if (expected)
            snprintf(message, sizeof message, "unexpected '%c', expected '%c'", *l->s, expected);
        else
            snprintf(message, sizeof message, "unexpected '%c'", *l->s);
        return lex_fail(l, message);
    }
    return 0;
}

static int lex_operator(struct lexer *l)
{
    char message[64];

    for (size_t i = 0; i < COUNT(operators); i++) {
        const struct operator* op = & operators[i];

        if (!starts_with(l->s, l->end, op->text))
            continue;
        if (balance(l, op->kind) || push_plain(l, op->kind))
            return -1;
        advance(l, l->s + strlen(op->text));
        return 0;
    }
    snprintf(message, sizeof message, "unexpected char '%.*s'",
             (int)utf8_length((unsigned char)*l->s), l->s);
    return lex_fail(l, message);
}

/* The end of the tag's bracket at s, or NULL. */
static const char *tag_end(const struct lexer *l, bool variable)
{
    const char *s = l->s;

    if (l->n_closers)
        return NULL;
    if (starts_with(s, l->end, variable ? "-}}" : "-%}"))
        return skip_space(s + 3, l->end);
    if (variable)
        return starts_with(s, l->end, "}}") ? s + 2 : NULL;
    if (starts_with(s, l->end, "+%}"))
        return s + 3;
    if (!starts_with(s, l->end, "%}"))
        return NULL;
    return s + 2 < l->end && s[2] == '\n' ? s + 3 : s + 2;
}

static int lex_tag_token(struct lexer *l)
{
    int named;

    if (*l->s >= '0' && *l->s <= '9')
        return lex_number(l);
    if (*l->s == '\'' || *l->s == '"')
        return lex_quoted(l);
    named = lex_name(l);
    return named ? named >> 1 : lex_operator(l); /* -1 >> 1 is -1 */
}

/* Inside {{ ... }} or {% ... %}, after the opening bracket. */
static int lex_tag(struct lexer *l, bool variable)
{
    while (l->s < l->end) {
        const char *end = tag_end(l, variable);
        const char *next;

        if (end) {
            if (push_plain(l, variable ? T_VARIABLE_END : T_BLOCK_END))
                return -1;
            advance(l, end);
            return 0;
        }
        next = skip_space(l->s, l->end);
        if (next > l->s)
            advance(l, next);
        else if (lex_tag_token(l))
            return -1;
    }
    return 0; /* the parser misses the end of the tag */
}

/* The next tag: s is at its opening bracket. */
static int lex_opening(struct lexer *l, const char *s)
{
    char sign = sign_after(l, s);
    bool variable = s[1] == '{';
    const char *raw = s[1] == '%' ? match_tag(l, s, "raw", false) : NULL;

    if (push_data(l, s, sign, variable))
        return -1;
    if (raw) {
        advance(l, raw);
        return lex_raw(l);
    }
    if (s[1] == '#') {
        advance(l, s + (sign ? 3 : 2));
        return lex_comment(l);
    }
    if (push_plain(l, variable ? T_VARIABLE_BEGIN : T_BLOCK_BEGIN))
        return -1;
    advance(l, s + (sign ? 3 : 2));
    return lex_tag(l, variable);
}

static const char *find_opening(const char *s, const char *end)
{
    while (s < end && (s = memchr(s, '{', (size_t)(end - s)))) {
        if (s + 1 < end && (s[1] == '{' || s[1] == '%' || s[1] == '#'))
            return s;
        s++;
    }
    return NULL;
}

/* A copy with \r\n and \r as \n, and without one newline at the end. */
static char *normalize(arena *a, const char *text, size_t *size)
{
    char *copy = arena_array(a, char, *size + 1);
    size_t n = 0;

    if (!copy)
        return NULL;
    for (size_t i = 0; i < *size; i++) {
        if (text[i] == '\r') {
            copy[n++] = '\n';
            i += i + 1 < *size && text[i + 1] == '\n';
        } else {
            copy[n++] = text[i];
        }
    }
    *size = n && copy[n - 1] == '\n' ? n - 1 : n;
    return copy;
}

int lex_template(struct tokens *out, const char *text, size_t size, const char *name, arena *a,
                 clm_error *err)
{
    struct lexer l = {.line = 1, .line_starting = true, .name = name, .memory = a, .err = err};
    const char *next;

    if (size > MAX_TEMPLATE)
        return fail(err, CLM_ERR_FORMAT, "%s: a template of %zu bytes; at most %zu are taken", name,
                    size, MAX_TEMPLATE);
    if (!utf8_valid(text, size))
        return fail(err, CLM_ERR_FORMAT, "%s: the template is not UTF-8", name);
    l.begin = l.s = normalize(a, text, &size);
    if (!l.s)
        return no_memory(&l);
    l.end = l.s + size;
    while ((next = find_opening(l.s, l.end)))
        if (lex_opening(&l, next))
            return -1;
    if (l.s < l.end && push(&l, T_DATA, value_string(l.s, (size_t)(l.end - l.s))))
        return -1;
    if (push_plain(&l, T_END))
        return -1;
    *out = (struct tokens){l.items, l.size};
    return 0;
}

const char *token_name(enum token_kind kind)
{
    switch (kind) {
    case T_END:
        return "end of template";
    case T_DATA:
        return "template data / text";
    case T_VARIABLE_BEGIN:
        return "begin of print statement";
    case T_VARIABLE_END:
        return "end of print statement";
    case T_BLOCK_BEGIN:
        return "begin of statement block";
    case T_BLOCK_END:
        return "end of statement block";
    case T_NAME:
        return "name";
    case T_STRING:
        return "string";
    case T_INTEGER:
        return "integer";
    case T_FLOAT:
        return "float";
    default:
        break;
    }
    for (size_t i = 0; i < COUNT(operators); i++)
        if (operators[i].kind == kind)
            return operators[i].text;
    return "?";
}
