/* tests/models/tiny_states.h: the tensors of small checkpoints with recurrent mixers and short
 * convolutions, for tests/models/tiny.h. */
#ifndef TINY_STATES_H
#define TINY_STATES_H

/* A name that gives its layer is of this layer alone. State spaces have 4 heads of 8, or 64
 * channels, and states of 8; filters are 4 wide. */
enum {
    TINY_STATE = 8,
    TINY_WIDTH = 4,
    TINY_CHANNELS = 64,
    TINY_INNER = TINY_HEADS * TINY_HEAD,
    TINY_BC = TINY_INNER + 2 * TINY_STATE,
    TINY_ZXBCDT = TINY_INNER + TINY_BC + TINY_HEADS,
    TINY_KV = TINY_KV_HEADS * TINY_HEAD
};

#define TINY_MAMBA2(at)                                                                            \
    {at ".in_proj", TINY_ZXBCDT, TINY_HIDDEN, 0}, {at ".conv1d", TINY_WIDTH, 1, TINY_BC},          \
        {at ".conv1d.bias", TINY_BC, 0, 0}, {at ".A_log", TINY_HEADS, 0, 0},                       \
        {at ".D", TINY_HEADS, 0, 0}, {at ".dt_bias", TINY_HEADS, 0, 0},                            \
        {at ".norm", TINY_INNER, 0, 0},                                                            \
    {                                                                                              \
        at ".out_proj", TINY_HIDDEN, TINY_INNER, 0                                                 \
    }

#define TINY_MAMBA(at)                                                                             \
    {at ".in_proj", 2 * TINY_CHANNELS, TINY_HIDDEN, 0},                                            \
        {at ".conv1d", TINY_CHANNELS, TINY_WIDTH, 0}, {at ".conv1d.bias", TINY_CHANNELS, 0, 0},    \
        {at ".x_proj", 2 + 2 * TINY_STATE, TINY_CHANNELS, 0},                                      \
        {at ".dt_proj", TINY_CHANNELS, 2, 0}, {at ".dt_proj.bias", TINY_CHANNELS, 0, 0},           \
        {at ".A_log", TINY_CHANNELS, TINY_STATE, 0}, {at ".D", TINY_CHANNELS, 0, 0},               \
    {                                                                                              \
        at ".out_proj", TINY_HIDDEN, TINY_CHANNELS, 0                                              \
    }

#define TINY_ATTENTION(at, out)                                                                    \
    {at ".q_proj", TINY_INNER, TINY_HIDDEN, 0}, {at ".k_proj", TINY_KV, TINY_HIDDEN, 0},           \
        {at ".v_proj", TINY_KV, TINY_HIDDEN, 0},                                                   \
    {                                                                                              \
        at out, TINY_HIDDEN, TINY_INNER, 0                                                         \
    }

#define TINY_GLU(at, gate, up, down)                                                               \
    {at gate, TINY_MLP, TINY_HIDDEN, 0}, {at up, TINY_MLP, TINY_HIDDEN, 0},                        \
    {                                                                                              \
        at down, TINY_HIDDEN, TINY_MLP, 0                                                          \
    }

static const struct tiny_row tiny_lfm2[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.embedding_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.operator_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.ffn_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.0.conv.in_proj", 3 * TINY_HIDDEN, TINY_HIDDEN, 0},
    {"model.layers.0.conv.conv", TINY_HIDDEN, 3, 0},
    {"model.layers.0.conv.out_proj", TINY_HIDDEN, TINY_HIDDEN, 0},
    TINY_ATTENTION("model.layers.1.self_attn", ".out_proj"),
    {"model.layers.1.self_attn.q_layernorm", TINY_HEAD, 0, 0},
    {"model.layers.1.self_attn.k_layernorm", TINY_HEAD, 0, 0},
    TINY_GLU("model.layers.0.feed_forward", ".w1", ".w3", ".w2"),
    {"model.layers.1.feed_forward.gate", TINY_EXPERTS, TINY_HIDDEN, 0},
    {"model.layers.1.feed_forward.expert_bias", TINY_EXPERTS, 0, 0},
    TINY_GLU("model.layers.1.feed_forward.experts.#", ".w1", ".w3", ".w2"),
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_mamba2[] = {
    {"backbone.embeddings", TINY_VOCAB, TINY_HIDDEN, 0},
    {"backbone.norm_f", TINY_HIDDEN, 0, 0},
    {"backbone.layers.%d.norm", TINY_HIDDEN, 0, 0},
    TINY_MAMBA2("backbone.layers.%d.mixer"),
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_mamba[] = {
    {"backbone.embeddings", TINY_VOCAB, TINY_HIDDEN, 0},
    {"backbone.norm_f", TINY_HIDDEN, 0, 0},
    {"backbone.layers.%d.norm", TINY_HIDDEN, 0, 0},
    TINY_MAMBA("backbone.layers.%d.mixer"),
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_nemotron_h[] = {
    {"backbone.embeddings", TINY_VOCAB, TINY_HIDDEN, 0},
    {"backbone.norm_f", TINY_HIDDEN, 0, 0},
    {"backbone.layers.0.norm", TINY_HIDDEN, 0, 0},
    {"backbone.layers.1.norm", TINY_HIDDEN, 0, 0},
    {"backbone.layers.2.norm", TINY_HIDDEN, 0, 0},
    {"backbone.layers.3.norm", TINY_HIDDEN, 0, 0},
    TINY_MAMBA2("backbone.layers.0.mixer"),
    TINY_ATTENTION("backbone.layers.1.mixer", ".o_proj"),
    {"backbone.layers.2.mixer.up_proj", TINY_MLP, TINY_HIDDEN, 0},
    {"backbone.layers.2.mixer.down_proj", TINY_HIDDEN, TINY_MLP, 0},
    {"backbone.layers.3.mixer.gate", TINY_EXPERTS, TINY_HIDDEN, 0},
    {"backbone.layers.3.mixer.gate.e_score_correction_bias", TINY_EXPERTS, 0, 0},
    {"backbone.layers.3.mixer.fc1_latent_proj", TINY_INNER / 2, TINY_HIDDEN, 0},
    {"backbone.layers.3.mixer.fc2_latent_proj", TINY_HIDDEN, TINY_INNER / 2, 0},
    {"backbone.layers.3.mixer.switch_mlp.fc1", TINY_MLP, TINY_INNER / 2, TINY_EXPERTS},
    {"backbone.layers.3.mixer.switch_mlp.fc2", TINY_INNER / 2, TINY_MLP, TINY_EXPERTS},
    {"backbone.layers.3.mixer.shared_experts.up_proj", TINY_MLP, TINY_HIDDEN, 0},
    {"backbone.layers.3.mixer.shared_experts.down_proj", TINY_HIDDEN, TINY_MLP, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_granite4[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.input_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.post_attention_layernorm", TINY_HIDDEN, 0, 0},
    TINY_MAMBA2("model.layers.0.mamba"),
    TINY_ATTENTION("model.layers.1.self_attn", ".o_proj"),
    {"model.layers.%d.shared_mlp.input_linear", 2 * TINY_MLP, TINY_HIDDEN, 0},
    {"model.layers.%d.shared_mlp.output_linear", TINY_HIDDEN, TINY_MLP, 0},
    {"model.layers.%d.block_sparse_moe.router.layer", TINY_EXPERTS, TINY_HIDDEN, 0},
    {"model.layers.%d.block_sparse_moe.input_linear", 2 * TINY_MLP, TINY_HIDDEN, TINY_EXPERTS},
    {"model.layers.%d.block_sparse_moe.output_linear", TINY_HIDDEN, TINY_MLP, TINY_EXPERTS},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_falcon_h1[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.final_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.input_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.pre_ff_layernorm", TINY_HIDDEN, 0, 0},
    TINY_MAMBA2("model.layers.%d.mamba"),
    TINY_ATTENTION("model.layers.%d.self_attn", ".o_proj"),
    TINY_GLU("model.layers.%d.feed_forward", ".gate_proj", ".up_proj", ".down_proj"),
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_jamba[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.final_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.input_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.pre_ff_layernorm", TINY_HIDDEN, 0, 0},
    TINY_MAMBA("model.layers.0.mamba"),
    {"model.layers.0.mamba.b_layernorm", TINY_STATE, 0, 0},
    {"model.layers.0.mamba.c_layernorm", TINY_STATE, 0, 0},
    {"model.layers.0.mamba.dt_layernorm", 2, 0, 0},
    TINY_ATTENTION("model.layers.1.self_attn", ".o_proj"),
    TINY_GLU("model.layers.0.feed_forward", ".gate_proj", ".up_proj", ".down_proj"),
    {"model.layers.1.feed_forward.router", TINY_EXPERTS, TINY_HIDDEN, 0},
    TINY_GLU("model.layers.1.feed_forward.experts.#", ".gate_proj", ".up_proj", ".down_proj"),
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_plamo2[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.norm", TINY_HIDDEN, 0, 0},
    {"model.layers.layers.%d.pre_mixer_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.layers.%d.post_mixer_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.layers.%d.pre_mlp_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.layers.%d.post_mlp_norm", TINY_HIDDEN, 0, 0},
    {"model.layers.layers.0.mixer.in_proj", 2 * TINY_INNER, TINY_HIDDEN, 0},
    {"model.layers.layers.0.mixer.conv1d", TINY_INNER, TINY_WIDTH, 0},
    {"model.layers.layers.0.mixer.bcdt_proj", 64 + 2 * TINY_STATE, TINY_INNER, 0},
    {"model.layers.layers.0.mixer.B_norm_weight", TINY_STATE, 0, 0},
    {"model.layers.layers.0.mixer.C_norm_weight", TINY_STATE, 0, 0},
    {"model.layers.layers.0.mixer.dt_norm_weight", 64, 0, 0},
    {"model.layers.layers.0.mixer.dt_proj", TINY_HEADS, 64, 0},
    {"model.layers.layers.0.mixer.A_log", TINY_HEADS, 0, 0},
    {"model.layers.layers.0.mixer.D", TINY_HEADS, 0, 0},
    {"model.layers.layers.0.mixer.dt_bias", TINY_HEADS, 0, 0},
    {"model.layers.layers.0.mixer.out_proj", TINY_HIDDEN, TINY_INNER, 0},
    {"model.layers.layers.1.mixer.qkv_proj", TINY_QKV, TINY_HIDDEN, 0},
    {"model.layers.layers.1.mixer.o_proj", TINY_HIDDEN, TINY_INNER, 0},
    {"model.layers.layers.1.mixer.q_weight", TINY_HEADS, TINY_HEAD, 0},
    {"model.layers.layers.1.mixer.k_weight", TINY_KV_HEADS, TINY_HEAD, 0},
    {"model.layers.layers.%d.mlp.gate_up_proj", 2 * TINY_MLP, TINY_HIDDEN, 0},
    {"model.layers.layers.%d.mlp.down_proj", TINY_HIDDEN, TINY_MLP, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_gear[] = {
    {"model.embed_tokens", TINY_VOCAB, TINY_HIDDEN, 0},
    {"model.norm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.input_layernorm", TINY_HIDDEN, 0, 0},
    {"model.layers.%d.post_attention_layernorm", TINY_HIDDEN, 0, 0},
    TINY_ATTENTION("model.layers.0.local_mixer", ".o_proj"),
    {"model.layers.0.local_mixer.q_norm", TINY_HEAD, 0, 0},
    {"model.layers.0.local_mixer.k_norm", TINY_HEAD, 0, 0},
    {"model.layers.0.local_mixer.key_conv", TINY_KV, 3, 0},
    {"model.layers.0.local_mixer.value_conv", TINY_KV, 3, 0},
    TINY_ATTENTION("model.layers.1.self_attn", ".o_proj"),
    {"model.layers.1.self_attn.q_norm", TINY_HEAD, 0, 0},
    {"model.layers.1.self_attn.k_norm", TINY_HEAD, 0, 0},
    {NULL, 0, 0, 0},
};

static const struct tiny_row tiny_baichuan_m1[] = {
    {"model.layers.%d.self_attn.W_pack", TINY_QKV, TINY_HIDDEN, 0},
    {"model.layers.%d.self_attn.conv_k", TINY_KV_HEADS, 2, 0},
    {"model.layers.%d.self_attn.conv_v", TINY_KV_HEADS, 2, 0},
    {NULL, 0, 0, 0},
};

#define TINY_MAMBA_KEYS                                                                            \
    ", \"mamba_n_heads\": 4, \"mamba_d_head\": 8, \"mamba_n_groups\": 1, \"mamba_d_state\": 8, "   \
    "\"mamba_d_conv\": 4, \"mamba_expand\": 1, \"mamba_conv_bias\": true, "                        \
    "\"mamba_proj_bias\": false"

#endif
