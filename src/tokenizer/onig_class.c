/* tokenizer/onig_class.c: bracket expressions, shorthands and properties.
 *
 * A set is kept as items that PCRE2 can hold in one pair of brackets, and as alternatives, each an
 * expression for one character, for what it cannot: negated sets within sets, intersections.
 */
#include "tokenizer/onig_class.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "tokenizer/unicode.h"

#define MAX_DEPTH 64
#define ANY_CHARACTER "[\\x{0}-\\x{10FFFF}]"
#define SPACE_ITEMS                                                                                \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"    \
    "\\x{205F}\\x{3000}"
#define HEX_ITEMS "0-9A-Fa-f"

/* PCRE2's \p{Han} means Script_Extensions since 10.40. */
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
#define SCRIPT "sc:"
#else
#define SCRIPT ""
#endif

struct set {
    struct strbuf items;
    struct strbuf alternatives; /* each begins with '|' */
};

static void set_release(struct set *set)
{
    strbuf_release(&set->items);
    strbuf_release(&set->alternatives);
}

int onig_unsupported(struct onig *o, const char *what)
{
    return fail(o->r->err, CLM_ERR_UNSUPPORTED,
                "%s: %s: %s at byte %zu of the expression \"%.120s\" is not supported", o->r->name,
                o->r->part, what, o->at, o->s);
}

void onig_add_char(struct strbuf *out, int32_t c)
{
    if (c < 0x80 && isalnum((int)c))
        strbuf_add_char(out, (char)c);
    else
        strbuf_addf(out, "\\x{%X}", (unsigned)c);
}

/* Properties. */

static void add_ranges(struct strbuf *items, const char *value, bool script)
{
    const struct unicode_range *range;

    for (size_t i = 0; (range = script ? unicode_script_added(value, &i)
                                       : unicode_category_added(value, &i)) != NULL;)
        strbuf_addf(items, "\\x{%X}-\\x{%X}", (unsigned)range->first, (unsigned)range->last);
}

static void add_category(struct strbuf *items, const char *category)
{
    strbuf_addf(items, "\\p{%s}", category);
    add_ranges(items, category, false);
}

static void add_word_items(struct strbuf *items, bool in_class)
{
    static const char *const categories[] = {"L", "M", "Nd", "Nl", "Pc"};

    for (size_t i = 0; i < COUNT(categories); i++)
        add_category(items, categories[i]);
    /* Alphabetic symbols */
    strbuf_add_str(items, "\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}"
                          "\\x{1F170}-\\x{1F189}");
    /* Outside of brackets Oniguruma counts six numbers of Latin-1 in. */
    if (!in_class)
        strbuf_add_str(items, "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}");
}

static const struct {
    const char *name;
    const char *category;
} long_names[] = {
    {"Letter", "L"},
    {"Uppercase_Letter", "Lu"},
    {"Lowercase_Letter", "Ll"},
    {"Titlecase_Letter", "Lt"},
    {"Modifier_Letter", "Lm"},
    {"Other_Letter", "Lo"},
    {"Mark", "M"},
    {"Nonspacing_Mark", "Mn"},
    {"Spacing_Mark", "Mc"},
    {"Enclosing_Mark", "Me"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"Letter_Number", "Nl"},
    {"Other_Number", "No"},
    {"Punctuation", "P"},
    {"Connector_Punctuation", "Pc"},
    {"Dash_Punctuation", "Pd"},
    {"Open_Punctuation", "Ps"},
    {"Close_Punctuation", "Pe"},
    {"Initial_Punctuation", "Pi"},
    {"Final_Punctuation", "Pf"},
    {"Other_Punctuation", "Po"},
    {"Symbol", "S"},
    {"Math_Symbol", "Sm"},
    {"Currency_Symbol", "Sc"},
    {"Modifier_Symbol", "Sk"},
    {"Other_Symbol", "So"},
    {"Separator", "Z"},
    {"Space_Separator", "Zs"},
    {"Line_Separator", "Zl"},
    {"Paragraph_Separator", "Zp"},
    {"Control", "Cc"},
    {"Format", "Cf"},
    {"Private_Use", "Co"},
};

/* The one or two letters of a general category, or NULL. Cn and C would lose what Unicode 15 and 16
 * assigned, which an addition to a set cannot say. */
static const char *category_of(const char *name)
{
    static const char letters[][8] = {"L", "M", "N", "P", "S", "Z"};
    size_t n = strlen(name);

    for (size_t i = 0; i < COUNT(long_names); i++) {
        if (!strcasecmp(name, long_names[i].name) || !strcasecmp(name, long_names[i].category))
            return long_names[i].category;
    }
    for (size_t i = 0; n == 1 && i < COUNT(letters); i++) {
        if (!strcasecmp(name, letters[i]))
            return letters[i];
    }
    return NULL;
}

static int add_property(struct onig *o, const char *name, bool in_class, struct strbuf *items)
{
    const char *category = category_of(name);
    static const char *const refused[] = {"C",          "Cn", "Any",       "Assigned", "Other",
                                          "Unassigned", "Cs", "Surrogate", "Unknown",  "Zzzz"};

    for (size_t i = 0; i < COUNT(refused); i++) {
        if (!strcasecmp(name, refused[i]))
            return onig_unsupported(o, "this property");
    }
    if (category)
        add_category(items, category);
    else if (!strcasecmp(name, "space") || !strcasecmp(name, "White_Space"))
        strbuf_add_str(items, SPACE_ITEMS);
    else if (!strcasecmp(name, "digit"))
        add_category(items, "Nd");
    else if (!strcasecmp(name, "word"))
        add_word_items(items, in_class);
    else if (!strcasecmp(name, "xdigit"))
        strbuf_add_str(items, HEX_ITEMS);
    else if (!strcasecmp(name, "ascii"))
        strbuf_add_str(items, "\\x{0}-\\x{7F}");
    else if (!strcasecmp(name, "cntrl"))
        strbuf_add_str(items, "\\p{Cc}");
    else if (strlen(name) > 1 && isupper((unsigned char)name[0]) &&
             strcasecmp(name, "Alphabetic") && strcasecmp(name, "Uppercase") &&
             strcasecmp(name, "Lowercase")) {
        /* A script; what PCRE2 does not know as one fails when the expression is compiled. */
        strbuf_addf(items, "\\p{" SCRIPT "%s}", name);
        add_ranges(items, name, true);
    } else {
        return onig_unsupported(o, "this property");
    }
    return 0;
}

/* Reads {^Name}, o->at behind 'p' or 'P'. */
static int read_property(struct onig *o, bool in_class, bool *negated, struct strbuf *items)
{
    char name[48];
    size_t n = 0;

    if (o->at >= o->n || o->s[o->at] != '{')
        return onig_unsupported(o, "a property without braces");
    o->at++;
    if (o->at < o->n && o->s[o->at] == '^') {
        *negated = !*negated;
        o->at++;
    }
    while (o->at < o->n && o->s[o->at] != '}') {
        if (n + 1 >= sizeof name || !(isalnum((unsigned char)o->s[o->at]) || o->s[o->at] == '_'))
            return onig_unsupported(o, "this property");
        name[n++] = o->s[o->at++];
    }
    if (o->at >= o->n)
        return onig_unsupported(o, "an open brace");
    name[n] = '\0';
    if (add_property(o, name, in_class, items))
        return -1;
    o->at++;
    return 0;
}

/* The items of \s and its like; 1, 0 for another escape, -1. */
static int shorthand_items(struct onig *o, bool in_class, bool *negated, struct strbuf *items)
{
    char kind = o->at < o->n ? o->s[o->at] : '\0';

    *negated = kind == 'S' || kind == 'D' || kind == 'W' || kind == 'H' || kind == 'P';
    switch (kind) {
    case 's':
    case 'S':
        strbuf_add_str(items, SPACE_ITEMS);
        break;
    case 'd':
    case 'D':
        add_category(items, "Nd");
        break;
    case 'w':
    case 'W':
        add_word_items(items, in_class);
        break;
    case 'h':
    case 'H':
        strbuf_add_str(items, HEX_ITEMS);
        break;
    case 'p':
    case 'P':
        o->at++;
        return read_property(o, in_class, negated, items) ? -1 : 1;
    default:
        return 0;
    }
    o->at++;
    return 1;
}

static void add_bracketed(struct strbuf *out, const struct strbuf *items, bool negated)
{
    strbuf_add_str(out, negated ? "[^" : "[");
    strbuf_add(out, items->data, items->size);
    strbuf_add_char(out, ']');
}

int onig_shorthand(struct onig *o, struct strbuf *out)
{
    struct strbuf items = {0};
    bool negated;
    int rc = shorthand_items(o, false, &negated, &items);

    if (rc > 0)
        add_bracketed(out, &items, negated);
    out->failed |= items.failed;
    strbuf_release(&items);
    return rc;
}

/* Escapes for single characters. */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Up to most hexadecimal digits at o->at. */
static int read_hex(struct onig *o, int least, int most, int32_t *c)
{
    int n = 0;

    for (*c = 0; n < most && o->at < o->n && hex_value(o->s[o->at]) >= 0; n++)
        *c = *c << 4 | hex_value(o->s[o->at++]);
    if (n < least || *c > 0x10FFFF || (*c >= 0xD800 && *c < 0xE000))
        return onig_unsupported(o, "this code point");
    return 1;
}

int onig_escaped_char(struct onig *o, int32_t *c)
{
    static const char letters[] = "tnrfvae", values[] = "\t\n\r\f\v\a\x1b";
    unsigned char kind = o->at < o->n ? (unsigned char)o->s[o->at] : '\0';
    const char *known = kind ? strchr(letters, kind) : NULL;
    int rc;

    if (o->at >= o->n)
        return onig_unsupported(o, "a backslash at the end");
    if (known) {
        o->at++;
        *c = (unsigned char)values[known - letters];
        return 1;
    }
    if (kind == 'u') {
        o->at++;
        return read_hex(o, 4, 4, c);
    }
    if (kind == 'x' && o->at + 1 < o->n && o->s[o->at + 1] == '{') {
        o->at += 2;
        rc = read_hex(o, 1, 8, c);
        if (rc > 0 && (o->at >= o->n || o->s[o->at++] != '}'))
            return onig_unsupported(o, "this code point");
        return rc;
    }
    if (kind == 'x') {
        o->at++;
        rc = read_hex(o, 1, 2, c);
        return rc > 0 && *c > 0x7F ? onig_unsupported(o, "a byte") : rc;
    }
    if (kind == '0' && (o->at + 1 >= o->n || !isdigit((unsigned char)o->s[o->at + 1]))) {
        o->at++;
        *c = 0;
        return 1;
    }
    if (kind < 0x80 && isalnum(kind))
        return 0;
    o->at += utf8_decode(o->s + o->at, o->n - o->at, c);
    return 1;
}

/* Bracket expressions. */

static void set_finish(struct set *set, bool negated, struct strbuf *out)
{
    bool items = set->items.size > 0, alternatives = set->alternatives.size > 0;

    if (!items && !alternatives) {
        strbuf_add_str(out, negated ? ANY_CHARACTER : "(?!)");
    } else if (!alternatives) {
        add_bracketed(out, &set->items, negated);
    } else {
        strbuf_add_str(out, negated ? "(?:(?!" : "(?:");
        if (items)
            add_bracketed(out, &set->items, false);
        strbuf_add(out, set->alternatives.data + !items, set->alternatives.size - !items);
        strbuf_add_str(out, negated ? ")" ANY_CHARACTER ")" : ")");
    }
    out->failed |= set->items.failed | set->alternatives.failed;
}

static void add_alternative(struct set *set, const struct strbuf *expression)
{
    strbuf_add_char(&set->alternatives, '|');
    strbuf_add(&set->alternatives, expression->data, expression->size);
    set->alternatives.failed |= expression->failed;
}

/* Of these two the property of the name is another set, or there is none. */
static int add_posix(struct onig *o, const char *name, struct strbuf *items)
{
    if (!strcmp(name, "blank")) {
        strbuf_add_str(items, "\\x{9}");
        add_category(items, "Zs");
    } else if (!strcmp(name, "punct")) {
        add_category(items, "P");
        add_category(items, "S");
    } else {
        return add_property(o, name, true, items);
    }
    return 0;
}

/* [:name:], o->at at its '['; 0 where it is no such thing. */
static int read_posix(struct onig *o, struct set *set)
{
    static const char *const names[] = {"ascii", "blank", "cntrl", "digit",
                                        "punct", "space", "word",  "xdigit"};
    const char *s = o->s + o->at;
    size_t left = o->n - o->at;

    if (left < 2 || s[1] != ':')
        return 0;
    for (size_t i = 0; i < COUNT(names); i++) {
        size_t n = strlen(names[i]);

        if (left >= n + 4 && !memcmp(s + 2, names[i], n) && !memcmp(s + 2 + n, ":]", 2)) {
            o->at += n + 4;
            return add_posix(o, names[i], &set->items) ? -1 : 1;
        }
    }
    return onig_unsupported(o, "this bracket expression");
}

static int read_nested(struct onig *o, struct set *set)
{
    struct strbuf expression = {0};
    int rc = read_posix(o, set);

    if (rc)
        return rc < 0 ? -1 : 0;
    o->at++;
    rc = onig_class(o, &expression);
    add_alternative(set, &expression);
    strbuf_release(&expression);
    return rc;
}

/* \s and its like within brackets; 1, 0 for another escape, -1. */
static int read_class_shorthand(struct onig *o, struct set *set)
{
    struct strbuf items = {0}, expression = {0};
    bool negated;
    int rc = shorthand_items(o, true, &negated, &items);

    if (rc > 0 && !negated)
        strbuf_add(&set->items, items.data, items.size);
    if (rc > 0 && negated) {
        add_bracketed(&expression, &items, true);
        add_alternative(set, &expression);
    }
    set->items.failed |= items.failed;
    strbuf_release(&items);
    strbuf_release(&expression);
    return rc;
}

/* A character of a class, as an end of a range too: 1 and *c, 0 where a shorthand was read, -1. */
static int read_class_char(struct onig *o, struct set *set, int32_t *c)
{
    int rc;

    if (o->s[o->at] != '\\') {
        o->at += utf8_decode(o->s + o->at, o->n - o->at, c);
        return 1;
    }
    o->at++;
    if (o->at < o->n && o->s[o->at] == 'b') {
        o->at++;
        *c = '\b';
        return 1;
    }
    rc = set ? read_class_shorthand(o, set) : 0;
    if (rc)
        return rc < 0 ? -1 : 0;
    rc = onig_escaped_char(o, c);
    return rc ? rc : onig_unsupported(o, "this escape");
}

static int read_range(struct onig *o, struct set *set)
{
    int32_t first, last;
    int rc = read_class_char(o, set, &first);

    if (rc <= 0)
        return rc;
    onig_add_char(&set->items, first);
    if (o->at + 1 >= o->n || o->s[o->at] != '-' || o->s[o->at + 1] == ']')
        return 0;
    if (o->s[o->at + 1] == '[' ||
        (o->s[o->at + 1] == '&' && o->at + 2 < o->n && o->s[o->at + 2] == '&'))
        return onig_unsupported(o, "this range");
    o->at++;
    if (read_class_char(o, NULL, &last) < 0)
        return -1;
    if (last < first)
        return onig_unsupported(o, "an empty range");
    strbuf_add_char(&set->items, '-');
    onig_add_char(&set->items, last);
    return 0;
}

/* One operand of &&: up to "]" or "&&". */
static int read_operand(struct onig *o, struct set *set, bool first_operand)
{
    size_t start = o->at;

    while (o->at < o->n) {
        char c = o->s[o->at];
        bool first = o->at == start && first_operand;

        if (c == ']' && !first)
            return 0;
        if (c == '&' && o->at + 1 < o->n && o->s[o->at + 1] == '&')
            return 0;
        if (c == '[' ? read_nested(o, set) : read_range(o, set))
            return -1;
    }
    return onig_unsupported(o, "an open bracket");
}

static int read_operands(struct onig *o, bool negated, struct strbuf *out)
{
    struct set whole = {0};
    struct strbuf product = {0};
    int operands = 0, rc;

    for (;;) {
        struct set set = {0};
        bool last;

        rc = read_operand(o, &set, operands == 0);
        last = !rc && o->s[o->at] == ']';
        if (!rc && last && !operands) {
            o->at++;
            set_finish(&set, negated, out);
            set_release(&set);
            return 0;
        }
        strbuf_add_str(&product, last ? "" : operands ? "(?=" : "(?:(?=");
        set_finish(&set, false, &product);
        strbuf_add_str(&product, ")");
        set_release(&set);
        if (rc || last)
            break;
        operands++;
        o->at += 2;
    }
    if (!rc) {
        o->at++;
        add_alternative(&whole, &product);
        set_finish(&whole, negated, out);
    }
    strbuf_release(&product);
    set_release(&whole);
    return rc;
}

int onig_class(struct onig *o, struct strbuf *out)
{
    bool negated = o->at < o->n && o->s[o->at] == '^';
    int rc;

    if (++o->depth > MAX_DEPTH)
        return onig_unsupported(o, "nesting this deep");
    o->at += negated;
    rc = read_operands(o, negated, out);
    o->depth--;
    return rc;
}
