/* models/bloom.c: BLOOM: no rope: scores fall with the distance.
 *
 *     x = layer_norm(embedding)
 *     x += attention(layer_norm(x));  x += down(gelu(up(layer_norm(x))))
 *
 * or, with apply_residual_connection_post_layernorm,
 *
 *     x = layer_norm(x);  x += attention(x);  x = layer_norm(x);  x += down(gelu(up(x)))
 *
 * BLOOM, arXiv:2211.05100; ALiBi, 2108.12409
 */
#include "models/family.h"

/* normed: what is added to is normed too. */
static void add_block(struct layer_spec *l, struct branch_spec block, bool normed)
{
    if (normed) {
        layer_add(l, branch_of(OP_NONE, block.pre_norm))->replace = true;
        block.pre_norm = (struct norm_spec){0};
    }
    layer_add(l, block);
}

static int bloom_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "hidden_size", "n_layer", "seq_length",
                                            "tie_word_embeddings"};
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    struct mlp_spec mlp = {.activation = ACT_GELU_TANH, .bias = true};
    struct attention_spec attention = {.qkv_bias = true, .o_bias = true};
    bool normed = config_bool_or(c, "apply_residual_connection_post_layernorm", false);

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    attention.n_heads = attention.n_kv_heads = config_int_in(c, "n_head", 1, 4096);
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.slopes = config_alibi(c, attention.n_heads, 8, 1, a);
    mlp.intermediate_size = s->hidden_size <= 1 << 20 ? 4 * s->hidden_size : 0;
    s->embed_norm = norm;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        add_block(&s->layers[i], branch_attention(norm, attention), normed);
        add_block(&s->layers[i], branch_mlp(norm, mlp), normed);
    }
    config_ignore(c, "slow_but_exact", "pretraining_tp", "n_embed", "num_attention_heads",
                  "offset_alibi", "unk_token_id", "masked_softmax_fusion", "bias_dropout_fusion",
                  NULL);
    return 0;
}

static const struct weight_rule bloom_weights[] = {
    {"transformer.word_embeddings", EMBED_TOKENS},
    {"transformer.word_embeddings_layernorm", SLOTS(-1, ROLE_EMBED_NORM)},
    {"transformer.h.*.input_layernorm", PRE_NORM(0)},
    {"transformer.h.*.self_attention.query_key_value", ONLY_GROUPED_QKV(OP_ATTENTION, 0)},
    {"transformer.h.*.self_attention.query_key_value", ATTENTION_GROUPED_QKV(1)},
    {"transformer.h.*.self_attention.dense", ONLY_SLOTS(OP_ATTENTION, 0, ROLE_O_PROJ)},
    {"transformer.h.*.self_attention.dense", SLOTS(1, ROLE_O_PROJ)},
    {"transformer.h.*.post_attention_layernorm", ONLY_SLOTS(OP_ATTENTION, 1, ROLE_PRE_NORM)},
    {"transformer.h.*.post_attention_layernorm", PRE_NORM(2)},
    {"transformer.h.*.mlp.{dense_h_to_4h,dense_4h_to_h}",
     ONLY_SLOTS(OP_ATTENTION, 1, ROLE_UP_PROJ)},
    {"transformer.h.*.mlp.{dense_h_to_4h,dense_4h_to_h}", SLOTS(3, ROLE_UP_PROJ)},
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
