/* models/aria.c: Aria: Llama whose layers have experts beside shared ones.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the k best e of softmax(best)_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * Experts are gated by silu, whatever hidden_act says of the shared ones. arXiv:2410.05993
 */
#include "models/family.h"

static int aria_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_SELECTED,
                   .n_experts = config_int_or(c, "moe_num_experts", 8),
                   .n_experts_per_token = config_int_or(c, "moe_topk", 2),
                   .scale = 1},
        .expert = mlp,
        .shared = mlp,
    };
    int n_shared = config_int_or(c, "moe_num_shared_experts", 2);
    struct attention_spec attention;

    moe.expert.activation = ACT_SILU;
    moe.expert.bias = false;
    moe.shared.intermediate_size =
        config_shared_size(c, "moe_num_shared_experts", n_shared, mlp.intermediate_size);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    return 0;
}

static const struct weight_rule aria_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.router", ROUTER(1)},
    {"model.layers.*.mlp.experts.fc1", TRANSPOSED_SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.fc2", TRANSPOSED_SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.experts.gate_up_proj", BARE_TRANSPOSED_SPLIT(1, ROLE_EXPERT_GATE, 2)},
    {"model.layers.*.mlp.experts.down_proj", BARE_TRANSPOSED_SLOTS(1, ROLE_EXPERT_DOWN)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_aria = {
    .name = "Aria",
    .model_types = {"aria_text", "aria", "aria_moe_lm"},
    .spec = aria_spec,
    .weights = aria_weights,
};
