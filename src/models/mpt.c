/* models/mpt.c: MPT: no biases, no rope: scores fall with the distance.
 *
 *     x += attention(layer_norm(x));  x += down(gelu(up(layer_norm(x))))
 *
 * MPT-7B, MosaicML 2023; ALiBi, arXiv:2108.12409
 */
#include "models/family.h"

static struct attention_spec read_attention(config *c, int hidden_size, arena *a)
{
    config *attn = config_object(c, "attn_config");
    struct attention_spec at = {.n_heads = config_int_in(c, "n_heads", 1, 4096)};
    double bias_max = 8;

    at.n_kv_heads = at.n_heads;
    at.head_dim = hidden_size / at.n_heads;
    at.scale = attention_scale(at.head_dim);
    if (attn) {
        bias_max = config_float_or(attn, "alibi_bias_max", 8);
        at.scale = (float)config_float_or(attn, "softmax_scale", (double)at.scale);
        at.clip_qkv = (float)config_cap_or_zero(attn, "clip_qkv", 0);
        if (config_bool_or(attn, "qk_ln", false))
            config_fail(attn, "qk_ln", "it is not supported");
        /* Without alibi a file has learned positions, for which there is no rule. */
        config_ignore(attn, "alibi", "attn_type", "attn_impl", "prefix_lm", "attn_uses_sequence_id",
                      "model_type", NULL);
    }
    at.slopes = config_alibi(c, at.n_heads, bias_max, 1, a);
    return at;
}

static int mpt_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "d_model", "n_layers", "max_seq_len",
                                            "tie_word_embeddings"};
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", false);
    struct mlp_spec mlp = {.activation = ACT_GELU};

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    mlp.intermediate_size = s->hidden_size <= 1 << 18 ? 4 * s->hidden_size : 0;
    if (config_has(c, "logit_scale"))
        s->logit_scale = (float)config_float(c, "logit_scale");
    spec_layers(s, norm, read_attention(c, s->hidden_size, a), mlp);
    config_ignore(c, "learned_pos_emb", "no_bias", "norm_type", "verbose", "embedding_fraction",
                  "expansion_ratio", NULL);
    return 0;
}

static const struct weight_rule mpt_weights[] = {
    {"transformer.wte", EMBED_TOKENS},
    {"transformer.blocks.*.norm_1", PRE_NORM(0)},
    {"transformer.blocks.*.attn.Wqkv", ATTENTION_QKV(0)},
    {"transformer.blocks.*.attn.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.blocks.*.norm_2", PRE_NORM(1)},
    {"transformer.blocks.*.ffn.{up,down}_proj", SLOTS(1, ROLE_UP_PROJ)},
    {"transformer.norm_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_mpt = {
    .name = "MPT",
    .model_types = {"mpt"},
    .spec = mpt_spec,
    .weights = mpt_weights,
};
