/* Any bytes as config.json and generation_config.json: every reader on every key. */
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/config.h"
#include "format/generation_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void take_message(void *ctx, enum log_level level, const char *message)
{
    (void)level;
    require(!strchr(message, '\n') && strlen(message) < 1024);
    ++*(int *)ctx;
}

static void read_array(config *c, const char *key)
{
    const double *floats;
    const int *ints;
    const bool *bools;
    const char *const *strings;
    int n;

    switch (strlen(key) % 4) {
    case 0:
        n = config_ints(c, key, &ints);
        for (int i = 0; i < n; i++)
            require(ints[i] >= 0);
        break;
    case 1:
        n = config_floats(c, key, &floats);
        for (int i = 0; i < n; i++)
            require(!isnan(floats[i]));
        break;
    case 2:
        n = config_strings(c, key, &strings);
        for (int i = 0; i < n; i++)
            require(strlen(strings[i]) < SIZE_MAX);
        break;
    default:
        n = config_bools(c, key, &bools);
        for (int i = 0; i < n; i++)
            require(bools[i] || !bools[i]);
    }
    require(n >= -1);
}

/* Each key by the reader of its kind; some, chosen by their names, by another one or by none. */
static void read_object(config *c, int depth)
{
    const char *key;

    for (int i = 0; (key = config_key(c, i)); i++) {
        enum config_kind kind = key[0] == '!' ? (enum config_kind)(i % 6) : config_kind(c, key);
        config *child;

        if (key[0] == '?')
            continue;
        switch (kind) {
        case CONFIG_NUMBER:
            if (strlen(key) % 2)
                require(isfinite(config_float(c, key)));
            else
                require(config_int_in(c, key, -7, INT_MAX) >= -7);
            break;
        case CONFIG_BOOL:
            config_bool(c, key);
            break;
        case CONFIG_STRING:
            require(strlen(config_string(c, key)) < SIZE_MAX);
            break;
        case CONFIG_ARRAY:
            read_array(c, key);
            break;
        case CONFIG_OBJECT:
            child = config_object(c, key);
            if (child && depth < 100)
                read_object(child, depth + 1);
            break;
        case CONFIG_ABSENT:
            require(config_int_or(c, key, 3) >= 0);
            break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int messages = 0;
    struct log log = {.fn = take_message, .ctx = &messages};
    struct generation_config g;
    clm_error err = {0}, generation_err = {0};
    config *c = config_parse((const char *)data, size, "fuzz", &log, &err);

    if (c) {
        read_object(c, 0);
        config_done(c, &err);
        config_done(c, NULL);
    }
    require(c || err.code);
    require(messages <= 1 && !strchr(err.message, '\n'));
    config_close(c);
    if (!generation_config_parse(&g, (const char *)data, size, "fuzz", &generation_err))
        require(g.n_eos_token_ids >= 0 && g.top_k >= -1 && g.top_p <= 1 && !isnan(g.temperature));
    else
        require(generation_err.code != CLM_OK);
    generation_config_close(&g);
    return 0;
}
