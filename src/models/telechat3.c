/* models/telechat3.c: TeleChat 3: Llama in all but name.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include "models/family.h"

static int telechat3_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

const struct family family_telechat3 = {
    .name = "TeleChat 3",
    .model_types = {"telechat3"},
    .spec = telechat3_spec,
    .weights = layout_llama,
};
