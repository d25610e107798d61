/* models/qwen1.c: Qwen 1: Llama with a fused, biased q, k, v.
 *
 *     x += attention(rms_norm(x))
 *     x += c_proj(silu(w2(n)) * w1(n)),  n = rms_norm(x)
 *
 * arXiv:2309.16609
 */
#include "models/family.h"

static int qwen1_spec(struct spec *s, config *c, arena *a)
{
    struct norm_spec norm = {
        .kind = NORM_RMS,
        .eps = (float)config_float_or(c, "layer_norm_epsilon", 1e-6),
    };
    bool bias = !config_bool_or(c, "no_bias", true);
    struct mlp_spec mlp = {
        .intermediate_size = config_int(c, "intermediate_size") / 2, /* of both halves together */
        .activation = ACT_SILU,
        .gated = true,
        .bias = bias,
    };
    struct attention_spec attention;

    if (config_common(s, c, false, a))
        return -1;
    s->tie_by_file |= s->tie_word_embeddings; /* mlx-lm reads the head there is */
    attention = config_attention(c, s, config_float_or(c, "rotary_emb_base", 10000), a);
    attention.n_kv_heads = attention.n_heads; /* num_key_value_heads is no key of Qwen 1 */
    attention.qkv_bias = true;
    attention.o_bias = bias;
    if (config_int_or(c, "kv_channels", attention.head_dim) != attention.head_dim)
        return config_fail(c, "kv_channels",
                           "it differs from hidden_size / num_attention_heads, %d",
                           attention.head_dim);
    s->lm_head_bias = bias;
    spec_layers(s, norm, attention, mlp);
    config_ignore(c, "rotary_pct", "seq_length", "use_dynamic_ntk", "use_logn_attn",
                  "use_flash_attn", "bf16", "fp16", "fp32", "onnx_safe", "scale_attn_weights",
                  "emb_dropout_prob", "attn_dropout_prob", NULL);
    return 0;
}

static const struct weight_rule qwen1_weights[] = {
    {"transformer.wte", EMBED_TOKENS},
    {"transformer.h.*.ln_1", PRE_NORM(0)},
    {"transformer.h.*.attn.c_attn", ATTENTION_QKV(0)},
    {"transformer.h.*.attn.c_proj", SLOTS(0, ROLE_O_PROJ)},
    {"transformer.h.*.ln_2", PRE_NORM(1)},
    {"transformer.h.*.mlp.{w2,w1,c_proj}", MLP(1)},
    {"transformer.ln_f", FINAL_NORM},
    {"lm_head", LM_HEAD},
    {"transformer.rotary_emb**", IGNORE}, /* computed */
    {NULL, IGNORE},
};

const struct family family_qwen1 = {
    .name = "Qwen 1",
    .model_types = {"qwen"},
    .spec = qwen1_spec,
    .weights = qwen1_weights,
};
