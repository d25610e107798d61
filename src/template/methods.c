#include "template/methods.h"

#define BIT(kind) (1u << (kind))
#define TEXT BIT(V_STRING)
#define DICT BIT(V_DICT)
#define LIST BIT(V_LIST)
#define ITEMS (BIT(V_LIST) | BIT(V_TUPLE) | BIT(V_RANGE))
#define INTS (BIT(V_BOOL) | BIT(V_INT))

/* Sorted by name; those without a function change their object, which the sandbox refuses. */
static const struct builtin methods[] = {
    {"append", NULL, "", 0, LIST},
    {"bit_length", method_bit_length, "", 0, INTS},
    {"capitalize", method_capitalize, "", 0, TEXT},
    {"casefold", method_casefold, "", 0, TEXT},
    {"center", method_center, "width fillchar", 1, TEXT},
    {"clear", NULL, "", 0, LIST | DICT},
    {"conjugate", method_conjugate, "", 0, INTS | BIT(V_FLOAT)},
    {"copy", method_copy, "", 0, LIST | DICT},
    {"count", method_item_count, "value", 1, ITEMS},
    {"count", method_text_count, "sub start end", 1, TEXT},
    {"decode", method_decode, "encoding errors", 0, BIT(V_BYTES)},
    {"encode", method_encode, "encoding errors", 0, TEXT},
    {"endswith", method_endswith, "suffix start end", 1, TEXT},
    {"expandtabs", method_expandtabs, "tabsize", 0, TEXT},
    {"extend", NULL, "", 0, LIST},
    {"find", method_find, "sub start end", 1, TEXT},
    {"format", method_format, NULL, 0, TEXT},
    {"format_map", method_format_map, "mapping", 1, TEXT},
    {"fromkeys", method_fromkeys, "iterable value", 1, DICT | BIT(V_BUILTIN)}, /* dict itself */
    {"get", method_get, "key default", 1, DICT},
    {"index", method_item_index, "value start stop", 1, ITEMS},
    {"index", method_text_index, "sub start end", 1, TEXT},
    {"insert", NULL, "", 0, LIST},
    {"is_integer", method_is_integer, "", 0, INTS | BIT(V_FLOAT)},
    {"isalnum", method_isalnum, "", 0, TEXT},
    {"isalpha", method_isalpha, "", 0, TEXT},
    {"isascii", method_isascii, "", 0, TEXT},
    {"isdecimal", method_isdecimal, "", 0, TEXT},
    {"isdigit", method_isdigit, "", 0, TEXT},
    {"isidentifier", method_isidentifier, "", 0, TEXT},
    {"islower", method_islower, "", 0, TEXT},
    {"isnumeric", method_isnumeric, "", 0, TEXT},
    {"isprintable", method_isprintable, "", 0, TEXT},
    {"isspace", method_isspace, "", 0, TEXT},
    {"istitle", method_istitle, "", 0, TEXT},
    {"isupper", method_isupper, "", 0, TEXT},
    {"items", method_items, "", 0, DICT},
    {"join", method_join, "iterable", 1, TEXT},
    {"keys", method_keys, "", 0, DICT},
    {"ljust", method_ljust, "width fillchar", 1, TEXT},
    {"lower", method_lower, "", 0, TEXT},
    {"lstrip", method_lstrip, "chars", 0, TEXT},
    {"next", method_next, "", 0, BIT(V_CYCLER)},
    {"partition", method_partition, "sep", 1, TEXT},
    {"pop", NULL, "", 0, LIST | DICT},
    {"popitem", NULL, "", 0, DICT},
    {"remove", NULL, "", 0, LIST},
    {"removeprefix", method_removeprefix, "prefix", 1, TEXT},
    {"removesuffix", method_removesuffix, "suffix", 1, TEXT},
    {"replace", method_replace, "old new count", 2, TEXT},
    {"reset", method_reset, "", 0, BIT(V_CYCLER)},
    {"reverse", NULL, "", 0, LIST},
    {"rfind", method_rfind, "sub start end", 1, TEXT},
    {"rindex", method_rindex, "sub start end", 1, TEXT},
    {"rjust", method_rjust, "width fillchar", 1, TEXT},
    {"rpartition", method_rpartition, "sep", 1, TEXT},
    {"rsplit", method_rsplit, "sep maxsplit", 0, TEXT},
    {"rstrip", method_rstrip, "chars", 0, TEXT},
    {"setdefault", NULL, "", 0, DICT},
    {"sort", NULL, "", 0, LIST},
    {"split", method_split, "sep maxsplit", 0, TEXT},
    {"splitlines", method_splitlines, "keepends", 0, TEXT},
    {"startswith", method_startswith, "prefix start end", 1, TEXT},
    {"strip", method_strip, "chars", 0, TEXT},
    {"swapcase", method_swapcase, "", 0, TEXT},
    {"title", method_title, "", 0, TEXT},
    {"translate", method_translate, "table", 1, TEXT},
    {"update", NULL, "", 0, DICT},
    {"upper", method_upper, "", 0, TEXT},
    {"values", method_values, "", 0, DICT},
    {"zfill", method_zfill, "width", 1, TEXT},
};

const struct builtin *methods_named(const char *name, size_t size)
{
    return builtin_search(methods, COUNT(methods), name, size);
}

const struct builtin *method_for(const struct builtin *named, enum value_kind kind)
{
    const struct builtin *end = methods + COUNT(methods);

    for (const struct builtin *b = named; b < end && !strcmp(b->name, named->name); b++)
        if (b->kinds >> kind & 1)
            return b;
    return NULL;
}
