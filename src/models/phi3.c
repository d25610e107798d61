/* models/phi3.c: Phi-3 and Phi-4 mini: Llama with fused projections and, for long contexts,
 * longrope.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2404.14219; longrope, 2402.13753
 */
#include "models/family.h"

static int phi3_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    struct attention_spec attention = {
        .n_heads = n_heads,
        .n_kv_heads = config_int_or(c, "num_key_value_heads", n_heads),
        .window = config_int_or(c, "sliding_window", 0),
    };
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_act", ACT_SILU),
        .gated = true,
    };

    if (config_common(s, c, false, a))
        return -1;
    attention.head_dim = config_int_or(c, "head_dim", s->hidden_size / n_heads);
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "original_max_position_embeddings", "embd_pdrop", "resid_pdrop", NULL);
    return 0;
}

static const struct weight_rule phi3_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.qkv_proj", ATTENTION_QKV(0)},
    {"model.layers.*.self_attn.o_proj", SLOTS(0, ROLE_O_PROJ)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.gate_up_proj", MLP_GATE_UP(1)},
    {"model.layers.*.mlp.down_proj", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_phi3 = {
    .name = "Phi-3, Phi-4 mini",
    .model_types = {"phi3"},
    .spec = phi3_spec,
    .weights = phi3_weights,
};
