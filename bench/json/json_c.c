/* bench/json/json_c.c: measure.h for json-c. */
#include "measure.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

void *library_parse(const char *text, size_t size)
{
    struct json_tokener *tok = json_tokener_new_ex(512);
    struct json_object *root;

    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    root = json_tokener_parse_ex(tok, text, (int)size);
    if (json_tokener_get_error(tok) == json_tokener_continue)
        root = json_tokener_parse_ex(tok, "", 1); /* its NUL says that nothing follows */
    if (!root)
        printf("    refused at byte %zu: %s\n", json_tokener_get_parse_end(tok),
               json_tokener_error_desc(json_tokener_get_error(tok)));
    json_tokener_free(tok);
    return root;
}

void library_release(void *root)
{
    json_object_put(root);
}

size_t library_vocab(void *root, char **keys, size_t max)
{
    struct json_object *vocab =
        json_object_object_get(json_object_object_get(root, "model"), "vocab");
    struct json_object_iterator it = json_object_iter_begin(vocab);
    struct json_object_iterator end = json_object_iter_end(vocab);
    size_t n = 0;

    for (; !json_object_iter_equal(&it, &end) && n < max; json_object_iter_next(&it))
        keys[n++] = strdup(json_object_iter_peek_name(&it));
    return n;
}

long long library_lookup(void *root, char **keys, size_t n)
{
    struct json_object *vocab =
        json_object_object_get(json_object_object_get(root, "model"), "vocab");
    long long sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += json_object_get_int64(json_object_object_get(vocab, keys[i]));
    return sum;
}

size_t library_walk(void *root)
{
    size_t n = 1;

    if (json_object_is_type(root, json_type_array))
        for (size_t i = 0; i < json_object_array_length(root); i++)
            n += library_walk(json_object_array_get_idx(root, i));
    if (json_object_is_type(root, json_type_object)) {
        struct json_object_iterator it = json_object_iter_begin(root);
        struct json_object_iterator end = json_object_iter_end(root);

        for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it))
            n += library_walk(json_object_iter_peek_value(&it));
    }
    return n;
}

const char *library_print(void *root)
{
    return json_object_to_json_string_ext(root, JSON_C_TO_STRING_PLAIN);
}
