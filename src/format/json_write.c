#include "format/json_write.h"

#include <string.h>

#include "base/decimal.h"

static void write_array(struct strbuf *out, const json *array)
{
    strbuf_add_char(out, '[');
    for (size_t i = 0; i < json_size(array); i++) {
        strbuf_add_str(out, i ? ", " : "");
        json_write(out, json_at(array, i));
    }
    strbuf_add_char(out, ']');
}

static void write_object(struct strbuf *out, const json *object)
{
    const char *comma = "";

    strbuf_add_char(out, '{');
    for (struct json_iter it = json_first(object); json_next(&it); comma = ", ") {
        strbuf_add_str(out, comma);
        strbuf_add_json(out, it.key, it.key_size);
        strbuf_add_str(out, ": ");
        json_write(out, it.value);
    }
    strbuf_add_char(out, '}');
}

static void write_real(struct strbuf *out, double f)
{
    const char *word = json_special(f);
    char digits[DECIMAL_ROOM];

    if (word) {
        strbuf_addf(out, "{\"__float__\": \"%s\"}", word);
        return;
    }
    decimal_write(digits, f);
    strbuf_add_str(out, digits);
    if (!strpbrk(digits, ".e")) /* what has none is read as an integer */
        strbuf_add_str(out, ".0");
}

void json_write(struct strbuf *out, const json *value)
{
    const char *text;
    size_t size;

    switch (json_look(value, &text, &size)) {
    case JSON_ABSENT:
    case JSON_NULL:
        strbuf_add_str(out, "null");
        break;
    case JSON_BOOL:
        strbuf_add_str(out, json_bool(value, false) ? "true" : "false");
        break;
    case JSON_INT:
        strbuf_addf(out, "%lld", (long long)json_int(value, 0));
        break;
    case JSON_REAL:
        write_real(out, json_real(value, 0));
        break;
    case JSON_STRING:
        strbuf_add_json(out, text, size);
        break;
    case JSON_ARRAY:
        write_array(out, value);
        break;
    case JSON_OBJECT:
        write_object(out, value);
        break;
    }
}
