#include "parse/json_text.h"

#include "base/utf8.h"

enum state {
    VALUE,      /* a value must follow */
    FIRST_ITEM, /* a value or ] */
    FIRST_KEY,  /* a key or } */
    KEY,        /* a key must follow */
    COLON,
    AFTER_VALUE, /* , or the bracket that closes */
    STRING,
    ESCAPE,
    HEX,   /* count digits of \u are read */
    WORD,  /* a name or -Infinity; word[0..count) is read */
    MINUS, /* a digit or I must follow */
    ZERO,
    DIGITS,
    POINT, /* a digit must follow */
    FRACTION,
    EXPONENT, /* a sign or a digit must follow */
    EXPONENT_SIGN,
    EXPONENT_DIGITS,
    DONE,
    BROKEN /* a byte did not fit: it will not, however often it comes */
};

/* A string in the place of a key is followed by a colon: depth tells nothing of that, a bit does.
 */
#define IN_KEY 0x80

static bool is_json_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

size_t json_space_at_start(struct span s)
{
    size_t i = 0;

    while (i < s.size && is_json_space(s.at[i]))
        i++;
    return i;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void put(struct strbuf *out, char c)
{
    if (out)
        strbuf_add_char(out, c);
}

static void put_text(struct strbuf *out, const char *s)
{
    if (out)
        strbuf_add_str(out, s);
}

static bool in_object(const struct json_text *j)
{
    return j->depth && (j->in_object[(j->depth - 1) / 8] >> (j->depth - 1) % 8 & 1);
}

static bool push(struct json_text *j, bool object)
{
    if (j->depth == JSON_TEXT_MAX_DEPTH)
        return false;
    j->in_object[j->depth / 8] &= (uint8_t) ~(1u << j->depth % 8);
    j->in_object[j->depth / 8] |= (uint8_t)((unsigned)object << j->depth % 8);
    j->depth++;
    j->state = object ? FIRST_KEY : FIRST_ITEM;
    return true;
}

static void value_done(struct json_text *j)
{
    j->state = j->depth ? AFTER_VALUE : DONE;
}

static bool begin_value(struct json_text *j, char c, struct strbuf *out)
{
    switch (c) {
    case '{':
    case '[':
        put(out, c);
        return push(j, c == '{');
    case '"':
        put(out, c);
        j->state = STRING;
        return true;
    case '-':
        j->state = MINUS; /* written once it is no infinity */
        return true;
    case '0':
        put(out, c);
        j->state = ZERO;
        return true;
    case 't':
    case 'f':
    case 'n':
    case 'N':
    case 'I':
        j->word[0] = c;
        j->count = 1;
        j->state = WORD;
        return true;
    default:
        if (!is_digit(c))
            return false;
        put(out, c);
        j->state = DIGITS;
        return true;
    }
}

static bool close_bracket(struct json_text *j, char c, struct strbuf *out)
{
    if (c != (in_object(j) ? '}' : ']'))
        return false;
    put(out, c);
    j->depth--;
    value_done(j);
    return true;
}

static bool word_byte(struct json_text *j, char c, struct strbuf *out)
{
    static const struct {
        const char *word, *copy;
    } words[] = {{"true", "true"}, {"false", "false"},    {"null", "null"},
                 {"NaN", "null"},  {"Infinity", "1e999"}, {"-Infinity", "-1e999"}};

    j->word[j->count++] = c;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i].word);

        if (j->count > n || memcmp(words[i].word, j->word, j->count) != 0)
            continue;
        if (j->count == n) {
            put_text(out, words[i].copy);
            value_done(j);
        }
        return true;
    }
    return false;
}

/* An incomplete character turned out to be invalid. */
static void drop_utf8(struct json_text *j, struct strbuf *out)
{
    if (j->utf8_size)
        put_text(out, "\xEF\xBF\xBD");
    j->utf8_size = 0;
}

/* A byte above ASCII in a string: written when its character is complete. */
static void utf8_byte(struct json_text *j, char c, struct strbuf *out)
{
    int32_t decoded;
    size_t length;

    if (j->utf8_size == sizeof j->utf8 || (j->utf8_size && ((unsigned char)c & 0xC0) != 0x80))
        drop_utf8(j, out);
    j->utf8[j->utf8_size++] = c;
    if (utf8_incomplete_tail(j->utf8, j->utf8_size) == j->utf8_size)
        return;
    length = utf8_decode(j->utf8, j->utf8_size, &decoded);
    if (length == j->utf8_size && utf8_valid(j->utf8, length)) {
        if (out)
            strbuf_add(out, j->utf8, length);
        j->utf8_size = 0;
        return;
    }
    drop_utf8(j, out);
}

static bool string_byte(struct json_text *j, char c, struct strbuf *out)
{
    bool key = j->state & IN_KEY;

    if ((unsigned char)c >= 0x80) {
        utf8_byte(j, c, out);
        return true;
    }
    drop_utf8(j, out);
    if (c == '"') {
        put(out, c);
        if (key)
            j->state = COLON;
        else
            value_done(j);
    } else if (c == '\\') {
        put(out, c);
        j->state = ESCAPE | (key ? IN_KEY : 0);
    } else if ((unsigned char)c >= 0x20) {
        put(out, c);
    } else if (!j->controls) {
        return false;
    } else if (out) {
        strbuf_addf(out, "\\u%04x", (unsigned)c);
    }
    return true;
}

static bool escape_byte(struct json_text *j, char c, struct strbuf *out)
{
    uint8_t key = j->state & IN_KEY;

    if (c == '\0' || !strchr("\"\\/bfnrtu", c))
        return false;
    put(out, c);
    j->count = 0;
    j->state = (c == 'u' ? HEX : STRING) | key;
    return true;
}

static bool hex_byte(struct json_text *j, char c, struct strbuf *out)
{
    if (!is_digit(c) && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F'))
        return false;
    put(out, c);
    if (++j->count == 4)
        j->state = STRING | (j->state & IN_KEY);
    return true;
}

static bool minus_byte(struct json_text *j, char c, struct strbuf *out)
{
    if (c == 'I') {
        memcpy(j->word, "-", 1);
        j->count = 1;
        j->state = WORD;
        return word_byte(j, c, out);
    }
    if (!is_digit(c))
        return false;
    put(out, '-');
    put(out, c);
    j->state = c == '0' ? ZERO : DIGITS;
    return true;
}

/* A byte that is the number's own; false: the number ends before it, or is none. */
static bool number_byte(struct json_text *j, char c, struct strbuf *out)
{
    bool digit = is_digit(c), exponent = c == 'e' || c == 'E';
    int next = -1;

    switch (j->state) {
    case ZERO:
    case DIGITS:
        if (digit && j->state == DIGITS)
            next = DIGITS;
        else if (c == '.')
            next = POINT;
        else if (exponent)
            next = EXPONENT;
        break;
    case POINT:
    case FRACTION:
        if (digit)
            next = FRACTION;
        else if (exponent && j->state == FRACTION)
            next = EXPONENT;
        break;
    case EXPONENT:
        if (c == '+' || c == '-')
            next = EXPONENT_SIGN;
        /* fall through */
    default:
        if (digit)
            next = EXPONENT_DIGITS;
        break;
    }
    if (next < 0)
        return false;
    put(out, c);
    j->state = (uint8_t)next;
    return true;
}

static bool number_complete(int state)
{
    return state == ZERO || state == DIGITS || state == FRACTION || state == EXPONENT_DIGITS;
}

/* Between tokens. */
static bool structure_byte(struct json_text *j, char c, struct strbuf *out)
{
    switch (j->state) {
    case VALUE:
        return begin_value(j, c, out);
    case FIRST_ITEM:
        return c == ']' ? close_bracket(j, c, out) : begin_value(j, c, out);
    case FIRST_KEY:
        if (c == '}')
            return close_bracket(j, c, out);
        /* fall through */
    case KEY:
        if (c != '"')
            return false;
        put(out, c);
        j->state = STRING | IN_KEY;
        return true;
    case COLON:
        if (c != ':')
            return false;
        put(out, c);
        j->state = VALUE;
        return true;
    default: /* AFTER_VALUE */
        if (c != ',')
            return close_bracket(j, c, out);
        put(out, c);
        j->state = in_object(j) ? KEY : VALUE;
        return true;
    }
}

static bool take(struct json_text *j, char c, struct strbuf *out)
{
    switch (j->state & ~IN_KEY) {
    case STRING:
        return string_byte(j, c, out);
    case ESCAPE:
        return escape_byte(j, c, out);
    case HEX:
        return hex_byte(j, c, out);
    case WORD:
        return word_byte(j, c, out);
    case MINUS:
        return minus_byte(j, c, out);
    default:
        break;
    }
    if (j->state >= ZERO) {
        if (number_byte(j, c, out))
            return true;
        if (!number_complete(j->state))
            return false;
        value_done(j);
        if (j->state == DONE)
            return false; /* this byte is not of the value */
    }
    if (is_json_space(c)) {
        if (j->depth)
            put(out, c);
        return true;
    }
    return structure_byte(j, c, out);
}

enum json_text_status json_text_feed(struct json_text *j, struct span s, struct strbuf *out,
                                     size_t *taken)
{
    size_t i = 0;

    while (i < s.size && j->state != DONE && j->state != BROKEN && take(j, s.at[i], out))
        i++;
    *taken = i;
    if (j->state == DONE)
        return JSON_TEXT_DONE;
    if (i < s.size || j->state == BROKEN) {
        j->state = BROKEN;
        return JSON_TEXT_BAD;
    }
    return JSON_TEXT_MORE;
}

enum json_text_status json_text_end(struct json_text *j, struct strbuf *out)
{
    (void)out;
    if (j->state == DONE || (j->depth == 0 && number_complete(j->state))) {
        j->state = DONE;
        return JSON_TEXT_DONE;
    }
    return JSON_TEXT_BAD;
}

size_t json_text_value(struct span s, bool controls, struct strbuf *out)
{
    struct json_text j = {.controls = controls};
    size_t taken, before = out ? out->size : 0;
    enum json_text_status status = json_text_feed(&j, s, out, &taken);

    if (status == JSON_TEXT_MORE)
        status = json_text_end(&j, out);
    if (status == JSON_TEXT_DONE)
        return taken;
    if (out && out->data) {
        out->size = before;
        out->data[before] = '\0';
    }
    return 0;
}

bool json_text_whole(struct span s, bool controls, struct strbuf *out)
{
    size_t before = out ? out->size : 0, n = json_text_value(s, controls, out);

    if (n && n + json_space_at_start(span_from(s, n)) == s.size)
        return true;
    if (out && out->data) {
        out->size = before;
        out->data[before] = '\0';
    }
    return false;
}

static int32_t hex4(const char *s)
{
    int32_t value = 0;

    for (int i = 0; i < 4; i++) {
        char c = s[i];

        value = value * 16 + (is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

/* \uXXXX at s, with a second one where the two are a pair; returns the bytes used. */
static size_t decode_unicode(struct span s, int32_t *c)
{
    int32_t low = 0;

    *c = hex4(s.at + 2);
    if (*c >= 0xD800 && *c < 0xDC00 && s.size >= 12 && s.at[6] == '\\' && s.at[7] == 'u')
        low = hex4(s.at + 8);
    if (low < 0xDC00 || low >= 0xE000)
        return 6;
    *c = 0x10000 + ((*c - 0xD800) << 10) + (low - 0xDC00);
    return 12;
}

/* What the start of a literal's inside stands for: a run without escapes, or one escape in utf8. */
static struct span decode_next(struct span *s, char utf8[static UTF8_MAX])
{
    static const char escapes[] = "bfnrt", controls[] = "\b\f\n\r\t";
    struct span piece = *s;
    size_t plain = 0;
    const char *found;
    int32_t c;

    while (plain < s->size && s->at[plain] != '\\')
        plain++;
    if (plain || s->size < 2) {
        *s = span_from(*s, plain ? plain : s->size);
        return span_first(piece, plain);
    }
    if (s->at[1] == 'u' && s->size >= 6) {
        *s = span_from(*s, decode_unicode(*s, &c));
        return (struct span){utf8, utf8_encode(c, utf8)};
    }
    found = strchr(escapes, s->at[1]);
    utf8[0] = found ? controls[found - escapes] : s->at[1];
    *s = span_from(*s, 2);
    return (struct span){utf8, 1};
}

static struct span inside(struct span literal)
{
    if (literal.size < 2)
        return (struct span){0};
    return (struct span){literal.at + 1, literal.size - 2};
}

void json_text_decode(struct span literal, struct strbuf *out)
{
    struct span s = inside(literal);
    char utf8[UTF8_MAX];

    while (s.size) {
        struct span piece = decode_next(&s, utf8);

        strbuf_add(out, piece.at, piece.size);
    }
}

bool json_text_is(struct span literal, const char *text)
{
    struct span s = inside(literal), want = span_of(text);
    char utf8[UTF8_MAX];

    while (s.size) {
        struct span piece = decode_next(&s, utf8);

        if (!span_starts(want, piece))
            return false;
        want = span_from(want, piece.size);
    }
    return literal.size >= 2 && !want.size;
}

static void skip_space(struct span *s)
{
    *s = span_from(*s, json_space_at_start(*s));
}

bool json_text_next(struct json_text_iter *it)
{
    bool object;
    size_t n;

    skip_space(&it->rest);
    if (!it->rest.size)
        return false;
    if (!it->started && it->rest.at[0] != '{' && it->rest.at[0] != '[')
        return false;
    /* The bracket, then commas. In an object what follows begins with a key and a colon. */
    object = it->started ? it->key.size > 0 : it->rest.at[0] == '{';
    it->started = true;
    it->rest = span_from(it->rest, 1);
    skip_space(&it->rest);
    if (!it->rest.size || it->rest.at[0] == '}' || it->rest.at[0] == ']')
        return false;
    it->key = (struct span){0};
    if (object) {
        n = json_text_value(it->rest, true, NULL);
        it->key = span_first(it->rest, n);
        it->rest = span_from(it->rest, n);
        skip_space(&it->rest);
        if (!n || !it->rest.size)
            return false;
        it->rest = span_from(it->rest, 1);
        skip_space(&it->rest);
    }
    n = json_text_value(it->rest, true, NULL);
    it->value = span_first(it->rest, n);
    it->rest = span_from(it->rest, n);
    skip_space(&it->rest);
    /* What closes ends the walk: the next call sees no comma. */
    if (it->rest.size && it->rest.at[0] != ',')
        it->rest.size = 0;
    return n > 0;
}

struct span json_text_get(struct span object, const char *key)
{
    struct json_text_iter it = {.rest = object};
    struct span value = {0};

    skip_space(&it.rest);
    if (!it.rest.size || it.rest.at[0] != '{')
        return value;
    while (json_text_next(&it))
        if (json_text_is(it.key, key))
            value = it.value;
    return value;
}
