/* models/mllama.c: the text of Llama 3.2 Vision: Llama, with layers between that attend to
 * pictures and are passed over where there are none.
 *
 *     x += attention(rms_norm(x))
 *     x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2407.21783, section 7
 */
#include "models/family.h"

/* Rows behind the vocabulary, for pictures; the head has none for them. */
#define MORE_EMBEDDINGS 8

static bool sees_pictures(config *c, int layer)
{
    const int *list;
    int n = config_ints(c, "cross_attention_layers", &list);

    if (n < 0)
        return layer % 5 == 3 && layer < 40;
    for (int i = 0; i < n; i++)
        if (list[i] == layer)
            return true;
    return false;
}

static int mllama_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = config_rms_norm(c);
    struct mlp_spec mlp = {.gated = true,
                           .activation = config_activation(c, "hidden_act", ACT_SILU),
                           .intermediate_size = config_int(c, "intermediate_size")};
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    s->embed_rows = s->vocab_size + MORE_EMBEDDINGS;
    attention = config_attention(c, s, 500000, a);
    attention.qkv_bias = attention.o_bias = false;
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        s->layers[i].left_out = sees_pictures(c, i);
        if (s->layers[i].left_out)
            continue;
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "dropout", NULL);
    return 0;
}

static const struct weight_rule mllama_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.cross_attn.**", IGNORE},
    {"model.layers.*.{cross_attn_attn_gate,cross_attn_mlp_gate}", IGNORE},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_mllama = {
    .name = "Llama 3.2 Vision",
    .model_types = {"mllama", "mllama_text_model"},
    .spec = mllama_spec,
    .weights = mllama_weights,
};
