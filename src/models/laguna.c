/* models/laguna.c: Laguna: layers with head counts and ropes of their own, attention gated per
 * head, experts chosen by sigmoid scores with a bias beside a shared one.
 *
 *     x += attention(rms_norm(x)) * softplus(gate(rms_norm(x)))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * Laguna XS, Poolside 2026
 */
#include <string.h>

#include "models/family.h"

static struct moe_spec read_moe(config *c, struct mlp_spec mlp)
{
    const char *scores = config_string_or(c, "moe_router_score_func", "sigmoid");
    struct moe_spec moe = {
        .router = {.score = strcmp(scores, "sigmoid") == 0 ? ROUTER_SIGMOID : ROUTER_SQRT_SOFTPLUS,
                   .n_experts = config_int_or(c, "num_experts", 256),
                   .n_experts_per_token = config_int_or(c, "num_experts_per_tok", 8),
                   .normalize = true,
                   .scale = (float)config_float_or(c, "moe_routed_scaling_factor", 1)},
        .router_bias = true,
        .logit_softcap = (float)config_float_or(c, "moe_router_logit_softcapping", 0),
        .expert = mlp,
        .shared = mlp,
    };

    if (strcmp(scores, "sigmoid") != 0 && strcmp(scores, "sqrtsoftplus") != 0)
        config_fail(c, "moe_router_score_func", "unknown scores \"%s\" of experts", scores);
    moe.expert.intermediate_size = config_int_or(c, "moe_intermediate_size", 512);
    moe.shared.intermediate_size = config_int_or(c, "shared_expert_intermediate_size", 512);
    return moe;
}

static int heads_of(config *c, int layer, int otherwise)
{
    const int *heads;
    int n = config_ints(c, "num_attention_heads_per_layer", &heads);

    if (n < 0)
        return otherwise;
    if (layer < n)
        return heads[layer];
    config_fail(c, "num_attention_heads_per_layer", "%d entries, too few for layer %d", n, layer);
    return otherwise;
}

/* transformers has a gate in any case, of each number unless it is said to be of heads. */
static enum attention_gate read_gate(config *c)
{
    const char *gating;

    if (config_kind(c, "gating") != CONFIG_STRING)
        return config_bool_or(c, "gating", true) ? GATE_HEADS
               : config_by_transformers(c)       ? GATE_ALL
                                                 : GATE_NONE;
    gating = config_string(c, "gating");
    if (strcmp(gating, "per-head") != 0 && strcmp(gating, "per-element") != 0)
        config_fail(c, "gating", "unknown gate \"%s\"", gating);
    return strcmp(gating, "per-head") == 0 ? GATE_HEADS : GATE_ALL;
}

static int laguna_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct moe_spec moe = read_moe(c, mlp);
    struct attention_spec attention;
    struct rope_spec full, sliding;
    int n_heads;
    bool slides = false;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_partial(c, s, 10000, a);
    attention.qkv_bias =
        config_bool_or(c, "qkv_bias", config_by_transformers(c) && attention.qkv_bias);
    attention.q_norm = attention.k_norm = norm;
    attention.gate = read_gate(c);
    attention.gate_activation = ACT_SOFTPLUS;
    n_heads = attention.n_heads;
    full = sliding = attention.rope;
    for (int i = 0; i < s->n_layers; i++)
        slides = slides || config_window(c, i, 0) > 0;
    if (slides)
        sliding = config_rope_partial(c, "sliding_attention", attention.head_dim, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.n_heads = heads_of(c, i, n_heads);
        attention.window = config_window(c, i, 0);
        attention.rope = attention.window ? sliding : full;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], config_layer_is(c, "mlp_layer_types", "sparse", i, i > 0)
                                     ? branch_moe(norm, moe)
                                     : branch_mlp(norm, mlp));
    }
    config_ignore(c, "sliding_window", NULL);
    return 0;
}

const struct family family_laguna = {
    .name = "Laguna",
    .model_types = {"laguna"},
    .spec = laguna_spec,
    .weights = layout_moe,
};
