/* models/gpt_neox_japanese.c: GPT-NeoX Japanese: one block after the other, without biases but that
 * of the last layer's attention.
 *
 *     x += attention(layer_norm(x));  x += mlp(layer_norm(x))
 */
#include "models/family.h"

static int japanese_spec(struct spec *s, config *c, arena *a)
{
    int multiple = config_int_or(c, "intermediate_multiple_size", 4);
    struct mlp_spec mlp = {.activation = config_activation(c, "hidden_act", ACT_GELU)};
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    mlp.intermediate_size =
        config_shared_size(c, "intermediate_multiple_size", multiple, s->hidden_size);
    attention = config_attention_plain(c, s);
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.n_kv_heads = attention.n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.qkv_bias = attention.o_bias = false;
    config_alias(c, "rotary_pct", "partial_rotary_factor");
    config_alias(c, "rotary_emb_base", "rope_theta");
    attention.rope = config_rope_partial(c, NULL, attention.head_dim, 10000, a);
    spec_layers(s, config_layer_norm(c, "layer_norm_eps", true), attention, mlp);
    s->layers[s->n_layers - 1].branches[0].attention.o_bias = true;
    return 0;
}

static const struct weight_rule japanese_weights[] = {
    {"embed_in", EMBED_TOKENS},
    {"layers.*.input_layernorm", PRE_NORM(0)},
    {"layers.*.attention.query_key_value", ATTENTION_GROUPED_QKV(0)},
    {"layers.*.attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"layers.*.attention.dense_bias",
     {.kind = TARGET_SLOTS, .branch = 0, .first = ROLE_O_PROJ, .bias = true}},
    {"layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"layers.*.mlp.{dense_h_to_4h,dense_4h_to_h}", SLOTS(1, ROLE_UP_PROJ)},
    {"final_layer_norm", FINAL_NORM},
    {"embed_out", LM_HEAD},
    {"layers.*.attention.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

static const struct weight_prefix japanese_prefixes[] = {{"gpt_neox_japanese.", ""}, {NULL, NULL}};

const struct family family_gpt_neox_japanese = {
    .name = "GPT-NeoX Japanese",
    .model_types = {"gpt_neox_japanese"},
    .spec = japanese_spec,
    .weights = japanese_weights,
    .prefixes = japanese_prefixes,
};
