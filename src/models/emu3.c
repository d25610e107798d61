/* models/emu3.c: the text of Emu3: Llama under other names.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2409.18869
 */
#include "models/family.h"

static int emu3_spec(struct spec *s, config *c, arena *a)
{
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common(s, c, false, a))
        return -1;
    spec_layers(s, config_rms_norm(c), config_attention(c, s, 1000000, a), mlp);
    return 0;
}

static const struct weight_rule emu3_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"vqmodel.**", IGNORE}, /* makes tokens of pictures, and pictures of tokens */
    {NULL, IGNORE},
};

static const struct weight_prefix emu3_prefixes[] = {
    {"text_model.", ""},
    {"model.text_model.", "model."},
    {"model.vqmodel.", "vqmodel."},
    {NULL, NULL},
};

const struct family family_emu3 = {
    .name = "Emu3",
    .model_types = {"emu3", "emu3_text_model"},
    .spec = emu3_spec,
    .weights = emu3_weights,
    .prefixes = emu3_prefixes,
};
