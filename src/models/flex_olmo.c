/* models/flex_olmo.c: FlexOlmo: OLMo 2 with experts: norms after the blocks, and over all heads of
 * q and k.
 *
 *     x += rms_norm(attention(x))
 *     x += rms_norm(sum over the k best e of softmax(router)_e expert_e(x))
 *
 * arXiv:2507.07024
 */
#include "models/family.h"

static int flex_olmo_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c), none = {0};
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_ALL,
                   .n_experts = config_int(c, "num_experts"),
                   .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                   .normalize = config_bool_or(c, "norm_topk_prob", false),
                   .scale = 1},
        .expert = config_gated_mlp(c),
    };
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 500000, a);
    attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_span = QK_NORM_ALL;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(none, attention))->post_norm = norm;
        layer_add(&s->layers[i], branch_moe(none, moe))->post_norm = norm;
    }
    return 0;
}

static const struct weight_rule flex_olmo_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_flex_olmo = {
    .name = "FlexOlmo",
    .model_types = {"flex_olmo"},
    .spec = flex_olmo_spec,
    .weights = flex_olmo_weights,
};
