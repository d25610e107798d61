/* models/starcoder2.c: StarCoder 2.
 *
 *     x += attention(layer_norm(x));  x += c_proj(gelu(c_fc(layer_norm(x))))
 *
 * arXiv:2402.19173
 */
#include "models/family.h"

static int starcoder2_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "norm_epsilon", true);
    bool bias = config_bool_or(c, "use_bias", true);
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_act", ACT_GELU),
        .bias = bias,
    };
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.qkv_bias = attention.o_bias = bias;
    attention.window = config_int_or(c, "sliding_window", 0);
    spec_layers(s, norm, attention, mlp);
    return 0;
}

static const struct weight_rule starcoder2_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{c_fc,c_proj}", SLOTS(1, ROLE_UP_PROJ)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_starcoder2 = {
    .name = "StarCoder 2",
    .model_types = {"starcoder2"},
    .spec = starcoder2_spec,
    .weights = starcoder2_weights,
};
