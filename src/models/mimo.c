/* models/mimo.c: MiMo: Llama with biases on q, k and v. The layers that guess further tokens are
 * left out.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2505.07608
 */
#include "models/family.h"

static int mimo_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.qkv_bias = true;
    attention.o_bias = false;
    spec_layers(s, config_rms_norm(c), attention, mlp);
    config_ignore(c, "num_nextn_predict_layers", NULL);
    return 0;
}

const struct family family_mimo = {
    .name = "MiMo",
    .model_types = {"mimo"},
    .spec = mimo_spec,
    .weights = layout_llama,
};
