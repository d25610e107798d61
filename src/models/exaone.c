/* models/exaone.c: EXAONE 3: Llama with names of its own.
 *
 *     x += attention(rms_norm(x))
 *     x += c_proj(silu(c_fc_0(n)) * c_fc_1(n)),  n = rms_norm(x)
 *
 * arXiv:2408.03541
 */
#include "models/family.h"

static int exaone_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "hidden_size",
        .n_layers = "num_layers",
        .context_length = "max_position_embeddings",
        .tie = "tie_word_embeddings",
    };
    struct norm_spec norm = {
        .kind = NORM_RMS,
        .eps = (float)config_float(c, "layer_norm_epsilon"),
    };
    struct mlp_spec mlp = config_gated_mlp(c);

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    mlp.activation = config_activation(c, "activation_function", ACT_SILU);
    spec_layers(s, norm, config_attention(c, s, 10000, a), mlp);
    return 0;
}

static const struct weight_rule exaone_weights[] = {
    {"transformer.wte", EMBED_TOKENS},
    {"transformer.h.*.ln_1", PRE_NORM(0)},
    {"transformer.h.*.attn.attention.{q_proj,k_proj,v_proj,out_proj}", ATTENTION(0)},
    {"transformer.h.*.ln_2", PRE_NORM(1)},
    {"transformer.h.*.mlp.{c_fc_0,c_fc_1,c_proj}", MLP(1)},
    {"transformer.ln_f", FINAL_NORM},
    /* The names that transformers has in memory, and with it adapters. */
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"lm_head", LM_HEAD},
    {"transformer.h.*.attn.attention.rotary**", IGNORE}, /* computed from rope_theta */
    {"transformer.rotary**", IGNORE},
    {NULL, IGNORE},
};

const struct family family_exaone = {
    .name = "EXAONE 3",
    .model_types = {"exaone"},
    .spec = exaone_spec,
    .weights = exaone_weights,
};
