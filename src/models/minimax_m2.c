/* models/minimax_m2.c: MiniMax M2: experts by sigmoid scores with a bias; norms over all heads of q
 * and k.
 *
 *     x += attention(rms_norm(x))
 *     x += sum over the k best e of w_e expert_e(rms_norm(x))
 */
#include "models/family.h"

/* MiniMax-01 goes by the same name, but has linear attention in some layers. */
static const struct family *choose(config *c)
{
    const int *full;
    int n = config_ints(c, "attn_type_list", &full);

    for (int i = 0; i < n; i++)
        if (full[i] == 0)
            return &family_minimax_01;
    return config_has(c, "linear_attn_alpha_factor") ||
                   config_has(c, "layernorm_linear_attention_alpha")
               ? &family_minimax_01
               : &family_minimax_m2;
}

static int minimax_m2_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SIGMOID,
                .n_experts = config_int(c, "num_local_experts"),
                .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                .normalize = true,
                .normalize_eps = 1e-20f,
                .scale = 1,
            },
        .router_bias = true,
        .expert = config_gated_mlp(c),
    };
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_partial(c, s, 5000000, a);
    attention.rope.dims = config_int_or(c, "rotary_dim", attention.rope.dims);
    if (config_bool_or(c, "use_qk_norm", true))
        attention.q_norm = attention.k_norm = norm;
    attention.qk_norm_span = QK_NORM_ALL;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_moe(norm, moe));
    }
    /* Neither reference has a shared expert; the weights of one would have no place. */
    config_ignore(c, "shared_intermediate_size", "router_jitter_noise", "scoring_func", "use_mtp",
                  "num_mtp_modules", "qk_norm_type", NULL);
    return 0;
}

const struct family family_minimax_m2 = {
    .name = "MiniMax M2",
    .model_types = {"minimax_m2", "minimax"},
    .choose = choose,
    .spec = minimax_m2_spec,
    .weights = layout_moe,
};
