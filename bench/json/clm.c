/* bench/json/clm.c: measure.h for clm's own documents. */
#include "measure.h"

#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "format/json.h"
#include "format/json_write.h"

void *library_parse(const char *text, size_t size)
{
    clm_error err = {0};
    json *root = json_parse(text, size, "text", &err);

    if (!root)
        printf("    refused: %s\n", err.message);
    return root;
}

void library_release(void *root)
{
    json_free(root);
}

size_t library_vocab(void *root, char **keys, size_t max)
{
    struct json_iter it = json_first(json_get(json_get(root, "model"), "vocab"));
    size_t n = 0;

    while (n < max && json_next(&it))
        keys[n++] = strdup(it.key);
    return n;
}

long long library_lookup(void *root, char **keys, size_t n)
{
    const json *vocab = json_get(json_get(root, "model"), "vocab");
    long long sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += json_int(json_get(vocab, keys[i]), 0);
    return sum;
}

static size_t walk(const json *v)
{
    size_t n = 1;

    if (json_kind(v) == JSON_ARRAY)
        for (size_t i = 0; i < json_size(v); i++)
            n += walk(json_at(v, i));
    for (struct json_iter it = json_first(v); json_next(&it);)
        n += walk(it.value);
    return n;
}

size_t library_walk(void *root)
{
    return walk(root);
}

const char *library_print(void *root)
{
    static struct strbuf out;

    strbuf_clear(&out);
    json_write(&out, root);
    return out.data;
}
