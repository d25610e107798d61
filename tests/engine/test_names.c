/* Checkpoints that say the same in other words: tensors under other names, a config that counts or
 * ties otherwise than its file. The logits stay those of the golden they were made from. */
#include "base/file.h"
#include "base/temporary.h"
#include "copy.h"
#include "format/safetensors.h"
#include "golden.h"
#include "rig.h"

enum { MAX_TENSORS = 512, NAME = 200 };

/* A part of a name becomes another; a '#' in it: an expert's number, of a tensor that holds all. */
struct renaming {
    const char *from, *to;
};

struct retelling {
    const char *fixture;
    const char *old, *new; /* in config.json; NULL: as it is */
    const struct renaming *renamings;
    int n_biases; /* zeros as biases of queries, so many, and of the rest of attention; 0: none */
};

/* DeepSeek's own names of V4.1. */
static const struct renaming published[] = {
    {".mlp.experts.switch_mlp.gate_proj", ".ffn.experts.#.w1"},
    {".mlp.experts.switch_mlp.up_proj", ".ffn.experts.#.w3"},
    {".mlp.experts.switch_mlp.down_proj", ".ffn.experts.#.w2"},
    {".mlp.shared_experts.gate_proj", ".ffn.shared_experts.w1"},
    {".mlp.shared_experts.up_proj", ".ffn.shared_experts.w3"},
    {".mlp.shared_experts.down_proj", ".ffn.shared_experts.w2"},
    {".mlp.gate.e_score_correction_bias", ".ffn.gate.bias"},
    {".mlp.gate", ".ffn.gate"},
    {".compressor.kv_norm", ".compressor.norm"},
    {".compressor.gate_proj", ".compressor.wgate"},
    {".indexer.k_proj", ".indexer.wk"},
    {".q_a_norm", ".q_norm"},
    {".q_a_proj", ".wq_a"},
    {".q_b_proj", ".wq_b"},
    {".kv_proj", ".wkv"},
    {".o_a_proj", ".wo_a"},
    {".o_b_proj", ".wo_b"},
    {".sinks", ".attn_sink"},
    {".self_attn.", ".attn."},
    {".attn_hc.", ".hc_attn_"},
    {".ffn_hc.", ".hc_ffn_"},
    {".input_layernorm", ".attn_norm"},
    {".post_attention_layernorm", ".ffn_norm"},
    {"lm_head.", "head."},
    {"model.embed_tokens.", "embed."},
    {"model.", ""},
    {NULL, NULL},
};

/* Beside what speaks. */
static const struct renaming thinker[] = {
    {"lm_head.", "thinker.lm_head."},
    {"model.", "thinker.model."},
    {NULL, NULL},
};

static const struct retelling retellings[] = {
    {"deepseek_v41", NULL, NULL, published, 0},
    {"qwen2_untied", NULL, NULL, thinker, 0},
    /* A head in the file serves, whatever the config says; families without one are tied. */
    {"qwen2_moe", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", NULL, 0},
    {"hunyuan", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", NULL, 0},
    {"lille-130m", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", NULL, 0},
    /* There are as many layers as layer_types has. */
    {"ministral3", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 5", NULL, 0},
    /* A bias of its own beside a fused weight. */
    {"hf_hunyuan", "\"attention_bias\": false", "\"attention_bias\": true", NULL, 32},
};

struct retold {
    struct checkpoint_tensor tensors[MAX_TENSORS];
    char names[MAX_TENSORS][NAME];
    size_t n;
};

static void rename_tensor(char *name, const struct renaming *r)
{
    for (; r && r->from; r++) {
        char *at = strstr(name, r->from), rest[NAME];

        if (!at)
            continue;
        snprintf(rest, sizeof rest, "%s", at + strlen(r->from));
        snprintf(at, NAME - (size_t)(at - name), "%s%s", r->to, rest);
    }
}

static struct checkpoint_tensor *next_tensor(struct retold *r, struct checkpoint_tensor t)
{
    CHECK(r->n < MAX_TENSORS, "too many tensors");
    t.name = r->names[r->n];
    r->tensors[r->n] = t;
    return &r->tensors[r->n++];
}

/* A stack of experts, one by one. */
static void add_experts(struct retold *r, struct checkpoint_tensor t, const char *name)
{
    int64_t n = t.shape[0];
    const char *mark = strchr(name, '#');

    t.size /= (size_t)n;
    t.n_dims--;
    memmove(t.shape, t.shape + 1, (size_t)t.n_dims * sizeof *t.shape);
    for (int64_t e = 0; e < n; e++) {
        snprintf(r->names[r->n], NAME, "%.*s%d%s", (int)(mark - name), name, (int)e, mark + 1);
        next_tensor(r, t)->data = (const uint8_t *)t.data + (size_t)e * t.size;
    }
}

static void add_zeros(struct retold *r, const struct retelling *how, int n_layers)
{
    static const float zeros[64];

    for (int layer = 0; how->n_biases && layer < n_layers; layer++)
        for (const char *c = "qkvo"; *c; c++) {
            /* Keys and values have a half of the heads. */
            int n = *c == 'k' || *c == 'v' ? how->n_biases / 2 : how->n_biases;

            snprintf(r->names[r->n], NAME, "model.layers.%d.self_attn.%c_proj.bias", layer, *c);
            next_tensor(r, (struct checkpoint_tensor){.type = DTYPE_F32,
                                                      .n_dims = 1,
                                                      .shape = {n},
                                                      .data = zeros,
                                                      .size = (size_t)n * sizeof(float)});
        }
}

static void retell(const struct retelling *how, const char *from, const char *to, int n_layers)
{
    struct retold *r = calloc(1, sizeof *r);
    char *text = copy_text(from, "config.json"), path[600];
    char *changed = how->old ? copy_replace(text, how->old, how->new) : strdup(text);
    clm_error err = {0};
    checkpoint *c = checkpoint_open(from, NULL, &err);

    CHECK(c && r && changed, "%s", err.message);
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct checkpoint_tensor *t = checkpoint_at(c, i);
        char name[NAME];

        snprintf(name, sizeof name, "%s", t->name);
        rename_tensor(name, how->renamings);
        if (strchr(name, '#')) {
            add_experts(r, *t, name);
            continue;
        }
        CHECK(r->n < MAX_TENSORS, "too many tensors");
        memcpy(r->names[r->n], name, sizeof name);
        next_tensor(r, *t);
    }
    add_zeros(r, how, n_layers);
    snprintf(path, sizeof path, "%s/config.json", to);
    temporary_write(path, changed);
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    CHECK(!safetensors_write(temporary_path(path), r->tensors, r->n, NULL, 0, &err), "%s",
          err.message);
    checkpoint_close(c);
    free(changed);
    mem_free(text);
    free(r);
}

static int layers_of(const char *path)
{
    struct rig rig;
    clm_error err = {0};
    int n;

    CHECK(rig_open(&rig, path, 1, true, &err) == 0, "%s", err.message);
    n = rig.model->spec->n_layers;
    rig_close(&rig);
    return n;
}

static void test_retellings(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < COUNT(retellings); i++) {
        const struct retelling *how = &retellings[i];
        char from[300], golden_file[2100], to[40], file[2048];
        struct golden golden;
        struct rig rig;
        clm_error err = {0};
        kv_seq *seq;
        float *logits;
        double distance;

        snprintf(from, sizeof from, "goldens/models/%s", how->fixture);
        snprintf(file, sizeof file, "%s", shared_path(from));
        snprintf(golden_file, sizeof golden_file, "%s/golden.safetensors", file);
        snprintf(to, sizeof to, "retold%d", (int)i);
        retell(how, file, to, layers_of(file));
        golden_open(&golden, golden_file);
        CHECK(rig_open(&rig, temporary_path(to), 2, true, &err) == 0, "%s: %s", how->fixture,
              err.message);
        logits = malloc((size_t)golden.n_prompt * (size_t)golden.vocab_size * sizeof *logits);
        seq = rig_sequence(&rig);
        CHECK(logits, "no memory");
        rig_feed(&rig, seq, golden.prompt, golden.n_prompt, logits);
        distance = golden_distance(&golden, logits, golden.prompt_logits,
                                   (size_t)golden.n_prompt * (size_t)golden.vocab_size);
        CHECK(distance <= EXACT_TOLERANCE, "%s: %g", how->fixture, distance);
        kv_seq_close(seq);
        rig_close(&rig);
        golden_close(&golden);
        free(logits);
    }
}

/* Logits of some tokens from a copy of a checkpoint whose head is its table of embeddings: under
 * its own name, or tied, with nothing but its bias in the file. */
static float *logits_of_table(const char *from, const char *to, bool tied, int *vocab_size)
{
    static const int32_t tokens[] = {3, 1, 4, 1, 5};
    static const char said[] = "\"tie_word_embeddings\": false";
    struct checkpoint_tensor tensors[MAX_TENSORS];
    char *text = copy_text(from, "config.json"), path[600];
    char *changed = tied ? copy_replace(text, said, "\"tie_word_embeddings\": true") : strdup(text);
    clm_error err = {0};
    checkpoint *c = checkpoint_open(from, NULL, &err);
    struct rig rig;
    kv_seq *seq;
    size_t n = 0;
    float *logits;

    CHECK(c && changed && checkpoint_count(c) <= MAX_TENSORS, "%s", err.message);
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        bool head = strcmp(checkpoint_at(c, i)->name, "lm_head.weight") == 0;

        if (head && tied)
            continue;
        tensors[n++] = *(head ? checkpoint_find(c, "transformer.wte.weight") : checkpoint_at(c, i));
        tensors[n - 1].name = checkpoint_at(c, i)->name;
    }
    snprintf(path, sizeof path, "%s/config.json", to);
    temporary_write(path, changed);
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    CHECK(!safetensors_write(temporary_path(path), tensors, n, NULL, 0, &err), "%s", err.message);
    CHECK(rig_open(&rig, temporary_path(to), 1, true, &err) == 0, "%s", err.message);
    *vocab_size = rig.vocab_size;
    logits = malloc(COUNT(tokens) * (size_t)rig.vocab_size * sizeof *logits);
    CHECK(logits, "no memory");
    seq = rig_sequence(&rig);
    rig_feed(&rig, seq, tokens, COUNT(tokens), logits);
    kv_seq_close(seq);
    rig_close(&rig);
    checkpoint_close(c);
    free(changed);
    mem_free(text);
    return logits;
}

/* A tied head keeps a bias of its own. */
static void test_bias_of_tied_head(void **state)
{
    const char *from = shared_path("goldens/models_hf/codegen");
    float *own, *tied;
    int vocab_size;

    (void)state;
    SKIP_IF_NO_SHARED();
    own = logits_of_table(from, "own", false, &vocab_size);
    tied = logits_of_table(from, "tied", true, &vocab_size);
    CHECK(memcmp(own, tied, 5 * (size_t)vocab_size * sizeof *own) == 0, "they differ");
    free(own);
    free(tied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retellings),
        cmocka_unit_test(test_bias_of_tied_head),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
