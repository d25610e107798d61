/* models/openai_gpt.c: GPT, the first: norms behind what blocks are added to. Matrices are stored
 * by input.
 *
 *     x = tokens_embed[token] + positions_embed[position]
 *     x = layer_norm(x + attention(x));  x = layer_norm(x + c_proj(gelu(c_fc(x))))
 *
 * Radford et al., Improving Language Understanding by Generative Pre-Training, 2018
 */
#include <string.h>

#include "models/family.h"

static enum activation activation_of(config *c)
{
    const char *name = config_string_or(c, "afn", "gelu");

    return strcmp(name, "gelu") == 0 ? ACT_GELU_TANH : config_activation(c, "afn", ACT_GELU_TANH);
}

static int openai_gpt_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "n_embd",
        .n_layers = "n_layer",
        .context_length = "n_positions",
        .tie = "tie_word_embeddings",
    };
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true), none = {0};
    int n_heads = config_int_in(c, "n_head", 1, 4096);
    struct attention_spec attention = {
        .n_heads = n_heads, .n_kv_heads = n_heads, .qkv_bias = true, .o_bias = true};
    struct mlp_spec mlp = {.activation = activation_of(c), .bias = true};

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    attention.head_dim = s->hidden_size / n_heads;
    attention.scale = attention_scale(attention.head_dim);
    if (s->hidden_size > 1 << 22)
        return config_fail(c, "n_embd", "%d numbers are too many", s->hidden_size);
    mlp.intermediate_size = 4 * s->hidden_size;
    s->n_positions = s->context_length;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(none, attention));
        layer_add(&s->layers[i], branch_of(OP_NONE, norm))->replace = true;
        layer_add(&s->layers[i], branch_mlp(none, mlp));
        layer_add(&s->layers[i], branch_of(OP_NONE, norm))->replace = true;
    }
    config_ignore(c, "n_ctx", "predict_special_tokens", NULL);
    return 0;
}

static const struct weight_rule openai_gpt_weights[] = {
    {"tokens_embed", EMBED_TOKENS},
    {"positions_embed", SLOTS(-1, ROLE_POSITIONS)},
    {"h.*.attn.c_attn", TRANSPOSED_SPLIT(0, ROLE_Q_PROJ, 3)},
    {"h.*.attn.c_proj", TRANSPOSED_SLOTS(0, ROLE_O_PROJ)},
    {"h.*.ln_1", PRE_NORM(1)},
    {"h.*.mlp.{c_fc,c_proj}", TRANSPOSED_SLOTS(2, ROLE_UP_PROJ)},
    {"h.*.ln_2", PRE_NORM(3)},
    {"lm_head", LM_HEAD},
    {"h.*.attn.bias**", IGNORE}, /* the causal mask */
    {NULL, IGNORE},
};

static const struct weight_prefix openai_gpt_prefixes[] = {{"transformer.", ""}, {NULL, NULL}};

const struct family family_openai_gpt = {
    .name = "GPT",
    .model_types = {"openai-gpt"},
    .spec = openai_gpt_spec,
    .weights = openai_gpt_weights,
    .prefixes = openai_gpt_prefixes,
};
