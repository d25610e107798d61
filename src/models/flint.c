/* models/flint.c: Flint: layers that slide turn, those that see everything know no positions;
 * sinks; experts chosen by sigmoid scores beside a shared one.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 */
#include "models/family.h"

static int flint_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = config_activation(c, "hidden_act", ACT_SILU),
                           .gated = true};
    struct moe_spec moe = {
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = config_int(c, "num_experts"),
                   .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                   .normalize = config_bool_or(c, "norm_topk_prob", true),
                   .scale = 1},
        .expert = mlp,
        .shared = mlp,
    };
    struct attention_spec attention;
    struct rope_spec rope;

    moe.expert.intermediate_size = config_int(c, "moe_intermediate_size");
    moe.shared.intermediate_size = config_int(c, "shared_expert_intermediate_size");
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.q_norm = attention.k_norm = norm;
    attention.sinks = true;
    rope = attention.rope;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        bool slides = i > 1 && i % 4 != 1 && i != s->n_layers - 1;

        attention.window =
            config_window(c, i, slides ? config_window_size(c, "sliding_window", 513) : 0);
        attention.rope = rope;
        if (!attention.window)
            attention.rope.kind = ROPE_NONE;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i],
                  config_layer_is_sparse(c, i) ? branch_moe(norm, moe) : branch_mlp(norm, mlp));
    }
    config_ignore(c, "sliding_window", NULL);
    return 0;
}

const struct family family_flint = {
    .name = "Flint",
    .model_types = {"flint"},
    .spec = flint_spec,
    .weights = layout_moe,
};
