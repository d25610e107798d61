/* models/deepseek.c: DeepSeekMoE: many small experts beside shared ones; the first layers dense.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of softmax(router)_e expert_e(n) + shared(n),
 *     n = rms_norm(x)
 *
 * arXiv:2401.06066
 */
#include "models/family.h"

static int deepseek_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    bool sparse = config_has(c, "n_routed_experts");
    int first_sparse = config_int_or(c, "first_k_dense_replace", 0);
    int every = config_int_or(c, "moe_layer_freq", 1);
    struct moe_spec moe = {0};
    struct attention_spec attention;

    if (every < 1)
        return config_fail(c, "moe_layer_freq", "it is %d; it must be positive", every);
    config_ignore(c, "scoring_func", "norm_topk_prob", "routed_scaling_factor", NULL);
    if (sparse) {
        int shared = config_int_or(c, "n_shared_experts", 0);

        moe.router = (struct router_params){
            .score = ROUTER_SOFTMAX_ALL,
            .n_experts = config_int(c, "n_routed_experts"),
            .n_experts_per_token = config_int(c, "num_experts_per_tok"),
            .scale = 1,
        };
        moe.expert = moe.shared = mlp;
        moe.expert.intermediate_size = config_int_in(c, "moe_intermediate_size", 1, 1 << 18);
        if (shared > 64)
            return config_fail(c, "n_shared_experts", "%d are too many", shared);
        moe.shared.intermediate_size = shared * moe.expert.intermediate_size;
    }
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (sparse && i >= first_sparse && i % every == 0)
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "pretraining_tp", NULL);
    return 0;
}

const struct family family_deepseek = {
    .name = "DeepSeekMoE",
    .model_types = {"deepseek"},
    .spec = deepseek_spec,
    .weights = layout_moe,
};
