/* Checkpoints that contradict themselves: each gives one clear error that names what is wrong. */
#include <dirent.h>

#include "copy.h"
#include "format/json.h"
#include "models/family.h"
#include "models/tiny.h"
#include "rig.h"

/* CLM_ERR_FORMAT or CLM_ERR_UNSUPPORTED: a value that a later model may know how to read. */
#define BAD_VALUE -1

/* One thing changed in a checkpoint of a family; the error has the code and all the words. */
struct bad {
    const char *family;
    const char *old, *new; /* in config.json; NULL: as it is */
    void (*change)(struct tiny *t);
    int code;
    const char *words[3];
};

/* Changes of tensors */

static void remove_up_proj(struct tiny *t)
{
    tiny_remove(t, "model.layers.1.mlp.up_proj.weight");
}

static void remove_expert(struct tiny *t)
{
    tiny_remove(t, "model.layers.1.block_sparse_moe.experts.2.w3.weight");
}

static void add_tensor(struct tiny *t)
{
    tiny_add(t, "model.layers.0.self_attn.gate_proj", ".weight", DTYPE_BF16, 0, 4, 4);
}

static void add_bias(struct tiny *t)
{
    tiny_add(t, "model.layers.0.self_attn.o_proj", ".bias", DTYPE_BF16, 0, TINY_HIDDEN, 0);
}

static void add_expert(struct tiny *t)
{
    tiny_add(t, "model.layers.0.block_sparse_moe.experts.7.w1", ".weight", DTYPE_BF16, 0, TINY_MLP,
             TINY_HIDDEN);
}

static void stack_experts_again(struct tiny *t)
{
    tiny_add(t, "model.layers.0.block_sparse_moe.switch_mlp.up_proj", ".weight", DTYPE_BF16,
             TINY_EXPERTS, TINY_MLP, TINY_HIDDEN);
}

static void remove_first_expert_and_stack(struct tiny *t)
{
    tiny_remove(t, "model.layers.0.block_sparse_moe.experts.0.w3.weight");
    stack_experts_again(t);
}

static void add_layer(struct tiny *t)
{
    tiny_add(t, "model.layers.999999999.input_layernorm", ".weight", DTYPE_BF16, 0, TINY_HIDDEN, 0);
}

static void integers(struct tiny *t)
{
    struct checkpoint_tensor *w = tiny_find(t, "model.layers.0.self_attn.q_proj.weight");

    w->type = DTYPE_I16;
}

static void integer_norm(struct tiny *t)
{
    tiny_find(t, "model.norm.weight")->type = DTYPE_F8_E8M0;
    tiny_find(t, "model.norm.weight")->size = TINY_HIDDEN;
}

static void transpose(struct tiny *t)
{
    struct checkpoint_tensor *w = tiny_find(t, "model.layers.0.mlp.down_proj.weight");

    w->shape[0] = TINY_MLP;
    w->shape[1] = TINY_HIDDEN;
}

static void flatten(struct tiny *t)
{
    struct checkpoint_tensor *w = tiny_find(t, "model.layers.0.mlp.down_proj.weight");

    w->n_dims = 1;
    w->shape[0] = TINY_MLP * TINY_HIDDEN;
}

static void scalar(struct tiny *t)
{
    struct checkpoint_tensor *w = tiny_find(t, "model.layers.0.mlp.down_proj.weight");

    w->n_dims = 0;
    w->size = 2;
}

static void shorten_qkv(struct tiny *t)
{
    struct checkpoint_tensor *w = tiny_find(t, "model.layers.0.self_attn.qkv_proj.weight");

    w->shape[0] = TINY_QKV - 1;
    w->size -= 2 * TINY_HIDDEN;
}

static void drop_scales(struct tiny *t)
{
    tiny_remove(t, "model.layers.1.mlp.up_proj.scales");
}

static void drop_biases(struct tiny *t)
{
    tiny_remove(t, "model.layers.1.mlp.up_proj.biases");
}

static void fewer_words(struct tiny *t)
{
    struct checkpoint_tensor *w = tiny_find(t, "model.layers.1.mlp.up_proj.weight");

    w->shape[1] = 3;
    w->size = TINY_MLP * 3 * 4;
}

static void other_biases(struct tiny *t)
{
    tiny_find(t, "model.layers.1.mlp.up_proj.biases")->type = DTYPE_F16;
}

static void add_scales(struct tiny *t)
{
    tiny_add(t, "model.norm", ".scales", DTYPE_BF16, 0, 1, 1);
}

static void add_biases(struct tiny *t)
{
    tiny_add(t, "model.layers.0.self_attn.q_proj", ".biases", DTYPE_BF16, 0, 32, 1);
}

static const struct bad bad[] = {
    /* What the config says of the model */
    {"llama",
     "\"llama\"",
     "\"llamma\"",
     NULL,
     CLM_ERR_UNSUPPORTED,
     {"llamma", "\"llama\"", "config.json"}},
    {"llama", "\"llama\"", "\"perceiver\"", NULL, CLM_ERR_UNSUPPORTED, {"perceiver", "clm models"}},
    {"llama", "\"llama\"", "7", NULL, CLM_ERR_FORMAT, {"model_type"}},
    {"llama",
     "\"model_type\": \"llama\", ",
     "",
     NULL,
     CLM_ERR_FORMAT,
     {"model_type", "config.json"}},
    {"llama", "\"hidden_size\": 32, ", "", NULL, CLM_ERR_FORMAT, {"hidden_size", "config.json"}},
    {"llama",
     "\"hidden_size\": 32",
     "\"hidden_size\": \"32\"",
     NULL,
     CLM_ERR_FORMAT,
     {"hidden_size"}},
    {"llama", "\"hidden_size\": 32", "\"hidden_size\": -32", NULL, CLM_ERR_FORMAT, {"hidden_size"}},
    {"llama",
     "\"hidden_size\": 32",
     "\"hidden_size\": 1e99",
     NULL,
     CLM_ERR_FORMAT,
     {"hidden_size"}},
    {"llama",
     "\"hidden_size\": 32",
     "\"hidden_size\": 64",
     NULL,
     CLM_ERR_FORMAT,
     {"32", "64", "tensor "}},
    {"llama",
     "\"vocab_size\": 40",
     "\"vocab_size\": 41",
     NULL,
     CLM_ERR_FORMAT,
     {"40", "41", "tensor "}},
    {"llama",
     "\"num_hidden_layers\": 2",
     "\"num_hidden_layers\": 3",
     NULL,
     CLM_ERR_FORMAT,
     {"layer 2", "no tensor"}},
    {"llama",
     "\"num_hidden_layers\": 2",
     "\"num_hidden_layers\": 1",
     NULL,
     CLM_ERR_FORMAT,
     {"layer 1", "1 layers", "model.layers.1."}},
    {"llama",
     "\"num_hidden_layers\": 2",
     "\"num_hidden_layers\": 0",
     NULL,
     CLM_ERR_FORMAT,
     {"num_hidden_layers"}},
    {"llama",
     "\"num_hidden_layers\": 2",
     "\"num_hidden_layers\": 2000000000",
     NULL,
     CLM_ERR_FORMAT,
     {"num_hidden_layers"}},
    {"llama",
     "\"num_attention_heads\": 4",
     "\"num_attention_heads\": 3",
     NULL,
     CLM_ERR_FORMAT,
     {"config.json", "num_attention_heads 3", "num_key_value_heads 2"}},
    {"llama",
     "\"num_attention_heads\": 4",
     "\"num_attention_heads\": 0",
     NULL,
     CLM_ERR_FORMAT,
     {"num_attention_heads"}},
    {"llama",
     "\"num_key_value_heads\": 2",
     "\"num_key_value_heads\": 8",
     NULL,
     CLM_ERR_FORMAT,
     {"num_key_value_heads", "8"}},
    {"llama", "\"head_dim\": 8", "\"head_dim\": 9", NULL, CLM_ERR_FORMAT, {"rotary", "even", "9"}},
    {"llama", "\"head_dim\": 8", "\"head_dim\": 0", NULL, CLM_ERR_FORMAT, {"head", "0"}},
    {"llama", "\"rope_theta\": 10000.0", "\"rope_theta\": 0", NULL, CLM_ERR_FORMAT, {"rope_theta"}},
    {"llama",
     "\"rope_theta\": 10000.0",
     "\"rope_theta\": \"x\"",
     NULL,
     CLM_ERR_FORMAT,
     {"rope_theta"}},
    {"llama",
     "\"rope_theta\"",
     "\"rope_scaling\": {\"type\": \"spiral\", \"factor\": 2}, \"rope_theta\"",
     NULL,
     CLM_ERR_UNSUPPORTED,
     {"spiral", "rope"}},
    {"llama",
     "\"rope_theta\"",
     "\"rope_scaling\": {\"type\": \"linear\"}, \"rope_theta\"",
     NULL,
     CLM_ERR_FORMAT,
     {"factor", "rope_scaling"}},
    {"llama",
     "\"rope_theta\"",
     "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}, \"rope_theta\"",
     NULL,
     CLM_ERR_FORMAT,
     {"factor"}},
    {"llama",
     "\"rope_theta\"",
     "\"hidden_act\": \"swoosh\", \"rope_theta\"",
     NULL,
     CLM_ERR_UNSUPPORTED,
     {"swoosh", "hidden_act"}},
    {"llama", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", NULL, CLM_ERR_FORMAT, {"eps"}},
    {"llama", "{", "", NULL, CLM_ERR_FORMAT, {"config.json", "column 13"}},
    {"llama", "}", "} {", NULL, CLM_ERR_FORMAT, {"config.json"}},
    {"phi3", "[1.0, 1.5, 2.0, 4.0]", "[1.0, 1.5, 2.0]", NULL, BAD_VALUE, {"long_factor", "3"}},
    {"phi3", "[1.0, 1.5, 2.0, 4.0]", "[1.0, 1.5, 2.0, 0]", NULL, BAD_VALUE, {"long_factor", "0"}},
    {"gemma2", "[\"sliding_attention\", ", "[", NULL, BAD_VALUE, {"layer_types", "layer 1"}},
    {"gemma2",
     "[\"sliding_attention\", ",
     "[\"chunked_attention\", ",
     NULL,
     CLM_ERR_UNSUPPORTED,
     {"layer_types", "chunked_attention"}},
    {"gemma3_text",
     "\"sliding_window_pattern\": 2",
     "\"sliding_window_pattern\": 0",
     NULL,
     CLM_ERR_FORMAT,
     {"sliding_window_pattern"}},
    {"gemma2",
     "\"attn_logit_softcapping\": 50.0",
     "\"attn_logit_softcapping\": 0",
     NULL,
     BAD_VALUE,
     {"attn_logit_softcapping", "null"}},
    {"gemma3_text",
     "\"sliding_window\": 4",
     "\"sliding_window\": 0",
     NULL,
     BAD_VALUE,
     {"sliding_window", "is 0"}},
    {"kimi_k3",
     "\"linear_attn_config\"",
     "\"layer_types\": [\"full_attention\", \"linear_attention\"], \"linear_attn_config\"",
     NULL,
     BAD_VALUE,
     {"layer_types", "layer 0", "kda_layers"}},
    {"mixtral",
     "\"num_experts_per_tok\": 2",
     "\"num_experts_per_tok\": 5",
     NULL,
     CLM_ERR_FORMAT,
     {"num_experts_per_tok", "5"}},
    {"mixtral",
     "\"num_local_experts\": 4",
     "\"num_local_experts\": 5",
     NULL,
     CLM_ERR_FORMAT,
     {"[4, 32]", "[5, 32]", "tensor "}},
    {"mixtral",
     "\"num_local_experts\": 4",
     "\"num_local_experts\": 3",
     NULL,
     CLM_ERR_FORMAT,
     {"expert"}},
    {"qwen3_moe",
     "\"num_hidden_layers\": 2",
     "\"num_hidden_layers\": 4000",
     NULL,
     CLM_ERR_FORMAT,
     {"experts", "bytes", "config.json"}},
    {"qwen3_moe",
     "\"num_experts\": 4",
     "\"num_experts\": 5",
     NULL,
     CLM_ERR_FORMAT,
     {"5", "tensor "}},
    {"qwen3_moe",
     "\"decoder_sparse_step\": 1",
     "\"decoder_sparse_step\": 0",
     NULL,
     BAD_VALUE,
     {"decoder_sparse_step"}},
    {"qwen3_moe",
     "\"mlp_only_layers\": []",
     "\"mlp_only_layers\": [1]",
     NULL,
     CLM_ERR_FORMAT,
     {"model.layers.1."}},
    {"qwen2",
     "\"original_max_position_embeddings\": 32",
     "\"original_max_position_embeddings\": 0",
     NULL,
     BAD_VALUE,
     {"original_max_position_embeddings"}},
    /* The tensors */
    {"llama", NULL, NULL, remove_up_proj, CLM_ERR_FORMAT, {"up_proj", "layer 1", "no tensor"}},
    {"llama",
     NULL,
     NULL,
     add_tensor,
     CLM_ERR_FORMAT,
     {"model.layers.0.self_attn.gate_proj.weight"}},
    {"llama", NULL, NULL, add_bias, CLM_ERR_FORMAT, {"model.layers.0.self_attn.o_proj.bias"}},
    {"llama", NULL, NULL, add_layer, CLM_ERR_FORMAT, {"model.layers.999999999.input_layernorm"}},
    {"llama",
     NULL,
     NULL,
     integers,
     CLM_ERR_UNSUPPORTED,
     {"model.layers.0.self_attn.q_proj.weight", "I16"}},
    {"llama", NULL, NULL, integer_norm, CLM_ERR_UNSUPPORTED, {"model.norm.weight", "F8_E8M0"}},
    {"llama",
     NULL,
     NULL,
     transpose,
     CLM_ERR_FORMAT,
     {"model.layers.0.mlp.down_proj.weight", "[64, 32]", "[32, 64]"}},
    {"llama",
     NULL,
     NULL,
     flatten,
     CLM_ERR_FORMAT,
     {"model.layers.0.mlp.down_proj.weight", "[2048]", "[32, 64]"}},
    {"llama",
     NULL,
     NULL,
     scalar,
     CLM_ERR_FORMAT,
     {"model.layers.0.mlp.down_proj.weight", "[]", "[32, 64]"}},
    {"mistral",
     "\"tie_word_embeddings\": true",
     "\"tie_word_embeddings\": false",
     NULL,
     CLM_ERR_FORMAT,
     {"lm_head", "no tensor"}},
    {"phi3",
     NULL,
     NULL,
     shorten_qkv,
     CLM_ERR_FORMAT,
     {"model.layers.0.self_attn.qkv_proj.weight", "[63, 32]", "[64, 32]"}},
    {"mixtral", NULL, NULL, remove_expert, CLM_ERR_FORMAT, {"layer 1", "expert 2", "no tensor"}},
    {"mixtral", NULL, NULL, add_expert, CLM_ERR_FORMAT, {"experts.7.w1", "4 experts"}},
    {"mixtral",
     NULL,
     NULL,
     stack_experts_again,
     CLM_ERR_FORMAT,
     {"same weight", "experts.0.w3", "switch_mlp.up_proj"}},
    {"mixtral",
     NULL,
     NULL,
     remove_first_expert_and_stack,
     CLM_ERR_FORMAT,
     {"same weight", "experts.1.w3", "switch_mlp.up_proj"}},
    /* Quantised ones */
    {"llama_4bit",
     "\"bits\": 4}}",
     "\"bits\": 8}}",
     NULL,
     CLM_ERR_FORMAT,
     {"model.layers.1.mlp.up_proj", "4-bit", "8-bit"}},
    {"llama_4bit",
     "{\"group_size\": 32, \"bits\": 4}",
     "{\"group_size\": 64, \"bits\": 4}",
     NULL,
     CLM_ERR_FORMAT,
     {"model.layers.1.mlp.up_proj", "groups of 32", "groups of 64"}},
    {"llama_4bit", "\"bits\": 4}}", "\"bits\": \"four\"}}", NULL, CLM_ERR_FORMAT, {"bits"}},
    {"llama", NULL, NULL, add_scales, CLM_ERR_FORMAT, {"model.norm.scales", "no place"}},
    {"llama",
     NULL,
     NULL,
     add_biases,
     CLM_ERR_FORMAT,
     {"model.layers.0.self_attn.q_proj.biases", "no place"}},
    {"llama_4bit",
     NULL,
     NULL,
     drop_scales,
     CLM_ERR_FORMAT,
     {"model.layers.1.mlp.up_proj.biases", "no place"}},
    {"llama_4bit", NULL, NULL, drop_biases, CLM_ERR_FORMAT, {"biases", "up_proj", "layer 1"}},
    {"llama_4bit", NULL, NULL, fewer_words, CLM_ERR_FORMAT, {"model.layers.1.mlp.up_proj.weight"}},
    {"llama_4bit",
     NULL,
     NULL,
     other_biases,
     CLM_ERR_FORMAT,
     {"model.layers.1.mlp.up_proj.biases", "F16", "BF16"}},
    {"llama",
     "\"model_type\"",
     "\"quantization_config\": {\"quant_method\": \"hqq\", \"bits\": 4}, \"model_type\"",
     NULL,
     CLM_ERR_UNSUPPORTED,
     {"hqq"}},
    {"llama",
     "\"model_type\"",
     "\"quantization_config\": {\"quant_method\": \"bitnet\", \"quantization_mode\": "
     "\"online\"}, \"model_type\"",
     NULL,
     CLM_ERR_UNSUPPORTED,
     {"bitnet online"}},
    {"llama",
     "\"model_type\"",
     "\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
     "\"marlin-24\"}, \"model_type\"",
     NULL,
     CLM_ERR_UNSUPPORTED,
     {"marlin-24"}},
};

static int n_failures;

static void expect_error(const char *path, int code, const char *const *words, const char *what)
{
    clm_error err = {0};
    struct rig r;
    bool opened = rig_open(&r, path, 1, true, &err) == 0, good;

    good = !opened && !strchr(err.message, '\n');
    if (code == BAD_VALUE)
        good = good && (err.code == CLM_ERR_FORMAT || err.code == CLM_ERR_UNSUPPORTED);
    else
        good = good && err.code == code;
    for (int i = 0; i < 3 && words[i]; i++)
        good = good && strstr(err.message, words[i]);
    if (!good) {
        print_error("%s\n    code %d, not %d, or without a word: %s\n", what, err.code, code,
                    opened ? "opened" : err.message);
        n_failures++;
    }
    rig_close(&r);
}

static void check_bad(const struct bad *b)
{
    struct tiny t;
    char *text = NULL;
    char what[400];

    tiny_open(&t, tiny_find_family(b->family));
    if (b->change)
        b->change(&t);
    if (b->old)
        text = copy_replace(t.config, b->old, b->new);
    temporary_write("model/config.json", text ? text : t.config);
    tiny_write_weights(&t, temporary_path("model"));
    snprintf(what, sizeof what, "%s, row %d: %s -> %s", b->family, (int)(b - bad),
             b->old ? b->old : "", b->old ? b->new : "tensors");
    expect_error(temporary_path("model"), b->code, b->words, what);
    free(text);
    tiny_close(&t);
    temporary_clear();
}

static void test_contradictions(void **state)
{
    (void)state;
    n_failures = 0;
    for (size_t i = 0; i < COUNT(bad); i++)
        check_bad(&bad[i]);
    CHECK(n_failures == 0, "%d errors are missing or unclear", n_failures);
}

/* What is broken above must be whole before. */
static void test_unbroken_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(tiny_families); i++) {
        static const int32_t tokens[] = {1, 5, 9, 13, 2, 7, 30, 39};
        float logits[COUNT(tokens) * TINY_VOCAB];
        clm_error err = {0};
        struct tiny t;
        struct rig r;
        kv_seq *seq;

        tiny_open(&t, &tiny_families[i]);
        temporary_write("model/config.json", t.config);
        tiny_write_weights(&t, temporary_path("model"));
        CHECK(rig_open(&r, temporary_path("model"), 1, true, &err) == 0, "%s: %s",
              tiny_families[i].name, err.message);
        CHECK(r.vocab_size == TINY_VOCAB, "%d", r.vocab_size);
        seq = rig_sequence(&r);
        rig_feed(&r, seq, tokens, COUNT(tokens), logits);
        for (size_t j = 0; j < COUNT(logits); j++)
            CHECK(logits[j] == logits[j] && logits[j] - logits[j] == 0, "%s: logit %zu is %f",
                  tiny_families[i].name, j, (double)logits[j]);
        kv_seq_close(seq);
        rig_close(&r);
        tiny_close(&t);
        temporary_clear();
    }
}

/* Folders and files */

static void test_folders(void **state)
{
    static const char *const index =
        "{\"weight_map\": {\"model.norm.weight\": \"model-1.safetensors\"}}";
    struct tiny t;

    (void)state;
    n_failures = 0;
    tiny_open(&t, tiny_find_family("llama"));
    expect_error(temporary_path("nowhere"), CLM_ERR_IO, (const char *[3]){"nowhere", "no such"},
                 "a folder that is not there");
    temporary_write("file", "text");
    expect_error(temporary_path("file"), CLM_ERR_IO, (const char *[3]){"file", "directory"},
                 "a file in place of a folder");
    mkdir(temporary_path("model"), 0777);
    expect_error(temporary_path("model"), CLM_ERR_IO, (const char *[3]){"config.json"},
                 "an empty folder");
    temporary_write("model/config.json", t.config);
    expect_error(temporary_path("model"), CLM_ERR_IO, (const char *[3]){"model", "safetensors"},
                 "no weights");
    temporary_write("model/model.safetensors.index.json", index);
    expect_error(temporary_path("model"), CLM_ERR_IO, (const char *[3]){"model-1.safetensors"},
                 "a shard that is not there");
    remove(temporary_path("model/model.safetensors.index.json"));
    temporary_write("model/model.safetensors", "");
    expect_error(temporary_path("model"), CLM_ERR_FORMAT, (const char *[3]){"model.safetensors"},
                 "empty weights");
    temporary_write("model/config.json", "");
    expect_error(temporary_path("model"), CLM_ERR_FORMAT, (const char *[3]){"config.json"},
                 "an empty config");
    tiny_close(&t);
    temporary_clear();
    CHECK(n_failures == 0, "%d errors are missing or unclear", n_failures);
}

/* Weights cut at any place are refused; only the last byte of padding could be spared. */
static void test_cut_weights(void **state)
{
    struct tiny t;
    struct stat st;

    (void)state;
    n_failures = 0;
    tiny_open(&t, tiny_find_family("llama"));
    temporary_write("model/config.json", t.config);
    tiny_write_weights(&t, temporary_path("model"));
    CHECK(stat(temporary_path("model/model.safetensors"), &st) == 0, "no weights");
    for (long size = (long)st.st_size - 1; size > 0; size = size * 3 / 4) {
        CHECK(truncate(temporary_path("model/model.safetensors"), size) == 0, "cannot cut");
        expect_error(temporary_path("model"), CLM_ERR_FORMAT,
                     (const char *[3]){"model.safetensors"}, "cut weights");
    }
    tiny_close(&t);
    temporary_clear();
    CHECK(n_failures == 0, "%d errors are missing or unclear", n_failures);
}

/* Architectures that clm does not have yet: the goldens hold many. */
static void test_other_architectures(void **state)
{
    const char *root;
    struct dirent **entries;
    int n, n_refused = 0;

    (void)state;
    SKIP_IF_NO_SHARED();
    n_failures = 0;
    root = shared_path("goldens/models_hf");
    n = scandir(root, &entries, NULL, alphasort);
    CHECK(n > 0, "%s is empty", root);
    for (int i = 0; i < n; i++) {
        char path[4096], file[4200];
        clm_error err = {0};
        json *text;
        const char *type;

        snprintf(path, sizeof path, "%s/%s", root, entries[i]->d_name);
        snprintf(file, sizeof file, "%s/config.json", path);
        text = access(file, R_OK) ? NULL : json_parse_file(file, &err);
        type = json_string(json_get(text, "model_type"), NULL);
        if (type && !model_family_find(type)) {
            expect_error(path, CLM_ERR_UNSUPPORTED, (const char *[3]){type, "model_type"}, path);
            n_refused++;
        }
        json_free(text);
        free(entries[i]);
    }
    free(entries);
    print_message("%d architectures are refused\n", n_refused);
    CHECK(n_failures == 0, "%d errors are missing or unclear", n_failures);
}

/* Memory */

/* Opens, steps and closes with one allocation failing; whether all went well. */
static bool run_once(const char *path)
{
    static const int32_t tokens[] = {3, 1, 4, 1, 5};
    clm_error err = {0};
    struct rig r;
    bool done = false;
    const float *logits;

    if (rig_open(&r, path, 1, true, &err) == 0) {
        kv_seq *seq = kv_seq_open(engine_cache(r.engine), &err);
        struct engine_input input = {
            .seq = seq, .tokens = tokens, .n_tokens = COUNT(tokens), .n_logits = 1};

        if (seq && engine_step(r.engine, &input, 1, &logits, &err) == 0)
            done = true;
        else if (seq)
            CHECK(kv_seq_length(seq) == 0, "a step that failed left %d tokens", kv_seq_length(seq));
        kv_seq_close(seq);
    }
    CHECK(done == !err.code, "error %d: %s", err.code, err.message);
    CHECK(done || err.code == CLM_ERR_NOMEM, "error %d: %s", err.code, err.message);
    rig_close(&r);
    return done;
}

static void test_failing_allocations(void **state)
{
    static const char *const families[] = {"llama_4bit", "qwen3_moe", "gemma3_text", "phi3"};

    (void)state;
    for (size_t i = 0; i < COUNT(families); i++) {
        struct tiny t;
        bool done = false;

        tiny_open(&t, tiny_find_family(families[i]));
        temporary_write("model/config.json", t.config);
        tiny_write_weights(&t, temporary_path("model"));
        for (long n = 0; !done; n++) {
            bool failed;

            mem_fail_after(n);
            done = run_once(temporary_path("model"));
            failed = mem_fail_after(-1);
            CHECK(done || failed, "%s fails by itself", families[i]);
            CHECK(n < 100000, "%s never succeeds", families[i]);
        }
        tiny_close(&t);
        temporary_clear();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unbroken_ones),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_cut_weights),
        cmocka_unit_test(test_other_architectures),
        cmocka_unit_test(test_failing_allocations),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
