/* models/ernie4_5_vl_moe.c: the text of ERNIE 4.5 VL, which has experts of its own: the first half
 * of all. What chooses them is stored turned.
 *
 * ERNIE 4.5 Technical Report, Baidu 2025
 */
#include "models/family.h"

static int ernie4_5_vl_moe_spec(struct spec *s, config *c, arena *a)
{
    int rc = ernie4_5_moe_spec(s, c, a);

    s->lm_head_bias = false;
    return rc;
}

static const struct weight_rule ernie4_5_vl_moe_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.moe_statics.e_score_correction_bias", FIRST_ROWS(1, ROLE_ROUTER_BIAS)},
    {"model.layers.*.mlp.gate", TRANSPOSED_SLOTS(1, ROLE_ROUTER)},
    {"model.layers.*.mlp.gate.weight_1", IGNORE}, /* of pictures */
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", FIRST_EXPERTS(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    /* The names that transformers has in memory, and with it adapters. */
    {"model.layers.*.mlp.text_moe.gate", ROUTER(1)},
    {"model.layers.*.mlp.text_moe.gate.moe_statics.e_score_correction_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.text_moe.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.text_moe.experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.vision_moe.**", IGNORE},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.resampler_model.**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_ernie4_5_vl_moe = {
    .name = "ERNIE 4.5 VL, text",
    .model_types = {"ernie4_5_vl_moe_text", "ernie4_5_vl_moe"},
    .spec = ernie4_5_vl_moe_spec,
    .weights = ernie4_5_vl_moe_weights,
};
