/* models/codegen.c: CodeGen: GPT-J with a fused projection cut for four processors.
 *
 *     n = layer_norm(x);  x += attention(n) + down(gelu(up(n)))
 *
 * arXiv:2203.13474
 */
#include "models/family.h"

static int codegen_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {"vocab_size", "n_embd", "n_layer", "n_positions",
                                            "tie_word_embeddings"};
    struct norm_spec norm = config_layer_norm(c, "layer_norm_epsilon", true);
    struct mlp_spec mlp = {.activation = config_activation(c, "activation_function", ACT_GELU_TANH),
                           .bias = true};
    struct attention_spec attention = {.n_heads = config_int_in(c, "n_head", 1, 4096)};

    if (config_common_named(s, c, &keys, false, a))
        return -1;
    if (s->hidden_size % 4)
        return config_fail(c, "n_embd", "%d is no multiple of 4", s->hidden_size);
    attention.n_kv_heads = attention.n_heads;
    attention.head_dim = s->hidden_size / attention.n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = rope_plain(attention.head_dim, 10000);
    attention.rope.dims = config_int_or(c, "rotary_dim", 64);
    attention.rope.interleaved = true;
    mlp.intermediate_size =
        config_int_or(c, "n_inner", s->hidden_size <= 1 << 20 ? 4 * s->hidden_size : 0);
    s->lm_head_bias = true;
    spec_layers(s, norm, attention, mlp);
    for (int i = 0; i < s->n_layers; i++)
        s->layers[i].branches[1].parallel = s->layers[i].branches[1].shared_norm = true;
    config_ignore(c, "n_ctx", NULL);
    return 0;
}

static const struct weight_rule codegen_weights[] = {
    {"transformer.wte", EMBED_TOKENS},
    {"transformer.h.*.ln_1", PRE_NORM(0)},
    {"transformer.h.*.attn.qkv_proj",
     {.kind = TARGET_QVK_QUARTERS, .branch = 0, .first = ROLE_Q_PROJ, .n = 3}},
    {"transformer.h.*.attn.out_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.h.*.mlp.{fc_in,fc_out}", SLOTS(1, ROLE_UP_PROJ)},
    {"transformer.ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"transformer.h.*.attn.causal_mask", IGNORE},
    {NULL, IGNORE},
};

const struct family family_codegen = {
    .name = "CodeGen",
    .model_types = {"codegen"},
    .spec = codegen_spec,
    .weights = codegen_weights,
};
