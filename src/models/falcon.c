/* models/falcon.c: Falcon: attention and feed-forward of one x; one kv head, or some; positions by
 * rope or by distance.
 *
 *     n = layer_norm(x);  x += attention(n) + down(gelu(up(n)))     (7B)
 *     x += attention(ln_attn(x)) + down(gelu(up(ln_mlp(x))))        (40B, 180B)
 *
 * arXiv:2311.16867
 */
#include "models/family.h"

/* ALiBi is added before the scaling of scores. */
static struct attention_spec read_attention(config *c, int hidden_size, bool bias, arena *a)
{
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    bool grouped = config_bool_or(c, "new_decoder_architecture", false);
    bool one = config_bool_or(c, "multi_query", true);
    struct attention_spec at = {.n_heads = n_heads, .qkv_bias = bias, .o_bias = bias};

    at.n_kv_heads = grouped ? config_int_or(c, "num_kv_heads", n_heads) : one ? 1 : n_heads;
    at.head_dim = hidden_size / n_heads;
    at.scale = attention_scale(at.head_dim);
    if (config_bool_or(c, "alibi", false))
        at.slopes = config_alibi(c, n_heads, 8, (double)at.scale, a);
    else
        at.rope = config_rope(c, NULL, at.head_dim, 10000, a);
    config_ignore(c, "num_kv_heads", NULL);
    return at;
}

static int falcon_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    bool bias = config_bool_or(c, "bias", false);
    bool grouped = config_bool_or(c, "new_decoder_architecture", false);
    bool parallel = grouped || config_bool_or(c, "parallel_attn", true);
    bool one_norm = parallel && !(grouped && config_int_or(c, "num_ln_in_parallel_attn", 2) == 2);
    struct mlp_spec mlp = {.activation = config_activation(c, "activation", ACT_GELU),
                           .bias = bias};

    if (config_common(s, c, true, a))
        return -1;
    mlp.intermediate_size =
        config_int_or(c, "ffn_hidden_size", s->hidden_size <= 1 << 20 ? 4 * s->hidden_size : 0);
    spec_layers(s, norm, read_attention(c, s->hidden_size, bias, a), mlp);
    for (int i = 0; i < s->n_layers; i++) {
        s->layers[i].branches[1].parallel = parallel;
        s->layers[i].branches[1].shared_norm = one_norm;
    }
    config_ignore(c, "num_ln_in_parallel_attn", "parallel_attn",
                  "apply_residual_connection_post_layernorm", NULL);
    return 0;
}

static const struct weight_rule falcon_weights[] = {
    {"transformer.word_embeddings", EMBED_TOKENS},
    {"transformer.h.*.input_layernorm", PRE_NORM(0)},
    {"transformer.h.*.ln_attn", PRE_NORM(0)},
    {"transformer.h.*.self_attention.query_key_value", ATTENTION_GROUPED_QKV(0)},
    {"transformer.h.*.self_attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.h.*.post_attention_layernorm", PRE_NORM(1)},
    {"transformer.h.*.ln_mlp", PRE_NORM(1)},
    {"transformer.h.*.mlp.{dense_h_to_4h,dense_4h_to_h}", SLOTS(1, ROLE_UP_PROJ)},
    {"transformer.ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_falcon = {
    .name = "Falcon",
    .model_types = {"falcon"},
    .spec = falcon_spec,
    .weights = falcon_weights,
};
