/* bench/json/jansson.c: measure.h for jansson. */
#include "measure.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

void *library_parse(const char *text, size_t size)
{
    json_error_t error;
    json_t *root =
        json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);

    if (!root)
        printf("    refused at byte %d: %s\n", error.position, error.text);
    return root;
}

void library_release(void *root)
{
    json_decref(root);
}

size_t library_vocab(void *root, char **keys, size_t max)
{
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    size_t n = 0;

    for (void *it = json_object_iter(vocab); it && n < max; it = json_object_iter_next(vocab, it))
        keys[n++] = strdup(json_object_iter_key(it));
    return n;
}

long long library_lookup(void *root, char **keys, size_t n)
{
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    long long sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += json_integer_value(json_object_get(vocab, keys[i]));
    return sum;
}

size_t library_walk(void *root)
{
    size_t n = 1;

    if (json_is_array((json_t *)root))
        for (size_t i = 0; i < json_array_size(root); i++)
            n += library_walk(json_array_get(root, i));
    for (void *it = json_object_iter(root); it; it = json_object_iter_next(root, it))
        n += library_walk(json_object_iter_value(it));
    return n;
}

const char *library_print(void *root)
{
    return json_dumps(root, JSON_ENCODE_ANY | JSON_COMPACT);
}
