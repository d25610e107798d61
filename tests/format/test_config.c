/* config.json and generation_config.json: what the readers give, and what they say of errors. */
#include "testing.h"

#include <dirent.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/strbuf.h"
#include "format/config.h"
#include "format/config_harmless.h"
#include "format/generation_config.h"

struct messages {
    int n;
    char last[2048];
};

static void keep_message(void *ctx, enum log_level level, const char *message)
{
    struct messages *m = ctx;

    CHECK(level == LOG_WARNING, "%s", message);
    m->n++;
    snprintf(m->last, sizeof m->last, "%s", message);
}

static config *parse_with(const char *text, struct messages *m)
{
    struct log log = {.fn = keep_message, .ctx = m};
    clm_error err = {0};
    config *c = config_parse(text, strlen(text), "dir/config.json", m ? &log : NULL, &err);

    CHECK(c, "%s: %s", text, err.message);
    return c;
}

static config *parse(const char *text)
{
    return parse_with(text, NULL);
}

static void check_done(config *c)
{
    clm_error err = {0};

    CHECK(!config_done(c, &err), "%s", err.message);
    config_close(c);
}

/* The error of c is the message exactly. */
static void check_failed(config *c, int code, const char *message)
{
    clm_error err = {0};

    CHECK(config_done(c, &err) == -1, "no error, expected: %s", message);
    CHECK(err.code == code, "code %d: %s", err.code, err.message);
    CHECK(!strcmp(err.message, message), "\"%s\", expected \"%s\"", err.message, message);
    config_close(c);
}

static void test_scalars(void **state)
{
    config *c =
        parse("{\"i\": 3, \"whole\": 4.0, \"zero\": 0, \"max\": 2147483647, \"neg\": -1,"
              " \"f\": 1e-05, \"b\": true, \"s\": \"text\", \"null\": null, \"empty\": \"\"}");

    (void)state;
    CHECK(config_int(c, "i") == 3 && config_int(c, "whole") == 4, "int");
    CHECK(config_int(c, "zero") == 0 && config_int(c, "max") == 2147483647, "limits");
    CHECK(config_int_or(c, "i", 7) == 3 && config_int_or(c, "absent", 7) == 7, "int_or");
    CHECK(config_int_or(c, "null", -7) == -7, "null is absent");
    CHECK(config_int_in(c, "neg", -1, 5) == -1, "int_in");
    CHECK(config_float(c, "f") == 1e-05 && config_float(c, "i") == 3, "float");
    CHECK(config_float_or(c, "absent", 0.5) == 0.5 && config_float_or(c, "f", 2) == 1e-05, "or");
    CHECK(config_bool(c, "b") && config_bool_or(c, "b", false), "bool");
    CHECK(config_bool_or(c, "absent", true) && !config_bool_or(c, "null", true), "bool_or");
    CHECK(!strcmp(config_string(c, "s"), "text") && !strcmp(config_string(c, "empty"), ""),
          "string");
    CHECK(!strcmp(config_string_or(c, "s", "x"), "text"), "string_or");
    CHECK(!strcmp(config_string_or(c, "absent", "x"), "x"), "string_or");
    CHECK(config_string_or(c, "null", NULL) == NULL, "string_or");
    CHECK(config_has(c, "i") && !config_has(c, "absent") && !config_has(c, "null"), "has");
    CHECK(!strcmp(config_path(c), "dir/config.json"), "%s", config_path(c));
    check_done(c);
}

static void test_arrays(void **state)
{
    config *c = parse("{\"ints\": [1, 0, 3.0], \"floats\": [0, 2.5, {\"__float__\": \"Infinity\"},"
                      " -Infinity], \"strings\": [\"a\", \"b\"], \"bools\": [true, false],"
                      " \"empty\": [], \"one\": 5, \"null\": null}");
    const int *ints;
    const double *floats;
    const bool *bools;
    const char *const *strings;

    (void)state;
    CHECK(config_ints(c, "ints", &ints) == 3, "ints");
    CHECK(ints[0] == 1 && ints[1] == 0 && ints[2] == 3, "ints");
    CHECK(config_floats(c, "floats", &floats) == 4, "floats");
    CHECK(floats[0] == 0 && floats[1] == 2.5, "floats");
    CHECK(isinf(floats[2]) && floats[2] > 0 && isinf(floats[3]) && floats[3] < 0, "infinity");
    CHECK(config_strings(c, "strings", &strings) == 2 && !strcmp(strings[1], "b"), "strings");
    CHECK(config_bools(c, "bools", &bools) == 2 && bools[0] && !bools[1], "bools");
    CHECK(config_ints(c, "empty", &ints) == 0 && !ints, "empty");
    CHECK(config_floats(c, "absent", &floats) == -1 && !floats, "absent");
    CHECK(config_strings(c, "null", &strings) == -1 && !strings, "null");
    CHECK(config_int_or_ints(c, "one", &ints) == 1 && ints[0] == 5, "one");
    CHECK(config_int_or_ints(c, "ints", &ints) == 3 && ints[2] == 3, "several");
    CHECK(config_int_or_ints(c, "null", &ints) == -1 && !ints, "none");
    check_done(c);
}

static void test_objects(void **state)
{
    config *c =
        parse("{\"z\": {\"x\": {\"y\": 1}}, \"map\": {\"k2\": {\"bits\": 4}, \"k1\": false,"
              " \"k3\": null}, \"null\": null, \"f\": {\"__float__\": \"Infinity\"}, \"a\": [],"
              " \"s\": \"\", \"n\": 1}");
    config *map = config_object(c, "map");

    (void)state;
    CHECK(config_int(config_object(config_object(c, "z"), "x"), "y") == 1, "nested");
    CHECK(config_object(c, "z") == config_object(c, "z"), "the same object twice");
    CHECK(!config_object(c, "absent") && !config_object(c, "null"), "absent");
    CHECK(!strcmp(config_key(map, 0), "k2") && !strcmp(config_key(map, 1), "k1"), "order");
    CHECK(!strcmp(config_key(map, 2), "k3") && !config_key(map, 3) && !config_key(map, -1), "end");
    CHECK(config_kind(map, "k2") == CONFIG_OBJECT && config_kind(map, "k1") == CONFIG_BOOL, "kind");
    CHECK(config_kind(map, "k3") == CONFIG_ABSENT && config_kind(map, "k4") == CONFIG_ABSENT,
          "kind");
    CHECK(config_kind(c, "f") == CONFIG_NUMBER && config_kind(c, "n") == CONFIG_NUMBER, "kind");
    CHECK(config_kind(c, "a") == CONFIG_ARRAY && config_kind(c, "s") == CONFIG_STRING, "kind");
    CHECK(config_int(config_object(map, "k2"), "bits") == 4, "map");
    CHECK(!config_bool(map, "k1"), "map");
    check_done(c);
}

static const int *ints;
static const double *floats;
static const bool *bools;
static const char *const *strings;

#define WHOLE "a whole number, not negative, below 2^31"

static void test_errors(void **state)
{
    static const char text[] =
        "{\"s\": \"abc\", \"n\": -1, \"big\": 2147483648, \"huge\": 1e300, \"f\": 1.5, \"b\": true,"
        " \"inf\": Infinity, \"nan\": {\"__float__\": \"NaN\"}, \"a\": [1, -2], \"mixed\": [1, "
        "\"x\"],"
        " \"nul\": \"a\\u0000b\", \"o\": {\"k\": [], \"p\": {}}, \"e20\": 99999999999999999999,"
        " \"long\": \"0123456789012345678901234567890123456789012345\", \"nans\": [NaN]}";
    config *c;

#define FAILS(call, message)                                                                       \
    do {                                                                                           \
        c = parse(text);                                                                           \
        (void)(call);                                                                              \
        check_failed(c, CLM_ERR_FORMAT, "dir/config.json: key " message);                          \
    } while (0)

    (void)state;
    FAILS(config_int(c, "hidden_size"), "\"hidden_size\" is missing, expected " WHOLE);
    FAILS(config_int_in(c, "m", 2, 8), "\"m\" is missing, expected a whole number from 2 to 8");
    FAILS(config_float(c, "m"), "\"m\" is missing, expected a finite number");
    FAILS(config_bool(c, "m"), "\"m\" is missing, expected true or false");
    FAILS(config_string(c, "m"), "\"m\" is missing, expected a string");
    FAILS(config_int(config_object(c, "o"), "m"), "\"o.m\" is missing, expected " WHOLE);
    FAILS(config_int(c, "s"), "\"s\" is \"abc\", expected " WHOLE);
    FAILS(config_int(c, "n"), "\"n\" is -1, expected " WHOLE);
    FAILS(config_int(c, "big"), "\"big\" is 2147483648, expected " WHOLE);
    FAILS(config_int_or(c, "huge", 1), "\"huge\" is 1.0000000000000001e+300, expected " WHOLE);
    FAILS(config_int_or(c, "e20", 1), "\"e20\" is 1e+20, expected " WHOLE);
    FAILS(config_int(c, "f"), "\"f\" is 1.5, expected " WHOLE);
    FAILS(config_int(c, "b"), "\"b\" is true, expected " WHOLE);
    FAILS(config_int(c, "inf"), "\"inf\" is Infinity, expected " WHOLE);
    FAILS(config_int_in(c, "n", 2, 8), "\"n\" is -1, expected a whole number from 2 to 8");
    FAILS(config_float(c, "inf"), "\"inf\" is Infinity, expected a finite number");
    FAILS(config_float_or(c, "nan", 1), "\"nan\" is NaN, expected a finite number");
    FAILS(config_float(c, "s"), "\"s\" is \"abc\", expected a finite number");
    FAILS(config_bool_or(c, "f", true), "\"f\" is 1.5, expected true or false");
    FAILS(config_string(c, "a"),
          "\"a\" is an array of 2, expected a string without NUL characters");
    FAILS(config_string_or(c, "o", ""),
          "\"o\" is an object, expected a string without NUL characters");
    FAILS(config_string_or(c, "nul", ""),
          "\"nul\" is \"a\", expected a string without NUL characters");
    FAILS(config_bool(c, "long"),
          "\"long\" is \"0123456789012345678901234567890123456789...\", expected true or false");
    FAILS(config_ints(c, "a", &ints), "\"a[1]\" is -2, expected " WHOLE);
    FAILS(config_ints(c, "s", &ints), "\"s\" is \"abc\", expected an array");
    FAILS(config_floats(c, "mixed", &floats), "\"mixed[1]\" is \"x\", expected a number");
    FAILS(config_floats(c, "nans", &floats), "\"nans[0]\" is NaN, expected a number");
    FAILS(config_strings(c, "mixed", &strings),
          "\"mixed[0]\" is 1, expected a string without NUL characters");
    FAILS(config_bools(c, "a", &bools), "\"a[0]\" is 1, expected true or false");
    FAILS(config_int_or_ints(c, "n", &ints), "\"n\" is -1, expected " WHOLE);
    FAILS(config_int_or_ints(c, "s", &ints), "\"s\" is \"abc\", expected an array");
    FAILS(config_object(c, "f"), "\"f\" is 1.5, expected an object");
    FAILS(config_object(config_object(c, "o"), "k"),
          "\"o.k\" is an array of 0, expected an object");
#undef FAILS
}

/* The first error stays, and after it nothing fails or gives anything but the harmless value. */
static void test_after_error(void **state)
{
    config *c = parse("{\"i\": 3, \"f\": 2, \"b\": true, \"s\": \"x\", \"a\": [1], \"o\": {}}");

    (void)state;
    CHECK(config_int(c, "first") == 1, "a missing number");
    CHECK(config_int(c, "second") == 1 && config_int(c, "i") == 1, "int");
    CHECK(config_int_or(c, "i", 9) == 9, "int_or");
    CHECK(config_int_in(c, "i", 2, 5) == 2 && config_int_in(c, "i", 0, 5) == 1, "int_in");
    CHECK(config_float(c, "f") == 1 && config_float_or(c, "f", 0.5) == 0.5, "float");
    CHECK(!config_bool(c, "b") && !config_bool_or(c, "b", false), "bool");
    CHECK(!strcmp(config_string(c, "s"), "") && !strcmp(config_string_or(c, "s", "y"), "y"),
          "string");
    CHECK(config_ints(c, "a", &ints) == -1 && !ints, "ints");
    CHECK(config_int_or_ints(c, "i", &ints) == -1 && !ints, "int or ints");
    CHECK(!config_object(c, "o"), "object");
    CHECK(config_int(config_object(c, "o"), "i") == 1, "of no object");
    CHECK(!config_object(config_object(c, "o"), "p") && !config_key(NULL, 0), "in no object");
    CHECK(config_fail(config_object(c, "o"), "s", "another") == -1, "fail of no object");
    CHECK(config_fail(c, "s", "another") == -1, "fail");
    check_failed(c, CLM_ERR_FORMAT, "dir/config.json: key \"first\" is missing, expected " WHOLE);

    c = parse("{\"rope\": {\"type\": \"spiral\"}}");
    config_fail(config_object(c, "rope"), "type", "\"%s\" is no rope type that clm knows",
                "spiral");
    CHECK(config_error(c)->code == CLM_ERR_UNSUPPORTED, "code");
    check_failed(c, CLM_ERR_UNSUPPORTED,
                 "dir/config.json: key \"rope.type\": \"spiral\" is no rope type that clm knows");
}

static void test_refused_files(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"[]", "dir/config.json: an object is expected"},
        {"", "dir/config.json: column 1"},
        {"{\"a\": 1, \"a\": 1}", "duplicate"},
        {"{\"a\": {\"b\\u0000\": 1}, \"b\\u0000\": 1}", "a key that begins with \"b\" holds a NUL"},
    };
    clm_error err = {0};
    config *c;

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        err = (clm_error){0};
        CHECK(!config_parse(cases[i].text, strlen(cases[i].text), "dir/config.json", NULL, &err),
              "%s", cases[i].text);
        CHECK(err.code == CLM_ERR_FORMAT && strstr(err.message, cases[i].message), "%s",
              err.message);
    }
    err = (clm_error){0};
    CHECK(!config_open("/nonexistent/config.json", NULL, &err), "taken");
    CHECK(err.code == CLM_ERR_IO && strstr(err.message, "/nonexistent/config.json"), "%s",
          err.message);
    c = parse("{\"a\": {\"b\\u0000\": 1}}");
    CHECK(!config_object(c, "a"), "taken");
    check_failed(c, CLM_ERR_FORMAT, "dir/config.json: a key that begins with \"a.b\" holds a NUL");
    config_close(NULL);
}

static void test_unread(void **state)
{
    struct messages m = {0};
    config *c = parse_with("{\"read\": 1, \"odd\": 2, \"torch_dtype\": \"x\", \"ignored\": 3,"
                           " \"null\": null, \"o\": {\"strange\": 1, \"attention_dropout\": 0.1,"
                           " \"read\": 2}, \"unopened\": {\"inner\": 1}, \"looked_at\": 1}",
                           &m);
    clm_error err = {0};

    (void)state;
    config_int(c, "read");
    config_int(config_object(c, "o"), "read");
    config_ignore(c, "ignored", "absent", NULL);
    CHECK(config_has(c, "looked_at") && config_kind(c, "looked_at") == CONFIG_NUMBER, "looks");
    CHECK(!config_done(config_object(c, "o"), &err), "%s", err.message);
    CHECK(m.n == 1, "%d messages", m.n);
    CHECK(!strcmp(m.last,
                  "dir/config.json: 4 keys are not understood and not used: odd, o.strange, "
                  "unopened, looked_at"),
          "%s", m.last);
    CHECK(!config_done(c, &err) && m.n == 1, "warned twice");
    config_close(c);

    m.n = 0;
    c = parse_with("{\"odd\": 1}", &m);
    CHECK(!config_done(c, &err) && m.n == 1 && strstr(m.last, "1 key is not"), "%s", m.last);
    config_close(c);

    m.n = 0;
    c = parse_with("{\"architectures\": []}", &m);
    CHECK(!config_done(c, &err) && m.n == 0, "%s", m.last);
    config_close(c);
}

static void test_many_unread(void **state)
{
    struct messages m = {0};
    struct strbuf text = {0};
    clm_error err = {0};
    config *c;

    (void)state;
    strbuf_add_char(&text, '{');
    for (int i = 0; i < 1000; i++)
        strbuf_addf(&text, "%s\"a_strange_key_%d\": 1", i ? "," : "", i);
    strbuf_add_char(&text, '}');
    c = parse_with(text.data, &m);
    CHECK(!config_done(c, &err) && m.n == 1, "%d messages", m.n);
    CHECK(strstr(m.last, "1000 keys"), "%s", m.last);
    CHECK(strstr(m.last, " more") && strlen(m.last) < 1000, "%s", m.last);
    config_close(c);
    strbuf_release(&text);
}

static void test_harmless(void **state)
{
    static const char *const yes[] = {
        "architectures",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "use_cache",
        "resid_pdrop",
        "hidden_dropout",
        "initializer_range",
        "pad_token_id",
        "eos_token_id",
        "_name_or_path",
        "auto_map",
        "output_attentions",
        "summary_type",
        "vision_config",
        "attention_probs_dropout_prob",
        "router_aux_loss_coef",
        "num_nextn_predict_layers",
        "max_position_embeddings",
    };
    static const char *const no[] = {
        "hidden_size",
        "sliding_window",
        "rope_scaling",
        "rope_parameters",
        "hidden_act",
        "layer_types",
        "num_experts_per_token",
        "head_dim",
        "quantization_config",
        "vocab_size",
        "logit_scale",
        "partial_rotary_factor",
        "use_sliding_window",
        "model_type",
        "attention_chunk_size",
        "tie_word_embeddings",
        "projectors_bias",
        "",
        "attn_logit_softcapping",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(yes); i++)
        CHECK(config_key_is_harmless(yes[i]), "%s", yes[i]);
    for (size_t i = 0; i < COUNT(no); i++)
        CHECK(!config_key_is_harmless(no[i]), "%s", no[i]);
}

/* Reads what any config of the goldens must have. */
static void read_golden(const char *path)
{
    clm_error err = {0};
    config *c = config_open(path, NULL, &err);

    CHECK(c, "%s", err.message);
    CHECK(config_string(c, "model_type")[0], "%s", path);
    for (int i = 0; config_key(c, i); i++)
        if (config_kind(c, config_key(c, i)) == CONFIG_OBJECT)
            CHECK(config_object(c, config_key(c, i)), "%s", config_key(c, i));
    CHECK(!config_done(c, &err), "%s", err.message);
    config_close(c);
}

static int read_folder(const char *folder)
{
    struct generation_config g;
    clm_error err = {0};
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int n = 0;

    CHECK(dir, "%s", folder);
    while ((entry = readdir(dir))) {
        char path[8192];

        snprintf(path, sizeof path, "%s/%s/config.json", folder, entry->d_name);
        if (entry->d_name[0] == '.' || access(path, R_OK))
            continue;
        read_golden(path);
        n++;
        path[strlen(path) - strlen("/config.json")] = '\0';
        CHECK(!generation_config_open(&g, path, &err), "%s", err.message);
        generation_config_close(&g);
    }
    closedir(dir);
    return n;
}

static void test_goldens(void **state)
{
    int n;

    (void)state;
    SKIP_IF_NO_SHARED();
    n = read_folder(shared_path("goldens/models")) + read_folder(shared_path("goldens/models_hf"));
    CHECK(n > 300, "%d", n);
}

static void test_generation(void **state)
{
    static const char text[] =
        "{\"bos_token_id\": 1, \"eos_token_id\": [2, 7], \"do_sample\": true, \"temperature\": 0.6,"
        " \"top_p\": 0.9, \"top_k\": 50, \"min_p\": 0.05, \"repetition_penalty\": 1.1, \"x\": 1}";
    struct generation_config g;
    clm_error err = {0};

    (void)state;
    CHECK(!generation_config_parse(&g, text, strlen(text), "g", &err), "%s", err.message);
    CHECK(g.n_eos_token_ids == 2 && g.eos_token_ids[0] == 2 && g.eos_token_ids[1] == 7, "eos");
    CHECK(g.bos_token_id == 1 && g.do_sample && g.top_k == 50, "bos, do_sample, top_k");
    CHECK(g.temperature == 0.6 && g.top_p == 0.9 && g.min_p == 0.05, "floats");
    CHECK(g.repetition_penalty == 1.1, "repetition_penalty");
    generation_config_close(&g);

    CHECK(!generation_config_parse(&g, "{\"eos_token_id\": 5}", 19, "g", &err), "%s", err.message);
    CHECK(g.n_eos_token_ids == 1 && g.eos_token_ids[0] == 5, "one eos");
    CHECK(g.bos_token_id == -1 && !g.do_sample && g.top_k == -1, "absent");
    CHECK(g.temperature < 0 && g.top_p < 0 && g.min_p < 0 && g.repetition_penalty < 0, "absent");
    generation_config_close(&g);

    CHECK(!generation_config_open(&g, "/nonexistent", &err), "%s", err.message);
    CHECK(g.n_eos_token_ids == 0 && g.bos_token_id == -1 && g.temperature < 0, "no file");
    generation_config_close(&g);
    generation_config_close(&g);
}

static void test_generation_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"top_p\": 1.5}",
         "g: key \"top_p\": 1.5 is out of range, expected a number from 0 to 1"},
        {"{\"temperature\": -1}", "key \"temperature\": -1 is out of range"},
        {"{\"temperature\": \"hot\"}", "key \"temperature\" is \"hot\""},
        {"{\"repetition_penalty\": 0}", "key \"repetition_penalty\": 0 is out of range"},
        {"{\"eos_token_id\": \"</s>\"}", "key \"eos_token_id\" is \"</s>\""},
        {"{\"eos_token_id\": [1, -1]}", "key \"eos_token_id[1]\" is -1"},
        {"{\"top_k\": -2}", "key \"top_k\" is -2"},
        {"[", "g: column 2"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct generation_config g;
        clm_error err = {0};

        CHECK(generation_config_parse(&g, cases[i].text, strlen(cases[i].text), "g", &err) == -1,
              "%s taken", cases[i].text);
        CHECK(strstr(err.message, cases[i].message), "%s", err.message);
        CHECK(!g.memory, "left open");
    }
}

static int read_all(clm_error *err)
{
    static const char text[] = "{\"a\": [1], \"o\": {\"s\": [\"x\"]}, \"e\": 1, \"odd\": 1}";
    struct messages m = {0};
    struct log log = {.fn = keep_message, .ctx = &m};
    config *c = config_parse(text, strlen(text), "config.json", &log, err);
    config *o;
    int rc;

    if (!c)
        return -1;
    config_ints(c, "a", &ints);
    config_int_or_ints(c, "e", &ints);
    o = config_object(c, "o");
    if (o)
        config_strings(o, "s", &strings);
    rc = config_done(c, err);
    config_close(c);
    return rc;
}

static void test_memory(void **state)
{
    bool failed = true;

    (void)state;
    for (long n = 0; failed; n++) {
        clm_error err = {0};
        int rc;

        mem_fail_after(n);
        rc = read_all(&err);
        failed = mem_fail_after(-1);
        /* The warning at the end may do without memory; nothing else. */
        CHECK(failed || !rc, "allocation %ld: %s", n, err.message);
        CHECK(!rc || err.code == CLM_ERR_NOMEM, "allocation %ld: %s", n, err.message);
        CHECK(n < 1000, "it never succeeds");
    }
}

/* What is not there counts as said; what is there stays, null too where it stands for no object,
 * and no one has to read it. */
static void test_defaults(void **state)
{
    struct messages m = {0};
    config *c = parse_with("{\"a\": 1, \"b\": null, \"o\": null, \"unread\": 2}", &m);
    config *inside;

    (void)state;
    config_defaults(c, "{\"a\": 7, \"b\": 7, \"c\": 7, \"d\": {\"e\": 7}, \"f\": 7, "
                       "\"o\": {\"p\": 7}}");
    config_defaults(c, "{\"a\": 8, \"c\": 8, \"h\": 8}");
    assert_int_equal(config_int(c, "h"), 8);
    assert_int_equal(config_int(c, "a"), 1);
    assert_int_equal(config_int_or(c, "b", 3), 3);
    assert_int_equal(config_int(c, "c"), 7);
    inside = config_object(c, "d");
    assert_int_equal(config_int(inside, "e"), 7);
    assert_int_equal(config_int(config_object(c, "o"), "p"), 7);
    assert_true(config_has(c, "f") && !config_has(c, "g"));
    check_done(c);
    assert_int_equal(m.n, 1);
    assert_non_null(strstr(m.last, "1 key is not understood and not used: unread"));
}

static void test_alias(void **state)
{
    struct messages m = {0};
    config *c = parse_with("{\"a\": 1, \"b\": 2, \"x\": 3, \"n\": null}", &m);

    (void)state;
    config_alias(c, "b", "a");
    config_alias(c, "x", "c");
    config_alias(c, "n", "c");
    config_alias(c, "missing", "c");
    assert_int_equal(config_int(c, "a"), 2);
    assert_int_equal(config_int(c, "c"), 3);
    assert_false(config_has(c, "x"));
    config_ignore(c, "n", NULL);
    check_done(c);
    assert_int_equal(m.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),     cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_objects),     cmocka_unit_test(test_errors),
        cmocka_unit_test(test_after_error), cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_unread),      cmocka_unit_test(test_many_unread),
        cmocka_unit_test(test_harmless),    cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_generation),  cmocka_unit_test(test_generation_refused),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_alias),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
