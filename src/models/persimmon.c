/* models/persimmon.c: Persimmon: layer norms, also of each head's q and k, squared relus.
 *
 *     x += attention(layer_norm(x));  x += down(relu(up(layer_norm(x)))^2)
 *
 * Persimmon-8B, Adept 2023
 */
#include "models/family.h"

static int persimmon_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_eps", true);
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = config_activation(c, "hidden_act", ACT_RELU2),
                           .bias = true};
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.rope = config_rope_part(c, attention.head_dim, 25000, 0.5, a);
    attention.qkv_bias = attention.o_bias = true;
    if (config_bool_or(c, "qk_layernorm", true))
        attention.q_norm = attention.k_norm = norm;
    spec_layers(s, norm, attention, mlp);
    return 0;
}

static const struct weight_rule persimmon_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.query_key_value", ATTENTION_GROUPED_QKV(0)},
    {"model.layers.*.self_attn.dense", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.self_attn.{q,k}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{dense_h_to_4h,dense_4h_to_h}", SLOTS(1, ROLE_UP_PROJ)},
    {"model.final_layernorm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_persimmon = {
    .name = "Persimmon",
    .model_types = {"persimmon"},
    .spec = persimmon_spec,
    .weights = persimmon_weights,
};
