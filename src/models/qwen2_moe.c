/* models/qwen2_moe.c: Qwen 1.5 and 2 with experts, one of them shared by all tokens behind a gate.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the k best e of softmax(router)_e expert_e(n) + sigmoid(g n) shared(n),  n =
 * rms_norm(x)
 *
 * arXiv:2407.10671
 */
#include "models/family.h"

/* Without layer_types every other layer does, the first one included, before max_window_layers. */
static bool slides(config *c, int layer)
{
    return layer % 2 == 0 && layer < config_int_or(c, "max_window_layers", 28);
}

static int qwen2_moe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = {.expert = mlp, .shared = mlp, .shared_gate = true};
    struct attention_spec attention;
    bool windows = config_bool_or(c, "use_sliding_window", false);
    int window = windows ? config_window_size(c, "sliding_window", 4096) : 0;

    moe.expert.intermediate_size = config_int(c, "moe_intermediate_size");
    moe.shared.intermediate_size = config_int_in(c, "shared_expert_intermediate_size", 1, 1 << 24);
    moe.router = (struct router_params){
        .score = ROUTER_SOFTMAX_ALL,
        .n_experts = config_int(c, "num_experts"),
        .n_experts_per_token = config_int(c, "num_experts_per_tok"),
        .normalize = config_bool_or(c, "norm_topk_prob", false),
        .scale = 1,
    };
    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, 1000000, a);
    attention.qkv_bias = config_bool_or(c, "qkv_bias", true);
    attention.o_bias = false;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        if (windows)
            attention.window = config_window(c, i, slides(c, i) ? window : 0);
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (config_layer_is_sparse(c, i))
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "sliding_window", "max_window_layers", "layer_types", NULL);
    return 0;
}

const struct family family_qwen2_moe = {
    .name = "Qwen 2, experts",
    .model_types = {"qwen2_moe"},
    .spec = qwen2_moe_spec,
    .weights = layout_moe,
};
