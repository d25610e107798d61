/* models/orion.c: Orion-14B: Llama with layer norms.
 *
 *     x += attention(layer_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = layer_norm(x)
 *
 * arXiv:2401.12246
 */
#include "models/family.h"

static int orion_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "rms_norm_eps", true);
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    s->context_length = config_int_or(c, "max_sequence_length", s->context_length);
    spec_layers(s, norm, config_attention(c, s, 10000, a), mlp);
    return 0;
}

const struct family family_orion = {
    .name = "Orion",
    .model_types = {"orion"},
    .spec = orion_spec,
    .weights = layout_llama,
};
