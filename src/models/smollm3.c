/* models/smollm3.c: SmolLM 3: Llama in which every fourth layer knows no positions.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include "models/family.h"

/* no_rope_layers holds 1 for the layers that do turn; without it every no_rope_layer_interval-th
 * does not. */
static bool turns(config *c, int layer)
{
    const int *turning;
    int n = config_ints(c, "no_rope_layers", &turning);
    int interval = config_int_or(c, "no_rope_layer_interval", 4);

    if (n < 0)
        return interval < 1 || (layer + 1) % interval != 0;
    if (layer < n)
        return turning[layer] != 0;
    config_fail(c, "no_rope_layers", "it has %d entries, too few for layer %d", n, layer);
    return true;
}

static int smollm3_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    for (int i = 0; i < s->n_layers; i++) {
        struct attention_spec *own = &s->layers[i].branches[0].attention;

        if (!turns(c, i))
            own->rope.kind = ROPE_NONE;
        if (config_bool_or(c, "use_sliding_window", false))
            own->window = config_window(c, i, 0);
    }
    config_ignore(c, "sliding_window", "layer_types", NULL);
    return 0;
}

const struct family family_smollm3 = {
    .name = "SmolLM 3",
    .model_types = {"smollm3"},
    .spec = smollm3_spec,
    .weights = layout_llama,
};
