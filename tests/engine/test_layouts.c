/* Matrices as other tools quantise them, against the same numbers stored as f32: every packing,
 * with and without zero points, groups of all sizes, inputs in another order, in fused projections
 * and in experts. */
#include "base/file.h"
#include "packers.h"

#define ONLINE                                                                                     \
    "{\"quant_method\": \"bitnet\", \"linear_class\": \"autobitlinear\", "                         \
    "\"quantization_mode\": \"online\", \"modules_to_not_convert\": [\"lm_head\"]}"

#define CT(format) "{\"quant_method\": \"compressed-tensors\", \"format\": \"" format "\"}"

/* Groups of matrices of which some have blocks of one size, some of another, some no blocks. */
#define TWO_SIZES                                                                                  \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"mixed-precision\", "                 \
    "\"config_groups\": {"                                                                         \
    "\"a\": {\"weights\": {\"type\": \"float\", \"block_structure\": [24, 40]}}, "                 \
    "\"b\": {\"weights\": {\"type\": \"float\", \"block_structure\": [48, 48]}}, "                 \
    "\"c\": {\"weights\": {\"type\": \"float\", \"group_size\": 32}}}}"

static const struct layout layouts[] = {
    {"awq", "llama", "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 32}", AWQ, 4, 32, 0,
     DTYPE_F16, true, false, false},
    {"awq of fused projections", "phi3", "{\"quant_method\": \"awq\", \"bits\": 4}", AWQ, 4, 32, 0,
     DTYPE_F16, true, false, false},
    {"awq, groups of 16", "llama", "{\"quant_method\": \"awq\", \"bits\": 4}", AWQ, 4, 16, 0,
     DTYPE_F32, true, false, false},
    {"gptq", "llama", "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32}", GPTQ, 4, 32,
     0, DTYPE_F16, false, false, false},
    {"gptq, 2 bits", "llama", "{\"quant_method\": \"gptq\", \"bits\": 2, \"group_size\": 32}", GPTQ,
     2, 32, 0, DTYPE_F16, true, false, false},
    {"gptq, 3 bits", "llama", "{\"quant_method\": \"gptq\", \"bits\": 3, \"group_size\": 32}", GPTQ,
     3, 32, 0, DTYPE_F16, true, false, false},
    {"gptq, 8 bits, a group for each row", "mixtral",
     "{\"quant_method\": \"gptq\", \"bits\": 8, \"group_size\": -1}", GPTQ, 8, 0, 0, DTYPE_F16,
     true, false, false},
    {"gptq v2", "llama",
     "{\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"gptq_v2\"}", GPTQ, 4, 32,
     0, DTYPE_F16, true, false, true},
    {"gptq in another order", "llama", "{\"quant_method\": \"gptq\", \"desc_act\": true}", GPTQ, 4,
     32, 0, DTYPE_F16, true, true, false},
    {"gptq in another order, fused", "phi3", "{\"quant_method\": \"gptq\", \"desc_act\": true}",
     GPTQ, 4, 32, 0, DTYPE_F16, true, true, false},
    {"gptq in another order, groups of 8", "llama", "{\"quant_method\": \"gptq\"}", GPTQ, 4, 8, 0,
     DTYPE_F32, true, true, false},
    {"gptq in another order, experts", "mixtral", "{\"quant_method\": \"gptq\"}", GPTQ, 4, 32, 0,
     DTYPE_F32, true, true, false},
    {"pack-quantized", "llama", CT("pack-quantized"), PACKED, 4, 32, 0, DTYPE_BF16, false, false,
     false},
    {"pack-quantized, zero points", "mixtral", CT("pack-quantized"), PACKED, 4, 32, 0, DTYPE_BF16,
     true, false, false},
    {"pack-quantized, 8 bits", "phi3", CT("pack-quantized"), PACKED, 8, 0, 0, DTYPE_F16, false,
     false, false},
    {"int-quantized", "llama", CT("int-quantized"), INT8, 8, 0, 0, DTYPE_BF16, false, false, false},
    {"int-quantized, zero points", "mixtral", CT("int-quantized"), INT8, 8, 0, 0, DTYPE_BF16, true,
     false, false},
    {"fp8 blocks", "llama", "{\"quant_method\": \"fp8\", \"weight_block_size\": [24, 40]}", FP8, 8,
     40, 24, DTYPE_F32, false, false, false},
    {"fp8 blocks, fused", "phi3", "{\"quant_method\": \"fp8\", \"weight_block_size\": [24, 40]}",
     FP8, 8, 40, 24, DTYPE_BF16, false, false, false},
    {"fp8 rows", "mixtral", CT("float-quantized"), FP8, 8, 0, 1, DTYPE_BF16, false, false, false},
    {"fp8, one scale", "llama", "{\"quant_method\": \"fp8\"}", FP8, 8, -1, 0, DTYPE_BF16, false,
     false, false},
    {"fp8 blocks, stacked experts", "qwen3_moe",
     "{\"quant_method\": \"fp8\", \"weight_block_size\": [24, 40]}", FP8, 8, 40, 24, DTYPE_F32,
     false, false, false},
    {"mxfp4-pack-quantized", "llama", CT("mxfp4-pack-quantized"), MXFP4, 4, 32, 0, DTYPE_U8, false,
     false, false},
    {"fp8 blocks of another size than divides, compressed-tensors", "llama",
     "{\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\", "
     "\"config_groups\": {\"group_0\": {\"weights\": {\"block_structure\": [24, 40]}}}}",
     FP8, 8, 40, 24, DTYPE_BF16, false, false, false},
    {"pack-quantized, groups of another size than divides", "llama",
     "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "
     "\"config_groups\": {\"group_0\": {\"weights\": {\"group_size\": 24}}}}",
     PACKED, 4, 24, 0, DTYPE_F32, false, false, false},
    {"mxfp4 with .scale", "mixtral", "{\"quant_method\": \"fp8\"}", MXFP4_DOT, 4, 32, 0,
     DTYPE_F8_E8M0, false, false, false},
    {"nvfp4-pack-quantized", "llama", CT("nvfp4-pack-quantized"), NVFP4, 4, 16, 0, DTYPE_F8_E4M3,
     false, false, false},
    {"nvfp4-pack-quantized, fused", "phi3", CT("nvfp4-pack-quantized"), NVFP4, 4, 16, 0,
     DTYPE_F8_E4M3, false, false, false},
    {"nvfp4 of modelopt", "mixtral", "{\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"}",
     NVFP4_2, 4, 16, 0, DTYPE_F8_E4M3, false, false, false},
    {"fp8 of modelopt", "llama", "{\"quant_method\": \"modelopt\", \"quant_algo\": \"FP8\"}", FP8,
     8, -1, 0, DTYPE_F32, false, false, false},
    {"ternary", "llama", "{\"quant_method\": \"bitnet\", \"linear_class\": \"autobitlinear\"}",
     TERNARY, 2, -1, 0, DTYPE_BF16, false, false, false},
    {"ternary, divided", "mixtral", "{\"quant_method\": \"bitnet\"}", TERNARY, 2, -1, 0, DTYPE_BF16,
     false, false, false},
    {"ternary of mlx-lm's own module, which multiplies", "bitnet", "{\"quant_method\": \"bitnet\"}",
     TERNARY, 2, -1, 0, DTYPE_BF16, false, false, false},
    {"ternary, not packed", "llama",
     "{\"quant_method\": \"bitnet\", \"linear_class\": \"autobitlinear\"}", LEVELS, 2, -1, 0,
     DTYPE_F16, false, false, false},
    {"ternary, levels to be found", "llama", ONLINE, TRAINED, 2, -1, 0, DTYPE_BF16, false, false,
     false},
    {"ternary, levels to be found, fused", "phi3", ONLINE, TRAINED, 2, -1, 0, DTYPE_F32, false,
     false, false},
    {"gptq, experts of which some are in order", "mixtral", "{\"quant_method\": \"gptq\"}", GPTQ, 4,
     32, 0, DTYPE_F32, false, true, false},
    {"gptq, experts of which some have zero points in the middle", "mixtral",
     "{\"quant_method\": \"gptq\"}", GPTQ, 4, 32, 0, DTYPE_F32, true, false, false},
    {"fp8 blocks of modelopt", "mixtral",
     "{\"quant_method\": \"modelopt\", \"quant_algo\": \"FP8_PB_WO\"}", FP8, 8, 16, 16, DTYPE_F32,
     false, false, false},
    {"gptq v2 in words of now, bits by module", "llama",
     "{\"quant_method\": \"gptq\", \"bits\": 8, \"format\": \"gptq_v2\", "
     "\"dynamic\": {\"+:.*\": {\"bits\": 4}}}",
     GPTQ, 4, 32, 0, DTYPE_F16, true, false, true},
    {"pack-quantized, 3 bits", "llama", CT("pack-quantized"), PACKED, 3, 32, 0, DTYPE_BF16, false,
     false, false},
    {"pack-quantized, 5 bits, zero points", "mixtral", CT("pack-quantized"), PACKED, 5, 32, 0,
     DTYPE_BF16, true, false, false},
    {"pack-quantized, 6 bits, zero points", "phi3", CT("pack-quantized"), PACKED, 6, 0, 0,
     DTYPE_F32, true, false, false},
    {"int-quantized, one zero point", "llama", CT("int-quantized"), INT8, 8, -1, 0, DTYPE_BF16,
     true, false, false},
    {"fp8, groups of 32 with exponents", "llama", CT("mxfp8-quantized"), FP8, 8, 32, 1,
     DTYPE_F8_E8M0, false, false, false},
    {"mxfp4-pack-quantized, latent attention", "deepseek_v3", CT("mxfp4-pack-quantized"), MXFP4, 4,
     32, 0, DTYPE_U8, false, false, false},
    {"nvfp4-pack-quantized, latent attention", "deepseek_v3", CT("nvfp4-pack-quantized"), NVFP4, 4,
     16, 0, DTYPE_F8_E4M3, false, false, false},
    {"pack-quantized, but for some experts", "mixtral", CT("pack-quantized"), PACKED, 4, 32, 0,
     DTYPE_BF16, true, false, false},
    {"fp8 rows, but for some experts", "mixtral", CT("float-quantized"), FP8, 8, 0, 1, DTYPE_BF16,
     false, false, false},
    {"nvfp4, but for some experts", "mixtral", CT("nvfp4-pack-quantized"), NVFP4, 4, 16, 0,
     DTYPE_F8_E4M3, false, false, false},
    {"fp8 blocks of one of two sizes", "llama", TWO_SIZES, FP8, 8, 40, 24, DTYPE_BF16, false, false,
     false},
    {"fp8 groups where others have blocks", "llama", TWO_SIZES, FP8, 8, 32, 1, DTYPE_F8_E8M0, false,
     false, false},
    {"awq, latent attention", "deepseek_v3", "{\"quant_method\": \"awq\", \"bits\": 4}", AWQ, 4, 32,
     0, DTYPE_BF16, true, false, false},
};

static const struct tiny_row bitnet_norms[] = {
    {"model.layers.%d.self_attn.attn_sub_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.mlp.ffn_sub_norm", TINY_MLP, 0, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_family bitnet = {
    "bitnet",
    TINY_CONFIG("bitnet", ", \"tie_word_embeddings\": true"),
    {tiny_common, tiny_qkv, tiny_mlp, bitnet_norms},
    0,
};

static const struct tiny_family *family_of(const struct layout *l)
{
    return strcmp(l->family, "bitnet") == 0 ? &bitnet : tiny_find_family(l->family);
}

/* --- checkpoints --------------------------------------------------------------------------------
 */

/* The first expert, and some others, are as they were. */
static bool is_left(const struct layout *l, const struct checkpoint_tensor *w)
{
    return strstr(l->name, "but for some experts") && strstr(w->name, ".experts.") &&
           (strstr(w->name, ".experts.0.") || random_below(3) == 0);
}

static bool is_projection(const struct checkpoint_tensor *t)
{
    return t->n_dims == 2 && (strstr(t->name, "_proj.weight") || strstr(t->name, ".experts."));
}

static void put_stack(struct tiny *t, const char *name, const char *part, enum dtype type, int n,
                      int rows, int cols, void *data)
{
    struct checkpoint_tensor *added = tiny_add(t, name, part, type, n, rows, cols);

    free((void *)(uintptr_t)added->data);
    added->data = data;
}

/* Experts in one tensor, fp8 in one and f32 in the other. Names of down projections have no last
 * part, which says that they are [n_in, n_out]; blocks then are too. */
static void quantise_stack(struct tiny *packed, struct tiny *plain, const struct layout *l,
                           struct checkpoint_tensor w)
{
    bool bare = strstr(w.name, "down_proj") != NULL;
    int n = (int)w.shape[0], rows = (int)w.shape[bare ? 2 : 1], cols = (int)w.shape[bare ? 1 : 2];
    int down = (rows + l->block - 1) / l->block, across = (cols + l->group - 1) / l->group;
    uint8_t *codes = memory((size_t)(n * rows * cols), 1);
    float *scales = memory((size_t)(n * down * across), sizeof *scales);
    float *numbers = memory((size_t)(n * rows * cols), sizeof *numbers);
    char module[200], name[200], *at;

    snprintf(name, sizeof name, "%s", w.name);
    for (int e = 0; e < n; e++) {
        struct matrix m = random_matrix(l, rows, cols); /* as it is stored */

        for (int i = 0; i < rows * cols; i++) {
            int o = i / cols, k = i % cols, to = bare ? k * rows + o : i;

            codes[e * rows * cols + i] = (uint8_t)m.codes[i];
            numbers[e * rows * cols + to] = number(&m, o, k);
        }
        for (int i = 0; i < down * across; i++)
            scales[e * down * across + i] = m.scales[i / across * l->block * across + i % across];
        free_matrix(&m);
    }
    snprintf(module, sizeof module, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    tiny_remove(plain, name);
    put_stack(plain, name, "", DTYPE_F32, n, bare ? cols : rows, bare ? rows : cols, numbers);
    tiny_remove(packed, name);
    if (bare) {
        at = strstr(module, "switch_mlp");
        memmove(at + 7, at + 10, strlen(at + 10) + 1);
        memcpy(at, "experts", 7);
    }
    put_stack(packed, module, bare ? "" : ".weight", DTYPE_F8_E4M3, n, rows, cols, codes);
    put_stack(packed, module, bare ? "_scale_inv" : ".weight_scale_inv", DTYPE_F32, n, down, across,
              scales);
}

/* The projections of both, of the same numbers: packed in one, f32 in the other. */
static void quantise(struct tiny *packed, struct tiny *plain, const struct layout *l)
{
    for (size_t i = 0; i < plain->n_tensors;) {
        struct checkpoint_tensor w = plain->tensors[i];
        char module[200];
        struct matrix m;

        if (w.n_dims == 3 && w.type == DTYPE_BF16 && l->packer == FP8) {
            quantise_stack(packed, plain, l, w);
            continue;
        }
        if (!is_projection(&w) || w.type != DTYPE_BF16 || w.shape[0] * l->bits % 32 ||
            is_left(l, &w)) {
            i++;
            continue;
        }
        snprintf(module, sizeof module, "%.*s", (int)(strlen(w.name) - strlen(".weight")), w.name);
        m = random_matrix(l, (int)w.shape[0], (int)w.shape[1]);
        tiny_remove(packed, w.name);
        put_matrix(packed, &m, module);
        tiny_remove(plain, w.name);
        put_numbers(plain, &m, module);
        free_matrix(&m);
    }
}

static void write_checkpoint(const struct tiny *t, const char *folder, const char *quantization)
{
    char name[100], text[2000];
    const char *end = strrchr(t->config, '}');

    snprintf(name, sizeof name, "%s/config.json", folder);
    snprintf(text, sizeof text, "%.*s%s%s}", (int)(end - t->config), t->config,
             quantization ? ", \"quantization_config\": " : "", quantization ? quantization : "");
    temporary_write(name, text);
    tiny_write_weights(t, temporary_path(folder));
}

/* DoRA of layer 1, for whose gains the packed matrices are read. */
static void write_dora(void)
{
#define MODULE(name, rows, cols)                                                                   \
    "model.layers.1." name ".lora_A.weight:3:" cols " model.layers.1." name ".lora_B.weight:" rows \
    ":3 model.layers.1." name ".lora_magnitude_vector:" rows " "
    static const char *const tensors[2] = {MODULE("self_attn.q_proj", "32", "32"),
                                           MODULE("mlp.down_proj", "32", "64")};

    temporary_write("dora/adapter_config.json",
                    "{\"peft_type\": \"LORA\", \"r\": 3, \"use_dora\": true}");
    hashed_write(tensors, "dora/adapter_model.safetensors");
}

static void test_layouts(void **state)
{
    static float got[N_TOKENS * TINY_VOCAB], want[N_TOKENS * TINY_VOCAB];

    (void)state;
    write_dora();
    for (size_t i = 0; i < COUNT(layouts); i++) {
        const struct layout *l = &layouts[i];
        struct tiny packed, plain;
        char a[32], b[32];
        double far;

        snprintf(a, sizeof a, "packed%zu", i);
        snprintf(b, sizeof b, "plain%zu", i);
        tiny_open(&packed, family_of(l));
        tiny_open(&plain, family_of(l));
        quantise(&packed, &plain, l);
        write_checkpoint(&packed, a, l->quantization);
        write_checkpoint(&plain, b, NULL);
        run_tiny(b, NULL, true, want, l->name);
        run_tiny(a, NULL, true, got, l->name);
        far = distance(got, want);
        /* The same products, summed in another order where inputs have one, or with biases apart.
         */
        CHECK(far < 2e-6, "%s: off by %.2g", l->name, far);
        if (strcmp(l->family, "llama") == 0) {
            run_tiny(b, "dora", true, want, l->name);
            run_tiny(a, "dora", true, got, l->name);
            CHECK(distance(got, want) < 2e-6, "%s, adapted: off by %.2g", l->name,
                  distance(got, want));
        }
        tiny_close(&packed);
        tiny_close(&plain);
    }
}

/* --- what is wrong -----------------------------------------------------------------------------
 */

struct bad {
    size_t layout;
    const char *tensor; /* that is changed */
    enum { REMOVE, CUT, RETYPE, OUT_OF_RANGE } change;
    const char *says;
};

static void change(struct tiny *t, const struct bad *bad)
{
    struct checkpoint_tensor *w = tiny_find(t, bad->tensor);

    switch (bad->change) {
    case REMOVE:
        tiny_remove(t, bad->tensor);
        break;
    case CUT:
        w->shape[0]--;
        w->size = w->size / (size_t)(w->shape[0] + 1) * (size_t)w->shape[0];
        break;
    case RETYPE:
        w->type = dtype_size(w->type) == 4 ? DTYPE_F32 : DTYPE_I16;
        break;
    case OUT_OF_RANGE:
        memset((void *)(uintptr_t)w->data, 0x7F, 4);
        break;
    }
}

static void test_wrong(void **state)
{
#define UP "model.layers.1.mlp.up_proj"
    static const struct bad all[] = {
        {0, UP ".scales", REMOVE, "no scales"},
        {0, UP ".qweight", CUT, "no packing"},
        {0, UP ".qzeros", CUT, "qzeros"},
        {0, UP ".scales", RETYPE, "I16"},
        {3, UP ".qweight", REMOVE, "up_proj"},
        {3, UP ".scales", CUT, "scales"},
        {8, UP ".g_idx", OUT_OF_RANGE, "group"},
        {8, UP ".g_idx", CUT, "g_idx"},
        {8, UP ".g_idx", RETYPE, "g_idx"},
        {12, UP ".weight_scale", CUT, "weight_scale"},
        {12, UP ".weight_packed", CUT, "no packing"},
        {15, UP ".weight_scale", REMOVE, "up_proj"},
        {17, UP ".weight_scale_inv", REMOVE, "weight_scale_inv"},
        {17, UP ".weight_scale_inv", CUT, "no scales for blocks"},
        {30, UP ".weight", CUT, "[16, 32]"},
        {26, UP ".weight_global_scale", CUT, "not 1 numbers of F32"},
        {26, UP ".weight_scale", CUT, "weight_scale"},
        {33, UP ".weight", OUT_OF_RANGE, "-1, 0 and 1"},
        {33, UP ".weight_scale", CUT, "weight_scale"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(all); i++) {
        const struct layout *l = &layouts[all[i].layout];
        struct tiny packed, plain;
        clm_error err = {0};
        char name[32];
        struct rig r;

        snprintf(name, sizeof name, "wrong%zu", i);
        tiny_open(&packed, family_of(l));
        tiny_open(&plain, family_of(l));
        quantise(&packed, &plain, l);
        change(&packed, &all[i]);
        write_checkpoint(&packed, name, l->quantization);
        CHECK(rig_open(&r, temporary_path(name), 1, true, &err) == -1, "%zu: %s is taken", i,
              all[i].tensor);
        CHECK(strstr(err.message, all[i].says) && strstr(err.message, "up_proj"), "%zu: %s", i,
              err.message);
        tiny_close(&packed);
        tiny_close(&plain);
    }
}

/* Methods whose tensors clm cannot read are named. */
static void test_methods(void **state)
{
    static const struct {
        const char *config, *says;
    } all[] = {
        {"{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}", "\"bitsandbytes\""},
        {"{\"quant_method\": \"torchao\"}", "\"torchao\""},
        {"{\"quant_method\": \"awq\", \"version\": \"gemv\"}", "\"awq gemv\""},
        {"{\"quant_method\": \"gptq\", \"checkpoint_format\": \"marlin\"}", "\"gptq marlin\""},
        {"{\"quant_method\": \"gptq\", \"format\": \"gptq_p\"}", "\"gptq gptq_p\""},
        {"{\"quant_method\": \"modelopt\", \"quant_algo\": \"W4A16_AWQ\"}",
         "\"modelopt W4A16_AWQ\""},
        {"{\"quant_method\": \"bitnet\", \"linear_class\": \"autobitlinear\", "
         "\"quantization_mode\": \"online\", \"modules_to_not_convert\": [\"mlp\"]}",
         "\"bitnet online, but of all matrices"},
        {CT("marlin-24"), "\"compressed-tensors marlin-24\""},
        {"{\"quant_method\": \"compressed-tensors\", \"transform_config\": {\"config_groups\": "
         "{\"R1\": {\"type\": \"hadamard\"}}}}",
         "with transforms"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(all); i++) {
        clm_error err = {0};
        struct tiny plain;
        char name[32];
        struct rig r;

        snprintf(name, sizeof name, "method%zu", i);
        tiny_open(&plain, tiny_find_family("llama"));
        write_checkpoint(&plain, name, all[i].config);
        CHECK(rig_open(&r, temporary_path(name), 1, true, &err) == -1, "%s is taken",
              all[i].config);
        CHECK(strstr(err.message, all[i].says), "%s", err.message);
        tiny_close(&plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_methods),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
