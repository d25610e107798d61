/* models/gpt_neo.c: GPT-Neo: GPT-2 whose scores are not scaled, with layers that slide.
 *
 *     x = wte[token] + wpe[position]
 *     x += attention(layer_norm(x));  x += c_proj(gelu(c_fc(layer_norm(x))))
 *
 * Black et al., 2021
 */
#include <string.h>

#include "models/family.h"

/* attention_types says the same in nested lists. */
static int window_of(config *c, int layer)
{
    const char *const *types;
    int n = config_strings(c, "attention_layers", &types);
    int window = config_window_size(c, "window_size", 256);

    if (n < 0 && config_has(c, "attention_types"))
        return config_fail(c, "attention_layers", "it is missing");
    if (n >= 0 && layer >= n)
        return config_fail(c, "attention_layers", "it has %d entries, too few for layer %d", n,
                           layer);
    if (n < 0)
        return layer % 2 ? window : 0;
    if (strcmp(types[layer], "local") != 0 && strcmp(types[layer], "global") != 0)
        return config_fail(c, "attention_layers", "layer %d is of the unknown type \"%s\"", layer,
                           types[layer]);
    return strcmp(types[layer], "local") == 0 ? window : 0;
}

static int gpt_neo_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "hidden_size",
        .n_layers = "num_layers",
        .context_length = "max_position_embeddings",
        .tie = "tie_word_embeddings",
    };
    int n_heads = config_int_in(c, "num_heads", 1, 4096);
    struct attention_spec attention = {
        .n_heads = n_heads, .n_kv_heads = n_heads, .o_bias = true, .scale = 1};
    struct mlp_spec mlp = {.activation = config_activation(c, "activation_function", ACT_GELU_TANH),
                           .bias = true};

    if (config_common_named(s, c, &keys, true, a))
        return -1;
    attention.head_dim = s->hidden_size / n_heads;
    mlp.intermediate_size = config_int_or(c, "intermediate_size", 4 * s->hidden_size);
    s->n_positions = s->context_length;
    spec_layers(s, config_layer_norm(c, "layer_norm_epsilon", true), attention, mlp);
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++)
        s->layers[i].branches[0].attention.window = window_of(c, i);
    config_ignore(c, "attention_types", NULL);
    return 0;
}

static const struct weight_rule gpt_neo_weights[] = {
    {"wte", EMBED_TOKENS},
    {"wpe", SLOTS(-1, ROLE_POSITIONS)},
    {"h.*.ln_1", PRE_NORM(0)},
    {"h.*.attn.attention.{q_proj,k_proj,v_proj,out_proj}", ATTENTION(0)},
    {"h.*.ln_2", PRE_NORM(1)},
    {"h.*.mlp.{c_fc,c_proj}", SLOTS(1, ROLE_UP_PROJ)},
    {"ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"h.*.attn.attention.{bias,masked_bias}**", IGNORE}, /* the causal mask */
    {NULL, IGNORE},
};

static const struct weight_prefix gpt_neo_prefixes[] = {{"transformer.", ""}, {NULL, NULL}};

const struct family family_gpt_neo = {
    .name = "GPT-Neo",
    .model_types = {"gpt_neo"},
    .spec = gpt_neo_spec,
    .weights = gpt_neo_weights,
    .prefixes = gpt_neo_prefixes,
};
