/* models/olmo.c: OLMo 1: Llama with layer norms that have no weights, in AI2's own schema and in
 * that of transformers.
 *
 *     x += attention(layer_norm(x));  x += down(silu(gate(n)) * up(n)),  n = layer_norm(x)
 *
 * arXiv:2402.00838
 */
#include "models/family.h"

static int transformers_spec(struct spec *s, config *c, struct norm_spec norm, arena *a)
{
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    attention = config_attention(c, s, 10000, a);
    attention.clip_qkv = (float)config_float_or(c, "clip_qkv", 0);
    spec_layers(s, norm, attention, config_gated_mlp(c));
    return 0;
}

/* Here mlp_hidden_size counts both halves of the gated product. */
static int ai2_spec(struct spec *s, config *c, struct norm_spec norm, arena *a)
{
    int n_heads = config_int_in(c, "n_heads", 1, 4096);
    struct config_keys keys = {
        .vocab_size = config_has(c, "embedding_size") ? "embedding_size" : "vocab_size",
        .hidden_size = "d_model",
        .n_layers = "n_layers",
        .context_length = "max_sequence_length",
        .tie = "weight_tying",
    };
    struct attention_spec attention = {.n_heads = n_heads, .n_kv_heads = n_heads};
    struct mlp_spec mlp = {.activation = ACT_SILU, .gated = true};

    if (config_common_named(s, c, &keys, false, a))
        return -1;
    attention.head_dim = s->hidden_size / n_heads;
    attention.scale = attention_scale(attention.head_dim);
    attention.rope = config_rope(c, NULL, attention.head_dim, 10000, a);
    mlp.intermediate_size =
        config_int_or(c, "mlp_hidden_size", config_int_or(c, "mlp_ratio", 4) * s->hidden_size) / 2;
    config_ignore(c, "vocab_size", NULL);
    spec_layers(s, norm, attention, mlp);
    return 0;
}

static int olmo_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {.kind = NORM_LAYER, .eps = 1e-5f, .weightless = true};

    return config_has(c, "d_model") ? ai2_spec(s, c, norm, a) : transformers_spec(s, c, norm, a);
}

static const struct weight_rule olmo_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"lm_head", LM_HEAD},
    {"model.transformer.wte", EMBED_TOKENS},
    {"model.transformer.blocks.*.att_proj", ATTENTION_QKV(0)},
    {"model.transformer.blocks.*.attn_out", SLOTS(0, ROLE_O_PROJ)},
    {"model.transformer.blocks.*.ff_proj", MLP_UP_GATE(1)},
    {"model.transformer.blocks.*.ff_out", SLOTS(1, ROLE_DOWN_PROJ)},
    {"model.transformer.ff_out", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_olmo = {
    .name = "OLMo",
    .model_types = {"olmo"},
    .spec = olmo_spec,
    .weights = olmo_weights,
};
