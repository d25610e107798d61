#include "format/generation_config.h"

#include <limits.h>

#include "base/file.h"

static const struct generation_config nothing = {
    .bos_token_id = -1,
    .temperature = -1,
    .top_p = -1,
    .min_p = -1,
    .top_k = -1,
    .repetition_penalty = -1,
};

/* A number in [low, high], or -1. */
static double read_number(config *c, const char *key, double low, double high)
{
    double value;

    if (!config_has(c, key))
        return -1;
    value = config_float(c, key);
    if (value < low || value > high)
        config_fail(c, key, "%g is out of range, expected a number from %g to %g", value, low,
                    high);
    return value;
}

static int read_int(config *c, const char *key)
{
    return config_has(c, key) ? config_int(c, key) : -1;
}

/* Takes c over, which is NULL when there is an error. */
static int read_config(struct generation_config *g, config *c, clm_error *err)
{
    if (!c)
        return -1;
    g->memory = c;
    g->n_eos_token_ids = config_int_or_ints(c, "eos_token_id", &g->eos_token_ids);
    if (g->n_eos_token_ids < 0)
        g->n_eos_token_ids = 0;
    g->bos_token_id = read_int(c, "bos_token_id");
    g->do_sample = config_bool_or(c, "do_sample", false);
    g->temperature = read_number(c, "temperature", 0, 1000);
    g->top_p = read_number(c, "top_p", 0, 1);
    g->min_p = read_number(c, "min_p", 0, 1);
    /* -1 is how some say it themselves */
    g->top_k = config_has(c, "top_k") ? config_int_in(c, "top_k", -1, INT_MAX) : -1;
    g->repetition_penalty = read_number(c, "repetition_penalty", 1e-3, 1000);
    if (!config_done(c, err))
        return 0;
    generation_config_close(g);
    return -1;
}

int generation_config_open(struct generation_config *g, const char *folder, clm_error *err)
{
    char path[PATH_MAX];

    *g = nothing;
    if (file_join(path, sizeof path, folder, "generation_config.json", err))
        return -1;
    if (!file_exists(path))
        return 0;
    return read_config(g, config_open(path, NULL, err), err);
}

int generation_config_parse(struct generation_config *g, const char *text, size_t size,
                            const char *name, clm_error *err)
{
    *g = nothing;
    return read_config(g, config_parse(text, size, name, NULL, err), err);
}

void generation_config_close(struct generation_config *g)
{
    config_close(g->memory);
    *g = nothing;
}
