#include "parse/literal.h"

#include "base/memory.h"
#include "base/utf8.h"

/* Place in a text; functions leave it behind what they read, and return false where it is wrong. */
struct reader {
    struct span rest;
    int depth;
    bool json_names; /* true, false and null are values */
};

static bool read_value(struct reader *r, struct strbuf *out);

size_t python_space(struct span s)
{
    size_t i = 0;

    for (;;) {
        while (i < s.size && s.at[i] != '\0' && strchr(" \t\f\r\n", s.at[i]))
            i++;
        if (i == s.size || s.at[i] != '#')
            return i;
        while (i < s.size && s.at[i] != '\n')
            i++;
    }
}

static void skip(struct reader *r, size_t n)
{
    r->rest = span_from(r->rest, n);
}

static char peek(struct reader *r)
{
    return r->rest.size ? r->rest.at[0] : '\0';
}

/* The next character after white space; '\0' at the end. Outside of brackets a line end is none. */
static char peek_token(struct reader *r)
{
    if (r->depth)
        skip(r, python_space(r->rest));
    while (!r->depth && peek(r) != '\0' && strchr(" \t\f", peek(r)))
        skip(r, 1);
    return peek(r);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int digit_value(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* Digits of a base, with single underscores between them; their end, or 0. */
static size_t digits_end(struct span s, size_t at, int base)
{
    size_t i = at;

    while (i < s.size) {
        if (digit_value(s.at[i]) < base)
            i++;
        else if (s.at[i] == '_' && i > at && i + 1 < s.size && digit_value(s.at[i + 1]) < base)
            i++;
        else
            break;
    }
    return i > at ? i : 0;
}

/* Python's own limit for decimal digits; what is longer is no number here either. */
#define MAX_DECIMAL_DIGITS 4300

/* A number of base 2, 8 or 16 in decimal: in limbs of nine digits, the lowest first. */
static bool convert_base(struct span digits, int base, struct strbuf *out)
{
    size_t n_limbs = 1, capacity = digits.size / 7 + 2;
    uint32_t *limbs;
    bool ok = false;

    if (digits.size > MAX_DECIMAL_DIGITS)
        return false;
    limbs = mem_zeroed(capacity, sizeof *limbs);
    if (!limbs) {
        out->failed = true;
        return false;
    }
    for (size_t i = 0; i < digits.size; i++) {
        uint64_t carry = (uint64_t)digit_value(digits.at[i]);

        if (digits.at[i] == '_')
            continue;
        for (size_t k = 0; k < n_limbs; k++) {
            carry += (uint64_t)limbs[k] * (unsigned)base;
            limbs[k] = (uint32_t)(carry % 1000000000);
            carry /= 1000000000;
        }
        if (carry && n_limbs < capacity)
            limbs[n_limbs++] = (uint32_t)carry;
    }
    strbuf_addf(out, "%u", (unsigned)limbs[n_limbs - 1]);
    for (size_t k = n_limbs - 1; k-- > 0;)
        strbuf_addf(out, "%09u", (unsigned)limbs[k]);
    ok = true;
    mem_free(limbs);
    return ok;
}

static void add_without_underscores(struct span s, struct strbuf *out)
{
    for (size_t i = 0; i < s.size; i++)
        if (s.at[i] != '_')
            strbuf_add_char(out, s.at[i]);
}

bool integer_to_json(struct span digits, struct strbuf *out)
{
    while (digits.size > 1 && (digits.at[0] == '0' || digits.at[0] == '_'))
        digits = span_from(digits, 1);
    if (digits.size > MAX_DECIMAL_DIGITS)
        return false;
    add_without_underscores(digits, out);
    return true;
}

/* 0x, 0o or 0b and digits. */
static bool read_prefixed(struct reader *r, struct strbuf *out)
{
    char kind = (char)(r->rest.at[1] | 0x20);
    int base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
    size_t begin = r->rest.size > 2 && r->rest.at[2] == '_' ? 3 : 2;
    size_t end = digits_end(r->rest, begin, base);
    struct span digits = {r->rest.at + begin, end - begin};

    if (!end)
        return false;
    skip(r, end);
    return word_at_start(r->rest, '\0') == 0 && convert_base(digits, base, out);
}

/* The end of a fraction and an exponent after the digits before the point, which end at i. */
static size_t float_end(struct span s, size_t i, size_t whole)
{
    if (i < s.size && s.at[i] == '.') {
        size_t end = digits_end(s, i + 1, 10);

        if (!end && !whole)
            return 0;
        i = end ? end : i + 1;
    }
    if (i < s.size && (s.at[i] | 0x20) == 'e') {
        size_t at = i + 1, end;

        if (at < s.size && (s.at[at] == '+' || s.at[at] == '-'))
            at++;
        end = digits_end(s, at, 10);
        if (!end)
            return 0;
        i = end;
    }
    return i;
}

/* A float as JSON wants it: digits on both sides of a point. */
static void add_float(struct span s, struct strbuf *out)
{
    size_t i = 0;

    while (i + 1 < s.size && (s.at[i] == '0' || s.at[i] == '_') &&
           (is_digit(s.at[i + 1]) || s.at[i + 1] == '_'))
        i++;
    if (s.at[i] == '.')
        strbuf_add_char(out, '0');
    for (; i < s.size; i++) {
        if (s.at[i] != '_')
            strbuf_add_char(out, s.at[i]);
        if (s.at[i] == '.' && (i + 1 == s.size || !is_digit(s.at[i + 1])))
            strbuf_add_char(out, '0');
    }
}

static bool only_zeros(struct span s)
{
    for (size_t i = 0; i < s.size; i++)
        if (s.at[i] != '0' && s.at[i] != '_')
            return false;
    return true;
}

static bool read_number(struct reader *r, struct strbuf *out)
{
    struct span s = r->rest, number;
    size_t whole, end;

    if (s.size > 2 && s.at[0] == '0' && strchr("xXoObB", s.at[1]))
        return read_prefixed(r, out);
    whole = digits_end(s, 0, 10);
    end = float_end(s, whole, whole);
    if (!end)
        return false;
    number = span_first(s, end);
    skip(r, end);
    /* 1j and 1abc are not numbers; Python's keywords may follow a number, literals do not. */
    if (word_at_start(r->rest, '\0'))
        return false;
    if (end > whole) {
        add_float(number, out);
        return true;
    }
    if (number.size > 1 && number.at[0] == '0' && !only_zeros(number))
        return false;
    return integer_to_json(number, out);
}

static bool read_hex(struct reader *r, size_t digits, struct strbuf *out)
{
    int32_t c = 0;
    char utf8[UTF8_MAX];

    if (r->rest.size < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        int d = digit_value(r->rest.at[i]);

        if (d > 15 || c > 0x10FFFF)
            return false;
        c = c * 16 + d;
    }
    if (c > 0x10FFFF)
        return false;
    skip(r, digits);
    strbuf_add(out, utf8, utf8_encode(c, utf8));
    return true;
}

static void read_octal(struct reader *r, struct strbuf *out)
{
    int32_t c = 0;
    char utf8[UTF8_MAX];

    for (int i = 0; i < 3 && peek(r) >= '0' && peek(r) <= '7' && r->rest.size; i++) {
        c = c * 8 + (peek(r) - '0');
        skip(r, 1);
    }
    strbuf_add(out, utf8, utf8_encode(c, utf8));
}

/* After a backslash. */
static bool read_escape(struct reader *r, struct strbuf *out)
{
    static const char names[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
    char c = peek(r);
    const char *found;

    if (!r->rest.size || c == 'N')
        return false;
    if (c >= '0' && c <= '7') {
        read_octal(r, out);
        return true;
    }
    skip(r, 1);
    if (c == '\n')
        return true;
    if (c == 'x' || c == 'u' || c == 'U')
        return read_hex(r, c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
    found = c ? strchr(names, c) : NULL;
    if (found) {
        strbuf_add_char(out, values[found - names]);
        return true;
    }
    strbuf_add_char(out, '\\');
    strbuf_add_char(out, c);
    return true;
}

/* One string literal, from its quote on. */
static bool read_quoted(struct reader *r, bool raw, struct strbuf *out)
{
    char quote = peek(r);
    bool triple = r->rest.size >= 3 && r->rest.at[1] == quote && r->rest.at[2] == quote;

    skip(r, triple ? 3 : 1);
    while (r->rest.size) {
        char c = peek(r);

        if (c == quote &&
            (!triple || (r->rest.size >= 3 && r->rest.at[1] == quote && r->rest.at[2] == quote))) {
            skip(r, triple ? 3 : 1);
            return true;
        }
        if (c == '\0' || ((c == '\n' || c == '\r') && !triple))
            return false;
        skip(r, 1);
        if (c == '\r') {
            strbuf_add_char(out, '\n'); /* Python reads every line end as one */
            skip(r, peek(r) == '\n');
        } else if (c != '\\') {
            strbuf_add_char(out, c);
        } else if (!raw) {
            if (!read_escape(r, out))
                return false;
        } else {
            strbuf_add_char(out, c);
            if (!r->rest.size)
                return false;
            strbuf_add_char(out, peek(r));
            skip(r, 1);
        }
    }
    return false;
}

/* Is a string next, with its prefix? Sets the prefix' length. */
static bool at_string(struct reader *r, size_t *prefix, bool *raw)
{
    char c = peek(r);

    *prefix = 0;
    *raw = false;
    if (c != '\0' && strchr("rRuU", c) && r->rest.size > 1) {
        *prefix = 1;
        *raw = (c | 0x20) == 'r';
        c = r->rest.at[1];
    }
    return c == '"' || c == '\'';
}

/* Literals side by side are one string. */
static bool read_string(struct reader *r, struct strbuf *out)
{
    struct strbuf text = {0};
    size_t prefix;
    bool raw, ok = true;

    while (ok && at_string(r, &prefix, &raw)) {
        skip(r, prefix);
        ok = read_quoted(r, raw, &text);
        if (ok && r->depth)
            peek_token(r);
        else
            while (peek(r) == ' ' || peek(r) == '\t')
                skip(r, 1);
    }
    if (ok)
        strbuf_add_json(out, text.data ? text.data : "", text.size);
    if (text.failed)
        out->failed = true;
    strbuf_release(&text);
    return ok;
}

static bool read_name(struct reader *r, struct strbuf *out)
{
    static const struct {
        const char *name, *json;
        bool python;
    } names[] = {{"True", "true", true},  {"False", "false", true},  {"None", "null", true},
                 {"true", "true", false}, {"false", "false", false}, {"null", "null", false}};
    struct span word = span_first(r->rest, word_at_start(r->rest, '\0'));

    for (size_t i = 0; i < COUNT(names); i++)
        if (span_is(word, names[i].name) && (names[i].python || r->json_names)) {
            skip(r, word.size);
            strbuf_add_str(out, names[i].json);
            return true;
        }
    if (!span_is(word, "set"))
        return false;
    skip(r, word.size); /* set() is the one call that is a literal */
    if (peek_token(r) != '(')
        return false;
    skip(r, 1);
    if (peek_token(r) != ')')
        return false;
    skip(r, 1);
    strbuf_add_str(out, "[]");
    return true;
}

/* The items up to the bracket that closes, as an array; *count and *comma say what a round
 * bracket was: (1) is a number, (1,) a tuple. */
static bool read_items(struct reader *r, char close, struct strbuf *out, size_t *count, bool *comma)
{
    *count = 0;
    *comma = false;
    while (peek_token(r) != close) {
        if (*count && !*comma)
            return false;
        if (*count)
            strbuf_add_str(out, ", ");
        if (!read_value(r, out))
            return false;
        ++*count;
        *comma = peek_token(r) == ',';
        if (*comma)
            skip(r, 1);
    }
    skip(r, 1);
    return r->rest.at != NULL;
}

static bool read_round(struct reader *r, struct strbuf *out)
{
    struct strbuf items = {0};
    size_t count;
    bool comma, ok;

    skip(r, 1);
    ok = read_items(r, ')', &items, &count, &comma);
    if (ok && count == 1 && !comma) {
        strbuf_add(out, items.data, items.size);
    } else if (ok) {
        strbuf_add_char(out, '[');
        strbuf_add(out, items.data ? items.data : "", items.size);
        strbuf_add_char(out, ']');
    }
    if (items.failed)
        out->failed = true;
    strbuf_release(&items);
    return ok;
}

static bool read_list(struct reader *r, struct strbuf *out)
{
    size_t count;
    bool comma;

    skip(r, 1);
    strbuf_add_char(out, '[');
    if (!read_items(r, ']', out, &count, &comma))
        return false;
    strbuf_add_char(out, ']');
    return true;
}

/* A key as json.dumps writes it: strings stay, numbers and names become strings. */
static bool add_key(struct span json, struct strbuf *out)
{
    if (json.at[0] == '"')
        strbuf_add(out, json.at, json.size);
    else if (json.at[0] == '[' || json.at[0] == '{')
        return false;
    else
        strbuf_add_json(out, json.at, json.size);
    return true;
}

/* What follows {: a dict or a set, known after the first value. */
static bool read_entries(struct reader *r, struct strbuf *first, bool *dict, struct strbuf *out)
{
    struct strbuf key = {0};
    bool ok = true, comma = true;

    *dict = true;
    for (size_t count = 0; ok && peek_token(r) != '}'; count++) {
        strbuf_clear(&key);
        ok = comma && read_value(r, &key) && key.data && !key.failed;
        if (!ok)
            break;
        if (count == 0)
            *dict = peek_token(r) == ':';
        else
            strbuf_add_str(out, ", ");
        if (*dict) {
            ok = add_key((struct span){key.data, key.size}, out) && peek_token(r) == ':';
            if (!ok)
                break;
            skip(r, 1);
            strbuf_add_str(out, ": ");
            ok = read_value(r, out);
        } else {
            strbuf_add(out, key.data, key.size);
        }
        comma = peek_token(r) == ',';
        if (comma)
            skip(r, 1);
    }
    if (key.failed)
        first->failed = true;
    strbuf_release(&key);
    if (!ok || !r->rest.size)
        return false;
    skip(r, 1);
    return true;
}

static bool read_braces(struct reader *r, struct strbuf *out)
{
    struct strbuf entries = {0};
    bool dict, ok;

    skip(r, 1);
    ok = read_entries(r, out, &dict, &entries);
    if (ok) {
        strbuf_add_char(out, dict ? '{' : '[');
        strbuf_add(out, entries.data ? entries.data : "", entries.size);
        strbuf_add_char(out, dict ? '}' : ']');
    }
    if (entries.failed)
        out->failed = true;
    strbuf_release(&entries);
    return ok;
}

/* A sign stands before a number only. */
static bool read_signed(struct reader *r, struct strbuf *out)
{
    char c = peek(r);

    skip(r, 1);
    if (c == '-')
        strbuf_add_char(out, '-');
    c = peek_token(r);
    return (is_digit(c) || c == '.') && read_number(r, out);
}

static bool read_value(struct reader *r, struct strbuf *out)
{
    char c = peek_token(r);
    size_t prefix;
    bool raw, ok;

    if (r->depth == LITERAL_MAX_DEPTH || !r->rest.size)
        return false;
    if (at_string(r, &prefix, &raw))
        return read_string(r, out);
    if (c == '+' || c == '-')
        return read_signed(r, out);
    if (is_digit(c) || c == '.')
        return read_number(r, out);
    if (c != '(' && c != '[' && c != '{')
        return read_name(r, out);
    r->depth++;
    ok = c == '(' ? read_round(r, out) : c == '[' ? read_list(r, out) : read_braces(r, out);
    r->depth--;
    return ok;
}

static void cut(struct strbuf *out, size_t size)
{
    if (!out->data)
        return;
    out->size = size;
    out->data[size] = '\0';
}

/* Blank lines and comments before a value, as far as they may stand there: the value's own line is
 * not indented, unless it is the first. */
static bool skip_blank_lines(struct span *s)
{
    bool first = true;

    for (;; first = false) {
        size_t i = 0;

        while (i < s->size && s->at[i] != '\0' && strchr(" \t\f", s->at[i]))
            i++;
        if (i < s->size && s->at[i] == '#')
            while (i < s->size && s->at[i] != '\n' && s->at[i] != '\r')
                i++;
        if (i == s->size || (s->at[i] != '\n' && s->at[i] != '\r')) {
            if (i && !first)
                return false;
            *s = span_from(*s, i);
            return true;
        }
        *s = span_from(*s, i + 1);
    }
}

/* White space in the last line, behind a line end, is an indentation to Python. */
static bool ends_indented(struct span s)
{
    size_t i = s.size;

    while (i && (s.at[i - 1] == ' ' || s.at[i - 1] == '\t' || s.at[i - 1] == '\f'))
        i--;
    return i && i < s.size && (s.at[i - 1] == '\n' || s.at[i - 1] == '\r');
}

/* Values with commas between them are a tuple, without brackets too. */
bool literal_to_json(struct span s, struct strbuf *out)
{
    size_t before = out->size, count = 0;
    struct strbuf items = {0};
    struct reader r = {0};
    bool comma = false, ok = skip_blank_lines(&s);

    r.rest = s;
    for (char c = 'x'; ok && (count == 0 || (comma && c != '\0' && !strchr("\r\n#", c)));) {
        if (count++)
            strbuf_add_str(&items, ", ");
        ok = read_value(&r, &items);
        comma = ok && peek_token(&r) == ',';
        if (comma)
            skip(&r, 1);
        c = peek_token(&r);
    }
    ok = ok && python_space(r.rest) == r.rest.size && !ends_indented(r.rest);
    if (ok && (comma || count > 1)) {
        strbuf_add_char(out, '[');
        strbuf_add(out, items.data, items.size);
        strbuf_add_char(out, ']');
    } else if (ok) {
        strbuf_add(out, items.data, items.size);
    }
    if (items.failed)
        out->failed = true;
    strbuf_release(&items);
    if (!ok)
        cut(out, before);
    return ok;
}

static size_t identifier(struct span s)
{
    return s.size && is_digit(s.at[0]) ? 0 : word_at_start(s, '\0');
}

static bool is_keyword(struct span s)
{
    static const char *const words[] = {
        "False", "None",     "True",  "and",    "as",   "assert", "async",  "await",    "break",
        "class", "continue", "def",   "del",    "elif", "else",   "except", "finally",  "for",
        "from",  "global",   "if",    "import", "in",   "is",     "lambda", "nonlocal", "not",
        "or",    "pass",     "raise", "return", "try",  "while",  "with",   "yield"};

    for (size_t i = 0; i < COUNT(words); i++)
        if (span_is(s, words[i]))
            return true;
    return false;
}

size_t call_name(struct span s, struct strbuf *name)
{
    struct reader r = {.rest = s, .depth = 1};
    char c;

    do {
        size_t n;

        peek_token(&r);
        n = identifier(r.rest);
        if (!n || is_keyword(span_first(r.rest, n)))
            return 0;
        strbuf_add(name, r.rest.at, n);
        skip(&r, n);
        c = peek_token(&r);
        if (c == '.')
            strbuf_add_char(name, c);
        if (c)
            skip(&r, 1);
    } while (c == '.');
    return c == '(' ? s.size - r.rest.size : 0;
}

size_t call_argument(struct span s, struct span *key, struct strbuf *value, bool *last)
{
    struct reader r = {.rest = s, .depth = 1, .json_names = true};
    char c;

    peek_token(&r);
    *key = span_first(r.rest, identifier(r.rest));
    if (!key->size || is_keyword(*key))
        return 0;
    skip(&r, key->size);
    if (peek_token(&r) != '=')
        return 0;
    skip(&r, 1);
    if (!read_value(&r, value))
        return 0;
    c = peek_token(&r);
    if (c != ',' && c != ')')
        return 0;
    skip(&r, 1);
    *last = c == ')';
    return s.size - r.rest.size;
}
