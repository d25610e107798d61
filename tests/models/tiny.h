/* tests/models/tiny.h: small checkpoints of every family, made in memory, written to a folder. */
#ifndef TINY_H
#define TINY_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "format/safetensors.h"

/* The sizes that the configs below speak of. */
enum {
    TINY_VOCAB = 40,
    TINY_HIDDEN = 32,
    TINY_LAYERS = 2,
    TINY_HEAD = 8,
    TINY_HEADS = 4,
    TINY_KV_HEADS = 2,
    TINY_MLP = 64,
    TINY_EXPERTS = 4,
    TINY_EXPERT_MLP = 32,
    TINY_QKV = (TINY_HEADS + 2 * TINY_KV_HEADS) * TINY_HEAD,
    TINY_MAX_TENSORS = 1024
};

/* "%d" in a name is the layer; '#' an expert. cols 0: a vector. stack: so many matrices in one
 * tensor. */
struct tiny_row {
    const char *name;
    int rows, cols, stack;
};

struct tiny_family {
    const char *name; /* of the case; several may share a model_type */
    const char *config;
    const struct tiny_row *tables[5]; /* each ends with a NULL name */
    int bits;                         /* matrices are MLX affine in groups of 32; 0: bfloat16 */
};

#define TINY_CONFIG(type, more)                                                                    \
    "{\"model_type\": \"" type "\", \"vocab_size\": 40, \"hidden_size\": 32, "                     \
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "           \
    "\"head_dim\": 8, \"intermediate_size\": 64, \"rms_norm_eps\": 1e-05, "                        \
    "\"rope_theta\": 10000.0, \"max_position_embeddings\": 128" more "}"

static const struct tiny_row tiny_common[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.input_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.post_attention_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.self_attn.o_proj", TINY_HIDDEN, TINY_HEADS *TINY_HEAD, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_qkv[] = {
    {"model.layers.%d.self_attn.q_proj", TINY_HEADS *TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.%d.self_attn.k_proj", TINY_KV_HEADS *TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.%d.self_attn.v_proj", TINY_KV_HEADS *TINY_HEAD, TINY_HIDDEN, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_mlp[] = {
    {"model.layers.%d.mlp.gate_proj", TINY_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp.up_proj", TINY_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp.down_proj", TINY_HIDDEN, TINY_MLP, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_head[] = {
    {"lm_head", TINY_VOCAB, TINY_HIDDEN, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_gemma2[] = {
    {"model.layers.%d.pre_feedforward_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.post_feedforward_layernorm", TINY_HIDDEN, 0, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_qk_norm[] = {
    {"model.layers.%d.self_attn.q_norm", TINY_HEAD, 0, 0},
    {"model.layers.%d.self_attn.k_norm", TINY_HEAD, 0, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_mixtral[] = {
    {"model.layers.%d.block_sparse_moe.gate", TINY_EXPERTS, TINY_HIDDEN, 0},
    {"model.layers.%d.block_sparse_moe.experts.#.w1", TINY_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.block_sparse_moe.experts.#.w2", TINY_HIDDEN, TINY_MLP, 0},
    {"model.layers.%d.block_sparse_moe.experts.#.w3", TINY_MLP, TINY_HIDDEN, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_phi3[] = {
    {"model.layers.%d.self_attn.qkv_proj", TINY_QKV, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp.gate_up_proj", 2 * TINY_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp.down_proj", TINY_HIDDEN, TINY_MLP, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_qwen2[] = {
    {"model.layers.%d.self_attn.q_proj.bias", TINY_HEADS *TINY_HEAD, 0, 0},
    {"model.layers.%d.self_attn.k_proj.bias", TINY_KV_HEADS *TINY_HEAD, 0, 0},
    {"model.layers.%d.self_attn.v_proj.bias", TINY_KV_HEADS *TINY_HEAD, 0, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_qwen3_moe[] = {
    {"model.layers.%d.mlp.gate", TINY_EXPERTS, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp.switch_mlp.gate_proj", TINY_EXPERT_MLP, TINY_HIDDEN, TINY_EXPERTS},
    {"model.layers.%d.mlp.switch_mlp.up_proj", TINY_EXPERT_MLP, TINY_HIDDEN, TINY_EXPERTS},
    {"model.layers.%d.mlp.switch_mlp.down_proj", TINY_HIDDEN, TINY_EXPERT_MLP, TINY_EXPERTS},
    {NULL, 0, 0, 0},
};

/* Attends to latents of 32. */
static const struct tiny_row tiny_deepseek_v3[] = {
    {"model.layers.%d.self_attn.q_proj", 2 * TINY_HEADS *TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.%d.self_attn.kv_a_proj_with_mqa", 32 + TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.%d.self_attn.kv_a_layernorm", 32, 0, 0},
    {"model.layers.%d.self_attn.kv_b_proj", 2 * TINY_HEADS *TINY_HEAD, 32, 0},
    {NULL, 0, 0, 0},
};

#include "tiny_states.h"

#include "tiny_deltas.h"

#define TINY_MOE                                                                                   \
    ", \"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, "            \
    "\"norm_topk_prob\": true, \"decoder_sparse_step\": 1, \"mlp_only_layers\": []"

static const struct tiny_family tiny_families[] = {
    {"llama",
     TINY_CONFIG("llama", ", \"tie_word_embeddings\": false"),
     {tiny_common, tiny_qkv, tiny_mlp, tiny_head},
     0},
    {"llama_4bit",
     TINY_CONFIG("llama", ", \"tie_word_embeddings\": true, \"quantization\": {\"group_size\": 32, "
                          "\"bits\": 4, \"model.layers.1.mlp.up_proj\": {\"group_size\": 32, "
                          "\"bits\": 4}}"),
     {tiny_common, tiny_qkv, tiny_mlp},
     4},
    {"nanbeige",
     TINY_CONFIG("nanbeige", ", \"tie_word_embeddings\": false, \"num_loops\": 2"),
     {tiny_common, tiny_qkv, tiny_mlp, tiny_head},
     0},
    {"mistral",
     TINY_CONFIG("mistral", ", \"tie_word_embeddings\": true, \"sliding_window\": 5, "
                            "\"hidden_act\": \"silu\""),
     {tiny_common, tiny_qkv, tiny_mlp},
     0},
    {"gemma",
     TINY_CONFIG("gemma", ", \"hidden_act\": \"gelu_pytorch_tanh\""),
     {tiny_common, tiny_qkv, tiny_mlp},
     0},
    {"gemma2",
     TINY_CONFIG("gemma2", ", \"query_pre_attn_scalar\": 8, \"attn_logit_softcapping\": 50.0, "
                           "\"final_logit_softcapping\": 30.0, \"sliding_window\": 4, "
                           "\"layer_types\": [\"sliding_attention\", \"full_attention\"]"),
     {tiny_common, tiny_qkv, tiny_mlp, tiny_gemma2},
     0},
    {"gemma3_text",
     TINY_CONFIG("gemma3_text", ", \"query_pre_attn_scalar\": 8, \"sliding_window\": 4, "
                                "\"sliding_window_pattern\": 2, \"rope_local_base_freq\": 1000.0, "
                                "\"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"}"),
     {tiny_common, tiny_qkv, tiny_mlp, tiny_gemma2, tiny_qk_norm},
     0},
    {"mixtral",
     TINY_CONFIG("mixtral", ", \"tie_word_embeddings\": true, \"num_local_experts\": 4, "
                            "\"num_experts_per_tok\": 2"),
     {tiny_common, tiny_qkv, tiny_mixtral},
     0},
    {"phi3",
     TINY_CONFIG("phi3",
                 ", \"tie_word_embeddings\": true, \"original_max_position_embeddings\": 64, "
                 "\"rope_scaling\": {\"type\": \"longrope\", "
                 "\"long_factor\": [1.0, 1.5, 2.0, 4.0], "
                 "\"short_factor\": [1.0, 1.0, 1.0, 1.0]}"),
     {tiny_common, tiny_phi3},
     0},
    {"qwen2",
     TINY_CONFIG("qwen2", ", \"tie_word_embeddings\": true, \"use_sliding_window\": false, "
                          "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
                          "\"original_max_position_embeddings\": 32}"),
     {tiny_common, tiny_qkv, tiny_mlp, tiny_qwen2},
     0},
    {"qwen3",
     TINY_CONFIG("qwen3", ", \"tie_word_embeddings\": true, \"attention_bias\": false"),
     {tiny_common, tiny_qkv, tiny_mlp, tiny_qk_norm},
     0},
    {"qwen3_moe",
     TINY_CONFIG("qwen3_moe", ", \"tie_word_embeddings\": true" TINY_MOE),
     {tiny_common, tiny_qkv, tiny_qk_norm, tiny_qwen3_moe},
     0},
    {"lfm2_moe",
     TINY_CONFIG("lfm2_moe", ", \"norm_eps\": 1e-05, \"conv_L_cache\": 3, \"conv_bias\": false, "
                             "\"layer_types\": [\"conv\", \"full_attention\"], "
                             "\"num_dense_layers\": 1, \"use_expert_bias\": true, "
                             "\"num_experts\": 4, \"num_experts_per_tok\": 2, "
                             "\"moe_intermediate_size\": 64, \"norm_topk_prob\": true"),
     {tiny_lfm2},
     0},
    {"mamba2",
     TINY_CONFIG("mamba2", ", \"tie_word_embeddings\": true, \"num_heads\": 4, \"state_size\": 8, "
                           "\"n_groups\": 1, \"conv_kernel\": 4, \"layer_norm_epsilon\": 1e-05, "
                           "\"use_bias\": false, \"use_conv_bias\": true, "
                           "\"time_step_rank\": \"auto\", \"time_step_limit\": "
                           "[0.001, {\"__float__\": \"Infinity\"}]"),
     {tiny_mamba2},
     0},
    {"falcon_mamba",
     TINY_CONFIG("falcon_mamba", ", \"state_size\": 8, \"conv_kernel\": 4, \"use_bias\": false, "
                                 "\"use_conv_bias\": true, \"time_step_rank\": \"auto\", "
                                 "\"mixer_rms_eps\": 1e-06"),
     {tiny_mamba},
     0},
    {"nemotron_h",
     TINY_CONFIG("nemotron_h", ", \"tie_word_embeddings\": true, \"attention_bias\": false, "
                               "\"mamba_proj_bias\": false, \"mlp_bias\": false, "
                               "\"use_bias\": false, "
                               "\"hybrid_override_pattern\": \"M*-E\", "
                               "\"mamba_num_heads\": 4, \"mamba_head_dim\": 8, "
                               "\"ssm_state_size\": 8, \"n_groups\": 1, \"conv_kernel\": 4, "
                               "\"use_conv_bias\": true, \"layer_norm_epsilon\": 1e-05, "
                               "\"n_routed_experts\": 4, \"num_experts_per_tok\": 2, "
                               "\"n_group\": 2, \"topk_group\": 1, \"n_shared_experts\": 1, "
                               "\"moe_intermediate_size\": 64, \"moe_latent_size\": 16, "
                               "\"moe_shared_expert_intermediate_size\": 64"),
     {tiny_nemotron_h},
     0},
    {"granitemoehybrid",
     TINY_CONFIG("granitemoehybrid", TINY_MAMBA_KEYS
                 ", \"layer_types\": [\"mamba\", \"attention\"], \"num_local_experts\": 4, "
                 "\"num_experts_per_tok\": 2, \"shared_intermediate_size\": 64, "
                 "\"logits_scaling\": 2.0, \"position_embedding_type\": \"nope\", "
                 "\"attention_bias\": false, \"embedding_multiplier\": 1.5, "
                 "\"attention_multiplier\": 0.3, \"residual_multiplier\": 0.7"),
     {tiny_granite4},
     0},
    {"falcon_h1",
     TINY_CONFIG("falcon_h1", TINY_MAMBA_KEYS
                 ", \"mamba_d_ssm\": 32, \"mamba_rms_norm\": true, \"ssm_multipliers\": "
                 "[0.5, 0.25, 0.5, 0.5, 1.0], \"mlp_multipliers\": [0.9, 0.6]"),
     {tiny_falcon_h1},
     0},
    {"jamba",
     TINY_CONFIG("jamba", ", \"attn_layer_period\": 2, \"attn_layer_offset\": 1, "
                          "\"expert_layer_period\": 2, \"expert_layer_offset\": 1, "
                          "\"num_experts\": 4, \"num_experts_per_tok\": 2, "
                          "\"mamba_expand\": 2, \"mamba_d_state\": 8, \"mamba_d_conv\": 4, "
                          "\"mamba_dt_rank\": 2"),
     {tiny_jamba},
     0},
    {"plamo2",
     TINY_CONFIG("plamo2", ", \"hidden_size_per_head\": 8, \"mamba_d_state\": 8, "
                           "\"mamba_d_conv\": 4, \"mamba_num_heads\": 4, \"mamba_step\": 2"),
     {tiny_plamo2},
     0},
    {"gear",
     TINY_CONFIG("gear", ", \"layer_types\": [\"conv_mixer\", \"sliding_attention\"], "
                         "\"sliding_window\": 4, \"conv_L_cache\": 3, "
                         "\"final_logit_softcapping\": 30.0"),
     {tiny_gear, tiny_gemma2, tiny_mlp},
     0},
    {"baichuan_m1",
     TINY_CONFIG("baichuan_m1", ", \"tie_word_embeddings\": false, \"conv_window\": 2, "
                                "\"sliding_window\": 4, \"sliding_window_layers\": [1]"),
     {tiny_common, tiny_baichuan_m1, tiny_mlp, tiny_head},
     0},
    {"qwen3_next",
     TINY_CONFIG("qwen3_next",
                 TINY_MOE ", \"tie_word_embeddings\": true, \"linear_num_value_heads\": 4, "
                          "\"linear_num_key_heads\": 2, \"linear_key_head_dim\": 8, "
                          "\"linear_value_head_dim\": 8, \"linear_conv_kernel_dim\": 4, "
                          "\"full_attention_interval\": 2, \"partial_rotary_factor\": 0.5, "
                          "\"shared_expert_intermediate_size\": 32"),
     {tiny_normed, tiny_qwen3_next, tiny_qwen3_moe},
     0},
    {"deepseek_v3",
     TINY_CONFIG("deepseek_v3",
                 ", \"tie_word_embeddings\": false, \"q_lora_rank\": null, \"kv_lora_rank\": 32, "
                 "\"qk_nope_head_dim\": 8, \"qk_rope_head_dim\": 8, \"v_head_dim\": 8, "
                 "\"n_routed_experts\": 4, \"num_experts_per_tok\": 2, "
                 "\"n_shared_experts\": null, \"moe_intermediate_size\": 32, "
                 "\"first_k_dense_replace\": 2"),
     {tiny_common, tiny_deepseek_v3, tiny_mlp, tiny_head},
     0},
    {"kimi_k3",
     TINY_CONFIG("kimi_k3",
                 ", \"tie_word_embeddings\": true, \"linear_attn_config\": {\"num_heads\": 4, "
                 "\"head_dim\": 8, \"short_conv_kernel_size\": 4, \"kda_layers\": [1], "
                 "\"gate_lower_bound\": -5.0}, \"hidden_act\": \"situ\", "
                 "\"activation_situ_beta\": 2.0, \"activation_situ_linear_beta\": 3.0, "
                 "\"attn_res_block_size\": 1, \"kv_lora_rank\": 8, \"qk_nope_head_dim\": 8, "
                 "\"qk_rope_head_dim\": 8, \"v_head_dim\": 8, \"mla_use_output_gate\": true"),
     {tiny_normed, tiny_kimi_k3, tiny_mlp},
     0},
    {"bailing_hybrid",
     TINY_CONFIG("bailing_hybrid",
                 ", \"tie_word_embeddings\": true, \"layer_group_size\": 2, "
                 "\"group_norm_size\": 2, \"use_qk_norm\": false, \"num_experts\": 4, "
                 "\"num_experts_per_tok\": 2, \"num_shared_experts\": 0, "
                 "\"moe_intermediate_size\": 32, \"n_group\": 1, \"topk_group\": 1, "
                 "\"first_k_dense_replace\": 2, \"kv_lora_rank\": 8, \"qk_nope_head_dim\": 8, "
                 "\"qk_rope_head_dim\": 8, \"v_head_dim\": 8, \"partial_rotary_factor\": 0.5, "
                 "\"routed_scaling_factor\": 2.5"),
     {tiny_ring, tiny_mlp},
     0},
    {"recurrent_gemma",
     TINY_CONFIG("recurrent_gemma",
                 ", \"block_types\": [\"recurrent\", \"attention\"], \"conv1d_width\": 4, "
                 "\"attention_window_size\": 4, \"logits_soft_cap\": 30.0, "
                 "\"attention_bias\": false"),
     {tiny_recurrent_gemma},
     0},
    {"rwkv7",
     TINY_CONFIG("rwkv7", ", \"tie_word_embeddings\": true, \"norm_eps\": 1e-05, "
                          "\"a_low_rank_dim\": 8, \"v_low_rank_dim\": 8, "
                          "\"gate_low_rank_dim\": 8, \"decay_low_rank_dim\": 8"),
     {tiny_rwkv7},
     0},
};

/* Tensors that own their names and data. */
struct tiny {
    char *config;
    struct checkpoint_tensor tensors[TINY_MAX_TENSORS];
    size_t n_tensors;
};

static inline void tiny_die(const char *what)
{
    fprintf(stderr, "tiny checkpoint: %s\n", what);
    abort();
}

static inline const struct tiny_family *tiny_find_family(const char *name)
{
    for (size_t i = 0; i < COUNT(tiny_families); i++)
        if (!strcmp(tiny_families[i].name, name))
            return &tiny_families[i];
    tiny_die(name);
    return NULL;
}

/* Numbers small enough that nothing overflows, and not all alike. */
static inline void tiny_fill(struct checkpoint_tensor *t, void *data)
{
    uint32_t x = (uint32_t)t->size;

    for (size_t i = 0; i < t->size / 2; i++) {
        x = x * 1664525 + 1013904223;
        ((uint16_t *)data)[i] =
            t->type == DTYPE_U32 ? (uint16_t)(x >> 16) : f32_to_bf16((float)(int32_t)x * 0x1p-34f);
    }
}

/* A tensor of type BF16 or U32, its name module + part; dims may be 0: there is no such dimension.
 */
static inline struct checkpoint_tensor *tiny_add(struct tiny *t, const char *module,
                                                 const char *part, enum dtype type, int stack,
                                                 int rows, int cols)
{
    struct checkpoint_tensor *added = &t->tensors[t->n_tensors++];
    char *name = malloc(strlen(module) + strlen(part) + 1);
    void *data;

    if (t->n_tensors > TINY_MAX_TENSORS || !name)
        tiny_die("too many tensors");
    strcpy(name, module);
    strcat(name, part);
    *added = (struct checkpoint_tensor){.name = name, .type = type, .size = dtype_size(type)};
    for (int i = 0; i < 3; i++) {
        int dim = (const int[]){stack, rows, cols}[i];

        if (dim) {
            added->shape[added->n_dims++] = dim;
            added->size *= (size_t)dim;
        }
    }
    data = malloc(added->size);
    if (!data)
        tiny_die("no memory");
    tiny_fill(added, data);
    added->data = data;
    return added;
}

static inline void tiny_add_row(struct tiny *t, const struct tiny_row *r, const char *name,
                                int bits)
{
    size_t n = strlen(name);
    bool named = n > 5 && !strcmp(name + n - 4, "bias");

    if (bits && r->cols) {
        tiny_add(t, name, ".weight", DTYPE_U32, r->stack, r->rows, r->cols * bits / 32);
        tiny_add(t, name, ".scales", DTYPE_BF16, r->stack, r->rows, r->cols / 32);
        tiny_add(t, name, ".biases", DTYPE_BF16, r->stack, r->rows, r->cols / 32);
    } else {
        tiny_add(t, name, named ? "" : ".weight", DTYPE_BF16, r->stack, r->rows, r->cols);
    }
}

/* The row once for every layer and expert that its name asks for. */
static inline void tiny_add_rows(struct tiny *t, const struct tiny_row *r, int bits)
{
    int n_layers = strstr(r->name, "%d") ? TINY_LAYERS : 1;
    const char *expert = strchr(r->name, '#');

    for (int layer = 0; layer < n_layers; layer++)
        for (int e = 0; e < (expert ? TINY_EXPERTS : 1); e++) {
            char name[128], *at;

            snprintf(name, sizeof name, "%s", r->name);
            if ((at = strstr(name, "%d"))) {
                at[0] = (char)('0' + layer);
                memmove(at + 1, at + 2, strlen(at + 2) + 1);
            }
            if ((at = strchr(name, '#')))
                *at = (char)('0' + e);
            tiny_add_row(t, r, name, bits);
        }
}

static inline void tiny_open(struct tiny *t, const struct tiny_family *f)
{
    *t = (struct tiny){.config = mem_strdup(f->config)};
    for (size_t i = 0; i < COUNT(f->tables) && f->tables[i]; i++)
        for (const struct tiny_row *r = f->tables[i]; r->name; r++)
            tiny_add_rows(t, r, f->bits);
}

static inline void tiny_free_tensor(struct checkpoint_tensor *w)
{
    free((void *)(uintptr_t)w->name);
    free((void *)(uintptr_t)w->data);
}

static inline void tiny_close(struct tiny *t)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        tiny_free_tensor(&t->tensors[i]);
    mem_free(t->config);
    *t = (struct tiny){0};
}

static inline struct checkpoint_tensor *tiny_find(struct tiny *t, const char *name)
{
    for (size_t i = 0; i < t->n_tensors; i++)
        if (!strcmp(t->tensors[i].name, name))
            return &t->tensors[i];
    tiny_die(name);
    return NULL;
}

static inline void tiny_remove(struct tiny *t, const char *name)
{
    struct checkpoint_tensor *w = tiny_find(t, name);

    tiny_free_tensor(w);
    *w = t->tensors[--t->n_tensors];
}

/* model.safetensors in a folder that is there. */
static inline void tiny_write_weights(const struct tiny *t, const char *folder)
{
    char path[4096];
    clm_error err = {0};

    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (safetensors_write(path, t->tensors, t->n_tensors, NULL, 0, &err))
        tiny_die(err.message);
}

#endif
