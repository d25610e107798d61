/* models/minicpm3.c: MiniCPM 3: attention to latents; embeddings, residuals and logits are scaled.
 *
 *     x += m mla(rms_norm(x));  x += m down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *     m = scale_depth / sqrt(number of layers)
 *
 * arXiv:2404.06395
 */
#include <math.h>

#include "models/family.h"

static int minicpm3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    double base = config_float(c, "dim_model_base"), depth = config_float(c, "scale_depth");
    struct mla_spec mla;
    float residual;

    if (config_common(s, c, false, a))
        return -1;
    mla = config_mla(c, 1000000, a);
    mla.q_norm.eps = mla.kv_norm.eps = config_by_transformers(c) ? 1e-6f : 1e-5f;
    rope_interleave(&mla.rope, c, config_bool_or(c, "rope_traditional", false));
    if (!config_has(c, "v_head_dim"))
        mla.v_dim = s->hidden_size / mla.n_heads;
    residual = (float)(depth / sqrt(s->n_layers));
    s->embed_scale = (float)config_float(c, "scale_emb");
    if (!s->tie_word_embeddings || config_by_transformers(c))
        s->logit_scale = (float)(base / s->hidden_size);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_mla(norm, mla))->scale = residual;
        layer_add(&s->layers[i], branch_mlp(norm, mlp))->scale = residual;
    }
    return 0;
}

const struct family family_minicpm3 = {
    .name = "MiniCPM 3",
    .model_types = {"minicpm3"},
    .spec = minicpm3_spec,
    .weights = layout_mla,
};
