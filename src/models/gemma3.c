/* models/gemma3.c: Gemma 3: sandwich norms, normalised queries and keys, mostly sliding layers.
 *
 *     x += norm(attention(norm(x)));  x += norm(mlp(norm(x)))
 *
 * Sliding layers turn with one theta, full ones with another that may be scaled. The
 * vision-language wrapper
 * ("gemma3") holds the language model's config in text_config. arXiv:2503.19786
 */
#include <math.h>

#include "base/number.h"
#include "models/family.h"

/* What the config of each layer's attention hangs on. */
struct gemma3_layers {
    int window, pattern;
    struct rope_spec full, sliding;
};

/* Every pattern-th layer sees everything. */
static int window_of(config *c, const struct gemma3_layers *l, int layer)
{
    return config_window(c, layer, (layer + 1) % l->pattern ? l->window : 0);
}

static struct gemma3_layers read_layers(config *c, int head_dim, arena *a)
{
    struct gemma3_layers l = {
        .window = config_window_size(c, "sliding_window", 512),
        .pattern = 6,
        .full = config_rope(c, "full_attention", head_dim, 1000000, a),
        .sliding = config_rope_sliding(c, head_dim, a),
    };

    if (config_has(c, "sliding_window_pattern"))
        l.pattern = config_int_in(c, "sliding_window_pattern", 1, 4096);
    else if (config_has(c, "_sliding_window_pattern"))
        l.pattern = config_int_in(c, "_sliding_window_pattern", 1, 4096);
    config_ignore(c, "_sliding_window_pattern", NULL);
    return l;
}

static int text_spec(struct spec *s, config *c, int n_heads, int n_kv_heads, arena *a)
{
    struct norm_spec norm = {
        .kind = NORM_RMS,
        .eps = (float)config_float_or(c, "rms_norm_eps", 1e-6),
        .offset = 1,
    };
    bool bias = config_bool_or(c, "attention_bias", false);
    struct attention_spec attention = {
        .n_heads = config_int_or(c, "num_attention_heads", n_heads),
        .n_kv_heads = config_int_or(c, "num_key_value_heads", n_kv_heads),
        .head_dim = config_int_or(c, "head_dim", 256),
        .qkv_bias = bias,
        .o_bias = bias,
        .q_norm = norm,
        .k_norm = norm,
        .scale = (float)(1 / sqrt(config_float_or(c, "query_pre_attn_scalar", 256))),
    };
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size"),
        .activation = config_activation(c, "hidden_activation", ACT_GELU_TANH),
        .gated = true,
    };
    struct gemma3_layers layers = read_layers(c, attention.head_dim, a);

    if (config_common(s, c, true, a))
        return -1;
    s->tie_by_file |= !config_by_transformers(c); /* mlx-lm goes by it whatever the key says */
    s->embed_scale = (float)sqrt(s->hidden_size);
    if (!config_has(c, "rope_parameters")) /* else as transformers has it for f32 */
        s->embed_scale = bf16_to_f32(f32_to_bf16(s->embed_scale));
    s->logit_softcap = (float)config_cap(c, "final_logit_softcapping", 0);
    s->final_norm = norm;
    for (int i = 0; i < s->n_layers; i++) {
        attention.window = window_of(c, &layers, i);
        attention.rope = attention.window ? layers.sliding : layers.full;
        layer_add(&s->layers[i], branch_attention(norm, attention))->post_norm = norm;
        layer_add(&s->layers[i], branch_mlp(norm, mlp))->post_norm = norm;
    }
    config_ignore(c, "hidden_act", NULL);
    if (config_bool_or(c, "use_bidirectional_attention", false))
        return config_fail(c, "use_bidirectional_attention",
                           "a token sees what comes after it: such models make no text");
    return 0;
}

static int gemma3_spec(struct spec *s, config *c, arena *a)
{
    config *text = config_object(c, "text_config");

    if (!text) {
        s->vocab_size = 262144;
        return text_spec(s, c, 4, 1, a);
    }
    config_ignore(c, "vision_config", "mm_tokens_per_image", "image_token_index", "boi_token_index",
                  "eoi_token_index", NULL);
    config_ignore(c, "tie_word_embeddings", NULL); /* the text's own counts, else the file */
    config_ignore(text, "model_type", NULL);
    s->vocab_size = config_int_or(c, "vocab_size", 262208);
    return text_spec(s, text, 8, 4, a);
}

static const struct weight_rule gemma3_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.input_layernorm", PRE_NORM(0)},
    {"model.layers.*.self_attn.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.self_attn.{q,k}_norm", ATTENTION_NORMS(0)},
    {"model.layers.*.post_attention_layernorm", POST_NORM(0)},
    {"model.layers.*.pre_feedforward_layernorm", PRE_NORM(1)},
    {"model.layers.*.mlp.{gate,up,down}_proj", MLP(1)},
    {"model.layers.*.post_feedforward_layernorm", POST_NORM(1)},
    {"model.norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_gemma3 = {
    .name = "Gemma 3",
    .model_types = {"gemma3_text", "gemma3", "shieldgemma2"},
    .spec = gemma3_spec,
    .reads_text_config = true,
    .weights = gemma3_weights,
};
