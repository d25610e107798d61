#include "parse/convert.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "parse/json_text.h"
#include "parse/literal.h"

static int add_string(struct span text, struct strbuf *out)
{
    strbuf_add_json(out, text.size ? text.at : "", text.size);
    return 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number as Python's int() and float() read it: its parts, without white space around. */
struct decimal {
    bool negative;
    struct span whole, fraction; /* digits and underscores */
    bool has_point;
    long exponent; /* clamped */
    struct span exponent_text;
};

/* Digits with single underscores between them, at the start of *s; moves *s behind them. */
static struct span take_digits(struct span *s)
{
    size_t i = 0;

    while (i < s->size && (is_digit(s->at[i]) || (s->at[i] == '_' && i && is_digit(s->at[i - 1]) &&
                                                  i + 1 < s->size && is_digit(s->at[i + 1]))))
        i++;
    struct span digits = span_first(*s, i);
    *s = span_from(*s, i);
    return digits;
}

static bool take_sign(struct span *s, bool *negative)
{
    *negative = s->size && s->at[0] == '-';
    if (s->size && (s->at[0] == '-' || s->at[0] == '+')) {
        *s = span_from(*s, 1);
        return true;
    }
    return false;
}

static bool take_exponent(struct span *s, struct decimal *d)
{
    struct span begin = *s, digits;
    bool negative;

    *s = span_from(*s, 1);
    take_sign(s, &negative);
    digits = take_digits(s);
    if (!digits.size)
        return false;
    d->exponent_text = span_first(begin, begin.size - s->size);
    for (size_t i = 0; i < digits.size; i++)
        if (is_digit(digits.at[i]) && d->exponent < 100000)
            d->exponent = d->exponent * 10 + (digits.at[i] - '0');
    if (negative)
        d->exponent = -d->exponent;
    return true;
}

static bool read_decimal(struct span s, struct decimal *d)
{
    *d = (struct decimal){0};
    s = span_strip(s);
    take_sign(&s, &d->negative);
    d->whole = take_digits(&s);
    if (s.size && s.at[0] == '.') {
        d->has_point = true;
        s = span_from(s, 1);
        d->fraction = take_digits(&s);
    }
    if (!d->whole.size && !d->fraction.size)
        return false;
    if (s.size && (s.at[0] | 0x20) == 'e' && !take_exponent(&s, d))
        return false;
    return s.size == 0;
}

static bool is_infinite(struct span s)
{
    bool negative;

    s = span_strip(s);
    take_sign(&s, &negative);
    return span_is_nocase(s, "inf") || span_is_nocase(s, "infinity");
}

static void add_digits(struct span s, struct strbuf *out)
{
    for (size_t i = 0; i < s.size; i++)
        if (s.at[i] != '_')
            strbuf_add_char(out, s.at[i]);
}

static int add_integer(const struct decimal *d, struct strbuf *out)
{
    bool zero = true;

    for (size_t i = 0; i < d->whole.size; i++)
        zero = zero && (d->whole.at[i] == '0' || d->whole.at[i] == '_');
    if (d->negative && !zero)
        strbuf_add_char(out, '-');
    return integer_to_json(d->whole, out) ? 0 : -1;
}

/* The value as a double, through text without a decimal point, whatever the locale calls it. */
static double decimal_value(const struct decimal *d)
{
    struct strbuf text = {0};
    size_t fraction = 0;
    double value;

    for (size_t i = 0; i < d->fraction.size; i++)
        fraction += d->fraction.at[i] != '_';
    add_digits(d->whole, &text);
    add_digits(d->fraction, &text);
    strbuf_addf(&text, "e%ld", d->exponent - (long)fraction);
    value = text.failed ? (double)NAN : strtod(text.data, NULL);
    strbuf_release(&text);
    return d->negative ? -value : value;
}

/* A float that is no whole number, with the digits it was written with. */
static void add_real(const struct decimal *d, struct strbuf *out)
{
    struct span whole = d->whole;

    if (d->negative)
        strbuf_add_char(out, '-');
    while (whole.size > 1 && (whole.at[0] == '0' || whole.at[0] == '_'))
        whole = span_from(whole, 1);
    if (whole.size)
        add_digits(whole, out);
    else
        strbuf_add_char(out, '0');
    if (d->fraction.size) {
        strbuf_add_char(out, '.');
        add_digits(d->fraction, out);
    }
    add_digits(d->exponent_text, out);
}

enum number { NUMBER_NONE, NUMBER_DONE, NUMBER_INFINITE, NUMBER_NOT_WHOLE };

/* float(text): an integer where it is a whole number, as both references give it. */
static enum number add_number(struct span text, bool whole_only, struct strbuf *out)
{
    struct decimal d;
    double value;

    if (is_infinite(text))
        return NUMBER_INFINITE;
    if (!read_decimal(text, &d))
        return NUMBER_NONE;
    value = decimal_value(&d);
    if (isnan(value)) {
        out->failed = true;
        return NUMBER_NONE;
    }
    if (isinf(value))
        return NUMBER_INFINITE;
    if (value == trunc(value)) {
        strbuf_addf(out, "%.0f", value == 0 ? 0.0 : value);
        return NUMBER_DONE;
    }
    if (whole_only)
        return NUMBER_NOT_WHOLE;
    add_real(&d, out);
    return NUMBER_DONE;
}

static bool starts(const char *word, const char *prefix)
{
    return strncmp(word, prefix, strlen(prefix)) == 0;
}

static bool is_one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(word, *list) == 0)
            return true;
    return false;
}

static const char *const string_words[] = {"string", "str",  "text", "varchar",
                                           "char",   "enum", NULL};

bool convert_always_string_by_type(const json *schema)
{
    char word[24];

    return !schema_type_word(schema, word) || is_one_of(word, string_words);
}

/* No type declared: containers in JSON are read, all else stays a string. */
static int convert_undeclared(struct span text, struct strbuf *out)
{
    size_t space = json_space_at_start(text);

    if (space < text.size && (text.at[space] == '{' || text.at[space] == '[') &&
        json_text_whole(text, false, out))
        return 0;
    return add_string(text, out);
}

static int number_result(enum number result, const char *expected, const char **why)
{
    *why = expected;
    return result == NUMBER_DONE ? 0 : -1;
}

int convert_by_type(struct span text, const json *schema, struct strbuf *out, const char **why)
{
    static const char *const bools[] = {"boolean", "bool", "binary", NULL};
    static const char *const containers[] = {"object", "array", "arr", NULL};
    char word[24];

    if (span_is_nocase(text, "null")) {
        strbuf_add_str(out, "null");
        return 0;
    }
    if (convert_always_string_by_type(schema))
        return add_string(text, out);
    schema_type_word(schema, word);
    if (!word[0])
        return convert_undeclared(text, out);
    if (starts(word, "int") || starts(word, "uint") || starts(word, "long") ||
        starts(word, "short") || starts(word, "unsigned"))
        return number_result(add_number(text, true, out), "a whole number", why);
    if (starts(word, "num") || starts(word, "float"))
        return number_result(add_number(text, false, out), "a number", why);
    if (is_one_of(word, bools)) {
        strbuf_add_str(out, span_is_nocase(text, "true") ? "true" : "false");
        return 0;
    }
    if ((is_one_of(word, containers) || starts(word, "dict") || starts(word, "list")) &&
        json_text_whole(text, true, out))
        return 0;
    return literal_to_json(text, out) ? 0 : add_string(text, out);
}

bool convert_always_string_by_types(const json *schema)
{
    return schema_types(schema) == TYPE_STRING;
}

/* int(text): digits with a sign; no fraction, no exponent. */
static bool add_python_int(struct span text, struct strbuf *out)
{
    struct decimal d;

    return read_decimal(text, &d) && d.whole.size && !d.has_point && !d.exponent_text.size &&
           add_integer(&d, out) == 0;
}

static bool add_bool(struct span text, struct strbuf *out)
{
    static const char *const yes[] = {"true", "1", "yes", "on"};
    static const char *const no[] = {"false", "0", "no", "off"};

    text = span_strip(text);
    for (size_t i = 0; i < COUNT(yes); i++)
        if (span_is_nocase(text, yes[i]) || span_is_nocase(text, no[i])) {
            strbuf_add_str(out, span_is_nocase(text, yes[i]) ? "true" : "false");
            return true;
        }
    return false;
}

int convert_by_types(struct span text, const json *schema, struct strbuf *out, const char **why)
{
    unsigned types = schema_types(schema);
    enum number number = NUMBER_NONE;

    if (span_is_nocase(text, "null") ||
        (types & TYPE_NULL && (span_is_nocase(text, "none") || span_is_nocase(text, "nil")))) {
        strbuf_add_str(out, "null");
        return 0;
    }
    if (types & TYPE_INTEGER && add_python_int(text, out))
        return 0;
    if (types & TYPE_NUMBER)
        number = add_number(text, false, out);
    if (number == NUMBER_INFINITE) {
        *why = "a finite number";
        return -1;
    }
    if (number == NUMBER_DONE || (types & TYPE_BOOLEAN && add_bool(text, out)))
        return 0;
    if (types & TYPE_OBJECT && (json_text_whole(text, true, out) || literal_to_json(text, out)))
        return 0;
    if (types & TYPE_STRING || !json_text_whole(text, false, out))
        return add_string(text, out);
    return 0;
}

bool convert_always_string_literal(const json *schema)
{
    struct span type;

    type.at = json_string(json_get(schema, "type"), &type.size);
    return type.at && span_is(type, "string");
}

int convert_literal(struct span text, const json *schema, struct strbuf *out, const char **why)
{
    (void)why;
    if (convert_always_string_literal(schema))
        return add_string(text, out);
    if (json_text_whole(text, false, out) || literal_to_json(text, out))
        return 0;
    return add_string(text, out);
}

int convert_json(struct span text, const json *schema, struct strbuf *out, const char **why)
{
    (void)schema;
    (void)why;
    return json_text_whole(text, false, out) ? 0 : add_string(span_strip(text), out);
}
