/* models/bailing_moe.c: Ling: experts chosen by softmax or sigmoid scores, in groups, beside shared
 * ones; the columns of the first versions' head are normalised.
 *
 *     x += attention(rms_norm(x))
 *     x += mlp(n), or sum over the k best e of w_e expert_e(n) + shared(n),  n = rms_norm(x)
 *
 * Ling, arXiv:2503.05139; Ling 2.0, 2510.22115
 */
#include <string.h>

#include "models/family.h"

/* transformers has other names for some keys. */
static const char *either(const config *c, const char *key, const char *other)
{
    return config_has(c, other) ? other : key;
}

struct moe_spec bailing_moe(config *c, struct mlp_spec mlp)
{
    const char *scores = config_string_or(c, "score_function", "softmax");
    int size = config_int(c, "moe_intermediate_size");
    int n_shared = config_int_or(c, "num_shared_experts", 0);
    int shared = config_int_or(c, "moe_shared_expert_intermediate_size", size);
    struct moe_spec moe = {
        .router =
            {
                .score = strcmp(scores, "sigmoid") == 0 ? ROUTER_SIGMOID : ROUTER_SOFTMAX_ALL,
                .n_experts = config_int(c, "num_experts"),
                .n_experts_per_token =
                    config_int(c, either(c, "num_experts_per_tok", "num_experts_per_token")),
                .n_groups = config_int_or(c, either(c, "n_group", "num_expert_group"), 1),
                .n_groups_kept = config_int_or(c, "topk_group", 4),
                .normalize =
                    config_bool_or(c, either(c, "norm_topk_prob", "moe_renormalize"), true),
                .normalize_eps = 1e-20f,
                .scale = (float)config_float_or(c, "routed_scaling_factor", 1),
            },
        .router_bias = config_bool_or(c, "moe_router_enable_expert_bias", false),
        .expert = mlp,
        .shared = mlp,
    };

    if (strcmp(scores, "sigmoid") != 0 && strcmp(scores, "softmax") != 0)
        config_fail(c, "score_function", "unknown scores \"%s\" of experts", scores);
    moe.router.normalize = moe.router.normalize && moe.router.n_experts_per_token > 1;
    moe.expert.intermediate_size = size;
    if (!config_bool_or(c, "moe_router_enable_shared_expert", true))
        n_shared = 0;
    moe.shared.intermediate_size = config_shared_size(c, "num_shared_experts", n_shared, shared);
    config_ignore(c, "moe_router_enable_routed_scaling", "norm_softmax", NULL);
    return moe;
}

static int bailing_moe_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    int first_sparse = config_int_or(c, "first_k_dense_replace", 0);
    struct moe_spec moe;
    struct attention_spec attention;

    mlp.bias = config_bool_or(c, "use_bias", false);
    moe = bailing_moe(c, mlp);
    moe.router.late_zeros = true;
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_partial(c, s, 600000, a);
    attention.qkv_bias = config_bool_or(c, "use_qkv_bias", false);
    attention.o_bias = mlp.bias;
    attention.rope.dims = config_int_or(c, "rotary_dim", attention.rope.dims);
    if (config_bool_or(c, "use_qk_norm", false))
        attention.q_norm = attention.k_norm = norm;
    s->head_normed = config_bool_or(c, "norm_head", false);
    s->final_norm = norm;
    s->more_layers = true;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        if (i >= first_sparse)
            layer_add(&s->layers[i], branch_moe(norm, moe));
        else
            layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "num_nextn_predict_layers", "max_window_layers", "sliding_window",
                  "use_sliding_window", NULL);
    return 0;
}

static const struct weight_rule bailing_moe_weights[] = {
    {"model.word_embeddings", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.attention.query_key_value", ATTENTION_QKV(0)},
    {"model.layers.*.attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.attention.{query,key}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.gate.expert_bias", ROUTER_BIAS(1)},
    {"model.layers.*.mlp.gate.gate_proj", ROUTER(1)},
    {"model.layers.*.mlp.gate", ROUTER(1)},
    {"model.layers.*.mlp.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.experts.#.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.mlp.shared_experts.{gate,up,down}_proj", SHARED_EXPERT(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_bailing_moe = {
    .name = "Ling",
    .model_types = {"bailing_moe", "bailing_moe_v2"},
    .spec = bailing_moe_spec,
    .weights = bailing_moe_weights,
};
