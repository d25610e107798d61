/* models/codeshell.c: CodeShell: GPT-2 that turns, with groups of heads.
 *
 *     x += attention(layer_norm(x));  x += c_proj(gelu(c_fc(layer_norm(x))))
 *
 * arXiv:2403.15747
 */
#include <string.h>

#include "models/family.h"

static int codeshell_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "vocab_size",
        .hidden_size = "n_embd",
        .n_layers = "n_layer",
        .context_length = "max_position_embeddings",
        .tie = "tie_word_embeddings",
    };
    const char *positions = config_string_or(c, "position_embedding_type", "rope");
    bool grouped = config_bool_or(c, "group_query_attention", true);
    int n_heads = config_int_in(c, "n_head", 1, 4096),
        groups = config_int_or(c, "num_query_groups", 1);
    struct attention_spec attention = {.n_heads = n_heads,
                                       .n_kv_heads = grouped ? groups : n_heads,
                                       .qkv_bias = true,
                                       .o_bias = true};
    struct mlp_spec mlp = {.activation = config_activation(c, "activation_function", ACT_GELU_TANH),
                           .bias = true};

    config_alias(c, "n_positions", "max_position_embeddings"); /* as ropes call it */
    if (config_common_named(s, c, &keys, false, a))
        return -1;
    if (strcmp(positions, "rope") != 0)
        return config_fail(c, "position_embedding_type", "unknown positions \"%s\"", positions);
    attention.head_dim = s->hidden_size / n_heads;
    attention.scale = attention_scale(attention.head_dim);
    if (!config_bool_or(c, "scale_attn_weights", true))
        attention.scale = 1;
    attention.rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    mlp.intermediate_size = config_int_or(c, "n_inner", 4 * s->hidden_size);
    spec_layers(s, config_layer_norm(c, "layer_norm_epsilon", true), attention, mlp);
    return 0;
}

static const struct weight_rule codeshell_weights[] = {
    {"wte", EMBED_TOKENS},
    {"h.*.ln_1", PRE_NORM(0)},
    {"h.*.attn.c_attn", ATTENTION_QKV(0)},
    {"h.*.attn.c_proj", SLOTS(0, ROLE_O_PROJ)},
    {"h.*.ln_2", PRE_NORM(1)},
    {"h.*.mlp.{c_fc,c_proj}", SLOTS(1, ROLE_UP_PROJ)},
    {"ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"h.*.attn.{bias,masked_bias,rotary_emb}**", IGNORE}, /* mask and angles */
    {NULL, IGNORE},
};

static const struct weight_prefix codeshell_prefixes[] = {{"transformer.", ""}, {NULL, NULL}};

const struct family family_codeshell = {
    .name = "CodeShell",
    .model_types = {"codeshell", "kclgpt"},
    .spec = codeshell_spec,
    .weights = codeshell_weights,
    .prefixes = codeshell_prefixes,
};
