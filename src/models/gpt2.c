/* models/gpt2.c: GPT-2. OpenAI's checkpoints store matrices by input; MLX's turn them.
 *
 *     x = wte[token] + wpe[position]
 *     x += attention(layer_norm(x));  x += c_proj(gelu(c_fc(layer_norm(x))))
 *
 * Radford et al., Language Models are Unsupervised Multitask Learners, 2019
 */
#include "models/family.h"

static const struct config_keys gpt2_keys = {
    .vocab_size = "vocab_size",
    .hidden_size = "n_embd",
    .n_layers = "n_layer",
    .context_length = "n_positions",
    .tie = "tie_word_embeddings",
};

static int gpt2_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    int n_heads = config_int_in(c, "n_head", 1, 4096);
    struct attention_spec attention = {
        .n_heads = n_heads, .n_kv_heads = n_heads, .qkv_bias = true, .o_bias = true};
    struct mlp_spec mlp = {.activation = config_activation(c, "activation_function", ACT_GELU_TANH),
                           .bias = true};

    if (config_common_named(s, c, &gpt2_keys, true, a))
        return -1;
    s->tie_by_file = true; /* mlx-lm has no head of its own for it */
    attention.head_dim = s->hidden_size / n_heads;
    attention.scale = attention_scale(attention.head_dim);
    if (!config_bool_or(c, "scale_attn_weights", true))
        attention.scale = 1;
    mlp.intermediate_size = config_int_or(c, "n_inner", 4 * s->hidden_size);
    s->n_positions = s->context_length;
    spec_layers(s, norm, attention, mlp);
    if (config_bool_or(c, "scale_attn_by_inverse_layer_idx", false))
        for (int i = 1; i < s->n_layers; i++)
            s->layers[i].branches[0].attention.scale /= (float)(i + 1);
    config_ignore(c, "n_ctx", NULL);
    return 0;
}

static const struct weight_rule gpt2_weights[] = {
    {"wte", EMBED_TOKENS},
    {"wpe", SLOTS(-1, ROLE_POSITIONS)},
    {"h.*.ln_1", PRE_NORM(0)},
    {"h.*.attn.c_attn", TRANSPOSED_SPLIT(0, ROLE_Q_PROJ, 3)},
    {"h.*.attn.c_proj", TRANSPOSED_SLOTS(0, ROLE_O_PROJ)},
    {"h.*.ln_2", PRE_NORM(1)},
    {"h.*.mlp.{c_fc,c_proj}", TRANSPOSED_SLOTS(1, ROLE_UP_PROJ)},
    {"ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"h.*.attn.{bias,masked_bias}**", IGNORE}, /* the causal mask */
    {"model.wte", EMBED_TOKENS},
    {"model.wpe", SLOTS(-1, ROLE_POSITIONS)},
    {"model.h.*.ln_1", PRE_NORM(0)},
    {"model.h.*.attn.c_attn", ATTENTION_QKV(0)},
    {"model.h.*.attn.c_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.h.*.ln_2", PRE_NORM(1)},
    {"model.h.*.mlp.{c_fc,c_proj}", SLOTS(1, ROLE_UP_PROJ)},
    {"model.ln_f", FINAL_NORM},
    {NULL, IGNORE},
};

static const struct weight_prefix gpt2_prefixes[] = {{"transformer.", ""}, {NULL, NULL}};

const struct family family_gpt2 = {
    .name = "GPT-2",
    .model_types = {"gpt2"},
    .spec = gpt2_spec,
    .weights = gpt2_weights,
    .prefixes = gpt2_prefixes,
};
