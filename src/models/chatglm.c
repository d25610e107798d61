/* models/chatglm.c: ChatGLM 2 and 3, GLM-4 as first published: GLM-4 under other names.
 *
 *     x += attention(rms_norm(x));  x += down(silu(gate(n)) * up(n)),  n = rms_norm(x)
 *
 * arXiv:2406.12793
 */
#include "models/family.h"

static void refuse_others(config *c)
{
    if (config_has(c, "position_encoding_2d"))
        config_fail(
            c, "position_encoding_2d",
            "ChatGLM 1, whose prompts see what comes after: only 2 and later are supported");
    if (config_bool_or(c, "apply_residual_connection_post_layernorm", false))
        config_fail(c, "apply_residual_connection_post_layernorm", "only false is supported");
    if (config_bool_or(c, "interleaved_qkv", false))
        config_fail(c, "interleaved_qkv", "only false is supported");
}

static int chatglm_spec(struct spec *s, config *c, arena *a)
{
    static const struct config_keys keys = {
        .vocab_size = "padded_vocab_size",
        .hidden_size = "hidden_size",
        .n_layers = "num_layers",
        .context_length = "seq_length",
        .tie = "tie_word_embeddings",
    };
    bool bias = config_bool_or(c, "add_bias_linear", false);
    bool rms = config_bool_or(c, "rmsnorm", true);
    struct norm_spec norm = {.kind = rms ? NORM_RMS : NORM_LAYER,
                             .eps = (float)config_float_or(c, "layernorm_epsilon", 1e-5),
                             .bias = !rms};
    struct mlp_spec mlp = {.activation = ACT_SILU, .gated = true, .bias = bias};
    bool grouped = config_bool_or(c, "multi_query_attention", false);
    struct attention_spec attention = {.o_bias = bias, .qkv_apart = grouped};
    double theta = 10000 * config_float_or(c, "rope_ratio", 1);

    refuse_others(c);
    if (config_common_named(s, c, &keys, false, a))
        return -1;
    mlp.intermediate_size = config_int(c, "ffn_hidden_size");
    attention.n_heads = config_int_in(c, "num_attention_heads", 1, 4096);
    attention.n_kv_heads =
        grouped ? config_int_or(c, "multi_query_group_num", 1) : attention.n_heads;
    attention.head_dim = config_int(c, "kv_channels");
    attention.scale = attention_scale(attention.head_dim);
    attention.qkv_bias = config_bool_or(c, "add_qkv_bias", false) || bias;
    attention.rope = rope_plain(attention.head_dim, theta);
    attention.rope.dims = attention.head_dim / 2;
    attention.rope.interleaved = true;
    spec_layers(s, norm, attention, mlp);
    if (!config_bool_or(c, "post_layer_norm", true))
        s->final_norm.kind = NORM_NONE;
    config_ignore(c, "vocab_size", "multi_query_group_num", "original_rope",
                  "apply_query_key_layer_scaling", "attention_softmax_in_fp32",
                  "bias_dropout_fusion", "fp32_residual_connection", NULL);
    return 0;
}

/* With as many keys as queries, they lie head by head. */
static const struct weight_rule chatglm_weights[] = {
    {"embedding.word_embeddings", EMBED_TOKENS},
    {"encoder.layers.*.input_layernorm", PRE_NORM(0)},
    {"encoder.layers.*.self_attention.query_key_value", ATTENTION_GROUPED_QKV(0)},
    {"encoder.layers.*.self_attention.dense", SLOTS(0, ROLE_O_PROJ)},
    {"encoder.layers.*.post_attention_layernorm", PRE_NORM(1)},
    {"encoder.layers.*.mlp.dense_h_to_4h", MLP_GATE_UP(1)},
    {"encoder.layers.*.mlp.dense_4h_to_h", SLOTS(1, ROLE_DOWN_PROJ)},
    {"encoder.final_layernorm", FINAL_NORM},
    {"output_layer", LM_HEAD},
    {"rotary_pos_emb.**", IGNORE}, /* computed from rope_ratio */
    {"prefix_encoder.**", IGNORE}, /* of P-tuning */
    {NULL, IGNORE},
};

static const struct weight_prefix chatglm_prefixes[] = {{"transformer.", ""}, {NULL, NULL}};

const struct family family_chatglm = {
    .name = "ChatGLM",
    .model_types = {"chatglm"},
    .spec = chatglm_spec,
    .weights = chatglm_weights,
    .prefixes = chatglm_prefixes,
};
