/* models/phi3.c: Phi-3 and Phi-4 mini: Llama with fused projections and, for long contexts,
 * longrope.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2404.14219; longrope, 2402.13753
 */
#include "models/family.h"

static int phi3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention_partial(c, s, 10000, a);
    attention.window = config_int_or(c, "sliding_window", 0);
    spec_layers(s, norm, attention, config_gated_mlp(c));
    config_ignore(c, "original_max_position_embeddings", "embd_pdrop", "resid_pdrop", NULL);
    return 0;
}

static const struct weight_rule phi3_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.qkv_proj", ATTENTION_QKV(0)},
    {"model.layers.*.self_attn.o_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.self_attn.qkv_proj.base_layer", ATTENTION_QKV(0)}, /* of those that see */
    {"model.layers.*.self_attn.o_proj.base_layer", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.self_attn.{qkv_proj,o_proj}.lora_**", IGNORE}, /* for pictures and sounds */
    {"model.layers.*.mlp.gate_up_proj.base_layer", MLP_GATE_UP(1)},
    {"model.layers.*.mlp.down_proj.base_layer", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.layers.*.mlp.{gate_up_proj,down_proj}.lora_**", IGNORE},
    {"model.embed_tokens_extend.**", IGNORE},
    {"model.layers.*.mlp.gate_up_proj", MLP_GATE_UP(1)},
    {"model.layers.*.mlp.down_proj", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_phi3 = {
    .name = "Phi-3, Phi-4 mini",
    .model_types = {"phi3", "phi4_multimodal", "phi4mm"},
    .spec = phi3_spec,
    .weights = phi3_weights,
};
