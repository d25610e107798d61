/* models/qwen3_next.c: Qwen3-Next and Qwen 3.5: three layers with the delta rule, then one with
 * attention whose result is gated; experts beside a shared one, or dense.
 *
 *     x += delta(rms_norm(x)), or sigmoid(gate(n)) attention(n),  n = rms_norm(x)
 *     x += mlp(n), or sum over the k best e of softmax(router)_e expert_e(n) + sigmoid(g n)
 * shared(n)
 *
 * Gated delta net, arXiv:2412.06464; gated attention, 2505.06708
 */
#include <string.h>

#include "models/family.h"

/* A number that Qwen 3.5 has a default for. */
static int number(config *c, bool later, const char *key, int otherwise)
{
    return later ? config_int_or(c, key, otherwise) : config_int(c, key);
}

static struct delta_spec read_delta(config *c, bool later, struct norm_spec norm)
{
    return (struct delta_spec){
        .n_heads = number(c, later, "linear_num_value_heads", 64),
        .n_key_heads = number(c, later, "linear_num_key_heads", 16),
        .key_dim = number(c, later, "linear_key_head_dim", 192),
        .value_dim = number(c, later, "linear_value_head_dim", 128),
        .conv_width = number(c, later, "linear_conv_kernel_dim", 4),
        .beta_scale = 1,
        .norm = norm,
        .gate_activation = ACT_SILU,
    };
}

static struct moe_spec read_moe(config *c, bool later, struct mlp_spec mlp)
{
    struct moe_spec moe = {.expert = mlp, .shared = mlp, .shared_gate = true};

    moe.expert.intermediate_size = config_int(c, "moe_intermediate_size");
    moe.shared.intermediate_size = config_int_in(c, "shared_expert_intermediate_size", 1, 1 << 24);
    moe.router = (struct router_params){
        .score = ROUTER_SOFTMAX_ALL,
        .n_experts = config_int(c, "num_experts"),
        .n_experts_per_token = config_int(c, "num_experts_per_tok"),
        .normalize = config_bool_or(c, "norm_topk_prob", later),
        .scale = 1,
    };
    return moe;
}

static struct attention_spec read_attention(config *c, const struct spec *s, bool later, arena *a)
{
    struct attention_spec at = config_attention_plain(c, s);

    if (later)
        at.n_kv_heads = config_int_or(c, "num_key_value_heads", 8);
    at.rope = config_rope_part(c, at.head_dim, 100000, 0.25, a);
    at.q_norm = at.k_norm = s->final_norm;
    at.gate = GATE_ALL;
    at.gate_activation = ACT_SIGMOID;
    at.gate_bias = at.qkv_bias;
    if (!config_bool_or(c, "attn_output_gate", true))
        config_fail(c, "attn_output_gate", "attention without a gate is not supported");
    return at;
}

static bool is_linear(config *c, int layer)
{
    int every = config_has(c, "full_attention_interval")
                    ? config_int_in(c, "full_attention_interval", 1, 4096)
                    : 4;
    const char *const *types;
    int n = config_strings(c, "layer_types", &types);

    if (n < 0)
        return (layer + 1) % every != 0;
    if (layer >= n)
        return config_fail(c, "layer_types", "it has %d entries, too few for layer %d", n, layer);
    if (strcmp(types[layer], "linear_attention") != 0 &&
        strcmp(types[layer], "full_attention") != 0)
        return config_fail(c, "layer_types", "layer %d is of the unknown type \"%s\"", layer,
                           types[layer]);
    return strcmp(types[layer], "linear_attention") == 0;
}

int qwen3_next_spec(struct spec *s, config *c, arena *a)
{
    bool later = strncmp(config_string_or(c, "model_type", ""), "qwen3_next", 10) != 0;
    bool experts = config_int_or(c, "num_experts", 0) > 0;
    struct mlp_spec mlp = {.activation = config_activation(c, "hidden_act", ACT_SILU),
                           .gated = true};
    struct moe_spec moe = experts ? read_moe(c, later, mlp) : (struct moe_spec){0};
    struct delta_spec delta;
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    s->final_norm = (struct norm_spec){.kind = NORM_RMS,
                                       .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6)};
    delta = read_delta(c, later, s->final_norm);
    delta.conv_activation = mlp.activation;
    attention = read_attention(c, s, later, a);
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        bool sparse = experts && (later || config_layer_is_sparse(c, i));

        layer_add(&s->layers[i], is_linear(c, i) ? branch_delta(s->final_norm, delta)
                                                 : branch_attention(s->final_norm, attention));
        if (!sparse)
            mlp.intermediate_size = config_int(c, "intermediate_size");
        layer_add(&s->layers[i],
                  sparse ? branch_moe(s->final_norm, moe) : branch_mlp(s->final_norm, mlp));
    }
    config_ignore(c, "intermediate_size", "decoder_sparse_step", "mlp_only_layers",
                  "router_aux_loss_coef", "output_router_logits", "mtp_num_hidden_layers",
                  "mtp_use_dedicated_embeddings", "mamba_ssm_dtype", "full_attention_interval",
                  NULL);
    return 0;
}

/* Files as published keep convolutions as [channels, 1, width], and hold w - 1 of most norms. Where
 * no layer has a convolution, or one of width 1, names of experts tell the two apart, else the one
 * who wrote the file. */
static bool is_published(const checkpoint *c)
{
    for (size_t i = 0; i < checkpoint_count(c); i++) {
        const struct checkpoint_tensor *t = checkpoint_at(c, i);

        if (strstr(t->name, "conv1d.weight") && t->n_dims == 3 && t->shape[1] != t->shape[2])
            return t->shape[2] != 1;
    }
    return checkpoint_is_published(c, ".mlp.experts.", ".mlp.switch_mlp.");
}

void qwen3_next_adapt(struct spec *s, const checkpoint *c)
{
    if (!is_published(c))
        return;
    s->final_norm.offset = 1;
    for (int i = 0; i < s->n_layers; i++) {
        struct branch_spec *b = s->layers[i].branches;

        b[0].pre_norm.offset = b[1].pre_norm.offset = 1;
        if (b[0].op == OP_ATTENTION)
            b[0].attention.q_norm.offset = b[0].attention.k_norm.offset = 1;
    }
}

const struct weight_rule layout_qwen3_next[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.linear_attn.in_proj_qkvz", DELTA_GROUPED(0, ROLE_DELTA_Q, 4)},
    {"model.layers.*.linear_attn.in_proj_ba", DELTA_GROUPED(0, ROLE_DELTA_BETA, 2)},
    {"model.layers.*.linear_attn.in_proj_qkv", SPLIT(0, ROLE_DELTA_Q, 3)},
    {"model.layers.*.linear_attn.{in_proj_z,in_proj_b,in_proj_a,out_proj}",
     SLOTS(0, ROLE_DELTA_GATE)},
    {"model.layers.*.linear_attn.conv1d", SPLIT(0, ROLE_DELTA_CONV_Q, 3)},
    {"model.layers.*.linear_attn.{A_log,dt_bias,norm}", SLOTS(0, ROLE_DELTA_A)},
    {"model.layers.*.self_attn.q_proj", ATTENTION_Q_GATE(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_expert.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.mlp.shared_expert_gate", SLOTS(1, ROLE_SHARED_EXPERT_GATE)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {"mtp.**", IGNORE},                                 /* guesses of further tokens */
    {NULL, IGNORE},
};

const struct family family_qwen3_next = {
    .name = "Qwen3-Next, Qwen 3.5",
    .model_types = {"qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text",
                    "minicpmv4_6", "minicpmv4_7", "minicpm_ocr"},
    .spec = qwen3_next_spec,
    .adapt = qwen3_next_adapt,
    .weights = layout_qwen3_next,
};
