/* models/spark2_5.c: Spark 2.5: attention gated per head, sliding layers with a rope of their own.
 *
 *     x += attention(rms_norm(x)) * sigmoid(gate(rms_norm(x)))
 *     x += down(gelu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * Spark 2.5, iFlytek 2026
 */
#include <string.h>

#include "models/family.h"

static int spark_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_RMS,
                             .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6)};
    struct mlp_spec mlp = config_gated_mlp(c);
    const char *act = config_string_or(c, "gate_attn_act_mode", "sigmoid");
    struct attention_spec attention;
    struct rope_spec full, sliding;
    int window = config_int_in(c, "sliding_window", 1, INT32_MAX);

    mlp.activation = config_activation(c, "hidden_act", ACT_GELU);
    if (strcmp(act, "sigmoid") != 0)
        return config_fail(c, "gate_attn_act_mode", "\"%s\" is not known", act);
    if (!config_bool_or(c, "headwise_attn_output_gate", true))
        return config_fail(c, "headwise_attn_output_gate", "attention without a gate per head");
    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention_partial(c, s, 10000, a);
    attention.gate = GATE_HEADS;
    attention.gate_activation = ACT_SIGMOID;
    attention.gate_bias = attention.qkv_bias;
    full = attention.rope;
    sliding = config_rope_partial(c, "sliding_attention", attention.head_dim, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = config_window(c, i, (i + 1) % 4 ? window : 0);
        attention.rope = attention.window ? sliding : full;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

static const struct weight_rule spark_weights[] = {
    {"model.embedding", EMBED_TOKENS},
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.q_k_v_proj", ATTENTION_QKV(0)},
    {"model.layers.*.self_attn.g_proj", SLOTS(0, ROLE_ATTENTION_GATE)},
    {"model.layers.*.self_attn.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_spark2_5 = {
    .name = "Spark 2.5",
    .model_types = {"spark2_5"},
    .spec = spark_spec,
    .weights = spark_weights,
};
