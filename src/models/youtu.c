/* models/youtu.c: Youtu-LLM: dense, with attention to latents.
 *
 *     x += mla(rms_norm(x));  x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2512.24618
 */
#include "models/family.h"

static int youtu_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct mla_spec mla;

    if (config_common(s, c, true, a))
        return -1;
    mla = config_mla(c, 1600000, a);
    if (!config_by_transformers(c)) { /* whose norms of ranks have an epsilon of their own */
        mla.q_norm = mla.kv_norm = norm;
        mla.scale = attention_scale(mla.nope_dim + mla.rope_dim);
    }
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_mla(norm, mla));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    return 0;
}

const struct family family_youtu = {
    .name = "Youtu",
    .model_types = {"youtu_llm", "youtu"},
    .spec = youtu_spec,
    .weights = layout_mla,
};
