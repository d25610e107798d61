/* models/jais2.c: Jais 2: layer norms, biases everywhere, an ungated feed-forward of squared relus.
 *
 *     x += attention(layer_norm(x));  x += down(relu(up(layer_norm(x)))^2)
 *
 * Jais 2, Inception 2025
 */
#include "models/family.h"

static int jais2_spec(struct spec *s, config *c, arena *a)
{
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    mlp.gated = false;
    mlp.bias = config_bool_or(c, "mlp_bias", true);
    mlp.activation = config_activation(c, "hidden_act", ACT_RELU2);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 500000, a);
    attention.qkv_bias = attention.o_bias = config_bool_or(c, "attention_bias", true);
    spec_layers(s, config_layer_norm(c, "layer_norm_eps", true), attention, mlp);
    return 0;
}

const struct family family_jais2 = {
    .name = "Jais 2",
    .model_types = {"jais2"},
    .spec = jais2_spec,
    .weights = layout_llama,
};
