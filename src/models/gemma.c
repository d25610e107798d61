/* models/gemma.c: Gemma 1 and 2. Norm weights are stored as w - 1, embeddings are multiplied by
 * sqrt(hidden_size).
 *
 *     Gemma 1    x += attention(norm(x));        x += mlp(norm(x))
 *     Gemma 2    x += norm(attention(norm(x)));  x += norm(mlp(norm(x))), scores and logits
 * soft-capped
 *
 * Gemma, arXiv:2403.08295; Gemma 2, 2408.00118
 */
#include <math.h>
#include <string.h>

#include "models/family.h"

static struct norm_spec gemma_norm(config *c)
{
    struct norm_spec norm = config_rms_norm(c);

    norm.offset = 1;
    return norm;
}

static struct attention_spec gemma_attention(struct spec *s, config *c, arena *a)
{
    bool bias = config_bool_or(c, "attention_bias", false);
    int n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    int head_dim = config_int_or(c, "head_dim", 256);

    s->embed_scale = (float)sqrt(s->hidden_size);
    s->tie_by_file = true; /* converters drop the head whatever the config says */
    return (struct attention_spec){
        .n_heads = n_heads,
        .n_kv_heads = config_int_or(c, "num_key_value_heads", n_heads),
        .head_dim = head_dim,
        .qkv_bias = bias,
        .o_bias = bias,
        .scale = attention_scale(head_dim),
        .rope = config_rope(c, NULL, head_dim, 10000, a),
    };
}

/* hidden_activation came after hidden_act and is what the models were trained with. */
static struct mlp_spec gemma_mlp(config *c, enum activation otherwise)
{
    enum activation act = config_activation(c, "hidden_act", otherwise);

    return (struct mlp_spec){
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_activation", act),
        .gated = true,
    };
}

static int gemma_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = gemma_norm(c);
    struct mlp_spec mlp = gemma_mlp(c, ACT_GELU);
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    attention = gemma_attention(s, c, a);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        layer_add(&s->layers[i], branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "use_bidirectional_attention", NULL);
    return 0;
}

/* Every other layer slides, the first one included, where the config says so by layer_types or by
 * the "hybrid" cache that came before it, or transformers wrote it. mlx-lm slides in neither case.
 */
static int gemma2_window(config *c, int layer)
{
    const char *cache = config_string_or(c, "cache_implementation", "");
    bool slides = strcmp(cache, "hybrid") == 0 || config_by_transformers(c);
    int window = slides ? config_window_size(c, "sliding_window", 4096) : 0;

    config_ignore(c, "sliding_window", NULL);
    return config_window(c, layer, layer % 2 == 0 ? window : 0);
}

static int gemma2_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = gemma_norm(c);
    struct mlp_spec mlp = gemma_mlp(c, ACT_GELU_TANH);
    struct attention_spec attention;

    if (config_common(s, c, true, a))
        return -1;
    attention = gemma_attention(s, c, a);
    attention.scale = (float)(1 / sqrt(config_float_or(c, "query_pre_attn_scalar", 256)));
    attention.softcap = (float)config_cap(c, "attn_logit_softcapping", 50);
    s->logit_softcap = (float)config_cap(c, "final_logit_softcapping", 30);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = gemma2_window(c, i);
        layer_add(&s->layers[i], branch_attention(norm, attention))->post_norm = norm;
        layer_add(&s->layers[i], branch_mlp(norm, mlp))->post_norm = norm;
    }
    config_ignore(c, "use_bidirectional_attention", "sliding_window_size", NULL);
    return 0;
}

/* Gemma 2 without the norms after the blocks. */
static int vaultgemma_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec none = {0};

    if (gemma2_spec(s, c, a))
        return -1;
    for (int i = 0; i < s->n_layers; i++)
        s->layers[i].branches[0].post_norm = s->layers[i].branches[1].post_norm = none;
    return 0;
}

static const struct weight_rule gemma_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

static const struct weight_rule gemma2_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"model.layers.*.self_attn.rotary_emb.**", IGNORE}, /* computed from rope_theta */
    {NULL, IGNORE},
};

const struct family family_gemma = {
    .name = "Gemma",
    .model_types = {"gemma", "paligemma"},
    .spec = gemma_spec,
    .weights = gemma_weights,
};

const struct family family_gemma2 = {
    .name = "Gemma 2",
    .model_types = {"gemma2"},
    .spec = gemma2_spec,
    .weights = gemma2_weights,
};

const struct family family_vaultgemma = {
    .name = "VaultGemma",
    .model_types = {"vaultgemma"},
    .spec = vaultgemma_spec,
    .weights = gemma_weights,
};
