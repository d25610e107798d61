/* models/helium.c: Helium: Llama with interleaved rope.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include "models/family.h"

static int helium_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_plain(c, s);
    if (!config_by_transformers(c)) { /* mlx-lm does not heed head_dim */
        attention.head_dim = s->hidden_size / attention.n_heads;
        attention.scale = attention_scale(attention.head_dim);
    }
    attention.rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    attention.o_bias = false;
    attention.rope.interleaved = true;
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

const struct family family_helium = {
    .name = "Helium",
    .model_types = {"helium"},
    .spec = helium_spec,
    .weights = layout_llama,
};
