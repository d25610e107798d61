/* models/nemotron_nas.c: Llama-Nemotron found by search: in each layer attention and feed-forward
 * have sizes of their own, are one matrix, or are left out.
 *
 *     x += attention(rms_norm(x)) or W rms_norm(x), or nothing;  x += mlp(rms_norm(x)), the same
 * way
 *
 * Puzzle, arXiv:2411.19146
 */
#include <math.h>

#include "models/family.h"

static int mlp_size(config *ffn, int hidden_size)
{
    double mult = config_float(ffn, "ffn_mult"), size = floor(2 * mult * hidden_size / 3);

    if (!(size >= 1 && size <= 1 << 24)) {
        config_fail(ffn, "ffn_mult", "%g gives %g numbers", mult, size);
        return 256;
    }
    return ((int)size + 255) / 256 * 256;
}

static void add_attention(struct layer_spec *l, config *block, struct norm_spec norm,
                          struct attention_spec attention)
{
    config *a = config_object(block, "attention");
    int group;

    if (!a) {
        config_fail(block, "attention", "it is missing");
        return;
    }
    if (config_bool_or(a, "no_op", false))
        return;
    if (config_bool_or(a, "replace_with_linear", false)) {
        layer_add(l, branch_of(OP_LINEAR, norm))->linear_bias = attention.qkv_bias;
        return;
    }
    group = config_int_in(a, "n_heads_in_group", 1, 4096);
    attention.n_kv_heads = attention.n_heads / group;
    layer_add(l, branch_attention(norm, attention));
}

static void add_mlp(struct layer_spec *l, config *block, struct norm_spec norm, struct mlp_spec mlp,
                    int hidden_size)
{
    config *f = config_object(block, "ffn");

    if (!f) {
        config_fail(block, "ffn", "it is missing");
        return;
    }
    if (config_bool_or(f, "no_op", false))
        return;
    if (config_bool_or(f, "replace_with_linear", false)) {
        layer_add(l, branch_of(OP_LINEAR, norm))->linear_bias = mlp.bias;
        return;
    }
    mlp.intermediate_size = mlp_size(f, hidden_size);
    layer_add(l, branch_mlp(norm, mlp));
}

static int nemotron_nas_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = {.activation = config_activation(c, "hidden_act", ACT_SILU),
                           .gated = true,
                           .bias = config_bool_or(c, "mlp_bias", false)};
    struct branch_spec nothing = branch_of(OP_NONE, (struct norm_spec){0});
    struct attention_spec attention;

    nothing.scale = 0; /* keeps the feed-forward the second branch of its layer */
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        config *block = config_item(c, "block_configs", i);

        if (!block)
            return config_fail(c, "block_configs", "it has no entry for layer %d", i);
        add_attention(&s->layers[i], block, norm, attention);
        if (s->layers[i].n_branches == 0)
            layer_add(&s->layers[i], nothing);
        add_mlp(&s->layers[i], block, norm, mlp, s->hidden_size);
    }
    config_ignore(c, "num_key_value_heads", "intermediate_size", NULL);
    return 0;
}

static const struct weight_rule nemotron_nas_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.linear", SLOTS(0, ROLE_LINEAR)},
    {"model.layers.*.self_attn.linear_attn", SLOTS(0, ROLE_LINEAR)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.linear", SLOTS(1, ROLE_LINEAR)},
    {"model.layers.*.mlp.linear_mlp", SLOTS(1, ROLE_LINEAR)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_nemotron_nas = {
    .name = "Llama-Nemotron",
    .model_types = {"nemotron-nas"},
    .spec = nemotron_nas_spec,
    .weights = nemotron_nas_weights,
};
