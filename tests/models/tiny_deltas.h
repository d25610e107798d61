/* tests/models/tiny_deltas.h: the tensors of small checkpoints with delta rules, linear attention
 * and other recurrences, for tests/models/tiny.h. */
#ifndef TINY_DELTAS_H
#define TINY_DELTAS_H

/* 4 heads of values of 8, 2 heads of keys of 8; filters are 4 wide. */
enum { TINY_DELTA_KEYS = 2 * TINY_HEAD, TINY_DELTA_QKV = 2 * TINY_DELTA_KEYS + TINY_INNER };

static const struct tiny_row tiny_qwen3_next[] = {
    {"model.layers.0.linear_attn.in_proj_qkvz", TINY_DELTA_QKV + TINY_INNER, TINY_HIDDEN, 0},
    {"model.layers.0.linear_attn.in_proj_ba", 2 * TINY_HEADS, TINY_HIDDEN, 0},
    {"model.layers.0.linear_attn.conv1d", TINY_DELTA_QKV, TINY_WIDTH, 0},
    {"model.layers.0.linear_attn.A_log", TINY_HEADS, 0, 0},
    {"model.layers.0.linear_attn.dt_bias", TINY_HEADS, 0, 0},
    {"model.layers.0.linear_attn.norm", TINY_HEAD, 0, 0},
    {"model.layers.0.linear_attn.out_proj", TINY_HIDDEN, TINY_INNER, 0},
    {"model.layers.1.self_attn.q_proj", 2 * TINY_INNER, TINY_HIDDEN, 0},
    {"model.layers.1.self_attn.k_proj", TINY_KV, TINY_HIDDEN, 0},
    {"model.layers.1.self_attn.v_proj", TINY_KV, TINY_HIDDEN, 0},
    {"model.layers.1.self_attn.o_proj", TINY_HIDDEN, TINY_INNER, 0},
    {"model.layers.1.self_attn.q_norm", TINY_HEAD, 0, 0},
    {"model.layers.1.self_attn.k_norm", TINY_HEAD, 0, 0},
    {"model.layers.%d.mlp.shared_expert.gate_proj", TINY_EXPERT_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp.shared_expert.up_proj", TINY_EXPERT_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp.shared_expert.down_proj", TINY_HIDDEN, TINY_EXPERT_MLP, 0},
    {"model.layers.%d.mlp.shared_expert_gate", 1, TINY_HIDDEN, 0},
    {NULL, 0, 0, 0},
};

/* Norms and embeddings of those that have no o_proj in every layer. */
static const struct tiny_row tiny_normed[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.input_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.post_attention_layernorm", TINY_HIDDEN, 0, 0},
    {NULL, 0, 0, 0},
};

/* Its second layer attends to latents of 8. */
#define TINY_LATENT(at)                                                                            \
    {at ".kv_a_proj_with_mqa", 2 * TINY_HEAD, TINY_HIDDEN, 0},                                     \
        {at ".kv_a_layernorm", TINY_HEAD, 0, 0},                                                   \
    {                                                                                              \
        at ".kv_b_proj", 2 * TINY_INNER, TINY_HEAD, 0                                              \
    }

static const struct tiny_row tiny_kimi_k3[] = {
    {"model.layers.0.self_attn.qkv_proj", 3 * TINY_INNER, TINY_HIDDEN, 0},
    {"model.layers.0.self_attn.qkv_conv.conv", 3 * TINY_INNER, TINY_WIDTH, 0},
    {"model.layers.0.self_attn.f_a_proj", TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.0.self_attn.f_b_proj", TINY_INNER, TINY_HEAD, 0},
    {"model.layers.0.self_attn.g_a_proj", TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.0.self_attn.g_b_proj", TINY_INNER, TINY_HEAD, 0},
    {"model.layers.0.self_attn.b_proj", TINY_HEADS, TINY_HIDDEN, 0},
    {"model.layers.0.self_attn.A_log", TINY_HEADS, 0, 0},
    {"model.layers.0.self_attn.dt_bias", TINY_INNER, 0, 0},
    {"model.layers.0.self_attn.o_norm", TINY_HEAD, 0, 0},
    {"model.layers.%d.self_attn.o_proj", TINY_HIDDEN, TINY_INNER, 0},
    {"model.layers.1.self_attn.q_proj", 2 * TINY_INNER, TINY_HIDDEN, 0},
    TINY_LATENT("model.layers.1.self_attn"),
    {"model.layers.1.self_attn.g_proj", TINY_INNER, TINY_HIDDEN, 0},
    {"model.layers.%d.self_attention_res_proj", 1, TINY_HIDDEN, 0},
    {"model.layers.%d.self_attention_res_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.mlp_res_proj", 1, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp_res_norm", TINY_HIDDEN, 0, 0},
    {"model.output_attn_res_proj", 1, TINY_HIDDEN, 0},
    {"model.output_attn_res_norm", TINY_HIDDEN, 0, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_ring[] = {
    {"model.word_embeddings", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.input_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.post_attention_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.0.attention.query_key_value", 3 * TINY_INNER, TINY_HIDDEN, 0},
    {"model.layers.0.attention.g_proj", TINY_INNER, TINY_HIDDEN, 0},
    {"model.layers.0.attention.g_norm", TINY_INNER, 0, 0},
    {"model.layers.1.attention.q_proj", 2 * TINY_INNER, TINY_HIDDEN, 0},
    TINY_LATENT("model.layers.1.attention"),
    {"model.layers.%d.attention.dense", TINY_HIDDEN, TINY_INNER, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_recurrent_gemma[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.final_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.temporal_pre_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.channel_pre_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.0.temporal_block.linear_x", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.0.temporal_block.linear_x.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.0.temporal_block.linear_y", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.0.temporal_block.linear_y.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.0.temporal_block.linear_out", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.0.temporal_block.linear_out.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.0.temporal_block.conv_1d", TINY_HIDDEN, TINY_WIDTH, 0},
    {"model.layers.0.temporal_block.conv_1d.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.0.temporal_block.rg_lru.recurrent_param", TINY_HIDDEN, 0, 0},
    {"model.layers.0.temporal_block.rg_lru.input_gate_weight", TINY_HEAD, TINY_HEAD, TINY_HEADS},
    {"model.layers.0.temporal_block.rg_lru.recurrent_gate_weight", TINY_HEAD, TINY_HEAD,
     TINY_HEADS},
    {"model.layers.0.temporal_block.rg_lru.input_gate_bias", TINY_HEADS, TINY_HEAD, 0},
    {"model.layers.0.temporal_block.rg_lru.recurrent_gate_bias", TINY_HEADS, TINY_HEAD, 0},
    {"model.layers.1.temporal_block.q_proj", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.1.temporal_block.k_proj", TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.1.temporal_block.v_proj", TINY_HEAD, TINY_HIDDEN, 0},
    {"model.layers.1.temporal_block.o_proj", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.1.temporal_block.o_proj.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.mlp_block.gate_proj", TINY_MLP / 2, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp_block.up_proj", TINY_MLP / 2, TINY_HIDDEN, 0},
    {"model.layers.%d.mlp_block.down_proj", TINY_HIDDEN, TINY_MLP / 2, 0},
    {"model.layers.%d.mlp_block.gate_proj.bias", TINY_MLP / 2, 0, 0},
    {"model.layers.%d.mlp_block.up_proj.bias", TINY_MLP / 2, 0, 0},
    {"model.layers.%d.mlp_block.down_proj.bias", TINY_HIDDEN, 0, 0},
    {NULL, 0, 0, 0},
};

#define TINY_LORA(at)                                                                              \
    {at ".lora.0", TINY_HEAD, TINY_HIDDEN, 0},                                                     \
    {                                                                                              \
        at ".lora.2", TINY_HIDDEN, TINY_HEAD, 0                                                    \
    }

static const struct tiny_row tiny_rwkv7[] = {
    {"model.embeddings", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.norm", TINY_HIDDEN, 0, 0},
    {"model.norm.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.0.pre_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.0.pre_norm.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn_norm.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.ffn_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.ffn_norm.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.x_r", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.x_w", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.x_k", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.x_v", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.x_a", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.x_g", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.k_k", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.k_a", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.r_k", TINY_HEADS, TINY_HEAD, 0},
    {"model.layers.%d.attn.g_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.g_norm.bias", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.attn.r_proj", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.%d.attn.k_proj", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.%d.attn.v_proj", TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.%d.attn.o_proj", TINY_HIDDEN, TINY_HIDDEN, 0},
    TINY_LORA("model.layers.%d.attn.w_lora"),
    {"model.layers.%d.attn.w_lora.lora.2.bias", TINY_HIDDEN, 0, 0},
    TINY_LORA("model.layers.%d.attn.a_lora"),
    {"model.layers.%d.attn.a_lora.lora.2.bias", TINY_HIDDEN, 0, 0},
    TINY_LORA("model.layers.1.attn.v_lora"),
    {"model.layers.1.attn.v_lora.lora.2.bias", TINY_HIDDEN, 0, 0},
    TINY_LORA("model.layers.%d.attn.g_lora"),
    {"model.layers.%d.ffn.key", TINY_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.ffn.value", TINY_HIDDEN, TINY_MLP, 0},
    {"model.layers.%d.ffn.x_k", TINY_HIDDEN, 0, 0},
    {NULL, 0, 0, 0},
};

#endif
