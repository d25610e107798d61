/* models/klear.c: Klear: experts chosen by sigmoid scores with a bias, mixed with a shared one by a
 * softmax of two.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or c_0 sum over the k best e of w_e expert_e(n) + c_1 shared(n),  n =
 * rms_norm(x) c = softmax(W n + b)
 *
 * Klear-46B-A2.5B, Kuaishou 2025
 */
#include "models/family.h"

static int klear_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe;
    struct attention_spec attention;
    int size = config_int(c, "moe_intermediate_size");
    int shared = config_int_in(c, "n_shared_experts", 1, 64);

    moe = (struct moe_spec){
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = config_int(c, "num_experts"),
                   .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                   .normalize = config_bool(c, "norm_topk_prob"),
                   .scale = 1},
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
        .shared_mix = true,
    };
    moe.expert.intermediate_size = size;
    moe.shared.intermediate_size = size <= 1 << 18 ? size * shared : 0;
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention_plain(c, s);
    attention.rope = config_rope_parameters(c, attention.head_dim, 10000, false, a);
    attention.q_norm = attention.k_norm = norm;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (config_layer_is_sparse(c, i))
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

const struct family family_klear = {
    .name = "Klear",
    .model_types = {"Klear"},
    .spec = klear_spec,
    .weights = layout_moe,
};
