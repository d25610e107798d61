/* models/bloom.c: BLOOM: no rope: scores fall with the distance.
 *
 *     x = layer_norm(embedding)
 *     x += attention(layer_norm(x));  x += down(gelu(up(layer_norm(x))))
 *
 * BLOOM, arXiv:2211.05100; ALiBi, 2108.12409
 */
#include "models/family.h"

static int bloom_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "hidden_size", "n_layer", "seq_length",
                                            "tie_word_embeddings"};
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    struct mlp_spec mlp = {.activation = ACT_GELU_TANH, .bias = true};
    struct attention_spec attention = {.qkv_bias = true, .o_bias = true};

    if (config_bool_or(c, "apply_residual_connection_post_layernorm", false))
        return config_fail(c, "apply_residual_connection_post_layernorm", "it is not supported");
    if (config_common_named(s, c, &keys, true, a))
        return -1;
    attention.n_heads = attention.n_kv_heads = config_int_in(c, "n_head", 1, 4096);
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.slopes = config_alibi(c, attention.n_heads, 8, 1, a);
    mlp.intermediate_size = s->hidden_size <= 1 << 20 ? 4 * s->hidden_size : 0;
    s->embed_norm = norm;
    spec_layers(s, norm, attention, mlp);
    config_ignore(c, "slow_but_exact", "pretraining_tp", "n_embed", "num_attention_heads",
                  "offset_alibi", "unk_token_id", "masked_softmax_fusion", "bias_dropout_fusion",
                  NULL);
    return 0;
}

static const struct weight_rule bloom_weights[] = {
    {"transformer.word_embeddings", EMBED_TOKENS},
    {"transformer.word_embeddings_layernorm", SLOTS(-1, ROLE_EMBED_NORM)},
    {"transformer.h.*.input_layernorm", PRE_NORM(0)},
    {"transformer.h.*.self_attention.query_key_value", ATTENTION_GROUPED_QKV(0)},
    {"transformer.h.*.self_attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.h.*.post_attention_layernorm", PRE_NORM(1)},
    {"transformer.h.*.mlp.{dense_h_to_4h,dense_4h_to_h}", SLOTS(1, ROLE_UP_PROJ)},
    {"transformer.ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

/* The first checkpoints have no "transformer." before their names. */
static const struct weight_prefix bloom_prefixes[] = {
    {"word_embeddings", "transformer.word_embeddings"},
    {"h.", "transformer.h."},
    {"ln_f.", "transformer.ln_f."},
    {NULL, NULL},
};

const struct family family_bloom = {
    .name = "BLOOM",
    .model_types = {"bloom"},
    .spec = bloom_spec,
    .weights = bloom_weights,
    .prefixes = bloom_prefixes,
};
