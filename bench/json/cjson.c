/* bench/json/cjson.c: measure.h for cjson. */
#include "measure.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

void *library_parse(const char *text, size_t size)
{
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size + 1, &end, true);

    if (!root)
        printf("    refused at byte %td, no reason given\n", end - text);
    return root;
}

void library_release(void *root)
{
    cJSON_Delete(root);
}

size_t library_vocab(void *root, char **keys, size_t max)
{
    cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model");
    size_t n = 0;

    for (cJSON *c = cJSON_GetObjectItemCaseSensitive(model, "vocab")->child; c && n < max;
         c = c->next)
        keys[n++] = strdup(c->string);
    return n;
}

long long library_lookup(void *root, char **keys, size_t n)
{
    cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model");
    cJSON *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab");
    long long sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (long long)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(vocab, keys[i]));
    return sum;
}

size_t library_walk(void *root)
{
    size_t n = 1;

    for (cJSON *c = ((cJSON *)root)->child; c; c = c->next)
        n += library_walk(c);
    return n;
}

const char *library_print(void *root)
{
    return cJSON_PrintUnformatted(root);
}
