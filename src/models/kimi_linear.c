/* models/kimi_linear.c: Kimi Linear: layers with the delta rule, whose decay is by each number of
 * the keys, and attention to latents without positions; experts beside a shared one.
 *
 *     x += delta(rms_norm(x)) or mla(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * Kimi K3 has a gate after attention too, a lower bound of decays, experts that read and write
 * fewer numbers, activations that are held, and what each block reads may be a mixture of what x is
 * and what it was before earlier blocks of layers.
 *
 * arXiv:2510.26692
 */
#include <string.h>

#include "models/family.h"

/* Which layers have what: linear_attn_config says it, counting from 1, or layer_types, or both. */
static bool is_linear(config *c, int layer)
{
    config *linear = config_object(c, "linear_attn_config");
    const char *const *types;
    const int *layers;
    int n = linear ? config_ints(linear, "kda_layers", &layers) : -1;
    int n_types = config_strings(c, "layer_types", &types);
    bool listed = false;

    for (int i = 0; i < n; i++)
        listed |= layers[i] == layer + 1;
    if (layer < n_types) {
        bool typed = strcmp(types[layer], "linear_attention") == 0;

        if (n >= 0 && typed != listed)
            return config_fail(c, "layer_types",
                               "layer %d is \"%s\", and %s in linear_attn_config.kda_layers", layer,
                               types[layer], listed ? "listed" : "missing");
        return typed;
    }
    if (n < 0)
        return config_fail(c, "linear_attn_config", "it does not say what layer %d is", layer);
    return listed;
}

/* Likewise: mlp_layer_types, or all from first_k_dense_replace on, every moe_layer_freq-th. */
static bool is_sparse(config *c, int layer)
{
    int every = config_has(c, "moe_layer_freq") ? config_int_in(c, "moe_layer_freq", 1, 4096) : 1;

    return config_layer_is(c, "mlp_layer_types", "sparse", layer,
                           layer >= config_int_or(c, "first_k_dense_replace", 0) &&
                               layer % every == 0);
}

static struct delta_spec read_delta(config *c, struct norm_spec norm)
{
    config *linear = config_object(c, "linear_attn_config");
    config *from = linear ? linear : c;
    int n_heads = config_int(from, linear ? "num_heads" : "linear_num_heads");
    int head_dim = config_int(from, linear ? "head_dim" : "linear_head_dim");

    bool full_rank = linear && config_bool_or(linear, "use_full_rank_gate", false);

    config_ignore(c, "linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim", NULL);
    if (linear)
        config_ignore(linear, "full_attn_layers", NULL);
    return (struct delta_spec){
        .n_heads = n_heads,
        .n_key_heads = n_heads,
        .key_dim = head_dim,
        .value_dim = head_dim,
        .conv_width =
            config_int_or(from, linear ? "short_conv_kernel_size" : "linear_conv_kernel_dim", 4),
        .keywise = true,
        .decay_rank = head_dim,
        .decay_bound = linear ? (float)config_float_or(linear, "gate_lower_bound", 0) : 0,
        .gate_rank = full_rank ? 0 : head_dim,
        .beta_scale = 1,
        .norm = norm,
        .gate_activation = ACT_SIGMOID,
    };
}

static struct mla_spec read_mla(config *c, struct norm_spec norm, bool later)
{
    int head_dim = config_int_or(c, "head_dim", 0);
    bool bias = config_bool_or(c, "attention_bias", false);
    struct mla_spec m = {
        .n_heads = config_int_in(c, "num_attention_heads", 1, 4096),
        .q_rank = config_int_or(c, "q_lora_rank", 0),
        .kv_rank = config_int(c, "kv_lora_rank"),
        .nope_dim = config_int_or(c, "qk_nope_head_dim", head_dim),
        .rope_dim = config_int_or(c, "qk_rope_head_dim", 0),
        .v_dim = config_int_or(c, "v_head_dim", head_dim),
        .a_bias = bias,
        .o_bias = bias,
        .q_scale = 1,
        .kv_scale = 1,
    };

    if (config_bool_or(c, "mla_use_output_gate", false))
        m.gate = GATE_ALL;
    if (later)
        norm.eps = 1e-6f;
    m.q_norm = m.kv_norm = norm;
    m.scale = attention_scale(m.nope_dim + m.rope_dim);
    config_ignore(c, "num_key_value_heads", "qk_head_dim", "mla_use_nope", "rope_theta",
                  "rope_scaling", NULL);
    return m;
}

static struct moe_spec read_moe(config *c, struct mlp_spec mlp, bool later)
{
    const char *scores = config_string_or(c, "moe_router_activation_func", "sigmoid");
    int shared = config_int_or(c, "num_shared_experts", 0);
    struct moe_spec moe = {.router_bias = true, .expert = mlp, .shared = mlp};

    moe.expert.intermediate_size = config_int(c, "moe_intermediate_size");
    moe.shared.intermediate_size =
        config_shared_size(c, "num_shared_experts", shared, moe.expert.intermediate_size);
    moe.router = (struct router_params){
        .score = strcmp(scores, "softmax") == 0 ? ROUTER_SOFTMAX_ALL : ROUTER_SIGMOID,
        .n_experts = config_int(c, "num_experts"),
        .n_experts_per_token = config_int_or(c, "num_experts_per_token", 1),
        .n_groups = config_int_or(c, "num_expert_group", 1),
        .n_groups_kept = config_int_or(c, "topk_group", 1),
        .groups_alone = later,
        .normalize = config_bool_or(c, "moe_renormalize", true),
        .normalize_eps = 1e-20f,
        .scale = (float)config_float_or(c, "routed_scaling_factor", 1),
    };
    if (!later && moe.router.n_experts_per_token == 1)
        moe.router.normalize = false;
    if (strcmp(scores, "sigmoid") != 0 && strcmp(scores, "softmax") != 0)
        config_fail(c, "moe_router_activation_func", "unknown scores \"%s\" of experts", scores);
    return moe;
}

/* Of K3: experts of fewer numbers, behind a norm or not. */
static void read_latent(struct moe_spec *moe, config *c, struct norm_spec norm)
{
    moe->latent_size = config_int_or(c, "routed_expert_hidden_size", 0);
    if (moe->latent_size && config_bool_or(c, "latent_moe_use_norm", false))
        moe->latent_post_norm = norm;
}

/* K3's activation, beta tanh(g / beta) sigmoid(g), has a name of its own. */
static struct mlp_spec read_mlp(config *c)
{
    const char *act = config_string_or(c, "hidden_act", "silu");
    struct mlp_spec mlp = {.gated = true};

    if (strcmp(act, "situ") != 0)
        return config_gated_mlp(c);
    mlp.intermediate_size = config_int(c, "intermediate_size");
    mlp.situ = (float)config_float_or(c, "activation_situ_beta", 1);
    mlp.situ_up = (float)config_float_or(c, "activation_situ_linear_beta", 0);
    if (mlp.situ == 0)
        mlp.situ = 1;
    return mlp;
}

/* Both branches of all layers read mixtures; the first of every block of layers keeps x and begins
 * anew. */
static void mix_residuals(struct spec *s, config *c)
{
    int block =
        config_has(c, "attn_res_block_size") ? config_int_in(c, "attn_res_block_size", 1, 4096) : 0;

    for (int i = 0; block && i < s->n_layers; i++) {
        struct branch_spec *b = s->layers[i].branches;

        b[0].mixes = b[1].mixes = true;
        b[0].keeps = b[0].replace = i % block == 0;
        s->n_kept += b[0].keeps;
    }
    s->residual_norm = s->final_norm;
}

static int kimi_linear_spec(struct spec *s, config *c, arena *a)
{
    bool third = strcmp(config_string_or(c, "hidden_act", ""), "situ") == 0;
    bool later = config_by_transformers(c) && !third;
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = read_mlp(c);
    bool experts = config_int_or(c, "num_experts", 0) > 0;
    struct moe_spec moe = experts ? read_moe(c, mlp, later) : (struct moe_spec){0};
    struct delta_spec delta = read_delta(c, norm);
    struct mla_spec mla = read_mla(c, norm, later || third);

    delta.convs_apart = !third;
    if (experts)
        read_latent(&moe, c, norm);
    delta.conv_activation = mlp.activation;
    if (config_common(s, c, false, a))
        return -1;
    s->context_length = config_int_or(c, "model_max_length", s->context_length);
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        layer_add(&s->layers[i],
                  is_linear(c, i) ? branch_delta(norm, delta) : branch_mla(norm, mla));
        layer_add(&s->layers[i],
                  experts && is_sparse(c, i) ? branch_moe(norm, moe) : branch_mlp(norm, mlp));
    }
    mix_residuals(s, c);
    config_ignore(c, "use_grouped_topk", "num_nextn_predict_layers", "moe_layer_freq",
                  "first_k_dense_replace", "layer_types", "output_router_logits", "pretraining_tp",
                  NULL);
    return 0;
}

static const struct weight_rule kimi_linear_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v}_proj", ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_Q)},
    {"model.layers.*.self_attn.qkv_proj", SPLIT(0, ROLE_DELTA_Q, 3)},
    {"model.layers.*.self_attn.qkv_conv.conv", SPLIT(0, ROLE_DELTA_CONV_Q, 3)},
    {"model.layers.*.self_attn.g_proj", ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_GATE)},
    {"model.layers.*.self_attn.g_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.self_attn.{g_b_proj,b_proj,f_b_proj,o_proj,g_a_proj,f_a_proj}",
     ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_GATE)},
    {"model.layers.*.self_attn.forget_gate.f_a_proj",
     ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_DECAY_DOWN)},
    {"model.layers.*.self_attn.forget_gate.f_b_proj", ONLY_SLOTS(OP_DELTA, 0, ROLE_DELTA_DECAY)},
    {"model.layers.*.self_attn.{q,k,v}_conv1d", SLOTS(0, ROLE_DELTA_CONV_Q)},
    {"model.layers.*.self_attn.{q,k,v}_conv.conv", SLOTS(0, ROLE_DELTA_CONV_Q)},
    {"model.layers.*.self_attn.{A_log,dt_bias,o_norm}", SLOTS(0, ROLE_DELTA_A)},
    {"model.layers.*.self_attn.{q_a_proj,q_b_proj,kv_a_proj_with_mqa,o_proj}", MLA(0)},
    {"model.layers.*.self_attn.q_proj", SLOTS(0, ROLE_MLA_Q)},
    {"model.layers.*.self_attn.{q,kv}_a_layernorm", MLA_NORMS(0)},
    {"model.layers.*.self_attn.kv_b_proj", MLA_KV_B(0)},
    {"model.layers.*.self_attn.{embed_q,unembed_out}", MLA_HEADS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.block_sparse_moe.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.block_sparse_moe.gate", ROUTER(1)},
    {"model.layers.*.mlp.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.block_sparse_moe.gate.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.block_sparse_moe.experts.#.{w1,w3,w2}", EXPERTS(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.block_sparse_moe.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.mlp.{routed_expert_down_proj,routed_expert_up_proj}",
     SLOTS(1, ROLE_LATENT_IN)},
    {"model.layers.*.block_sparse_moe.{routed_expert_down_proj,routed_expert_up_proj}",
     SLOTS(1, ROLE_LATENT_IN)},
    {"model.layers.*.mlp.routed_expert_norm", SLOTS(1, ROLE_LATENT_POST_NORM)},
    {"model.layers.*.block_sparse_moe.routed_expert_norm", SLOTS(1, ROLE_LATENT_POST_NORM)},
    {"model.layers.*.block_sparse_moe.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.block_sparse_moe.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.self_attention_res_{proj,norm}", SLOTS(0, ROLE_RESIDUAL_PROJ)},
    {"model.layers.*.self_attention_res.{proj,norm}_weight", SLOTS(0, ROLE_RESIDUAL_PROJ)},
    {"model.layers.*.mlp_res_{proj,norm}", SLOTS(1, ROLE_RESIDUAL_PROJ)},
    {"model.layers.*.mlp_res.{proj,norm}_weight", SLOTS(1, ROLE_RESIDUAL_PROJ)},
    {"model.output_attn_res_{proj,norm}", SLOTS(-1, ROLE_RESIDUAL_PROJ)},
    {"model.output_attn_res.{proj,norm}_weight", SLOTS(-1, ROLE_RESIDUAL_PROJ)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.mtp**", IGNORE}, /* guesses of further tokens */
    {NULL, IGNORE},
};

const struct family family_kimi_linear = {
    .name = "Kimi Linear, Kimi K3",
    .model_types = {"kimi_linear", "kimi_k3"},
    .spec = kimi_linear_spec,
    .weights = kimi_linear_weights,
};
