/* models/bitnet.c: BitNet b1.58: Llama with norms before the output projections, relu2, and weights
 * that are -1, 0 or 1 times a scale.
 *
 *     x += o_proj(rms_norm(attend(rms_norm(x))))
 *     x += down(rms_norm(relu(gate(n))^2 * up(n))),  n = rms_norm(x)
 *
 * arXiv:2402.17764, 2504.12285
 */
#include "models/family.h"

static int bitnet_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = config_gated_mlp(c);
    struct attention_spec attention;

    mlp.activation = config_activation(c, "hidden_act", ACT_RELU2);
    mlp.inner_norm = norm;
    if (config_common(s, c, true, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.o_norm = norm;
    spec_layers(s, norm, attention, mlp);
    return 0;
}

static const struct weight_rule bitnet_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.attn_sub_norm", SLOTS(0, ROLE_O_NORM)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.mlp.ffn_sub_norm", SLOTS(1, ROLE_INNER_NORM)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_bitnet = {
    .name = "BitNet",
    .model_types = {"bitnet"},
    .spec = bitnet_spec,
    .weights = bitnet_weights,
};
