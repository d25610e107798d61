/* models/kolibri1.c: Kolibri 1: norms before and after blocks; layers that slide turn, those that
 * see everything know no positions; experts beside a shared one.
 *
 *     x += norm(attention(norm(x)))
 *     x += norm(sum over the k best e by l + b of sigmoid(l_e) expert_e(n) + shared(n)),
 *         l = router(n), n = norm(x)
 */
#include "models/family.h"

static int kolibri1_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct moe_spec moe = config_moe_beside(
        c, (struct router_params){
               .score = ROUTER_SIGMOID_SELECTED, .n_experts = 384, .n_experts_per_token = 6});
    bool no_window =
        config_has(c, "sliding_window") && config_kind(c, "sliding_window") != CONFIG_NUMBER;
    int window = config_window_size(c, "sliding_window", 513);
    struct attention_spec attention;
    struct rope_spec rope;

    moe.router_bias = true;
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.head_dim = config_int_or(c, "head_dim", 128);
    attention.n_kv_heads = config_int_or(c, "num_key_value_heads", 4);
    attention.scale = attention_scale(attention.head_dim);
    attention.qkv_bias = attention.o_bias = false;
    attention.q_norm = attention.k_norm = norm;
    rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = config_window(c, i, (i + 1) % 5 ? window : 0);
        attention.rope = rope;
        if (!attention.window && !no_window)
            attention.rope.kind = ROPE_NONE;
        layer_add(&s->layers[i], branch_attention(norm, attention))->post_norm = norm;
        layer_add(&s->layers[i], branch_moe(norm, moe))->post_norm = norm;
    }
    config_ignore(c, "sliding_window", NULL);
    return 0;
}

static const struct weight_rule kolibri1_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attn_norm", POST_NORM(0)},
    {"model.layers.*.post_self_attn_layernorm", POST_NORM(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.moe.router.expert_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.layers.*.post_ffn_norm", POST_NORM(1)},
    {"model.layers.*.post_mlp_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_kolibri1 = {
    .name = "Kolibri 1",
    .model_types = {"kolibri1"},
    .spec = kolibri1_spec,
    .weights = kolibri1_weights,
};
