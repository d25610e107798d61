/* models/stablelm.c: StableLM 2.
 *
 *     x += attention(layer_norm(x));  x += mlp(layer_norm(x)), or, parallel,
 *     x += attention(n) + mlp(n),  n = layer_norm(x)
 *
 * arXiv:2402.17834
 */
#include "models/family.h"

static int stablelm_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_eps", true);
    bool parallel = config_bool_or(c, "use_parallel_residual", false);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention_partial(c, s, 10000, a);
    attention.qkv_bias = config_bool_or(c, "use_qkv_bias", false);
    if (config_bool_or(c, "qk_layernorm", false)) {
        attention.q_norm = attention.k_norm = config_layer_norm(c, "layer_norm_eps", false);
        attention.qk_norm_span = QK_NORM_EACH;
    }
    spec_layers(s, norm, attention, mlp);
    for (int i = 0; i < s->n_layers; i++)
        s->layers[i].branches[1].parallel = s->layers[i].branches[1].shared_norm = parallel;
    return 0;
}

static const struct weight_rule stablelm_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_layernorm.norms.#", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_stablelm = {
    .name = "StableLM 2",
    .model_types = {"stablelm"},
    .spec = stablelm_spec,
    .weights = stablelm_weights,
};
