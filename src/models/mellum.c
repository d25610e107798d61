/* models/mellum.c: Mellum: experts in every layer, sliding layers with a rope of their own.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the k best e of softmax(router)_e expert_e(rms_norm(x))
 *
 * Mellum, JetBrains 2025
 */
#include <string.h>

#include "models/family.h"

static int mellum_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_ALL,
                   .n_experts = config_int(c, config_has(c, "num_experts") ? "num_experts"
                                                                           : "num_local_experts"),
                   .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                   .normalize = config_bool(c, "norm_topk_prob"),
                   .scale = 1},
        .expert = {.intermediate_size = config_int(c, "moe_intermediate_size"),
                   .activation = config_activation(c, "hidden_act", ACT_SILU),
                   .gated = true},
    };
    struct attention_spec attention;
    struct rope_spec full, sliding;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_partial(c, s, 10000, a);
    attention.q_norm = attention.k_norm = norm;
    full = attention.rope;
    sliding = config_rope_partial(c, "sliding_attention", attention.head_dim, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = config_window(c, i, 0);
        attention.rope = attention.window ? sliding : full;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (config_layer_is(c, "mlp_layer_types", "dense", i, false))
            layer_add(&s->layers[i], branch_mlp(norm, config_gated_mlp(c)));
        else
            layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    config_ignore(c, "intermediate_size", "mlp_bias", "decoder_sparse_step", "mlp_only_layers",
                  NULL);
    return 0;
}

const struct family family_mellum = {
    .name = "Mellum",
    .model_types = {"mellum"},
    .spec = mellum_spec,
    .weights = layout_moe,
};
