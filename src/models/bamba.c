/* models/bamba.c: Bamba: state spaces with some attention, of which half of each head turns.
 *
 *     x += mamba2 or attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 */
#include "models/family.h"

static bool is_attention(config *c, int layer)
{
    const int *indices;
    int n = config_ints(c, "attn_layer_indices", &indices);

    for (int i = 0; i < n; i++)
        if (indices[i] == layer)
            return true;
    return false;
}

static struct attention_spec attention_of(config *c, const struct spec *s, arena *a)
{
    struct attention_spec attention = config_attention(c, s, 10000, a);
    config *rope = config_object(c, "rope_parameters");

    if (!config_has(c, "partial_rotary_factor") &&
        !(rope && config_has(rope, "partial_rotary_factor")))
        attention.rope.dims = attention.head_dim / 2;
    config_ignore(c, "attn_rotary_emb", NULL);
    return attention;
}

static int bamba_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct mamba2_spec mamba;
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    mamba = config_mamba2(c, s);
    attention = attention_of(c, s, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], is_attention(c, i) ? branch_attention(norm, attention)
                                                    : branch_mamba2(norm, mamba));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "num_logits_to_keep", "z_loss_coefficient", NULL);
    return 0;
}

const struct family family_bamba = {
    .name = "Bamba",
    .model_types = {"bamba"},
    .spec = bamba_spec,
    .weights = layout_mamba_hybrid,
};
