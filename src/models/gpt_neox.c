/* models/gpt_neox.c: GPT-NeoX and Pythia: attention and feed-forward of one x, each with its norm.
 *
 *     x += attention(layer_norm(x)) + mlp(layer_norm'(x))
 *
 * arXiv:2204.06745
 */
#include "models/family.h"

static int neox_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_eps", true);
    bool parallel = config_bool_or(c, "use_parallel_residual", true);
    bool bias = config_bool_or(c, "attention_bias", true);
    struct attention_spec attention;
    struct mlp_spec mlp;

    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    /* mlx-lm, which reads no hidden_act, takes gelu by tanh; transformers' default is that by erf.
     */
    mlp = (struct mlp_spec){
        .intermediate_size = config_int_or(c, "intermediate_size", 4 * s->hidden_size),
        .activation = config_activation(c, "hidden_act", ACT_GELU_TANH),
        .bias = true,
    };
    attention = config_attention_plain(c, s);
    /* The names that other models have for these count for nothing. */
    config_alias(c, "rotary_pct", "partial_rotary_factor");
    config_alias(c, "rotary_emb_base", "rope_theta");
    attention.rope = config_rope_partial(c, NULL, attention.head_dim, 10000, a);
    attention.n_kv_heads = attention.n_heads; /* neither reference heeds num_key_value_heads */
    attention.qkv_bias = attention.o_bias = bias;
    spec_layers(s, norm, attention, mlp);
    for (int i = 0; i < s->n_layers; i++)
        s->layers[i].branches[1].parallel = parallel;
    return 0;
}

static const struct weight_rule neox_weights[] = {
    {"embed_in", EMBED_TOKENS},
    {"layers.*.input_layernorm", PRE_NORM(0)},
    {"layers.*.attention.query_key_value", ATTENTION_GROUPED_QKV(0)},
    {"layers.*.attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"layers.*.mlp.{dense_h_to_4h,dense_4h_to_h}", SLOTS(1, ROLE_UP_PROJ)},
    {"final_layer_norm", FINAL_NORM},
    {"embed_out", LM_HEAD},
    {"lm_head", LM_HEAD},
    {"layers.*.attention.{bias,masked_bias,rotary_emb}**", IGNORE}, /* mask and angles */
    {NULL, IGNORE},
};

static const struct weight_prefix neox_prefixes[] = {
    {"gpt_neox.", ""}, {"model.h.", "layers."}, {"model.", ""}, {NULL, NULL}};

const struct family family_gpt_neox = {
    .name = "GPT-NeoX, Pythia",
    .model_types = {"gpt_neox"},
    .spec = neox_spec,
    .weights = neox_weights,
    .prefixes = neox_prefixes,
};
