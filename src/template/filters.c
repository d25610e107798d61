#include "template/filters.h"

/* Sorted by name. Not among them, because their result is random, or a terminal's business, or
 * a page's: random, pprint, urlize, wordwrap. */
static const struct builtin filters[] = {
    {"abs", filter_abs, "", 0, 0},
    {"attr", filter_attr, "name", 1, 0},
    {"batch", filter_batch, "linecount fill_with", 1, 0},
    {"capitalize", filter_capitalize, "", 0, 0},
    {"center", filter_center, "width", 0, 0},
    {"count", filter_length, "", 0, 0},
    {"d", filter_default, "default_value boolean", 0, 0},
    {"default", filter_default, "default_value boolean", 0, 0},
    {"dictsort", filter_dictsort, "case_sensitive by reverse", 0, 0},
    {"e", filter_escape, "", 0, 0},
    {"escape", filter_escape, "", 0, 0},
    {"filesizeformat", filter_filesizeformat, "binary", 0, 0},
    {"first", filter_first, "", 0, 0},
    {"float", filter_float, "default", 0, 0},
    {"forceescape", filter_forceescape, "", 0, 0},
    {"format", filter_format, NULL, 0, 0},
    {"groupby", filter_groupby, "attribute default case_sensitive", 1, 0},
    {"indent", filter_indent, "width first blank", 0, 0},
    {"int", filter_int, "default base", 0, 0},
    {"items", filter_items, "", 0, 0},
    {"join", filter_join, "d attribute", 0, 0},
    {"last", filter_last, "", 0, 0},
    {"length", filter_length, "", 0, 0},
    {"list", filter_list, "", 0, 0},
    {"lower", filter_lower, "", 0, 0},
    {"map", filter_map, NULL, 0, 0},
    {"max", filter_max, "case_sensitive attribute", 0, 0},
    {"min", filter_min, "case_sensitive attribute", 0, 0},
    {"reject", filter_reject, NULL, 0, 0},
    {"rejectattr", filter_rejectattr, NULL, 0, 0},
    {"replace", filter_replace, "old new count", 2, 0},
    {"reverse", filter_reverse, "", 0, 0},
    {"round", filter_round, "precision method", 0, 0},
    {"safe", filter_safe, "", 0, 0},
    {"select", filter_select, NULL, 0, 0},
    {"selectattr", filter_selectattr, NULL, 0, 0},
    {"slice", filter_slice, "slices fill_with", 1, 0},
    {"sort", filter_sort, "reverse case_sensitive attribute", 0, 0},
    {"string", filter_string, "", 0, 0},
    {"striptags", filter_striptags, "", 0, 0},
    {"sum", filter_sum, "attribute start", 0, 0},
    {"title", filter_title, "", 0, 0},
    {"tojson", filter_tojson, "ensure_ascii indent separators sort_keys", 0, 0},
    {"trim", filter_trim, "chars", 0, 0},
    {"truncate", filter_truncate, "length killwords end leeway", 0, 0},
    {"unique", filter_unique, "case_sensitive attribute", 0, 0},
    {"upper", filter_upper, "", 0, 0},
    {"urlencode", filter_urlencode, "", 0, 0},
    {"wordcount", filter_wordcount, "", 0, 0},
    {"xmlattr", filter_xmlattr, "autospace", 0, 0},
};

/* name may hold anything, NULs too. */
static int compare_name(const char *known, const char *name, size_t size)
{
    size_t n = strlen(known);
    int order = memcmp(known, name, n < size ? n : size);

    return order ? order : n < size ? -1 : n > size;
}

const struct builtin *builtin_search(const struct builtin *table, size_t n, const char *name,
                                     size_t size)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (compare_name(table[middle].name, name, size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && !compare_name(table[low].name, name, size) ? &table[low] : NULL;
}

const struct builtin *filter_find(const char *name, size_t size)
{
    return builtin_search(filters, COUNT(filters), name, size);
}
