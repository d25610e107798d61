/* models/granite.c: Granite 3: Llama with multipliers on embeddings, attention, residuals and
 * logits; Granite SWA, whose attention slides and has sinks; HyperCLOVA X, whose blocks may have
 * norms behind them too.
 *
 *     x += m attention(rms_norm(x));  x += m mlp(rms_norm(x))
 *
 * Power scheduler and multipliers: arXiv:2408.13359
 */
#include <string.h>

#include "models/family.h"

struct attention_spec granite_swa_attention(config *c, struct attention_spec at, int layer)
{
    const double *theta;
    int n = config_floats(c, "layer_rope_theta", &theta);
    int window = config_window_size(c, "sliding_window", 128);

    at.sinks = true;
    at.window = config_window(c, layer, layer % 4 ? window : 0);
    if (n >= 0 && layer >= n)
        config_fail(c, "layer_rope_theta", "it has %d entries, too few for layer %d", n, layer);
    else if (n >= 0 && theta[layer] == 0)
        at.rope.kind = ROPE_NONE;
    else if (n >= 0)
        at.rope.theta = theta[layer];
    return at;
}

static int granite_spec(struct spec *s, config *c, arena *a)
{
    const char *type = config_string_or(c, "model_type", "");
    bool clova = strcmp(type, "hyperclovax") == 0, swa = strcmp(type, "granite_swa") == 0;
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
    for (int i = 0; i < s->n_layers && swa; i++)
        s->layers[i].branches[0].attention = granite_swa_attention(c, attention, i);
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
    .model_types = {"granite", "hyperclovax", "granite_speech", "granite_speech_plus",
                    "granite_swa"},
    .spec = granite_spec,
    .weights = layout_llama,
};
