/* models/internlm3.c: InternLM 3: Llama whose biases have keys of their own.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include "models/family.h"

static int internlm3_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.qkv_bias = attention.o_bias = config_bool_or(c, "qkv_bias", false);
    mlp.bias = config_bool_or(c, "bias", false);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

const struct family family_internlm3 = {
    .name = "InternLM 3",
    .model_types = {"internlm3"},
    .spec = internlm3_spec,
    .weights = layout_llama,
};
