/* models/internlm2.c: InternLM 2: Llama with q, k and v fused by kv head.
 *
 *     x += attention(rms_norm(x))
 *     x += w2(silu(w1(n)) * w3(n)),  n = rms_norm(x)
 *
 * arXiv:2403.17297
 */
#include "models/family.h"

static int internlm2_spec(struct spec *s, config *c, arena *a)
{
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.qkv_bias = attention.o_bias = config_bool_or(c, "bias", true);
    spec_layers(s, config_rms_norm(c), attention, mlp);
    return 0;
}

static const struct weight_rule internlm2_weights[] = {
    {"model.tok_embeddings", EMBED_TOKENS},
    {"model.layers.*.attention_norm", PRE_NORM(0)},
    {"model.layers.*.attention.wqkv", ATTENTION_GROUPED_QKV(0)},
    {"model.layers.*.attention.wo", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.ffn_norm", PRE_NORM(1)},
    {"model.layers.*.feed_forward.{w1,w3,w2}", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"output", LM_HEAD},
    {"model.layers.*.attention.{rope,rotary_emb}**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_internlm2 = {
    .name = "InternLM 2",
    .model_types = {"internlm2"},
    .spec = internlm2_spec,
    .weights = internlm2_weights,
};
