/* models/cohere2_moe.c: Command A+: Command R7B with experts, beside shared ones; the first layers
 * may be dense.
 *
 *     x += attention(n) + f(n),  n = norm(x)
 *     f = mlp, or sum over the k best e of w_e expert_e + shared, or half of that
 *
 * Layers that slide turn, those that see everything know no positions, but in dense layers whose
 * pattern has no sliding ones. Cohere 2026
 */
#include <string.h>

#include "models/family.h"

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    const char *scores = config_string_or(c, "expert_selection_fn", "softmax");
    int shared = config_int_or(c, "num_shared_experts", 0);
    struct moe_spec moe = {
        .router = {.score = ROUTER_SOFTMAX_SELECTED,
                   .n_experts = config_int_or(c, "num_experts", 8),
                   .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 2),
                   .scale = 1},
        .expert = mlp,
        .shared = mlp,
    };
    bool normalize = config_bool_or(c, "norm_topk_prob", true);

    if (strcmp(scores, "sigmoid") == 0) {
        moe.router.score = ROUTER_SIGMOID;
        moe.router.normalize = normalize;
    } else if (strcmp(scores, "softmax") != 0) {
        config_fail(c, "expert_selection_fn", "unknown scores \"%s\" of experts", scores);
    }
    moe.shared.intermediate_size =
        config_shared_size(c, "num_shared_experts", shared, mlp.intermediate_size);
    return moe;
}

/* What is added of experts and shared ones; experts alone are added as they are. */
static float share_of(config *c, const struct moe_spec *moe)
{
    const char *how = config_string_or(c, "shared_expert_combination_strategy", "average");
    bool average = strcmp(how, "average") == 0;

    if (!average && strcmp(how, "sum") != 0)
        config_fail(c, "shared_expert_combination_strategy", "unknown sum \"%s\"", how);
    return average && moe->shared.intermediate_size > 0 ? 0.5f : 1;
}

/* Each layer that ends a pattern sees everything; patterns are counted anew after the first
 * n_dense. */
static int window_of(config *c, int layer, int n_dense)
{
    int every_dense = config_int_or(c, "prefix_dense_sliding_window_pattern", 1);
    int every = config_int_or(c, "sliding_window_pattern", 4);
    int window = config_window_size(c, "sliding_window", 4096);

    if (every_dense < 1 || every < 1)
        return config_fail(c, "sliding_window_pattern", "patterns have 1 layer or more");
    if (layer < n_dense)
        return config_window(c, layer, (layer + 1) % every_dense ? window : 0);
    return config_window(c, layer, (layer - n_dense + 1) % every ? window : 0);
}

static int cohere2_moe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_has(c, "rms_norm_eps")
                                ? config_rms_norm(c)
                                : config_layer_norm(c, "layer_norm_eps", false);
    struct mlp_spec mlp = config_gated_mlp(c), dense = mlp;
    struct moe_spec moe = read_moe(c, mlp);
    int n_dense = config_int_or(c, "first_k_dense_replace", 0);
    bool dense_turns = config_int_or(c, "prefix_dense_sliding_window_pattern", 1) == 1;
    float share = share_of(c, &moe);
    struct attention_spec attention;

    dense.intermediate_size =
        config_int_or(c, "prefix_dense_intermediate_size", dense.intermediate_size);
    if (config_kind(c, "rope_scaling") == CONFIG_OBJECT)
        return config_fail(c, "rope_scaling", "it has no meaning here; rope_parameters does");
    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.rope.interleaved = true;
    s->logit_scale = (float)config_float_or(c, "logit_scale", 0.0625);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        bool is_dense = config_layer_is(c, "mlp_layer_types", "dense", i, i < n_dense);
        struct attention_spec *own =
            &layer_add(&s->layers[i], branch_attention(norm, attention))->attention;
        struct branch_spec *b =
            layer_add(&s->layers[i], is_dense ? branch_mlp(norm, dense) : branch_moe(norm, moe));

        own->window = window_of(c, i, n_dense);
        if (!own->window && !(is_dense && dense_turns))
            own->rope.kind = ROPE_NONE;
        b->parallel = b->shared_norm = true;
        if (!is_dense)
            b->scale = share;
    }
    return 0;
}

const struct family family_cohere2_moe = {
    .name = "Command A+",
    .model_types = {"cohere2_moe"},
    .spec = cohere2_moe_spec,
    .weights = layout_moe,
};
