/* models/lfm2.c: LFM2 with and without experts, and the text tower of LFM2-VL.
 *
 *     x += conv or attention(rms_norm(x))
 *     x += feed_forward(rms_norm(x))
 *
 * The first num_dense_layers layers of the MoE models are dense. LFM2, arXiv:2511.23404
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

/* By full_attn_idxs or by layer_types; of both, the former counts in mlx-lm, the latter in
 * transformers, to which LFM2 with neither is attention alone. */
static bool is_attention(config *c, int layer)
{
    const int *indices;
    const char *const *types;
    bool later = config_by_transformers(c);
    int n = config_ints(c, "full_attn_idxs", &indices);
    int n_types = config_strings(c, "layer_types", &types);

    if (n >= 0 && !(later && n_types >= 0)) {
        for (int i = 0; i < n; i++)
            if (indices[i] == layer)
                return true;
        return false;
    }
    if (n_types < 0 && later && !config_has(c, "num_experts"))
        return true;
    if (layer >= n_types) {
        config_fail(c, "layer_types", "it has %d entries, too few for layer %d",
                    n_types < 0 ? 0 : n_types, layer);
        return false;
    }
    if (strcmp(types[layer], "full_attention") != 0 && strcmp(types[layer], "conv") != 0)
        config_fail(c, "layer_types", "layer %d is of the unknown type \"%s\"", layer,
                    types[layer]);
    return strcmp(types[layer], "full_attention") == 0;
}

/* Two thirds of the size in the config, times a factor, rounded up to a multiple. */
static int adjusted(config *c, int size)
{
    double factor = config_float_or(c, "block_ffn_dim_multiplier", 1);
    int multiple = config_int_in(c, "block_multiple_of", 1, 1 << 24);
    /* Without a factor transformers leaves the size as it is, mlx-lm does not. */
    bool rounded = !config_is_null(c, "block_ffn_dim_multiplier") || !config_by_transformers(c);
    double n;

    if (!config_bool(c, "block_auto_adjust_ff_dim"))
        return size;
    n = floor(floor(2.0 * size / 3) * factor);
    if (rounded)
        n = multiple * ceil(n / multiple);
    if (!(n >= 1 && n <= 1 << 24))
        return config_fail(c, "block_ffn_dim_multiplier", "%g times %d is no size", factor, size);
    return (int)n;
}

static struct mlp_spec feed_forward(config *c, bool experts)
{
    const char *key = config_has(c, "block_ff_dim") ? "block_ff_dim" : "intermediate_size";
    int size = config_int(c, key);

    return (struct mlp_spec){.intermediate_size = experts ? size : adjusted(c, size),
                             .activation = ACT_SILU,
                             .gated = true};
}

static struct moe_spec experts_of(config *c, struct mlp_spec mlp)
{
    struct moe_spec moe = {
        .router =
            {
                .score = ROUTER_SIGMOID,
                .n_experts = config_int(c, "num_experts"),
                .n_experts_per_token = config_int(c, "num_experts_per_tok"),
                .normalize = config_bool(c, "norm_topk_prob"),
                .normalize_eps = 1e-6f,
                .scale = (float)config_float_or(c, "routed_scaling_factor", 1),
            },
        .router_bias = config_bool(c, "use_expert_bias"),
        .expert = mlp,
    };

    moe.expert.intermediate_size = config_int(c, "moe_intermediate_size");
    return moe;
}

static struct attention_spec attention_of(config *c, const struct spec *s, struct norm_spec norm,
                                          arena *a)
{
    struct attention_spec attention = config_attention_plain(c, s);

    attention.rope = config_rope_parameters(c, attention.head_dim, 1e6, false, a);
    attention.q_norm = attention.k_norm = norm;
    return attention;
}

static int lfm2_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "hidden_size", "num_hidden_layers",
                                            "max_position_embeddings", "tie_word_embeddings"};
    static const struct config_keys older = {"vocab_size", "hidden_size", "num_hidden_layers",
                                             "max_position_embeddings", "tie_embedding"};
    bool moe = config_has(c, "num_experts");
    struct norm_spec norm = {.kind = NORM_RMS, .eps = (float)config_float(c, "norm_eps")};
    struct mlp_spec mlp = feed_forward(c, moe);
    struct moe_spec experts = {0};
    struct attention_spec attention;
    struct short_conv_spec conv;
    int n_dense = moe ? config_int(c, "num_dense_layers") : INT32_MAX;

    if (config_common_named(s, c, config_has(c, "tie_embedding") ? &older : &keys, true, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm has no head of its own for it */
    attention = attention_of(c, s, norm, a);
    conv = (struct short_conv_spec){.channels = s->hidden_size,
                                    .width = config_int(c, "conv_L_cache"),
                                    .bias = config_bool(c, "conv_bias")};
    if (moe)
        experts = experts_of(c, mlp);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct layer_spec *l = &s->layers[i];

        layer_add(l, is_attention(c, i) ? branch_attention(norm, attention)
                                        : branch_short_conv(norm, conv));
        layer_add(l, i < n_dense ? branch_mlp(norm, mlp) : branch_moe(norm, experts));
    }
    config_ignore(c, "block_dim", "tie_embedding", "tie_word_embeddings", "block_use_swiglu",
                  "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale",
                  "block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init",
                  "num_heads", "use_pos_enc", "theta", NULL);
    return 0;
}

static const struct weight_rule lfm2_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.operator_norm", PRE_NORM(0)},
    {"model.layers.*.conv.{in,out}_proj", SHORT_CONV(0)},
    {"model.layers.*.conv.conv", CONV(0)},
    {"model.layers.*.self_attn.{q,k,v,out}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.ffn_norm", PRE_NORM(1)},
    {"model.layers.*.feed_forward.{w1,w3,w2}", MLP(1)},
    {"model.layers.*.feed_forward.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.feed_forward.gate", ROUTER(1)},
    {"model.layers.*.feed_forward.expert_bias", ROUTER_BIAS(1)},
    {"model.layers.*.feed_forward.switch_mlp.{gate,up,down}_proj", EXPERTS(1)},
    {"model.layers.*.feed_forward.experts.#.{w1,w3,w2}", EXPERTS(1)},
    {"model.embedding_norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_lfm2 = {
    .name = "LFM2",
    .model_types = {"lfm2", "lfm2_moe", "lfm2-vl", "lfm2_vl"},
    .spec = lfm2_spec,
    .weights = lfm2_weights,
};
