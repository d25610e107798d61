#include "parse/schema.h"

#define MAX_DEPTH 32

static const json *function_named(const json *tools, struct span name)
{
    for (size_t i = 0; i < json_size(tools); i++) {
        const json *tool = json_at(tools, i), *function = json_get(tool, "function");
        struct span found;

        if (!function && json_kind(tool) == JSON_OBJECT)
            function = tool; /* some clients leave the wrapping out */
        found.at = json_string(json_get(function, "name"), &found.size);
        if (found.at && span_equal(found, name))
            return function;
    }
    return NULL;
}

bool schema_has_function(const json *tools, struct span name)
{
    return function_named(tools, name) != NULL;
}

const json *schema_argument(const json *tools, struct span function, struct span argument)
{
    const json *f = tools ? function_named(tools, function) : NULL;
    const json *properties = json_get(json_get(f, "parameters"), "properties");

    if (json_kind(properties) != JSON_OBJECT)
        return NULL;
    for (struct json_iter it = json_first(properties); json_next(&it);)
        if (span_equal((struct span){it.key, it.key_size}, argument))
            return it.value;
    return NULL;
}

static unsigned named_type(struct span name)
{
    static const struct {
        const char *name;
        unsigned type;
    } types[] = {{"integer", TYPE_INTEGER}, {"int", TYPE_INTEGER},     {"number", TYPE_NUMBER},
                 {"float", TYPE_NUMBER},    {"boolean", TYPE_BOOLEAN}, {"bool", TYPE_BOOLEAN},
                 {"object", TYPE_OBJECT},   {"array", TYPE_OBJECT},    {"string", TYPE_STRING},
                 {"str", TYPE_STRING},      {"text", TYPE_STRING},     {"null", TYPE_NULL}};

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (span_is_nocase(name, types[i].name))
            return types[i].type;
    return 0;
}

static unsigned type_of_value(const json *value)
{
    switch (json_kind(value)) {
    case JSON_NULL:
        return TYPE_NULL;
    case JSON_BOOL:
        return TYPE_BOOLEAN;
    case JSON_INT:
        return TYPE_INTEGER;
    case JSON_REAL:
        return TYPE_NUMBER;
    case JSON_STRING:
        return TYPE_STRING;
    default:
        return TYPE_OBJECT;
    }
}

/* Adds to *types, and to *count how many were named, known ones or not. */
static void collect_types(const json *schema, int depth, unsigned *types, size_t *count);

static void collect_named(const json *name, unsigned *types, size_t *count)
{
    struct span s;

    s.at = json_string(name, &s.size);
    if (!s.at)
        return;
    *types |= named_type(s);
    ++*count;
}

/* A choice that says nothing is a string, as a schema is. */
static void collect_choices(const json *choices, int depth, unsigned *types, size_t *count)
{
    for (size_t i = 0; json_kind(choices) == JSON_ARRAY && i < json_size(choices); i++) {
        size_t before = *count;

        if (json_kind(json_at(choices, i)) == JSON_OBJECT)
            collect_types(json_at(choices, i), depth + 1, types, count);
        if (*count == before) {
            *types |= TYPE_STRING;
            ++*count;
        }
    }
}

static void collect_types(const json *schema, int depth, unsigned *types, size_t *count)
{
    const json *type = json_get(schema, "type"), *values = json_get(schema, "enum");

    if (depth == MAX_DEPTH)
        return;
    collect_named(type, types, count);
    for (size_t i = 0; json_kind(type) == JSON_ARRAY && i < json_size(type); i++)
        collect_named(json_at(type, i), types, count);
    for (size_t i = 0; json_kind(values) == JSON_ARRAY && i < json_size(values); i++) {
        *types |= type_of_value(json_at(values, i));
        ++*count;
    }
    collect_choices(json_get(schema, "anyOf"), depth, types, count);
    collect_choices(json_get(schema, "oneOf"), depth, types, count);
    collect_choices(json_get(schema, "allOf"), depth, types, count);
}

unsigned schema_types(const json *schema)
{
    unsigned types = 0;
    size_t count = 0;

    if (json_kind(schema) == JSON_OBJECT)
        collect_types(schema, 0, &types, &count);
    return count ? types : TYPE_STRING;
}

bool schema_type_word(const json *schema, char word[static 24])
{
    const json *type = json_get(schema, "type");
    struct span s;

    word[0] = '\0';
    if (json_size(schema) == 0)
        return false;
    if (!type)
        return true;
    s.at = json_string(type, &s.size);
    s = s.at ? span_strip(s) : SPAN("[");
    if (s.size > 23)
        s.size = 23;
    for (size_t i = 0; i < s.size; i++)
        word[i] = (char)(s.at[i] >= 'A' && s.at[i] <= 'Z' ? s.at[i] + 32 : s.at[i]);
    word[s.size] = '\0';
    return true;
}
