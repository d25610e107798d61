#include "cli/shapes.h"

#include <string.h>

/* The numbers are those of the models' own config.json files. */
const struct shape shapes[] = {
    {"llama-3.2-1b", 16,
     "\"model_type\": \"llama\", \"vocab_size\": 128256, \"hidden_size\": 2048,"
     "\"intermediate_size\": 8192, \"num_attention_heads\": 32, \"num_key_value_heads\": 8,"
     "\"head_dim\": 64, \"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-05,"
     "\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32.0,"
     "\"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0,"
     "\"original_max_position_embeddings\": 8192}, \"hidden_act\": \"silu\","
     "\"tie_word_embeddings\": true"},
    {"llama-3.1-8b", 32,
     "\"model_type\": \"llama\", \"vocab_size\": 128256, \"hidden_size\": 4096,"
     "\"intermediate_size\": 14336, \"num_attention_heads\": 32, \"num_key_value_heads\": 8,"
     "\"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0,"
     "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"high_freq_factor\": 4.0,"
     "\"low_freq_factor\": 1.0, \"original_max_position_embeddings\": 8192},"
     "\"hidden_act\": \"silu\", \"tie_word_embeddings\": false"},
    {"qwen3-0.6b", 28,
     "\"model_type\": \"qwen3\", \"vocab_size\": 151936, \"hidden_size\": 1024,"
     "\"intermediate_size\": 3072, \"num_attention_heads\": 16, \"num_key_value_heads\": 8,"
     "\"head_dim\": 128, \"max_position_embeddings\": 40960, \"rms_norm_eps\": 1e-06,"
     "\"rope_theta\": 1000000, \"rope_scaling\": null, \"hidden_act\": \"silu\","
     "\"attention_bias\": false, \"tie_word_embeddings\": true"},
    {"qwen3-30b-a3b", 48,
     "\"model_type\": \"qwen3_moe\", \"vocab_size\": 151936, \"hidden_size\": 2048,"
     "\"intermediate_size\": 6144, \"moe_intermediate_size\": 768, \"num_experts\": 128,"
     "\"num_experts_per_tok\": 8, \"norm_topk_prob\": true, \"decoder_sparse_step\": 1,"
     "\"mlp_only_layers\": [], \"num_attention_heads\": 32, \"num_key_value_heads\": 4,"
     "\"head_dim\": 128, \"max_position_embeddings\": 40960, \"rms_norm_eps\": 1e-06,"
     "\"rope_theta\": 1000000.0, \"rope_scaling\": null, \"hidden_act\": \"silu\","
     "\"attention_bias\": false, \"tie_word_embeddings\": false"},
    {"gemma-3-4b", 34,
     "\"model_type\": \"gemma3_text\", \"vocab_size\": 262208, \"hidden_size\": 2560,"
     "\"intermediate_size\": 10240, \"num_attention_heads\": 8, \"num_key_value_heads\": 4,"
     "\"head_dim\": 256, \"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-06,"
     "\"rope_theta\": 1000000.0, \"rope_local_base_freq\": 10000.0,"
     "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0}, \"sliding_window\": 1024,"
     "\"sliding_window_pattern\": 6, \"query_pre_attn_scalar\": 256,"
     "\"hidden_activation\": \"gelu_pytorch_tanh\""},
    {"tinyllama-1.1b", 22,
     "\"model_type\": \"llama\", \"vocab_size\": 32000, \"hidden_size\": 2048,"
     "\"intermediate_size\": 5632, \"num_attention_heads\": 32, \"num_key_value_heads\": 4,"
     "\"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0,"
     "\"rope_scaling\": null, \"hidden_act\": \"silu\", \"tie_word_embeddings\": false"},
    {"deepseek-v2-lite", 27,
     "\"model_type\": \"deepseek_v2\", \"vocab_size\": 102400, \"hidden_size\": 2048,"
     "\"intermediate_size\": 10944, \"moe_intermediate_size\": 1408, \"n_routed_experts\": 64,"
     "\"n_shared_experts\": 2, \"num_experts_per_tok\": 6, \"first_k_dense_replace\": 1,"
     "\"moe_layer_freq\": 1, \"n_group\": 1, \"topk_group\": 1, \"topk_method\": \"greedy\","
     "\"scoring_func\": \"softmax\", \"norm_topk_prob\": false, \"routed_scaling_factor\": 1.0,"
     "\"num_attention_heads\": 16, \"num_key_value_heads\": 16, \"q_lora_rank\": null,"
     "\"kv_lora_rank\": 512, \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64,"
     "\"v_head_dim\": 128, \"max_position_embeddings\": 163840, \"rms_norm_eps\": 1e-06,"
     "\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40,"
     "\"beta_fast\": 32, \"beta_slow\": 1, \"mscale\": 0.707, \"mscale_all_dim\": 0.707,"
     "\"original_max_position_embeddings\": 4096}, \"hidden_act\": \"silu\","
     "\"attention_bias\": false, \"tie_word_embeddings\": false"},
    {"mamba2-1.3b", 48,
     "\"model_type\": \"mamba2\", \"vocab_size\": 50288, \"hidden_size\": 2048,"
     "\"intermediate_size\": 4096, \"num_heads\": 64, \"head_dim\": 64, \"state_size\": 128,"
     "\"n_groups\": 1, \"conv_kernel\": 4, \"time_step_rank\": \"auto\","
     "\"time_step_limit\": [0.0, Infinity], \"layer_norm_epsilon\": 1e-05,"
     "\"use_bias\": false, \"use_conv_bias\": true, \"tie_word_embeddings\": true"},
    {"falcon-h1-1.5b", 24,
     "\"model_type\": \"falcon_h1\", \"vocab_size\": 65537, \"hidden_size\": 2048,"
     "\"intermediate_size\": 4096, \"num_attention_heads\": 8, \"num_key_value_heads\": 2,"
     "\"head_dim\": 128, \"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-05,"
     "\"rope_theta\": 100000000000.0, \"mamba_d_ssm\": 3072, \"mamba_n_heads\": 48,"
     "\"mamba_d_head\": 64, \"mamba_d_state\": 256, \"mamba_n_groups\": 1,"
     "\"mamba_d_conv\": 4, \"mamba_conv_bias\": true, \"mamba_rms_norm\": false,"
     "\"attention_in_multiplier\": 1.0, \"attention_out_multiplier\": 0.9375,"
     "\"key_multiplier\": 0.39, \"embedding_multiplier\": 5.65, \"lm_head_multiplier\": 0.02,"
     "\"mlp_multipliers\": [0.88, 0.59], \"ssm_in_multiplier\": 1.25,"
     "\"ssm_out_multiplier\": 0.24, \"ssm_multipliers\": [0.35, 0.25, 0.35, 0.5, 0.35],"
     "\"hidden_act\": \"silu\", \"tie_word_embeddings\": false"},
    {"qwen3-next-80b-a3b", 48,
     "\"model_type\": \"qwen3_next\", \"vocab_size\": 151936, \"hidden_size\": 2048,"
     "\"intermediate_size\": 5120, \"moe_intermediate_size\": 512, \"num_experts\": 512,"
     "\"num_experts_per_tok\": 10, \"shared_expert_intermediate_size\": 512,"
     "\"norm_topk_prob\": true, \"decoder_sparse_step\": 1, \"mlp_only_layers\": [],"
     "\"num_attention_heads\": 16, \"num_key_value_heads\": 2, \"head_dim\": 256,"
     "\"linear_num_value_heads\": 32, \"linear_num_key_heads\": 16,"
     "\"linear_key_head_dim\": 128, \"linear_value_head_dim\": 128,"
     "\"linear_conv_kernel_dim\": 4, \"full_attention_interval\": 4,"
     "\"partial_rotary_factor\": 0.25, \"max_position_embeddings\": 262144,"
     "\"rms_norm_eps\": 1e-06, \"rope_theta\": 10000000, \"rope_scaling\": null,"
     "\"hidden_act\": \"silu\", \"attention_bias\": false, \"tie_word_embeddings\": false"},
    {"storyteller", 8,
     "\"model_type\": \"llama\", \"vocab_size\": 4096, \"hidden_size\": 384,"
     "\"intermediate_size\": 1024, \"num_attention_heads\": 6, \"num_key_value_heads\": 2,"
     "\"head_dim\": 64, \"max_position_embeddings\": 1024, \"rms_norm_eps\": 1e-05,"
     "\"rope_theta\": 10000.0, \"rope_scaling\": null, \"hidden_act\": \"silu\","
     "\"tie_word_embeddings\": true"},
    {NULL, 0, NULL},
};

const struct shape *shape_find(const char *name)
{
    for (int i = 0; shapes[i].name; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

void shape_config(struct strbuf *out, const struct shape *s, int n_layers)
{
    strbuf_addf(out, "{\"num_hidden_layers\": %d, %s}", n_layers > 0 ? n_layers : s->n_layers,
                s->config);
}
