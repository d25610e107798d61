/* models/ministral3.c: Ministral 3: Mistral with yarn, and queries that grow with their position.
 *
 *     x += attention(rms_norm(x)),  q *= 1 + beta log(1 + floor(position / length))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2601.08584; the growth, 2501.19399
 */
#include "models/family.h"

static int ministral3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);
    int window = config_int_or(c, "sliding_window", 0);
    const char *const *types;
    int n_types = config_strings(c, "layer_types", &types);

    /* mlx-lm makes as many layers as layer_types has; a file with others is refused in binding. */
    if (n_types > 4096)
        return config_fail(c, "layer_types", "%d layers are too many", n_types);
    if (n_types > 0) {
        s->n_layers = n_types;
        config_ignore(c, "num_hidden_layers", NULL);
    }
    if (config_common(s, c, true, a))
        return -1;
    if (!config_has(c, "rope_parameters"))
        return config_fail(c, "rope_parameters", "it is missing");
    attention = config_attention(c, s, 1000000, a);
    attention.temperature = config_temperature(c);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = config_window(c, i, window);
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

const struct family family_ministral3 = {
    .name = "Ministral 3",
    .model_types = {"ministral3", "mistral3"},
    .spec = ministral3_spec,
    .weights = layout_llama,
};
