/* models/olmoe.c: OLMoE: experts in every layer, norms over all heads of q and k.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the k best e of softmax(router)_e expert_e(rms_norm(x))
 *
 * arXiv:2409.02060
 */
#include "models/family.h"

static int olmoe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SOFTMAX_ALL,
                .n_experts = config_int(c, "num_experts"),
                .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                .normalize = config_bool_or(c, "norm_topk_prob", false),
                .scale = 1,
            },
        .expert = config_gated_mlp(c),
    };
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_span = QK_NORM_ALL;
    attention.clip_qkv = config_by_transformers(c) ? (float)config_cap(c, "clip_qkv", 0) : 0;
    attention.clip_last = true;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    return 0;
}

const struct family family_olmoe = {
    .name = "OLMoE",
    .model_types = {"olmoe"},
    .spec = olmoe_spec,
    .weights = layout_moe,
};
