/* models/nemotron.c: Nemotron and Minitron: layer norms stored as w - 1, squared relu, part of each
 * head turns.
 *
 *     x += attention(layer_norm(x));  x += down(relu(up(layer_norm(x)))^2)
 *
 * arXiv:2402.16819
 */
#include "models/family.h"

static int nemotron_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "norm_eps", true);
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_act", ACT_RELU2),
        .bias = config_bool_or(c, "mlp_bias", false),
    };
    struct attention_spec attention;

    norm.offset = 1;
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.rope = config_rope_part(c, attention.head_dim, 10000, 0.5, a);
    spec_layers(s, norm, attention, mlp);
    return 0;
}

const struct family family_nemotron = {
    .name = "Nemotron",
    .model_types = {"nemotron"},
    .spec = nemotron_spec,
    .weights = layout_llama,
};
