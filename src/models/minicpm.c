/* models/minicpm.c: MiniCPM: Llama with scaled embeddings, residuals and logits.
 *
 *     x += d attention(rms_norm(x));  x += d mlp(rms_norm(x)),  d = scale_depth / sqrt(n_layers)
 *
 * arXiv:2404.06395
 */
#include <math.h>

#include "models/family.h"

static int minicpm_spec(struct spec *s, config *c, arena *a)
{
    struct attention_spec attention;
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 1000000, a);
    s->embed_scale = (float)config_float_or(c, "scale_emb", 1);
    if (!s->tie_word_embeddings)
        s->logit_scale = (float)(config_float(c, "dim_model_base") / s->hidden_size);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++)
            s->layers[i].branches[b].scale =
                (float)(config_float(c, "scale_depth") / sqrt(s->n_layers));
    config_ignore(c, "dim_model_base", NULL);
    return 0;
}

const struct family family_minicpm = {
    .name = "MiniCPM",
    .model_types = {"minicpm"},
    .spec = minicpm_spec,
    .weights = layout_llama,
};
