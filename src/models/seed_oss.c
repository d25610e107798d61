/* models/seed_oss.c: Seed-OSS: Llama with biases on q, k and v.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include "models/family.h"

static int seed_oss_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.o_bias = config_bool_or(c, "attention_out_bias", false);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

const struct family family_seed_oss = {
    .name = "Seed-OSS",
    .model_types = {"seed_oss"},
    .spec = seed_oss_spec,
    .weights = layout_llama,
};
