/* Adapters of both forms against checkpoints of the sums: W + s B A stored as f32, of DoRA with
 * rows of their lengths; on linears, fused ones, experts and embeddings. Those that contradict
 * themselves or the model. For what PEFT computes itself see test_peft.c. */
#include <math.h>

#include "../models/derived.h"
#include "tiny_run.h"

enum form { MLX, PEFT };

struct adapting {
    const char *name;
    const char *family;
    enum form form;
    bool dora;
    const char *only[4]; /* parts of the names that are adapted; none: all matrices of layers */
    const char *config;  /* adapter_config.json */
    double (*scale)(const char *module, int rank);
};

#define MLX_CONFIG(kind, more)                                                                     \
    "{\"fine_tune_type\": \"" kind "\", \"num_layers\": 2, \"lora_parameters\": {\"rank\": 3, "    \
    "\"scale\": 2.0, \"dropout\": 0.1" more "}}"

static double two(const char *module, int rank)
{
    (void)module;
    (void)rank;
    return 2;
}

/* lora_alpha 6, but of up_proj 12 and of the first layer's q_proj 1.5 */
static double by_pattern(const char *module, int rank)
{
    double alpha = strstr(module, "up_proj")                     ? 12
                   : strstr(module, "layers.0.self_attn.q_proj") ? 1.5
                                                                 : 6;

    return alpha / sqrt(rank);
}

static double six(const char *module, int rank)
{
    (void)module;
    return 6.0 / rank;
}

#define PEFT_PATTERNS                                                                              \
    "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_rslora\": true, "                \
    "\"alpha_pattern\": {\"up_proj\": 12, \"model.layers.0.self_attn.q_proj\": 1.5}, "             \
    "\"rank_pattern\": {\"layers\\\\.1\\\\..*down_proj\": 2}, \"target_modules\": [\"q_proj\"]}"

static const struct adapting adaptings[] = {
    {"lora", "llama", MLX, false, {NULL}, MLX_CONFIG("lora", ""), two},
    {"lora of keys",
     "llama",
     MLX,
     false,
     {"q_proj", "up_proj"},
     MLX_CONFIG("lora", ", \"keys\": [\"self_attn.q_proj\", \"mlp.up_proj\"]"),
     two},
    {"dora", "llama", MLX, true, {NULL}, MLX_CONFIG("dora", ""), two},
    {"dora with biases", "qwen2", MLX, true, {NULL}, MLX_CONFIG("dora", ""), two},
    {"lora of fused projections", "phi3", MLX, false, {NULL}, MLX_CONFIG("lora", ""), two},
    {"dora of fused projections", "phi3", MLX, true, {NULL}, MLX_CONFIG("dora", ""), two},
    {"lora of stacked experts", "qwen3_moe", MLX, false, {NULL}, MLX_CONFIG("lora", ""), two},
    {"lora of a tied embedding",
     "qwen3",
     MLX,
     false,
     {"embed_tokens"},
     MLX_CONFIG("lora", ""),
     two},
    {"dora of a tied embedding", "qwen3", MLX, true, {"embed_tokens"}, MLX_CONFIG("dora", ""), two},
    {"lora of an embedding that is scaled",
     "gemma",
     MLX,
     false,
     {"embed_tokens"},
     MLX_CONFIG("lora", ""),
     two},
    {"peft", "llama", PEFT, false, {NULL}, PEFT_PATTERNS, by_pattern},
    {"peft, dora",
     "llama",
     PEFT,
     true,
     {NULL},
     "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_dora\": true}",
     six},
    {"peft of experts",
     "mixtral",
     PEFT,
     false,
     {"experts.1.", "experts.2.w1", "q_proj"},
     "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"rank_pattern\": {\"w2\": 5}}",
     six},
    {"peft, dora of experts",
     "mixtral",
     PEFT,
     true,
     {"experts.1.", "experts.2.w1", "q_proj"},
     "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_dora\": true}",
     six},
    {"peft of an embedding",
     "llama",
     PEFT,
     false,
     {"embed_tokens", "lm_head"},
     "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6}",
     six},
    {"lora of layers gone through twice",
     "nanbeige",
     MLX,
     false,
     {NULL},
     MLX_CONFIG("lora", ""),
     two},
    {"lora of keys in layers of another name",
     "plamo2",
     MLX,
     false,
     {"gate_up_proj"},
     MLX_CONFIG("lora", ", \"keys\": [\"mlp.gate_up_proj\"]"),
     two},
};

static float *random_numbers(size_t n, float size)
{
    float *p = memory(n, sizeof *p);

    random_floats(p, n);
    for (size_t i = 0; i < n; i++)
        p[i] *= size;
    return p;
}

static float *turned(const float *m, int rows, int cols)
{
    float *out = memory((size_t)(rows * cols), sizeof *out);

    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            out[j * rows + i] = m[i * cols + j];
    return out;
}

static float *copied(const float *m, int n)
{
    return memcpy(memory((size_t)n, sizeof *m), m, (size_t)n * sizeof *m);
}

/* --- the adapter and what comes of it -----------------------------------------------------------
 */

/* w [rows, cols] becomes w + scale b a, its rows of length m. */
static void merge(float *w, const float *a, const float *b, const float *m, int rows, int cols,
                  int rank, double scale)
{
    for (int o = 0; o < rows; o++) {
        double length = 0;

        for (int i = 0; i < cols; i++) {
            double sum = 0;

            for (int r = 0; r < rank; r++)
                sum += (double)b[o * rank + r] * (double)a[r * cols + i];
            w[o * cols + i] += (float)(scale * sum);
            length += (double)w[o * cols + i] * (double)w[o * cols + i];
        }
        for (int i = 0; m && i < cols; i++)
            w[o * cols + i] *= m[o] / (float)sqrt(length);
    }
}

static int rank_of(const struct adapting *c, const char *module)
{
    if (strstr(c->config, "\"w2\"") && strstr(module, ".w2"))
        return 5;
    return strstr(c->config, "down_proj") && strstr(module, "layers.1.mlp.down_proj") ? 2 : 3;
}

/* The tensors of one module; a [E rank, cols], b [E rows, rank]; they are given away. */
static void put_module(struct tiny *t, const struct adapting *c, const char *module, int stack,
                       int rows, int cols, int rank, float *a, float *b, float *m)
{
    bool table = strstr(module, "embed_tokens") != NULL;
    char name[300], base[256];

    snprintf(base, sizeof base, "%s%s", c->form == PEFT ? "base_model.model." : "", module);
    if (c->form == MLX && !stack && !table) { /* [cols, rank], [rank, rows] */
        float *at = turned(a, rank, cols), *bt = turned(b, rows, rank);

        free(a);
        free(b);
        a = at;
        b = bt;
    }
    if (c->form == PEFT && table) {
        float *at = turned(a, rank, cols), *bt = turned(b, rows, rank);

        free(a);
        free(b);
        a = bt; /* [rank, rows] */
        b = at; /* [cols, rank] */
    }
    if (c->form == MLX && table) { /* [rows, rank], [rank, cols] */
        float *swap = a;

        a = b;
        b = swap;
    }
    snprintf(name, sizeof name, "%s%s", base,
             c->form == MLX ? ".lora_a"
             : table        ? ".lora_embedding_A"
                            : ".lora_A.weight");
    if (c->form == MLX)
        tiny_put(t, name, "", DTYPE_F32, stack,
                 stack   ? rank
                 : table ? rows
                         : cols,
                 stack ? cols : rank, a);
    else
        tiny_put(t, name, "", DTYPE_F32, 0, rank, table ? rows : cols, a);
    snprintf(name, sizeof name, "%s%s", base,
             c->form == MLX ? ".lora_b"
             : table        ? ".lora_embedding_B"
                            : ".lora_B.weight");
    if (c->form == MLX)
        tiny_put(t, name, "", DTYPE_F32, stack, stack ? rows : rank,
                 stack   ? rank
                 : table ? cols
                         : rows,
                 b);
    else
        tiny_put(t, name, "", DTYPE_F32, 0, table ? cols : rows, rank, b);
    if (m) {
        snprintf(name, sizeof name, "%s%s", base, c->form == MLX ? ".m" : ".lora_magnitude_vector");
        tiny_put(t, name, "", DTYPE_F32, 0, rows, 0, m);
    }
}

static bool is_adapted(const struct adapting *c, const struct checkpoint_tensor *t)
{
    if (t->type != DTYPE_BF16 || t->n_dims < 2)
        return false;
    if (!c->only[0])
        return strstr(t->name, "layers.") != NULL;
    for (size_t i = 0; i < COUNT(c->only) && c->only[i]; i++)
        if (strstr(t->name, c->only[i]))
            return true;
    return false;
}

/* One matrix of the checkpoint, and the adapter's tensors for it. */
static void adapt(struct tiny *adapter, struct tiny *merged, const struct adapting *c,
                  struct checkpoint_tensor w)
{
    int stack = w.n_dims == 3 ? (int)w.shape[0] : 0, n = stack ? stack : 1;
    int rows = (int)w.shape[w.n_dims - 2], cols = (int)w.shape[w.n_dims - 1], rank;
    float *sum = memory((size_t)(n * rows * cols), sizeof *sum), *a, *b, *m = NULL;
    char name[200], module[200];

    snprintf(name, sizeof name, "%s", w.name);
    snprintf(module, sizeof module, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    rank = rank_of(c, module);
    a = random_numbers((size_t)(n * rank * cols), 0.1f);
    b = random_numbers((size_t)(n * rows * rank), 0.1f);
    if (c->dora) {
        m = random_numbers((size_t)rows, 0.2f);
        for (int o = 0; o < rows; o++)
            m[o] += 0.5f;
    }
    dtype_to_f32(sum, w.data, DTYPE_BF16, (size_t)(n * rows * cols));
    for (int e = 0; e < n; e++)
        merge(sum + e * rows * cols, a + e * rank * cols, b + e * rows * rank, m, rows, cols, rank,
              c->scale(module, rank));
    tiny_remove(merged, name);
    tiny_put(merged, name, "", DTYPE_F32, stack, rows, cols, sum);
    put_module(adapter, c, module, stack, rows, cols, rank, a, b, m);
}

static void write_model(const struct tiny *t, const char *folder)
{
    char name[100];

    snprintf(name, sizeof name, "%s/config.json", folder);
    temporary_write(name, t->config);
    tiny_write_weights(t, temporary_path(folder));
}

static void write_adapter(const struct tiny *t, const char *folder, const char *text,
                          enum form form)
{
    char name[100], path[2200];
    clm_error err = {0};

    snprintf(name, sizeof name, "%s/adapter_config.json", folder);
    temporary_write(name, text);
    snprintf(path, sizeof path, "%s/%s", temporary_path(folder),
             form == MLX ? "adapters.safetensors" : "adapter_model.safetensors");
    CHECK(safetensors_write(path, t->tensors, t->n_tensors, NULL, 0, &err) == 0, "%s", err.message);
}

/* Matrices as f32, for experts must be stored alike. */
static void widen(struct checkpoint_tensor *w)
{
    float *numbers = memory(w->size / 2, sizeof *numbers);

    dtype_to_f32(numbers, w->data, DTYPE_BF16, w->size / 2);
    free((void *)(uintptr_t)w->data);
    w->data = numbers;
    w->type = DTYPE_F32;
    w->size *= 2;
}

/* Folders base and merged of a case, and the adapter's tensors. */
static void write_case(const struct adapting *c, struct tiny *adapter)
{
    struct tiny base, merged;

    tiny_open(&base, tiny_find_family(c->family));
    tiny_open(&merged, tiny_find_family(c->family));
    *adapter = (struct tiny){0};
    for (size_t i = 0; i < base.n_tensors; i++)
        if (is_adapted(c, &base.tensors[i]))
            adapt(adapter, &merged, c, base.tensors[i]);
    for (size_t i = 0; i < merged.n_tensors; i++)
        if (merged.tensors[i].type == DTYPE_BF16)
            widen(&merged.tensors[i]);
    temporary_clear();
    write_model(&base, "base");
    write_model(&merged, "merged");
    tiny_close(&base);
    tiny_close(&merged);
}

/* --- running ------------------------------------------------------------------------------------
 */

static void test_forms(void **state)
{
    static float got[N_TOKENS * TINY_VOCAB], want[N_TOKENS * TINY_VOCAB],
        base[N_TOKENS * TINY_VOCAB];

    (void)state;
    for (size_t i = 0; i < COUNT(adaptings); i++) {
        const struct adapting *c = &adaptings[i];
        struct tiny adapter;

        write_case(c, &adapter);
        write_adapter(&adapter, "adapter", c->config, c->form);
        run_tiny("base", NULL, true, base, c->name);
        run_tiny("merged", NULL, true, want, c->name);
        run_tiny("base", "adapter", true, got, c->name);
        /* Sums of some hundred products in other orders. */
        CHECK(distance(got, want) < 2e-6, "%s: off by %.2g", c->name, distance(got, want));
        CHECK(distance(base, want) > 1e-4, "%s: changes nothing", c->name);
        tiny_close(&adapter);
    }
}

/* Tensors of the adapter that replace those of the checkpoint. */
static void test_whole_tensors(void **state)
{
    static const char *const configs[] = {"{\"fine_tune_type\": \"full\", \"num_layers\": 2}",
                                          "{\"peft_type\": \"LORA\", \"r\": 3}"};
    static const char *const names[] = {"model.layers.1.mlp.up_proj.weight", "lm_head.weight",
                                        "model.norm.weight"};
    static float got[N_TOKENS * TINY_VOCAB], want[N_TOKENS * TINY_VOCAB];

    (void)state;
    for (int form = MLX; form <= PEFT; form++) {
        struct tiny merged, adapter = {0};

        temporary_clear();
        tiny_open(&merged, tiny_find_family("llama"));
        write_model(&merged, "base");
        for (size_t i = 0; i < COUNT(names); i++) {
            struct checkpoint_tensor *w = tiny_find(&merged, names[i]);
            int rows = (int)w->shape[0], cols = w->n_dims > 1 ? (int)w->shape[1] : 0;
            int n = rows * (cols ? cols : 1);
            float *numbers = random_numbers((size_t)n, 0.2f);
            char name[200];

            snprintf(name, sizeof name, "%s%s", form == PEFT ? "base_model.model." : "", names[i]);
            tiny_put(&adapter, name, "", DTYPE_F32, 0, rows, cols, copied(numbers, n));
            tiny_remove(&merged, names[i]);
            tiny_put(&merged, names[i], "", DTYPE_F32, 0, rows, cols, numbers);
        }
        write_model(&merged, "merged");
        write_adapter(&adapter, "adapter", configs[form], (enum form)form);
        run_tiny("merged", NULL, true, want, "whole tensors");
        run_tiny("base", "adapter", true, got, "whole tensors");
        CHECK(memcmp(got, want, sizeof got) == 0, "form %d: other bits", form);
        tiny_close(&merged);
        tiny_close(&adapter);
    }
}

/* --- what is wrong -----------------------------------------------------------------------------
 */

#define Q0 "model.layers.0.self_attn.q_proj"

static const struct bad {
    int adapting; /* whose tensors they are */
    const char *config;
    const char *remove, *rename, *cut; /* a tensor */
    const char *says[2];
} bad[] = {
    {0, "{", NULL, NULL, NULL, {"adapter_config.json", ""}},
    {0, "{\"lora_parameters\": {\"rank\": 3, \"scale\": 1}}", NULL, NULL, NULL, {"num_layers", ""}},
    {0,
     "{\"num_layers\": 9223372036854775807, \"lora_parameters\": {\"rank\": 3, \"scale\": 1}}",
     NULL,
     NULL,
     NULL,
     {"num_layers", ""}},
    {0, "{\"num_layers\": 2}", NULL, NULL, NULL, {"lora_parameters", ""}},
    {0, "{\"num_layers\": 2, \"lora_parameters\": {\"rank\": 3}}", NULL, NULL, NULL, {"scale", ""}},
    {0,
     "{\"num_layers\": 2, \"lora_parameters\": {\"rank\": 3, \"alpha\": 1}}",
     NULL,
     NULL,
     NULL,
     {"scale", "alpha"}},
    {0,
     "{\"num_layers\": 2, \"lora_parameters\": {\"rank\": 0, \"scale\": 1}}",
     NULL,
     NULL,
     NULL,
     {"rank", "0"}},
    {0,
     "{\"num_layers\": 2, \"lora_parameters\": {\"rank\": 4, \"scale\": 1}}",
     NULL,
     NULL,
     NULL,
     {"rank 3", "4"}},
    {0,
     "{\"num_layers\": 1, \"lora_parameters\": {\"rank\": 3, \"scale\": 1}}",
     NULL,
     NULL,
     NULL,
     {"layers.0", "last 1 of 2"}},
    {0, "{\"fine_tune_type\": \"ia3\", \"num_layers\": 2}", NULL, NULL, NULL, {"ia3", "dora"}},
    {0,
     MLX_CONFIG("lora", ", \"keys\": [\"self_attn.q_proj\"]"),
     NULL,
     NULL,
     NULL,
     {"keys", "mlp.down_proj"}},
    {0, MLX_CONFIG("dora", ""), NULL, NULL, NULL, {"without the others", ""}},
    {2, MLX_CONFIG("lora", ""), NULL, NULL, NULL, {".m", "no DoRA"}},
    {0, MLX_CONFIG("lora", ""), Q0 ".lora_b", NULL, NULL, {Q0 ".lora_a", "without"}},
    {0, MLX_CONFIG("lora", ""), Q0 ".lora_a", NULL, NULL, {Q0 ".lora_b", "without"}},
    {0, MLX_CONFIG("lora", ""), NULL, Q0 ".lora_a", NULL, {"no place", "s_proj"}},
    {0, MLX_CONFIG("lora", ""), NULL, NULL, Q0 ".lora_a", {Q0 ".lora_a", "[32, 3]"}},
    {0, MLX_CONFIG("lora", ""), NULL, NULL, Q0 ".lora_b", {Q0 ".lora_b", "[3, 32]"}},
    {10, "{\"peft_type\": \"IA3\"}", NULL, NULL, NULL, {"IA3", "LORA"}},
    {10, "{\"peft_type\": \"LORA\"}", NULL, NULL, NULL, {"\"r\"", ""}},
    {10, "{\"peft_type\": \"LORA\", \"r\": 4}", NULL, NULL, NULL, {"rank", "4"}},
    {10,
     "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_bias\": true}",
     NULL,
     NULL,
     NULL,
     {"lora_bias", ""}},
    {10,
     "{\"peft_type\": \"LORA\", \"r\": 3, \"init_lora_weights\": \"pissa\"}",
     NULL,
     NULL,
     NULL,
     {"init_lora_weights", "pissa"}},
    {10,
     "{\"peft_type\": \"LORA\", \"r\": 3, \"use_qalora\": true}",
     NULL,
     NULL,
     NULL,
     {"use_qalora", ""}},
    {10,
     "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_bias\": true, \"use_dora\": true}",
     NULL,
     NULL,
     NULL,
     {"lora_bias", "use_dora"}},
    {10,
     "{\"peft_type\": \"LORA\", \"r\": 3, \"layer_replication\": [[0, 1]]}",
     NULL,
     NULL,
     NULL,
     {"layer_replication", ""}},
    {10,
     "{\"peft_type\": \"LORA\", \"r\": 3, \"alpha_pattern\": {\"((a{999}){999}){999}\": 1}}",
     NULL,
     NULL,
     NULL,
     {"((a{999}){999}){999}", ""}},
};

static void test_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        const struct adapting *c = &adaptings[bad[i].adapting];
        struct tiny adapter;
        clm_error err = {0};
        struct rig r;

        write_case(c, &adapter);
        if (bad[i].remove)
            tiny_remove(&adapter, bad[i].remove);
        if (bad[i].rename)
            *strstr((char *)(uintptr_t)tiny_find(&adapter, bad[i].rename)->name, "q_proj") = 's';
        if (bad[i].cut) {
            struct checkpoint_tensor *w = tiny_find(&adapter, bad[i].cut);

            w->size -= w->size / (size_t)w->shape[0];
            w->shape[0]--;
        }
        write_adapter(&adapter, "adapter", bad[i].config, c->form);
        CHECK(rig_open_adapted(&r, temporary_path("base"), temporary_path("adapter"), 1, true,
                               &err) == -1,
              "%zu is taken", i);
        CHECK(strstr(err.message, bad[i].says[0]) && strstr(err.message, bad[i].says[1]) &&
                  strstr(err.message, "adapter"),
              "%zu: %s", i, err.message);
        tiny_close(&adapter);
    }
}

/* Of another model, and none at all. */
static void test_not_there(void **state)
{
    struct tiny adapter;
    clm_error err = {0};
    struct rig r;

    (void)state;
    write_case(&adaptings[6], &adapter); /* with experts */
    write_adapter(&adapter, "adapter", adaptings[6].config, MLX);
    tiny_close(&adapter);
    tiny_open(&adapter, tiny_find_family("llama"));
    write_model(&adapter, "llama");
    CHECK(rig_open_adapted(&r, temporary_path("llama"), temporary_path("adapter"), 1, true, &err) &&
              strstr(err.message, "no place"),
          "%s", err.message);
    err = (clm_error){0};
    CHECK(rig_open_adapted(&r, temporary_path("llama"), temporary_path("nothing"), 1, true, &err) &&
              err.code == CLM_ERR_IO && strstr(err.message, "nothing"),
          "%s", err.message);
    tiny_close(&adapter);
}

/* Layers that have names of their own come after the others. */
static void test_second_layers(void **state)
{
    static const char afm7[] =
        "{\"model_type\": \"afm7\", \"vocab_size\": 48, \"hidden_dim\": 32, \"num_layers\": 4, "
        "\"num_kv_reuse_layers\": 2, \"num_heads\": 4, \"num_kv_heads\": 2, "
        "\"hidden_dim_scale_factor\": 1.5, \"rope_theta\": 50000, \"rms_norm_eps\": 1e-05}";
    static const char last[] =
        "{\"num_layers\": 1, \"lora_parameters\": {\"rank\": 3, \"scale\": 1}}";
    clm_error err = {0};
    device *d = device_cpu_open(1, &err);
    struct tiny base;

    (void)state;
    CHECK(d, "%s", err.message);
    tiny_derive(&base, afm7, d);
    temporary_clear();
    write_model(&base, "base");
    for (int layer = 0; layer < 2; layer++) {
        struct tiny adapter = {0};
        char module[64];
        struct rig r;
        int rc;

        snprintf(module, sizeof module, "model.kv_reuse_layers.%d.mlp.down_proj", layer);
        tiny_put(&adapter, module, ".lora_a", DTYPE_F32, 0, 48, 3, random_numbers(48 * 3, 1));
        tiny_put(&adapter, module, ".lora_b", DTYPE_F32, 0, 3, 32, random_numbers(32 * 3, 1));
        write_adapter(&adapter, "adapter", last, MLX);
        rc = rig_open_adapted(&r, temporary_path("base"), temporary_path("adapter"), 1, true, &err);
        CHECK((rc == 0) == (layer == 1), "%d: %s", layer, err.message);
        CHECK(rc == 0 || strstr(err.message, "last 1 of 4"), "%s", err.message);
        if (rc == 0)
            rig_close(&r);
        tiny_close(&adapter);
        err = (clm_error){0};
    }
    tiny_close(&base);
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),         cmocka_unit_test(test_whole_tensors),
        cmocka_unit_test(test_wrong),         cmocka_unit_test(test_not_there),
        cmocka_unit_test(test_second_layers),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
