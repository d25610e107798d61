/* models/gpt_bigcode.c: StarCoder: GPT-2 with one key and value head for all.
 *
 *     x = wte[token] + wpe[position]
 *     x += attention(layer_norm(x));  x += c_proj(gelu(c_fc(layer_norm(x))))
 *
 * arXiv:2305.06161; one head, 1911.02150
 */
#include "models/family.h"

static int bigcode_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "n_embd",
        .n_layers = "n_layer",
        .context_length = "n_positions",
        .tie = "tie_word_embeddings",
    };
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    int n_heads = config_int_in(c, "n_head", 1, 4096);
    bool multi_query = config_bool_or(c, "multi_query", true);
    bool bias = config_bool_or(c, "attention_bias", true);
    struct attention_spec attention = {
        .n_heads = n_heads,
        .n_kv_heads = multi_query ? 1 : n_heads,
        .qkv_bias = bias,
        .o_bias = bias,
        .qkv_apart = !config_by_transformers(c),
    };
    struct mlp_spec mlp = {
        .activation = config_activation(c, "activation_function", ACT_GELU),
        .bias = config_bool_or(c, "mlp_bias", true),
    };

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    attention.head_dim = s->hidden_size / n_heads;
    attention.scale = attention_scale(attention.head_dim);
    if (!config_bool_or(c, "scale_attn_weights", true))
        attention.scale = 1;
    mlp.intermediate_size = config_int_or(c, "n_inner", 4 * s->hidden_size);
    s->n_positions = s->context_length;
    spec_layers(s, norm, attention, mlp);
    config_ignore(c, "num_key_value_heads", "attention_softmax_in_fp32",
                  "scale_attention_softmax_in_fp32", NULL);
    return 0;
}

/* With a head of keys for each of queries, they lie head by head; mlx-lm has all queries first. */
static const struct weight_rule bigcode_weights[] = {
    {"transformer.wte", EMBED_TOKENS},
    {"transformer.wpe", SLOTS(-1, ROLE_POSITIONS)},
    {"transformer.h.*.ln_1", PRE_NORM(0)},
    {"transformer.h.*.attn.c_attn", ATTENTION_GROUPED_QKV(0)},
    {"transformer.h.*.attn.c_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.h.*.ln_2", PRE_NORM(1)},
    {"transformer.h.*.mlp.{c_fc,c_proj}", SLOTS(1, ROLE_UP_PROJ)},
    {"transformer.ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"transformer.h.*.attn.{bias,masked_bias}**", IGNORE}, /* the causal mask */
    {NULL, IGNORE},
};

const struct family family_gpt_bigcode = {
    .name = "StarCoder",
    .model_types = {"gpt_bigcode"},
    .spec = bigcode_spec,
    .weights = bigcode_weights,
};
