/* models/hy_v3.c: Hy3: experts chosen by sigmoid scores with a bias beside a shared one; the first
 * layer is dense.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * Hy3 preview, Tencent 2026
 */
#include "models/family.h"

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    int shared = config_int_in(c, "num_shared_experts", 0, 4096);
    int size = config_int_in(c, "moe_intermediate_size", 1, 1 << 20);
    struct moe_spec moe = {
        .router = {.score = ROUTER_SIGMOID,
                   .n_experts = config_int(c, "num_experts"),
                   .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                   .normalize = true,
                   .normalize_eps = 1e-20f,
                   .scale = (float)config_float(c, "router_scaling_factor")},
        .router_bias = true,
        .expert = mlp,
        .shared = mlp,
    };

    moe.expert.intermediate_size = size;
    moe.expert.bias = false;
    if (shared > 0) /* else it is as wide as a dense layer */
        moe.shared.intermediate_size = config_shared_size(c, "num_shared_experts", shared, size);
    return moe;
}

static int hy_v3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = read_moe(c, mlp);
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 11158840, a);
    attention.q_norm = attention.k_norm = norm;
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], config_layer_is(c, "mlp_layer_types", "sparse", i, i > 0)
                                     ? branch_moe(norm, moe)
                                     : branch_mlp(norm, mlp));
    }
    config_ignore(c, "enable_moe_fp32_combine", "num_nextn_predict_layers", NULL);
    return 0;
}

const struct family family_hy_v3 = {
    .name = "Hy3",
    .model_types = {"hy_v3"},
    .spec = hy_v3_spec,
    .weights = layout_moe,
};
