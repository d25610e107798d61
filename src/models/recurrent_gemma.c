/* models/recurrent_gemma.c: RecurrentGemma: gated linear recurrences, and now and then attention to
 * the nearest tokens.
 *
 *     x += rg_lru(rms_norm(x)) or attention(rms_norm(x));  x += mlp(rms_norm(x))
 *
 * Griffin, arXiv:2402.19427; RecurrentGemma, 2404.07839
 */
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "models/family.h"

/* The kinds of blocks are repeated for as many layers as there are. */
static bool is_recurrent(config *c, int layer)
{
    const char *key = config_has(c, "block_types") ? "block_types" : "_block_types";
    const char *const *types;
    int n = config_strings(c, key, &types);
    const char *type;

    if (n < 0 && config_by_transformers(c))
        return layer % 3 != 2;
    if (n <= 0)
        return config_fail(c, "block_types", "it must say which layers are recurrent");
    type = types[layer % n];
    if (strcmp(type, "recurrent") != 0 && strcmp(type, "attention") != 0)
        config_fail(c, key, "unknown type \"%s\" of a block", type);
    return strcmp(type, "recurrent") == 0;
}

static struct attention_spec read_attention(config *c, const struct spec *s, bool later, arena *a)
{
    struct attention_spec at = config_attention_plain(c, s);

    at.n_kv_heads = later ? config_int_or(c, "num_key_value_heads", at.n_heads) : 1;
    at.o_bias = true;
    at.window = config_int_in(c, "attention_window_size", 1, INT32_MAX);
    at.rope = rope_plain(at.head_dim, 10000);
    at.rope.dims /= 2;
    if (later)
        at.rope = config_rope_part(c, at.head_dim, 10000, 0.5, a);
    config_ignore(c, "num_key_value_heads", "rope_theta", "rope_scaling", "partial_rotary_factor",
                  NULL);
    return at;
}

static int recurrent_gemma_spec(struct spec *s, config *c, arena *a)
{
    bool later = config_by_transformers(c);
    struct norm_spec norm = {.kind = NORM_RMS, .offset = 1};
    struct attention_spec attention;
    struct rg_lru_spec lru = {.conv_width = config_int_or(c, "conv1d_width", 4)};
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size") / 2,
        .activation = config_activation(c, "hidden_activation", ACT_GELU_TANH),
        .gated = true,
        .bias = true,
    };

    norm.eps = (float)config_float_or(c, "rms_norm_eps", 1e-6);
    if (config_common(s, c, true, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = read_attention(c, s, later, a);
    lru.activation = mlp.activation;
    lru.n_heads = attention.n_heads;
    lru.channels = config_int_or(c, "lru_width", s->hidden_size);
    if (config_bool_or(c, "embeddings_scale_by_sqrt_dim", true))
        s->embed_scale = (float)sqrt(s->hidden_size);
    if (later)
        s->embed_scale = bf16_to_f32(f32_to_bf16(s->embed_scale));
    s->logit_softcap = (float)config_cap_or_zero(c, "logits_soft_cap", 30);
    s->final_norm = norm;
    if (!later)
        norm.eps = 1e-5f; /* whatever the config says */
    for (int i = 0; i < s->n_layers && !config_error(c)->code; i++) {
        layer_add(&s->layers[i], is_recurrent(c, i) ? branch_rg_lru(norm, lru)
                                                    : branch_attention(norm, attention));
        layer_add(&s->layers[i], branch_mlp(norm, mlp));
    }
    config_ignore(c, "w_init_variance_scale", "final_w_init_variance_scale", NULL);
    return 0;
}

static const struct weight_rule recurrent_gemma_weights[] = {
    {"model.embed_tokens", EMBED_TOKENS},
    {"model.layers.*.temporal_pre_norm", PRE_NORM(0)},
    {"model.layers.*.temporal_block.{q,k,v,o}_proj", ATTENTION(0)},
    {"model.layers.*.temporal_block.{linear_y,linear_x,linear_out}", SLOTS(0, ROLE_RG_LRU_Y)},
    {"model.layers.*.temporal_block.conv_1d", CONV(0)},
    {"model.layers.*.temporal_block.rg_lru.{input,recurrent}_gate_weight",
     {.kind = TARGET_SLOTS, .branch = 0, .first = ROLE_RG_LRU_INPUT_GATE, .transposed = true}},
    {"model.layers.*.temporal_block.rg_lru.{input,recurrent}_gate_bias",
     {.kind = TARGET_SLOTS, .branch = 0, .first = ROLE_RG_LRU_INPUT_GATE, .bias = true}},
    {"model.layers.*.temporal_block.rg_lru.recurrent_param", SLOTS(0, ROLE_RG_LRU_DECAY)},
    {"model.layers.*.channel_pre_norm", PRE_NORM(1)},
    {"model.layers.*.mlp_block.{gate,up,down}_proj", MLP(1)},
    {"model.final_norm", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {NULL, IGNORE},
};

const struct family family_recurrent_gemma = {
    .name = "RecurrentGemma",
    .model_types = {"recurrent_gemma", "griffin"},
    .spec = recurrent_gemma_spec,
    .weights = recurrent_gemma_weights,
};
