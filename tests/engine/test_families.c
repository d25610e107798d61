/* Every family: a checkpoint in its own names opens and runs, the same bits whole and in pieces;
 * and a config.json in which any key is missing or has become something else is refused or runs
 * too. */
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../models/derived.h"
#include "../models/family_configs.h"
#include "engine/engine.h"
#include "format/json.h"
#include "models/defaults.h"
#include "testing.h"

enum { N_TOKENS = 11, MAX_LAYERS = 64, MAX_VOCAB = 512 };

static const int32_t tokens[N_TOKENS] = {0, 1, 5, 9, 13, 2, 7, 11, 3, 3, 4};
static char folder[64];

static void path_in(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s/%s", folder, name);
}

static void write_config(const char *text, size_t size)
{
    char path[128];
    FILE *f;

    path_in(path, sizeof path, "config.json");
    f = fopen(path, "wb");
    CHECK(f && fwrite(text, 1, size, f) == size && fclose(f) == 0, "%s", path);
}

static void make_folder(void)
{
    strcpy(folder,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/clm-test-XXXXXX" : "/tmp/clm-test-XXXXXX");
    CHECK(mkdtemp(folder), "%s", folder);
}

static void remove_folder(void)
{
    static const char *const names[] = {"config.json", "model.safetensors", ""};

    for (size_t i = 0; i < COUNT(names); i++) {
        char path[128];

        path_in(path, sizeof path, names[i]);
        remove(path);
    }
}

/* The logits of all tokens, in pieces; false when the engine refuses the model. */
static bool run(struct model *m, int piece, float *out, clm_error *err)
{
    struct engine_options options = {.exact = true, .cache_bytes = 1 << 22};
    engine *e = engine_open(m, &options, err);
    kv_seq *seq = e ? kv_seq_open(engine_cache(e), err) : NULL;
    bool good = seq != NULL;

    for (int done = 0; good && done < N_TOKENS; done += piece) {
        int n = piece < N_TOKENS - done ? piece : N_TOKENS - done;
        struct engine_input in = {
            .seq = seq, .tokens = tokens + done, .n_tokens = n, .n_logits = n};
        const float *logits;

        good = engine_step(e, &in, 1, &logits, err) == 0;
        if (good && out)
            memcpy(out + (size_t)done * (size_t)m->spec->vocab_size, logits,
                   (size_t)n * (size_t)m->spec->vocab_size * sizeof *out);
    }
    kv_seq_close(seq);
    engine_close(e);
    return good;
}

static void check_message(const struct model *m, const clm_error *err, const char *text)
{
    CHECK(m ? !err->code : err->code && err->message[0] && !strchr(err->message, '\n'), "%s\n%s",
          err->message, text);
}

/* Whole and in pieces of 4. */
static void check_good(device *d, const char *text)
{
    static float whole[N_TOKENS * MAX_VOCAB], pieces[N_TOKENS * MAX_VOCAB];
    clm_error err = {0};
    struct model *m;

    write_config(text, strlen(text));
    m = model_open(folder, d, NULL, &err);
    CHECK(m, "%s\n%s", err.message, text);
    CHECK(m->spec->vocab_size <= MAX_VOCAB, "%s", text);
    CHECK(run(m, N_TOKENS, whole, &err) && run(m, 4, pieces, &err), "%s\n%s", err.message, text);
    CHECK(!memcmp(whole, pieces, (size_t)N_TOKENS * (size_t)m->spec->vocab_size * sizeof *whole),
          "other bits in pieces: %s", text);
    model_close(m);
}

static void check_mutated(device *d, const char *text, size_t size)
{
    clm_error err = {0};
    struct model *m;

    write_config(text, size);
    m = model_open(folder, d, NULL, &err);
    check_message(m, &err, text);
    if (m && m->spec->n_layers <= MAX_LAYERS && m->spec->vocab_size > 13)
        run(m, 6, NULL, &err);
    model_close(m);
}

/* Whether a key begins at text: a string that a colon follows. */
static const char *end_of_key(const char *text)
{
    const char *end = *text == '"' ? strchr(text + 1, '"') : NULL;

    return end && end[1] == ':' ? end + 2 : NULL;
}

/* Where the value ends that begins at text. */
static const char *end_of_value(const char *text)
{
    int depth = 0;
    bool quoted = false;

    for (;; text++) {
        if (*text == '"')
            quoted = !quoted;
        if (quoted)
            continue;
        if (depth == 0 && (*text == ',' || *text == '}' || *text == ']' || !*text))
            return text;
        depth += (*text == '{' || *text == '[') - (*text == '}' || *text == ']');
    }
}

/* Each value in turn becomes each of these. */
static void mutate(device *d, const char *text)
{
    static const char *const values[] = {"null",       "0",    "-1",  "1",    "3",
                                         "2147483647", "1e30", "0.5", "true", "false",
                                         "\"x\"",      "[]",   "{}",  "[1,2]"};
    static char changed[1 << 14];

    CHECK(strlen(text) + 64 < sizeof changed, "a config of %zu bytes", strlen(text));
    for (const char *key = text; *key; key++) {
        const char *value = end_of_key(key), *end;

        if (!value)
            continue;
        end = end_of_value(value);
        for (size_t i = 0; i < COUNT(values); i += TEST_IS_SLOW ? 3 : 1) {
            int n = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(value - text), text,
                             values[i], end);

            check_mutated(d, changed, (size_t)n);
        }
        key = value - 1;
    }
}

static void open_family(device *d, int i)
{
    struct tiny t;

    tiny_derive(&t, family_configs[i], d);
    tiny_write_weights(&t, folder);
    tiny_close(&t);
}

static void test_names(void **state)
{
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);

    (void)state;
    CHECK(d, "%s", err.message);
    d->ops->set_exact(d, true);
    make_folder();
    for (size_t i = 0; i < COUNT(family_configs); i++) {
        open_family(d, (int)i);
        check_good(d, family_configs[i]);
    }
    remove_folder();
    d->ops->close(d);
}

static void test_mutations(void **state)
{
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);

    (void)state;
    CHECK(d, "%s", err.message);
    make_folder();
    for (size_t i = 0; i < COUNT(family_configs); i++) {
        open_family(d, (int)i);
        mutate(d, family_configs[i]);
    }
    remove_folder();
    d->ops->close(d);
}

/* What a config leaves out is as mlx-lm has it, or transformers, if it has written the config. */
static const struct left_out {
    const char *model_type, *key; /* with its value */
    double mlx, transformers;     /* of the first layer: the scale of attention, or theta */
} left_out[] = {
    {"gemma2", ",\"query_pre_attn_scalar\":16.0", 1.0 / 12, 1.0 / 16},
    {"cohere", ",\"rope_theta\":10000.0", 8000000, 500000},
};

static void check_left_out(device *d, const char *whole, const struct left_out *l, bool later)
{
    const char *at = strstr(whole, l->key);
    double want = later ? l->transformers : l->mlx, got;
    clm_error err = {0};
    char text[2048];
    struct model *m;
    int n;

    CHECK(at, "%s in %s", l->key, whole);
    n = snprintf(text, sizeof text, "{%s%.*s%s", later ? "\"transformers_version\":\"5.0.0\"," : "",
                 (int)(at - whole - 1), whole + 1, at + strlen(l->key));
    write_config(text, (size_t)n);
    m = model_open(folder, d, NULL, &err);
    CHECK(m, "%s\n%s", err.message, text);
    got = want < 1 ? (double)m->spec->layers[0].branches[0].attention.scale
                   : m->spec->layers[0].branches[0].attention.rope.theta;
    CHECK(fabs(got - want) < 1e-6 * want, "%g, expected %g: %s", got, want, text);
    model_close(m);
}

/* Without one key, which may be in an object inside. */
static void check_required(device *d, const char *whole, const char *key, bool later)
{
    char quoted[80], text[4096], missing[96];
    clm_error err = {0};
    const char *inner = strstr(whole, "\"text_config\":"), *at, *end;
    struct model *m;
    int n;

    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(inner ? inner : whole, quoted);
    CHECK(at, "%s in %s", quoted, whole);
    end = end_of_value(at + strlen(quoted));
    end += *end == ',';
    n = snprintf(text, sizeof text, "{%s%.*s%s", later ? "\"transformers_version\":\"5.0.0\"," : "",
                 (int)(at - whole - 1), whole + 1, end);
    CHECK(n > 0 && (size_t)n < sizeof text, "%s", whole);
    if (end[-1] != ',' && text[n - (int)strlen(end) - 1] == ',') /* it was the last one */
        memmove(text + n-- - strlen(end) - 1, end, strlen(end) + 1);
    write_config(text, (size_t)n);
    m = model_open(folder, d, NULL, &err);
    snprintf(missing, sizeof missing, "%s\": it is missing", key);
    CHECK(later || !m, "%s: runs without \"%s\"", whole, key);
    CHECK(!m == !!err.code && !strstr(err.message, missing) == later, "%s without \"%s\"\n%s",
          whole, key, err.message);
    model_close(m);
}

/* What mlx-lm has no default for must be there, unless transformers has written the config. */
static void test_required(void **state)
{
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);
    int n = 0;

    (void)state;
    CHECK(d, "%s", err.message);
    make_folder();
    for (size_t i = 0; i < COUNT(family_configs); i++) {
        json *parsed = json_parse(family_configs[i], strlen(family_configs[i]), "config", &err);
        const char *keys = model_required(json_string(json_get(parsed, "model_type"), NULL));
        bool by_transformers = json_get(parsed, "transformers_version") != NULL;

        for (; keys && *keys && !by_transformers; n++) {
            char key[64];

            snprintf(key, sizeof key, "%.*s", (int)strcspn(keys, " "), keys);
            keys += strlen(key) + (keys[strlen(key)] == ' ');
            open_family(d, (int)i);
            check_required(d, family_configs[i], key, false);
            check_required(d, family_configs[i], key, true);
        }
        json_free(parsed);
    }
    CHECK(n > 100, "%d keys", n);
    remove_folder();
    d->ops->close(d);
}

static void test_left_out(void **state)
{
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);

    (void)state;
    CHECK(d, "%s", err.message);
    make_folder();
    for (size_t l = 0; l < COUNT(left_out); l++) {
        char type[64];
        size_t i = 0;

        snprintf(type, sizeof type, "\"model_type\":\"%s\"", left_out[l].model_type);
        while (i < COUNT(family_configs) && !strstr(family_configs[i], type))
            i++;
        CHECK(i < COUNT(family_configs), "no config of %s", type);
        open_family(d, (int)i);
        check_left_out(d, family_configs[i], &left_out[l], false);
        check_left_out(d, family_configs[i], &left_out[l], true);
    }
    remove_folder();
    d->ops->close(d);
}

/* A part of the head that another key makes larger than what factors are there for. */
static void test_too_few_factors(void **state)
{
    static const char text[] =
        "{\"model_type\": \"minimax_m2\", \"hidden_size\": 32, \"num_hidden_layers\": 1, "
        "\"intermediate_size\": 8, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
        "\"rms_norm_eps\": 1e-05, \"vocab_size\": 48, \"max_position_embeddings\": 512, "
        "\"rope_theta\": 10000.0, \"head_dim\": 12, \"num_experts_per_tok\": 2, "
        "\"num_local_experts\": 5, \"shared_intermediate_size\": 0, \"partial_rotary_factor\": "
        "0.5, "
        "\"rotary_dim\": 12, \"rope_scaling\": {\"type\": \"longrope\", \"long_factor\": [1, 2, "
        "3], "
        "\"original_max_position_embeddings\": 8}}";
    struct model_format format = {.format = WEIGHT_BF16};
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);

    (void)state;
    CHECK(d, "%s", err.message);
    CHECK(!model_random(text, "config.json", format, d, NULL, &err), "3 factors for 6 pairs");
    CHECK(strstr(err.message, "3 factors") && strstr(err.message, "6 pairs"), "%s", err.message);
    d->ops->close(d);
}

/* transformers 4 left out of a text_config what its class has by default, LLaVA 1.5 all its sizes.
 */
static void test_parts(void **state)
{
    static const char llava[] =
        "{\"model_type\": \"llava_next\", %s \"text_config\": {\"model_type\": \"mistral\", "
        "\"rms_norm_eps\": 1e-05, \"num_hidden_layers\": 1, \"intermediate_size\": 8, "
        "\"hidden_size\": 64, \"vocab_size\": 48}}";
    struct model_format format = {.format = WEIGHT_BF16};
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);
    char text[1024];
    struct model *m;

    (void)state;
    CHECK(d, "%s", err.message);
    snprintf(text, sizeof text, llava, "\"transformers_version\": \"4.36.0\",");
    m = model_random(text, "config.json", format, d, NULL, &err);
    CHECK(m, "%s", err.message);
    assert_int_equal(m->spec->layers[0].branches[0].attention.n_heads, 32);
    assert_int_equal(m->spec->layers[0].branches[0].attention.n_kv_heads, 8);
    model_close(m);
    snprintf(text, sizeof text, llava, "");
    CHECK(!model_random(text, "config.json", format, d, NULL, &err), "heads by no one's default");
    CHECK(strstr(err.message, "text_config.num_attention_heads"), "%s", err.message);
    d->ops->close(d);
}

/* The list of configs is written by a script; it must not fall behind the registry. */
/* No two families serve one model_type. */
static void test_types_differ(void **state)
{
    (void)state;
    for (int f = 0; model_family(f); f++) {
        const char *const *types = model_family(f)->model_types;

        for (size_t t = 0; t < COUNT(model_family(f)->model_types) && types[t]; t++)
            CHECK(model_family_find(types[t]) == model_family(f), "%s is of two families",
                  types[t]);
    }
}

static void test_all_there(void **state)
{
    (void)state;
    for (int f = 0; model_family(f); f++) {
        /* Prism's config.json lists tensors that no checkpoint made of rules has. */
        bool found = model_family(f) == model_family_find("prism_hadamard_qwen35");

        for (size_t i = 0; i < COUNT(family_configs) && !found; i++) {
            clm_error err = {0};
            json *parsed = json_parse(family_configs[i], strlen(family_configs[i]), "config", &err);
            const char *type = json_string(json_get(parsed, "model_type"), NULL);

            found = type && model_family_find(type) == model_family(f);
            json_free(parsed);
        }
        CHECK(found, "no config of %s; run family_configs.py", model_family(f)->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_differ), cmocka_unit_test(test_all_there),
        cmocka_unit_test(test_parts),        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_required),     cmocka_unit_test(test_too_few_factors),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_mutations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
