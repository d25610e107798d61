/* models/lara_mini.c: Lara 4 Mini: layers with the delta rule, layers that slide and turn, layers
 * that see everything and know no positions; experts beside a shared one.
 *
 *     x += delta(rms_norm(x)), or attention(rms_norm(x))
 *     x += sum over the k best e of softmax(router)_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * Gated delta net, arXiv:2412.06464
 */
#include "models/family.h"

enum mixer { MIXER_DELTA, MIXER_SLIDING, MIXER_FULL };

static enum mixer mixer_of(config *c, int layer)
{
    static const enum mixer pattern[] = {MIXER_DELTA, MIXER_SLIDING, MIXER_DELTA, MIXER_FULL,
                                         MIXER_SLIDING};
    enum mixer usual = pattern[layer % 5];

    if (config_layer_is(c, "layer_types", "linear_attention", layer, usual == MIXER_DELTA))
        return MIXER_DELTA;
    if (config_layer_is(c, "layer_types", "sliding_attention", layer, usual == MIXER_SLIDING))
        return MIXER_SLIDING;
    if (!config_layer_is(c, "layer_types", "full_attention", layer, true))
        config_fail(c, "layer_types", "layer %d is of an unknown type", layer);
    return MIXER_FULL;
}

static int lara_mini_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct moe_spec moe = config_moe_beside(c, (struct router_params){.score = ROUTER_SOFTMAX_ALL,
                                                                      .n_experts = 128,
                                                                      .n_experts_per_token = 4,
                                                                      .normalize = true});
    struct delta_spec delta = {
        .n_heads = config_int_or(c, "linear_num_value_heads", 16),
        .n_key_heads = config_int_or(c, "linear_num_key_heads", 8),
        .key_dim = config_int_or(c, "linear_key_head_dim", 128),
        .value_dim = config_int_or(c, "linear_value_head_dim", 128),
        .conv_width = config_int_or(c, "linear_conv_kernel_dim", 4),
        .conv_activation = moe.expert.activation,
        .beta_scale = 1,
        .norm = norm,
        .gate_activation = ACT_SILU,
    };
    int window = config_window_size(c, "sliding_window", 512);
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.n_kv_heads = config_int_or(c, "num_key_value_heads", 4);
    attention.head_dim = config_int_or(c, "head_dim", 128);
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    attention.q_norm = attention.k_norm = norm;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        enum mixer mixer = mixer_of(c, i);
        struct branch_spec *b =
            layer_add(&s->layers[i], mixer == MIXER_DELTA ? branch_delta(norm, delta)
                                                          : branch_attention(norm, attention));

        if (mixer == MIXER_SLIDING)
            b->attention.window = window;
        if (mixer == MIXER_FULL)
            b->attention.rope.kind = ROPE_NONE;
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    return 0;
}

static const struct weight_rule lara_mini_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.linear_attn.in_proj", SPLIT(0, ROLE_DELTA_Q, 6)},
    {"model.layers.*.linear_attn.in_proj_qkv", SPLIT(0, ROLE_DELTA_Q, 3)},
    {"model.layers.*.linear_attn.{in_proj_z,in_proj_b,in_proj_a,out_proj}",
     SLOTS(0, ROLE_DELTA_GATE)},
    {"model.layers.*.linear_attn.conv1d", SPLIT(0, ROLE_DELTA_CONV_Q, 3)},
    {"model.layers.*.linear_attn.{A_log,dt_bias,norm}", SLOTS(0, ROLE_DELTA_A)},
    {"model.layers.*.linear_attn.out_norm", SLOTS(0, ROLE_DELTA_NORM)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_expert.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_lara_mini = {
    .name = "Lara 4 Mini",
    .model_types = {"lara_mini"},
    .spec = lara_mini_spec,
    .weights = lara_mini_weights,
};
