/* models/gptj.c: GPT-J: attention and feed-forward of one normed x; the first part of each head
 * turns, interleaved.
 *
 *     x += attention(n) + fc_out(gelu(fc_in(n))),  n = layer_norm(x)
 *
 * Wang and Komatsuzaki, 2021
 */
#include "models/family.h"

static const struct config_keys gptj_keys = {
    .vocab_size = "vocab_size",
    .hidden_size = "n_embd",
    .n_layers = "n_layer",
    .context_length = "n_positions",
    .tie = "tie_word_embeddings",
};

static int gptj_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    int n_heads = config_int_in(c, "n_head", 1, 4096);
    struct attention_spec attention = {.n_heads = n_heads, .n_kv_heads = n_heads};
    struct mlp_spec mlp = {.activation = config_activation(c, "activation_function", ACT_GELU_TANH),
                           .bias = true};

    if (config_common_named(s, c, &gptj_keys, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention.head_dim = s->hidden_size / n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = rope_plain(attention.head_dim, 10000);
    attention.rope.dims = config_int_or(c, "rotary_dim", attention.head_dim);
    attention.rope.interleaved = true;
    mlp.intermediate_size = config_int_or(c, "n_inner", 4 * s->hidden_size);
    s->lm_head_bias = true;
    spec_layers(s, norm, attention, mlp);
    for (int i = 0; i < s->n_layers; i++)
        s->layers[i].branches[1].parallel = s->layers[i].branches[1].shared_norm = true;
    return 0;
}

static const struct weight_rule gptj_weights[] = {
    {"wte", EMBED_TOKENS},
    {"h.*.ln_1", PRE_NORM(0)},
    {"h.*.attn.{q_proj,k_proj,v_proj,out_proj}", ATTENTION(0)},
    {"h.*.mlp.{fc_in,fc_out}", SLOTS(1, ROLE_UP_PROJ)},
    {"ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"h.*.attn.{bias,masked_bias}**", IGNORE}, /* the causal mask */
    {NULL, IGNORE},
};

static const struct weight_prefix gptj_prefixes[] = {
    {"transformer.", ""}, {"model.", ""}, {NULL, NULL}};

const struct family family_gptj = {
    .name = "GPT-J",
    .model_types = {"gptj"},
    .spec = gptj_spec,
    .weights = gptj_weights,
    .prefixes = gptj_prefixes,
};
