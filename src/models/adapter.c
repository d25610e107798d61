#include "models/adapter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <limits.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

const char *adapter_kind_name(enum adapter_kind kind)
{
    return kind == ADAPTER_LORA ? "lora" : kind == ADAPTER_DORA ? "dora" : "full";
}

/* mlx-lm's adapter_config.json. */
static void read_mlx(struct adapter *a, config *c)
{
    const char *kind = config_string_or(c, "fine_tune_type", "lora");
    config *p;

    if (strcmp(kind, "full") == 0) {
        a->kind = ADAPTER_FULL;
        return;
    }
    if (strcmp(kind, "lora") != 0 && strcmp(kind, "dora") != 0) {
        config_fail(c, "fine_tune_type", "\"%s\"; lora, dora and full are known", kind);
        return;
    }
    a->kind = strcmp(kind, "dora") == 0 ? ADAPTER_DORA : ADAPTER_LORA;
    a->n_layers = config_int_in(c, "num_layers", -1, INT_MAX); /* -1: all */
    p = config_object(c, "lora_parameters");
    if (!p) {
        if (!config_has(c, "lora_parameters"))
            config_fail(c, "lora_parameters", "nothing; rank and scale are needed");
        return;
    }
    a->rank = config_int_in(p, "rank", 1, 1 << 20);
    if (!config_has(p, "scale") && config_has(p, "alpha"))
        config_fail(p, "scale", "nothing, but alpha; the scale that mlx-lm's adapters need");
    a->scale = config_float(p, "scale");
    a->n_keys = config_strings(p, "keys", &a->keys);
    if (a->n_keys < 0)
        a->keys = NULL;
}

/* All ways to begin an adapter but these take from the checkpoint's weights what it then adds. */
static void refuse_start(config *c, const char *start)
{
    static const char *const known[] = {"gaussian", "eva", "orthogonal", "mica"};

    for (size_t i = 0; i < COUNT(known); i++)
        if (strcmp(start, known[i]) == 0)
            return;
    config_fail(
        c, "init_lora_weights",
        "\"%s\", which changes the checkpoint's weights; PEFT can convert the adapter to one "
        "that does not",
        start);
}

/* What PEFT may ask for and clm cannot do. */
static void refuse_peft(config *c)
{
    static const char *const wanting[] = {
        "megatron_config",         "layer_replication", "alora_invocation_tokens",
        "trainable_token_indices", "arrow_config",      "kasa_config",
        "monteclora_config",       "use_bdlora"};

    for (size_t i = 0; i < COUNT(wanting); i++) {
        enum config_kind kind = config_kind(c, wanting[i]);
        const char *const *items;

        if (kind == CONFIG_ABSENT ||
            (kind == CONFIG_ARRAY && config_strings(c, wanting[i], &items) == 0))
            continue;
        config_fail(c, wanting[i], "something; clm cannot apply it");
    }
    if (config_bool_or(c, "use_qalora", false))
        config_fail(c, "use_qalora", "true; clm cannot apply it");
    if (config_kind(c, "init_lora_weights") == CONFIG_STRING)
        refuse_start(c, config_string(c, "init_lora_weights"));
}

static void read_peft(struct adapter *a, config *c)
{
    const char *type = config_string(c, "peft_type");

    if (strcmp(type, "LORA") != 0)
        config_fail(c, "peft_type", "\"%s\"; LORA is known", type);
    a->kind = config_bool_or(c, "use_dora", false) ? ADAPTER_DORA : ADAPTER_LORA;
    config_int_in(c, "r", 1, 1 << 20);
    config_float_or(c, "lora_alpha", 8);
    config_bool_or(c, "use_rslora", false);
    a->lora_bias = config_bool_or(c, "lora_bias", false);
    if (a->lora_bias && a->kind == ADAPTER_DORA)
        config_fail(c, "lora_bias", "true beside use_dora; PEFT has no such adapter");
    a->n_parameters = config_strings(c, "target_parameters", &a->parameters);
    refuse_peft(c);
}

int adapter_open(struct adapter *a, const char *path, arena *memory, clm_error *err)
{
    char name[4096];
    const char *file;
    int rc = -1;

    *a = (struct adapter){.path = arena_strdup(memory, path)};
    if (!a->path)
        return fail(err, CLM_ERR_NOMEM, "%s: no memory", path);
    if (!file_is_dir(path))
        return fail(err, CLM_ERR_IO, "%s is no folder of an adapter, which has adapter_config.json",
                    path);
    if (file_join(name, sizeof name, path, "adapter_config.json", err))
        return -1;
    a->config = config_open(name, NULL, err);
    if (!a->config)
        return -1;
    a->peft = config_has(a->config, "peft_type");
    if (a->peft)
        read_peft(a, a->config);
    else
        read_mlx(a, a->config);
    file = a->peft ? "adapter_model.safetensors" : "adapters.safetensors";
    if (config_done(a->config, err) == 0 && file_join(name, sizeof name, path, file, err) == 0) {
        a->weights = checkpoint_open(name, NULL, err);
        rc = a->weights ? 0 : -1;
    }
    if (rc)
        adapter_close(a);
    return rc;
}

void adapter_close(struct adapter *a)
{
    config_close(a->config);
    a->config = NULL;
}

/* What comes behind the name of a module. */
static const struct {
    const char *end;
    enum tensor_part part;
} ends[] = {
    {".lora_a", PART_LORA_A},
    {".lora_b", PART_LORA_B},
    {".m", PART_MAGNITUDE},
    {".lora_A.weight", PART_LORA_A},
    {".lora_B.weight", PART_LORA_B},
    {".lora_A.default.weight", PART_LORA_A},
    {".lora_B.default.weight", PART_LORA_B},
    {".lora_B.bias", PART_LORA_BIAS},
    {".lora_B.default.bias", PART_LORA_BIAS},
    {".lora_embedding_A", PART_LORA_A},
    {".lora_embedding_B", PART_LORA_B},
    {".lora_embedding_A.default", PART_LORA_A},
    {".lora_embedding_B.default", PART_LORA_B},
    {".lora_magnitude_vector", PART_MAGNITUDE},
    {".lora_magnitude_vector.weight", PART_MAGNITUDE},
    {".lora_magnitude_vector.default.weight", PART_MAGNITUDE},
};

/* PEFT's names of modules that it has wrapped. */
static void unwrap(char *name)
{
    static const char layer[] = ".base_layer.";
    size_t n = sizeof layer - 2;

    for (char *at = strstr(name, layer); at; at = strstr(at, layer))
        memmove(at, at + n, strlen(at + n) + 1);
}

struct tensor_place adapter_place(const struct family *f, const struct spec *s, const char *name,
                                  char *module, size_t size)
{
    static const char peft[] = "base_model.model.";
    struct tensor_place place = {.part = PART_OTHER};
    size_t n;

    if (strncmp(name, peft, sizeof peft - 1) == 0)
        name += sizeof peft - 1;
    if (strlen(name) + sizeof ".weight" > size)
        return place;
    strcpy(module, name);
    unwrap(module);
    n = strlen(module);
    for (size_t i = 0; i < COUNT(ends); i++) {
        size_t m = strlen(ends[i].end);

        if (n <= m || strcmp(module + n - m, ends[i].end) != 0)
            continue;
        strcpy(module + n - m, ".weight");
        place = tensor_place(f, s, module);
        place.part = ends[i].part;
        module[n - m] = '\0';
        return place;
    }
    return tensor_place(f, s, module); /* a whole tensor */
}

/* The name of a module within its layer, what follows the first number, as the layers are called
 * "layers", "h" or "blocks"; the whole name of one outside of layers. */
static const char *within_layer(const char *module)
{
    for (const char *at = strchr(module, '.'); at; at = strchr(at + 1, '.')) {
        size_t n = strspn(at + 1, "0123456789");

        if (n > 0 && at[n + 1] == '.')
            return at + n + 2;
    }
    return module;
}

int adapter_check_module(const struct adapter *a, const char *module, int layer, int n_layers,
                         clm_error *err)
{
    if (a->peft || a->kind == ADAPTER_FULL)
        return 0;
    if (layer >= 0 && a->n_layers > 0 && layer < n_layers - a->n_layers)
        return fail(err, CLM_ERR_FORMAT,
                    "%s: adapts %s; adapter_config.json says the last %d of %d layers", a->path,
                    module, a->n_layers, n_layers);
    for (int i = 0; i < a->n_keys; i++)
        if (strcmp(a->keys[i], module) == 0 || strcmp(a->keys[i], within_layer(module)) == 0)
            return 0;
    if (!a->keys)
        return 0;
    return fail(err, CLM_ERR_FORMAT, "%s: adapts %s, which is none of the keys of lora_parameters",
                a->path, module);
}

bool adapter_unties(const struct adapter *a, const struct family *f)
{
    for (size_t i = 0; a->peft && i < checkpoint_count(a->weights); i++) {
        const char *name = checkpoint_at(a->weights, i)->name;
        char module[512];
        struct tensor_place place = adapter_place(f, NULL, name, module, sizeof module);
        bool whole = !is_addition(place.part) && !strstr(name, ".base_layer.");

        if (place.to.kind == TARGET_SLOTS && place.part != PART_BIAS &&
            (place.to.first == ROLE_LM_HEAD || (place.to.first == ROLE_EMBED_TOKENS && whole)))
            return true;
    }
    return false;
}

bool adapter_is_target(const char *target, const char *module, const char *parameter)
{
    char whole[600];
    size_t n, m = strlen(target);

    snprintf(whole, sizeof whole, "%s.%s", module, parameter);
    n = strlen(whole);
    return n >= m && strcmp(whole + n - m, target) == 0 && (n == m || whole[n - m - 1] == '.');
}

static void *regex_alloc(size_t size, void *ctx)
{
    (void)ctx;
    return mem_alloc(size);
}

static void regex_free(void *p, void *ctx)
{
    (void)ctx;
    mem_free(p);
}

/* What pcre2_match says of a whole pattern; limits hold those short that would match forever. */
static int match_whole(const char *pattern, const char *text)
{
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    pcre2_match_context *limits = context ? pcre2_match_context_create(general) : NULL;
    pcre2_match_data *match = limits ? pcre2_match_data_create(1, general) : NULL;
    pcre2_code *code = NULL;
    size_t where;
    int rc = PCRE2_ERROR_NOMEMORY;

    if (match)
        code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, 0, &rc, &where, context);
    if (code) {
        pcre2_set_match_limit(limits, 1000000);
        pcre2_set_depth_limit(limits, 10000);
        rc = pcre2_match(code, (PCRE2_SPTR)text, strlen(text), 0, 0, match, limits);
    } else if (rc > 0) {
        rc = PCRE2_ERROR_BADMAGIC; /* it does not compile */
    }
    pcre2_code_free(code);
    pcre2_match_data_free(match);
    pcre2_match_context_free(limits);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    return rc;
}

/* Does the key of an object of patterns fit the name of a module, as PEFT matches them: from its
 * beginning or behind a dot, to its end? */
static bool pattern_fits(config *patterns, const char *key, const char *module)
{
    char pattern[600];
    int rc = PCRE2_ERROR_BADMAGIC;

    if (strlen(key) <= 500) {
        snprintf(pattern, sizeof pattern, "^(.*\\.)?(%s)$", key);
        rc = match_whole(pattern, module);
    }
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        config_fail(patterns, key, "a pattern that clm cannot match");
    return rc >= 0;
}

/* What the first key that fits says; otherwise the config's own. */
static double from_pattern(config *c, const char *pattern, const char *module, double otherwise)
{
    config *p = config_object(c, pattern);
    const char *key;

    for (int i = 0; p && (key = config_key(p, i)); i++)
        if (pattern_fits(p, key, module))
            return config_float(p, key);
    return otherwise;
}

int adapter_scale(const struct adapter *a, const char *module, int rank, double *scale,
                  clm_error *err)
{
    double said = a->rank, alpha;

    *scale = a->scale;
    if (a->peft) {
        said = from_pattern(a->config, "rank_pattern", module, config_int(a->config, "r"));
        alpha = from_pattern(a->config, "alpha_pattern", module,
                             config_float_or(a->config, "lora_alpha", 8));
        *scale = alpha / (config_bool_or(a->config, "use_rslora", false) ? sqrt(rank) : rank);
        if (config_done(a->config, err))
            return -1;
    }
    if (said == rank)
        return 0;
    return fail(err, CLM_ERR_FORMAT, "%s: %s has rank %d; adapter_config.json says %g", a->path,
                module, rank, said);
}
