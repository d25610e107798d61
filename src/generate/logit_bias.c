#include "generate/logit_bias.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/memory.h"

/* A key of the object, which is a number in decimal; -1: it is none. */
static int32_t token_of(const char *key)
{
    char *end;
    long id;

    errno = 0;
    id = strtol(key, &end, 10);
    return end == key || *end || errno || id < 0 || id > INT32_MAX ? -1 : (int32_t)id;
}

static int by_token(const void *a, const void *b)
{
    const clm_logit_bias *x = a, *y = b;

    return (x->token > y->token) - (x->token < y->token);
}

int logit_bias_read(clm_logit_bias **out, int *n, const json *value, const char *name,
                    clm_error *err)
{
    struct json_iter it = json_first(value);
    clm_logit_bias *biases = NULL;

    *out = NULL;
    *n = 0;
    if (json_kind(value) != JSON_OBJECT || json_size(value) > INT_MAX)
        return fail(err, CLM_ERR_ARG, "%s must be an object that gives token ids a number", name);
    *out = biases = mem_zeroed(json_size(value) + 1, sizeof *biases);
    if (!biases)
        return fail(err, CLM_ERR_NOMEM, "no memory for %zu biases", json_size(value));
    while (json_next(&it)) {
        int32_t id = token_of(it.key);

        if (id < 0 || (it.kind != JSON_INT && it.kind != JSON_REAL))
            return fail(err, CLM_ERR_ARG, "%s must be an object that gives token ids a number",
                        name);
        biases[(*n)++] = (clm_logit_bias){id, (float)json_real(it.value, 0)};
    }
    if (*n)
        qsort(biases, (size_t)*n, sizeof *biases, by_token);
    for (int i = 1; i < *n; i++)
        if (biases[i].token == biases[i - 1].token)
            return fail(err, CLM_ERR_ARG, "%s names token %d twice", name, (int)biases[i].token);
    return 0;
}
