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
    struct attention_spec attention = config_attention_plain(c, s);

    attention.rope = config_rope_fixed_part(c, attention.head_dim, 10000, 0.5, a);
    config_ignore(c, "attn_rotary_emb", "partial_rotary_factor", NULL);
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

static const struct weight_rule bamba_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.mamba.in_proj", SSM_IN(0)},
    {"model.layers.*.mamba.conv1d", CONV(0)},
    {"model.layers.*.mamba.{A_log,D,dt_bias}", SSM_VECTORS(0)},
    {"model.layers.*.mamba.{norm,out_proj}", SSM_NORM_OUT(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.pre_ff_layernorm", PRE_NORM(1)},
    {"model.layers.*.feed_forward.{gate,up,down}_proj", MLP(1)},
    {"model.final_layernorm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_bamba = {
    .name = "Bamba",
    .model_types = {"bamba"},
    .spec = bamba_spec,
    .weights = bamba_weights,
};
