/* models/granitemoe.c: Granite 3 with experts, beside a shared one or not.
 *
 *     x += m attention(rms_norm(x))
 *     x += m (sum over the k best e of softmax(best)_e expert_e(n) + shared(n)),  n = rms_norm(x)
 */
#include <string.h>

#include "models/family.h"

static int granitemoe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    float residual = (float)config_float_or(c, "residual_multiplier", 1);
    double logits = config_float_or(c, "logits_scaling", 1);
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SOFTMAX_SELECTED,
                .n_experts = config_int(c, "num_local_experts"),
                .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                .scale = 1,
            },
        .expert = config_gated_mlp(c),
    };
    const char *type = config_string_or(c, "model_type", "");
    bool swa = strcmp(type, "granitemoe_swa") == 0;
    struct attention_spec attention, all;

    if (strcmp(type, "granitemoeshared") == 0 || swa) {
        moe.shared = moe.expert;
        moe.shared.intermediate_size = config_int_or(c, "shared_intermediate_size", swa ? 0 : 1024);
    }
    if (config_common(s, c, true, a))
        return -1;
    if (!(logits > 0))
        return config_fail(c, "logits_scaling", "it is %g; it must be positive", logits);
    attention = config_attention(c, s, 10000, a);
    attention.scale = (float)config_float_or(c, "attention_multiplier", 1);
    all = attention;
    s->embed_scale = (float)config_float_or(c, "embedding_multiplier", 1);
    s->logit_scale = (float)(1 / logits);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        if (swa)
            attention = granite_swa_attention(c, all, i);
        layer_add(&s->layers[i], branch_attention(norm, attention))->scale = residual;
        layer_add(&s->layers[i], branch_moe(norm, moe))->scale = residual;
    }
    return 0;
}

static const struct weight_rule granitemoe_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.sinks", SLOTS(0, ROLE_SINKS)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.block_sparse_moe.router.layer", ROUTER(1)},
    {"model.layers.*.block_sparse_moe.router", ROUTER(1)},
    {"model.layers.*.block_sparse_moe.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.block_sparse_moe.input_linear", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.block_sparse_moe.output_linear", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.block_sparse_moe.experts.gate_up_proj", SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.block_sparse_moe.experts.down_proj", SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.shared_mlp.input_linear", SPLIT(1, ROLE_SHARED_GATE, 2)},
    {"model.layers.*.shared_mlp.output_linear", SLOTS(1, ROLE_SHARED_DOWN)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_granitemoe = {
    .name = "Granite, experts",
    .model_types = {"granitemoe", "granitemoeshared", "granitemoe_swa"},
    .spec = granitemoe_spec,
    .weights = granitemoe_weights,
};
