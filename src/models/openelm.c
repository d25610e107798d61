/* models/openelm.c: OpenELM: heads and feed-forward grow from layer to layer.
 *
 *     x += attention(rms_norm(x));  x += proj_2(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2404.14619
 */
#include "models/family.h"

/* The i-th of a list of numbers that must have one for each layer. */
static double layer_number(config *c, const char *key, int layer)
{
    const double *list;
    int n = config_floats(c, key, &list);

    if (layer < n)
        return list[layer];
    config_fail(c, key, "it has %d entries, too few for layer %d", n < 0 ? 0 : n, layer);
    return 1;
}

/* multiplier * size rounded to a multiple of divisor, never down by more than a tenth. */
static int mlp_size(config *c, double multiplier, int size)
{
    int divisor = config_int_in(c, "ffn_dim_divisor", 1, 1 << 20);
    double want = multiplier * size;
    int n;

    if (!(want >= 1 && want < 1 << 24)) {
        config_fail(c, "ffn_multipliers", "%g times %d is no size", multiplier, size);
        return 1;
    }
    n = (int)((int64_t)(want + divisor / 2.0) / divisor * divisor);
    n = n < divisor ? divisor : n;
    return n < 0.9 * want ? n + divisor : n;
}

static int openelm_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "model_dim",
        .n_layers = "num_transformer_layers",
        .context_length = "max_context_length",
        .tie = "share_input_output_layers",
    };
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6)};
    int head_dim = config_int_in(c, "head_dim", 1, 4096);
    bool qk_norm = config_bool_or(c, "normalize_qk_projections", true);

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        struct attention_spec attention = {
            .n_heads = (int)layer_number(c, "num_query_heads", i),
            .n_kv_heads = (int)layer_number(c, "num_kv_heads", i),
            .head_dim = head_dim,
            .scale = attention_scale(head_dim),
            .rope = rope_plain(head_dim, config_float_or(c, "rope_freq_constant", 10000)),
            .q_norm = qk_norm ? norm : (struct norm_spec){0},
            .k_norm = qk_norm ? norm : (struct norm_spec){0},
        };
        struct mlp_spec mlp = {
            .intermediate_size = mlp_size(c, layer_number(c, "ffn_multipliers", i), s->hidden_size),
            .activation = config_activation(c, "activation_fn_name", ACT_SILU),
            .gated = true,
        };

        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    /* mlx-lm has a gate whatever ffn_with_glu says; the shapes of weights tell if there is none. */
    config_ignore(c, "num_gqa_groups", "qkv_multipliers", "normalization_layer_name",
                  "rope_max_length", "ffn_with_glu", NULL);
    return 0;
}

static const struct weight_rule openelm_weights[] = {
    {"transformer.token_embeddings", EMBED_TOKENS},
    {"transformer.layers.*.attn_norm", PRE_NORM(0)},
    {"transformer.layers.*.attn.qkv_proj", ATTENTION_QKV(0)},
    {"transformer.layers.*.attn.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.layers.*.attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"transformer.layers.*.ffn_norm", PRE_NORM(1)},
    {"transformer.layers.*.ffn.proj_1", MLP_GATE_UP(1)},
    {"transformer.layers.*.ffn.proj_2", SLOTS(1, ROLE_DOWN_PROJ)},
    {"transformer.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_openelm = {
    .name = "OpenELM",
    .model_types = {"openelm"},
    .spec = openelm_spec,
    .weights = openelm_weights,
};
