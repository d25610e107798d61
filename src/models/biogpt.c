/* models/biogpt.c: BioGPT: learned positions beside scaled embeddings.
 *
 *     x = sqrt(hidden_size) embed[token] + positions[position + 2]
 *     x += attention(layer_norm(x));  x += fc2(gelu(fc1(layer_norm(x))))
 *
 * arXiv:2210.10341
 */
#include <math.h>

#include "models/family.h"

static int biogpt_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_LAYER, .eps = 1e-5f, .bias = true};
    struct mlp_spec mlp = {.intermediate_size = config_int(c, "intermediate_size"),
                           .activation = config_activation(c, "hidden_act", ACT_GELU),
                           .bias = true};
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention_plain(c, s);
    attention.n_kv_heads = attention.n_heads;
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.qkv_bias = attention.o_bias = true;
    if (config_bool_or(c, "scale_embedding", true))
        s->embed_scale = sqrtf((float)s->hidden_size);
    s->position_offset = 2;
    if (s->context_length == 0)
        s->context_length = 1024;
    s->n_positions = s->context_length <= 1 << 20 ? s->context_length + 2 : 3;
    spec_layers(s, norm, attention, mlp);
    config_ignore(c, "layer_norm_eps", NULL); /* the reference has 1e-5 whatever it says */
    return 0;
}

static const struct weight_rule biogpt_weights[] = {
    {"biogpt.embed_tokens", EMBED_TOKENS},
    {"biogpt.embed_positions", SLOTS(-1, ROLE_POSITIONS)},
    {"biogpt.layers.*.self_attn_layer_norm", PRE_NORM(0)},
    {"biogpt.layers.*.self_attn.{q_proj,k_proj,v_proj,out_proj}", ATTENTION(0)},
    {"biogpt.layers.*.final_layer_norm", PRE_NORM(1)},
    {"biogpt.layers.*.{fc1,fc2}", SLOTS(1, ROLE_UP_PROJ)},
    {"biogpt.layer_norm", FINAL_NORM},
    {"output_projection", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_biogpt = {
    .name = "BioGPT",
    .model_types = {"biogpt"},
    .spec = biogpt_spec,
    .weights = biogpt_weights,
};
