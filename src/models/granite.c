/* models/granite.c: Granite 3: Llama with multipliers on embeddings, attention, residuals and
 * logits; HyperCLOVA X, whose blocks may have norms behind them too.
 *
 *     x += m attention(rms_norm(x));  x += m mlp(rms_norm(x))
 *
 * Power scheduler and multipliers: arXiv:2408.13359
 */
#include <string.h>

#include "models/family.h"

static int granite_spec(struct spec *s, config *c, arena *a)
{
    bool clova = strcmp(config_string_or(c, "model_type", ""), "hyperclovax") == 0;
    struct norm_spec norm = config_rms_norm(c);
    float residual = (float)config_float_or(c, "residual_multiplier", 1);
    double logits = config_float_or(c, "logits_scaling", 1);
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    if (!(logits > 0))
        return config_fail(c, "logits_scaling", "it is %g; it must be positive", logits);
    attention = config_attention(c, s, 10000, a);
    attention.scale =
        (float)config_float_or(c, "attention_multiplier", clova ? (double)attention.scale : 1);
    s->embed_scale = (float)config_float_or(c, "embedding_multiplier", 1);
    s->logit_scale = (float)(clova ? logits : 1 / logits);
    spec_layers(s, norm, attention, config_gated_mlp(c));
    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++) {
            s->layers[i].branches[b].scale = residual;
            if (clova && config_bool_or(c, "use_post_norm", true))
                s->layers[i].branches[b].post_norm = norm;
        }
    return 0;
}

const struct family family_granite = {
    .name = "Granite, HyperCLOVA X",
    .model_types = {"granite", "hyperclovax", "granite_speech"},
    .spec = granite_spec,
    .weights = layout_llama,
};
