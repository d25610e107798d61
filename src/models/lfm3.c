/* models/lfm3.c: LFM3: short convolutions, attention that slides and attention to everything, each
 * head's result behind a gate, norms before and after.
 *
 *     x += norm'(conv or attention(rms_norm(x)))
 *     x += norm'(down(silu(gate(n)) * up(n))),  n = rms_norm(x)
 */
#include <string.h>

#include "models/family.h"

static const char *type_of(config *c, int layer)
{
    static const char *const published[] = {"sliding_attention", "conv", "full_attention", "conv"};
    const char *const *types;
    int n = config_strings(c, "layer_types", &types);

    if (n < 0)
        return layer == 0 ? "conv" : published[layer % 4];
    if (layer < n)
        return types[layer];
    config_fail(c, "layer_types", "it has %d entries, too few for layer %d", n, layer);
    return "conv";
}

static struct attention_spec attention_of(config *c, const struct spec *s, struct norm_spec norm)
{
    struct attention_spec at = config_attention_plain(c, s);

    at.q_norm = at.k_norm = norm;
    if (config_bool_or(c, "use_attention_gate", true)) {
        at.gate = GATE_HEADS;
        at.gate_activation = ACT_SIGMOID;
    }
    return at;
}

/* The part before the feed-forward. */
static struct branch_spec mixer_of(config *c, const struct spec *s, struct norm_spec norm,
                                   int layer, arena *a)
{
    const char *type = type_of(c, layer);
    struct attention_spec at;

    if (strcmp(type, "conv") == 0) {
        struct short_conv_spec conv = {.channels = s->hidden_size,
                                       .width = config_int_or(c, "conv_L_cache", 7),
                                       .bias = config_bool_or(c, "conv_bias", false)};

        return branch_short_conv(norm, conv);
    }
    at = attention_of(c, s, norm);
    if (strcmp(type, "sliding_attention") == 0)
        at.window = config_window_size(c, "sliding_window", 256);
    else if (strcmp(type, "full_attention") != 0)
        config_fail(c, "layer_types", "layer %d is of the unknown type \"%s\"", layer, type);
    at.rope = config_rope(c, type, at.head_dim, 1e6, a);
    return branch_attention(norm, at);
}

static int lfm3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS, .eps = (float)config_float_or(c, "norm_eps", 1e-5)};
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = ACT_SILU,
                           .gated = true};
    bool after = config_bool_or(c, "use_sandwich_norm", true);

    if (config_common(s, c, true, a))
        return -1;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        struct branch_spec branches[] = {mixer_of(c, s, norm, i, a), branch_mlp(norm, mlp)};

        for (size_t b = 0; b < COUNT(branches); b++) {
            if (after)
                branches[b].post_norm = norm;
            layer_add(&s->layers[i], branches[b]);
        }
    }
    config_ignore(c, "sliding_window", "conv_L_cache", "conv_bias", "rope_parameters", NULL);
    return 0;
}

static const struct weight_rule lfm3_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.operator_norm", PRE_NORM(0)},
    {"model.layers.*.post_operator_norm", POST_NORM(0)},
    {"model.layers.*.conv.{in,out}_proj", SHORT_CONV(0)},
    {"model.layers.*.conv.conv", CONV(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.gate_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.self_attn.g_proj", SLOTS(0, ROLE_ATTENTION_GATE)}, /* in memory */
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.ffn_norm", PRE_NORM(1)},
    {"model.layers.*.post_ffn_norm", POST_NORM(1)},
    {"model.layers.*.feed_forward.{w1,w3,w2}", MLP(1)},
    {"model.embedding_norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_lfm3 = {
    .name = "LFM3",
    .model_types = {"lfm3", "lfm3_vl"},
    .spec = lfm3_spec,
    .weights = lfm3_weights,
};
