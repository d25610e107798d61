/* models/phi.c: Phi-1, 1.5 and 2: attention and feed-forward of one normed x.
 *
 *     x += attention(n) + fc2(gelu(fc1(n))),  n = layer_norm(x)
 *
 * arXiv:2309.05463
 */
#include "models/family.h"

static int phi_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_eps", true);
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_act", ACT_GELU_TANH),
        .bias = true,
    };
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention_plain(c, s);
    attention.rope = config_rope_part(c, attention.head_dim, 10000, 0.4, a);
    attention.qkv_bias = attention.o_bias = true;
    if (config_bool_or(c, "qk_layernorm", false))
        attention.q_norm = attention.k_norm = norm;
    s->lm_head_bias = true;
    spec_layers(s, norm, attention, mlp);
    for (int i = 0; i < s->n_layers; i++)
        s->layers[i].branches[1].parallel = s->layers[i].branches[1].shared_norm = true;
    return 0;
}

static const struct weight_rule phi_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q_proj,k_proj,v_proj,dense}", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_layernorm", ATTENTION_NORMS(0)},
    {"model.layers.*.mlp.{fc1,fc2}", SLOTS(1, ROLE_UP_PROJ)},
    {"model.final_layernorm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_phi = {
    .name = "Phi-1.5, Phi-2",
    .model_types = {"phi"},
    .spec = phi_spec,
    .weights = phi_weights,
};
