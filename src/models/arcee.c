/* models/arcee.c: AFM: Llama with an ungated feed-forward of squared relus.
 *
 *     x += attention(rms_norm(x));  x += down(relu(up(rms_norm(x)))^2)
 *
 * AFM-4.5B, Arcee 2025
 */
#include "models/family.h"

static int arcee_spec(struct spec *s, config *c, arena *a)
{
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    mlp.gated = false;
    mlp.activation = config_activation(c, "hidden_act", ACT_RELU2);
    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

const struct family family_arcee = {
    .name = "AFM",
    .model_types = {"arcee"},
    .spec = arcee_spec,
    .weights = layout_llama,
};
