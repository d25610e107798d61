#include "models/defaults.h"

#include <stddef.h>
#include <string.h>

#include "base/memory.h"

#define GEMMA4                                                                                     \
    "{\"hidden_size\": 1536, \"num_hidden_layers\": 35, \"intermediate_size\": 6144, "             \
    "\"sliding_window\": 512, \"num_kv_shared_layers\": 20, \"global_head_dim\": 512, "            \
    "\"vocab_size_per_layer_input\": 262144}"

/* mlx-lm does not have these. */
#define AXK1                                                                                       \
    "{\"n_routed_experts\": 192, \"n_shared_experts\": 1, \"moe_intermediate_size\": 2048, "       \
    "\"num_experts_per_tok\": 8, \"n_group\": 8, \"topk_group\": 4, "                              \
    "\"first_k_dense_replace\": 1, \"routed_scaling_factor\": 2.5}"
#define FLINT                                                                                      \
    "{\"num_key_value_heads\": 4, \"head_dim\": 128, \"sliding_window\": 513, "                    \
    "\"moe_intermediate_size\": 512, \"shared_expert_intermediate_size\": 1024, "                  \
    "\"num_experts_per_tok\": 6, \"num_experts\": 256, \"mlp_only_layers\": [0, 1]}"
#define COHERE2_MOE "{\"head_dim\": 128, \"sliding_window\": 4096}"
#define HY_V3                                                                                      \
    "{\"head_dim\": 128, \"num_key_value_heads\": 8, \"num_experts\": 192, "                       \
    "\"num_experts_per_tok\": 8, \"num_shared_experts\": 1, \"moe_intermediate_size\": 1536, "     \
    "\"router_scaling_factor\": 2.826}"

#define MUSE_SPARK                                                                                 \
    "{\"head_dim\": 64, \"sliding_window\": 2048, \"rope_theta\": 10000.0, "                       \
    "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500000.0}}"

#define LFM3                                                                                       \
    "{\"head_dim\": 128, \"num_key_value_heads\": 4, \"rope_parameters\": "                        \
    "{\"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}, "              \
    "\"full_attention\": {\"rope_type\": \"proportional\", \"rope_theta\": 1000000.0, "            \
    "\"partial_rotary_factor\": 0.5}}}"

#define ERNIE4_5_VL                                                                                \
    "{\"num_key_value_heads\": 4, \"moe_intermediate_size\": [1536, 512], \"moe_k\": 6, "          \
    "\"moe_num_experts\": 64, \"moe_num_shared_experts\": 2, \"moe_layer_interval\": 1, "          \
    "\"moe_layer_start_index\": 1}"

#define GPT_NEOX_ROPE "{\"rotary_pct\": 0.25, \"rotary_emb_base\": 10000.0"

#define APERTUS                                                                                    \
    "{\"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 12000000.0, "               \
    "\"factor\": 8.0, \"original_max_position_embeddings\": 8192, "                                \
    "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0}}"

/* What differs from the defaults in the families' code, or has none there. */
static const struct {
    const char *model_type, *keys;
} of_mlx[] =
    {
        {"afmoe",
         "{\"vocab_size\": 200192, \"hidden_size\": 2048, \"intermediate_size\": 6144, "
         "\"moe_intermediate_size\": 1024, \"num_hidden_layers\": 32, \"num_attention_heads\": 32, "
         "\"rms_norm_eps\": 1e-05, \"sliding_window\": 2048, \"num_key_value_heads\": 4, "
         "\"head_dim\": 64, \"max_position_embeddings\": 131072}"},
        {"axk1", AXK1},
        {"cohere",
         "{\"hidden_size\": 8192, \"num_hidden_layers\": 40, \"intermediate_size\": 22528, "
         "\"num_attention_heads\": 64, \"vocab_size\": 256000, \"rope_theta\": 8000000.0}"},
        {"cohere2",
         "{\"hidden_size\": 4096, \"num_hidden_layers\": 32, \"intermediate_size\": 14336, "
         "\"num_attention_heads\": 32, \"vocab_size\": 256000, \"rope_theta\": 50000.0}"},
        {"cohere2_moe", COHERE2_MOE},
        {"deepseek", "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"intermediate_size\": "
                     "11008, \"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, "
                     "\"num_attention_heads\": 32, \"rms_norm_eps\": 1e-06}"},
        {"deepseek_v2", "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"intermediate_size\": "
                        "11008, \"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, "
                        "\"num_attention_heads\": 32, \"rms_norm_eps\": 1e-06}"},
        {"deepseek_v3",
         "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"intermediate_size\": 11008, "
         "\"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, \"num_attention_heads\": 32, "
         "\"num_experts_per_tok\": 1, \"rms_norm_eps\": 1e-06}"},
        {"deepseek_v32",
         "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"index_head_dim\": 128, "
         "\"index_n_heads\": 64, \"index_topk\": 2048, \"intermediate_size\": 11008, "
         "\"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, \"num_attention_heads\": 32, "
         "\"num_experts_per_tok\": 1, \"rms_norm_eps\": 1e-06}"},
        {"deepseek_v41",
         "{\"vocab_size\": 129280, \"hidden_size\": 5120, \"num_hidden_layers\": 40}"},
        {"deepseek_v41_text",
         "{\"vocab_size\": 129280, \"hidden_size\": 5120, \"num_hidden_layers\": 40}"},
        {"ernie4_5_moe", "{\"moe_layer_interval\": 1}"},
        {"ernie4_5_vl_moe_text", ERNIE4_5_VL},
        {"exaone_moe", "{\"routed_scaling_factor\": 2.5}"},
        {"falcon_h1", "{\"hidden_size\": 1024, \"intermediate_size\": 2048, \"mamba_d_conv\": 4, "
                      "\"mamba_d_state\": 128, \"mamba_n_heads\": 24, \"num_attention_heads\": 8, "
                      "\"num_hidden_layers\": 36, \"rms_norm_eps\": 1e-05, \"vocab_size\": 32784, "
                      "\"num_key_value_heads\": 2, \"head_dim\": 64, "
                      "\"max_position_embeddings\": 131072}"},
        {"flint", FLINT},
        {"gear", "{\"sliding_window\": 512}"},
        {"gemma2", "{\"query_pre_attn_scalar\": 144.0}"},
        {"gemma3",
         "{\"hidden_size\": 1152, \"num_hidden_layers\": 26, \"intermediate_size\": 6912, "
         "\"max_position_embeddings\": 32768}"},
        {"gemma3_text",
         "{\"hidden_size\": 1152, \"num_hidden_layers\": 26, \"intermediate_size\": 6912, "
         "\"max_position_embeddings\": 32768}"},
        {"gemma4", GEMMA4},
        {"gemma4_text", GEMMA4},
        {"gemma4_unified", GEMMA4},
        {"glm4_moe_lite",
         "{\"vocab_size\": 154880, \"hidden_size\": 2048, \"intermediate_size\": 10240, "
         "\"moe_intermediate_size\": 1536, \"num_hidden_layers\": 47, \"num_attention_heads\": 20, "
         "\"num_experts_per_tok\": 4, \"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000.0, "
         "\"routed_scaling_factor\": 1.8, \"n_shared_experts\": 1, \"n_routed_experts\": 64, "
         "\"q_lora_rank\": 768, \"qk_nope_head_dim\": 192, \"v_head_dim\": 256, "
         "\"first_k_dense_replace\": 1, \"max_position_embeddings\": 202752}"},
        {"gpt_oss",
         "{\"num_hidden_layers\": 36, \"num_local_experts\": 128, \"vocab_size\": 201088, "
         "\"rms_norm_eps\": 1e-05, \"hidden_size\": 2880, \"intermediate_size\": 2880, "
         "\"num_attention_heads\": 64, \"num_key_value_heads\": 8, \"head_dim\": 64, "
         "\"sliding_window\": 128}"},
        {"gpt_neox", GPT_NEOX_ROPE "}"},
        {"gptj", "{\"n_embd\": 4096, \"vocab_size\": 50400, \"n_head\": 16, \"n_layer\": 28}"},
        {"hunyuan_v1_dense", "{\"max_position_embeddings\": 32768}"},
        {"hy_v3", HY_V3},
        {"internlm2", "{\"max_position_embeddings\": 32768}"},
        {"internlm3", "{\"max_position_embeddings\": 32768}"},
        {"iquestloopcoder", "{\"max_position_embeddings\": 131072}"},
        {"joyai_llm_flash",
         "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"intermediate_size\": 11008, "
         "\"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, \"num_attention_heads\": 32, "
         "\"num_experts_per_tok\": 1, \"rms_norm_eps\": 1e-06}"},
        {"kimi_k2",
         "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"intermediate_size\": 11008, "
         "\"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, \"num_attention_heads\": 32, "
         "\"num_experts_per_tok\": 1, \"rms_norm_eps\": 1e-06}"},
        {"kimi_k25",
         "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"intermediate_size\": 11008, "
         "\"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, \"num_attention_heads\": 32, "
         "\"num_experts_per_tok\": 1, \"rms_norm_eps\": 1e-06}"},
        {"kimi_k3", "{\"vocab_size\": 163840, \"hidden_size\": 7168, \"num_hidden_layers\": 93, "
                    "\"num_attention_heads\": 96, \"intermediate_size\": 33792, \"rms_norm_eps\": "
                    "1e-05, \"hidden_act\": \"situ\", \"num_experts_per_token\": 16}"},
        {"kimi_vl",
         "{\"vocab_size\": 102400, \"hidden_size\": 4096, \"intermediate_size\": 11008, "
         "\"moe_intermediate_size\": 1407, \"num_hidden_layers\": 30, \"num_attention_heads\": 32, "
         "\"num_experts_per_tok\": 1, \"rms_norm_eps\": 1e-06}"},
        {"laguna", "{\"vocab_size\": 100352, \"hidden_size\": 2048, \"intermediate_size\": 8192, "
                   "\"num_hidden_layers\": 40, \"num_attention_heads\": 48, \"rms_norm_eps\": "
                   "1e-06, \"sliding_window\": 512, \"head_dim\": 128}"},
        {"lfm3", LFM3},
        {"longcat_flash_ngram",
         "{\"ngram_vocab_size_ratio\": 78, \"emb_neighbor_num\": 4, \"emb_split_num\": 4}"},
        {"minimax_m3_vl", "{\"hidden_size\": 6144, \"num_hidden_layers\": 60}"},
        {"mixtral",
         "{\"vocab_size\": 32000, \"hidden_size\": 4096, \"intermediate_size\": 14336, "
         "\"num_hidden_layers\": 32, \"num_attention_heads\": 32, \"rms_norm_eps\": 1e-05}"},
        {"muse_glimmer",
         "{\"hidden_size\": 6656, \"num_hidden_layers\": 52, \"intermediate_size\": 19968, "
         "\"num_attention_heads\": 32, \"vocab_size\": 202048}"},
        {"nanbeige", "{\"num_loops\": 1}"},
        {"nanochat", "{\"hidden_size\": 1280, \"num_hidden_layers\": 20, \"num_attention_heads\": "
                     "10, \"vocab_size\": 65536, \"intermediate_size\": 5120}"},
        {"nemotron_h", "{\"norm_topk_prob\": false}"},
        {"nemotron-nas",
         "{\"hidden_size\": 8192, \"num_hidden_layers\": 80, \"num_attention_heads\": 64, "
         "\"rms_norm_eps\": 1e-05, \"vocab_size\": 128256, \"rope_theta\": 500000.0}"},
        {"phi", "{\"vocab_size\": 51200, \"hidden_size\": 2560, \"num_attention_heads\": 32, "
                "\"num_hidden_layers\": 32, \"intermediate_size\": 10240}"},
        {"phi-msft",
         "{\"num_vocab\": 51200, \"model_dim\": 2560, \"num_heads\": 32, \"num_layers\": 32}"},
        {"phimoe",
         "{\"vocab_size\": 32064, \"hidden_size\": 4096, \"intermediate_size\": 6400, "
         "\"num_hidden_layers\": 32, \"num_attention_heads\": 32, \"rms_norm_eps\": 1e-06}"},
        {"phixtral",
         "{\"num_vocab\": 51200, \"model_dim\": 2560, \"num_heads\": 32, \"num_layers\": 32}"},
        {"pixtral", "{\"num_attention_heads\": 32}"},
        {"plamo2", "{\"hidden_size\": 4096, \"num_hidden_layers\": 32, \"intermediate_size\": "
                   "13312, \"vocab_size\": 32000}"},
        {"plamo3", "{\"hidden_size\": 4096, \"num_hidden_layers\": 32, \"rms_norm_eps\": 1e-06, "
                   "\"num_attention_heads\": 32, \"num_key_value_heads\": 4, \"head_dim\": 128, "
                   "\"intermediate_size\": 13312, \"vocab_size\": 32000}"},
        {"qwen", "{\"hidden_size\": 2048, \"num_attention_heads\": 16, \"num_hidden_layers\": 24, "
                 "\"intermediate_size\": 11008, \"vocab_size\": 151936}"},
        {"qwen3_5", "{\"hidden_size\": 4096, \"intermediate_size\": 14336, \"num_hidden_layers\": "
                    "32, \"num_attention_heads\": 32, \"vocab_size\": 151936}"},
        {"starcoder2", "{\"rope_theta\": 100000.0, \"vocab_size\": 49152}"},
        {"step3p5", "{\"sliding_window\": 512}"},
        {"talkie", "{\"hidden_size\": 5120, \"num_hidden_layers\": 40, \"num_attention_heads\": "
                   "40, \"intermediate_size\": 13696, \"vocab_size\": 65540, \"head_dim\": 128}"},
        {"youtu_llm",
         "{\"vocab_size\": 128256, \"hidden_size\": 2048, \"intermediate_size\": 6144, "
         "\"num_hidden_layers\": 32, \"num_attention_heads\": 16, \"rms_norm_eps\": 1e-06}"},
},
  of_transformers[] = {
      {"afmoe", "{\"route_scale\": 1.0, \"head_dim\": 128, \"moe_intermediate_size\": 1408, "
                "\"num_experts\": 64, \"sliding_window\": 1024, \"mup_enabled\": false, "
                "\"num_dense_layers\": 1, \"num_shared_experts\": 2}"},
      {"apertus", APERTUS},
      {"apertus1p5_text", APERTUS},
      {"axk1", AXK1},
      {"bamba", "{\"mamba_d_state\": 256, \"mamba_d_conv\": 4}"},
      {"bitnet", "{\"rope_theta\": 500000.0}"},
      {"cohere", "{\"rope_theta\": 500000.0}"},
      {"cohere2", "{\"rope_theta\": 10000.0, \"sliding_window\": 4096}"},
      {"cohere2_moe", COHERE2_MOE},
      {"cwm", "{\"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 1000000.0, "
              "\"factor\": 16.0, \"original_max_position_embeddings\": 8192, "
              "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0}, \"head_dim\": 128, "
              "\"sliding_window\": 8192}"},
      {"deepseek_v2", "{\"n_shared_experts\": 2, \"n_routed_experts\": 64, \"qk_rope_head_dim\": "
                      "64}"},
      {"deepseek_v3", "{\"routed_scaling_factor\": 2.5, \"n_shared_experts\": 1, "
                      "\"first_k_dense_replace\": 3, \"moe_intermediate_size\": 2048, "
                      "\"n_routed_experts\": 256}"},
      {"deepseek_v32", "{\"n_shared_experts\": 1, \"index_head_dim\": 128, \"index_n_heads\": 64, "
                       "\"index_topk\": 2048, \"moe_intermediate_size\": 2048, "
                       "\"routed_scaling_factor\": 2.5}"},
      {"deepseek_ocr2_text", "{\"n_shared_experts\": 2}"},
      {"dots1", "{\"rope_theta\": 10000.0, \"norm_topk_prob\": false, "
                "\"moe_intermediate_size\": 1408}"},
      {"ernie4_5", "{\"head_dim\": 128, \"num_key_value_heads\": 2}"},
      {"ernie4_5_moe", "{\"moe_intermediate_size\": 1536, \"moe_num_experts\": 64, "
                       "\"moe_num_shared_experts\": 2, \"moe_layer_interval\": 1, "
                       "\"moe_layer_start_index\": 1}"},
      {"ernie4_5_vl_moe_text", ERNIE4_5_VL},
      {"exaone",
       "{\"rope_theta\": 500000.0, \"layer_norm_epsilon\": 1e-05, \"rms_norm_eps\": 1e-05}"},
      {"exaone4", "{\"rope_theta\": 10000.0, \"sliding_window\": 4096}"},
      {"exaone_moe", "{\"rope_theta\": 10000.0, \"routed_scaling_factor\": 2.5, "
                     "\"moe_intermediate_size\": 1024, \"num_experts\": 64, \"sliding_window\": "
                     "4096, \"num_shared_experts\": 1}"},
      {"falcon_h1", "{\"rope_theta\": 10000.0, \"mamba_d_state\": 256, \"mamba_d_conv\": 4}"},
      {"falcon_mamba", "{\"state_size\": 16, \"use_bias\": false, \"use_conv_bias\": true, "
                       "\"conv_kernel\": 4}"},
      {"flex_olmo", "{\"num_experts\": 7}"},
      {"flint", FLINT},
      {"gemma2", "{\"sliding_window\": 4096}"},
      {"gemma3_text", "{\"num_key_value_heads\": 4, \"sliding_window\": 4096}"},
      {"gemma3n_text", "{\"hidden_size_per_layer_input\": 256, \"sliding_window\": 512}"},
      {"gemma4_text", "{\"num_key_value_heads\": 4, \"use_double_wide_mlp\": false, "
                      "\"sliding_window_pattern\": 6, \"final_logit_softcapping\": null, "
                      "\"global_head_dim\": 512, \"vocab_size_per_layer_input\": 262144, "
                      "\"sliding_window\": 512}"},
      {"gemma4_unified_text", "{\"num_key_value_heads\": 4, \"use_double_wide_mlp\": false, "
                              "\"sliding_window_pattern\": 6, \"final_logit_softcapping\": null, "
                              "\"global_head_dim\": 512, \"num_kv_shared_layers\": 0, "
                              "\"hidden_size_per_layer_input\": 0, \"sliding_window\": 1024}"},
      {"glm", "{\"partial_rotary_factor\": 0.5, \"head_dim\": 128, \"attention_bias\": "
              "true, \"num_key_value_heads\": 2}"},
      {"glm4", "{\"partial_rotary_factor\": 0.5, \"head_dim\": 128, \"attention_bias\": "
               "true, \"num_key_value_heads\": 2}"},
      {"glm4_moe", "{\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5, "
                   "\"n_shared_experts\": 1, \"moe_intermediate_size\": 1408, "
                   "\"n_routed_experts\": 128, \"first_k_dense_replace\": 1}"},
      {"glm4_moe_lite",
       "{\"n_shared_experts\": 1, \"moe_intermediate_size\": 1536, "
       "\"n_routed_experts\": 64, \"num_experts_per_tok\": 4, \"q_lora_rank\": 768, "
       "\"qk_nope_head_dim\": 192, \"v_head_dim\": 256, "
       "\"routed_scaling_factor\": 1.8}"},
      {"glm_moe_dsa", "{\"n_shared_experts\": 1, \"index_head_dim\": 128, \"index_n_heads\": 32, "
                      "\"index_topk\": 2048, \"moe_intermediate_size\": 2048, \"q_lora_rank\": "
                      "2048, \"qk_nope_head_dim\": 192, \"v_head_dim\": 256, "
                      "\"routed_scaling_factor\": 2.5}"},
      {"gpt2", "{\"n_positions\": 1024}"},
      {"glmasr", "{\"rms_norm_eps\": 1e-05, \"num_key_value_heads\": 4}"},
      {"glm4v_moe_text", "{\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5, "
                         "\"attention_bias\": true, \"n_shared_experts\": 1}"},
      {"gpt_bigcode", "{\"activation_function\": \"gelu_pytorch_tanh\", \"n_positions\": 1024}"},
      {"gpt_neo", "{\"max_position_embeddings\": 2048}"},
      {"gpt_neox", GPT_NEOX_ROPE ", \"hidden_act\": \"gelu\"}"},
      {"gpt_oss", "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 32.0, "
                  "\"beta_fast\": 32.0, \"beta_slow\": 1.0, \"truncate\": false, "
                  "\"original_max_position_embeddings\": 4096}, \"head_dim\": 64, "
                  "\"num_local_experts\": 128, \"sliding_window\": 128}"},
      {"granitemoe", "{\"num_local_experts\": 8, \"num_experts_per_tok\": 2}"},
      {"granitemoehybrid", "{\"mamba_d_state\": 256, \"num_local_experts\": 8, "
                           "\"shared_intermediate_size\": 1024, \"mamba_d_conv\": 4, "
                           "\"num_experts_per_tok\": 2}"},
      {"granitemoe_swa", "{\"sliding_window\": 128}"},
      {"granite_swa", "{\"sliding_window\": 128}"},
      {"granitemoeshared", "{\"num_local_experts\": 8, \"shared_intermediate_size\": 0, "
                           "\"num_experts_per_tok\": 2}"},
      {"helium", "{\"rope_theta\": 100000.0}"},
      {"hy_v3", HY_V3},
      {"jais2", "{\"rope_theta\": 10000.0}"},
      {"jamba", "{\"attn_layer_period\": 8, \"mamba_d_state\": 16, \"num_experts\": 16, "
                "\"expert_layer_offset\": 1, \"expert_layer_period\": 2, \"mamba_d_conv\": "
                "4, \"mamba_expand\": 2, \"num_experts_per_tok\": 2}"},
      {"kimi_linear", "{\"routed_scaling_factor\": 2.446, \"kv_lora_rank\": 512, "
                      "\"moe_intermediate_size\": 1024, \"qk_nope_head_dim\": 128, "
                      "\"qk_rope_head_dim\": 64, \"v_head_dim\": 128}"},
      {"kolibri1", "{\"sliding_window\": 513}"},
      {"laguna", "{\"head_dim\": 128, \"sliding_window\": 512, \"rope_parameters\": "
                 "{\"full_attention\": {\"rope_type\": \"default\", \"rope_theta\": 500000.0, "
                 "\"partial_rotary_factor\": 0.5}, \"sliding_attention\": {\"rope_type\": "
                 "\"default\", \"rope_theta\": 10000.0, \"partial_rotary_factor\": 1.0}}}"},
      {"lfm2", "{\"block_auto_adjust_ff_dim\": true, \"block_multiple_of\": 256, "
               "\"conv_L_cache\": 3, \"conv_bias\": false, \"norm_eps\": 1e-05}"},
      {"lfm2_moe", "{\"moe_intermediate_size\": 1792, \"num_dense_layers\": 2, "
                   "\"num_experts\": 32, \"num_experts_per_tok\": 4, \"use_expert_bias\": true, "
                   "\"conv_L_cache\": 3, \"conv_bias\": false, \"norm_eps\": 1e-05, "
                   "\"norm_topk_prob\": true}"},
      {"lfm3", LFM3},
      {"llama4_text", "{\"head_dim\": 128, \"intermediate_size_mlp\": 16384, "
                      "\"num_local_experts\": 16}"},
      {"longcat_flash", "{\"routed_scaling_factor\": 6.0, \"expert_ffn_hidden_size\": 2048, "
                        "\"ffn_hidden_size\": 12288, \"n_routed_experts\": 512, "
                        "\"zero_expert_num\": 256}"},
      {"mamba", "{\"state_size\": 16, \"use_bias\": false, \"use_conv_bias\": true, "
                "\"conv_kernel\": 4}"},
      {"mamba2", "{\"state_size\": 128, \"use_bias\": false, \"use_conv_bias\": true, "
                 "\"conv_kernel\": 4, \"layer_norm_epsilon\": 1e-05}"},
      {"mellum", "{\"head_dim\": 128, \"moe_intermediate_size\": 896, \"sliding_window\": "
                 "1024, \"norm_topk_prob\": true, \"rope_parameters\": {\"full_attention\": "
                 "{\"rope_type\": \"default\", \"rope_theta\": 500000.0}, "
                 "\"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}}}"},
      {"mimo_v2_flash",
       "{\"partial_rotary_factor\": 0.334, \"head_dim\": 192, "
       "\"max_position_embeddings\": 131072, \"moe_intermediate_size\": 2048, "
       "\"n_group\": 1, \"n_routed_experts\": 256, \"v_head_dim\": 128, "
       "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\", "
       "\"rope_theta\": 5000000.0, \"partial_rotary_factor\": 0.334}, "
       "\"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0, "
       "\"partial_rotary_factor\": 0.334}}}"},
      {"minicpm3", "{\"scale_emb\": 12, \"scale_depth\": 1.4, \"dim_model_base\": 256, "
                   "\"rope_theta\": 10000.0}"},
      {"minimax_m2", "{\"head_dim\": 128, \"num_local_experts\": 256}"},
      {"ministral", "{\"sliding_window\": 4096}"},
      {"ministral3",
       "{\"head_dim\": 128, \"rope_parameters\": {\"type\": \"yarn\", \"rope_theta\": "
       "1000000.0, \"factor\": 16.0, \"original_max_position_embeddings\": 16384, "
       "\"beta_fast\": 32.0, \"beta_slow\": 1.0, \"mscale_all_dim\": 1.0, "
       "\"mscale\": 1.0, \"llama_4_scaling_beta\": 0.1}}"},
      {"mistral4", "{\"rope_parameters\": {\"type\": \"yarn\", \"rope_theta\": 10000.0, "
                   "\"factor\": 128.0, \"original_max_position_embeddings\": 8192, "
                   "\"beta_fast\": 32.0, \"beta_slow\": 1.0, \"mscale_all_dim\": 1.0, "
                   "\"mscale\": 1.0, \"llama_4_scaling_beta\": 0.1}}"},
      {"muse_spark", MUSE_SPARK},
      {"muse_spark_text", MUSE_SPARK},
      {"nemotron", "{\"partial_rotary_factor\": 0.5}"},
      {"nemotron_h", "{\"head_dim\": 128, \"mamba_head_dim\": 64, \"mamba_num_heads\": 128, "
                     "\"ssm_state_size\": 128, \"conv_kernel\": 4, \"layer_norm_epsilon\": 1e-05, "
                     "\"use_conv_bias\": true}"},
      {"olmo3", "{\"rope_theta\": 500000.0, \"sliding_window\": 4096}"},
      {"olmoe", "{\"num_experts\": 64}"},
      {"opt", "{\"ffn_dim\": 3072, \"max_position_embeddings\": 2048}"},
      {"persimmon", "{\"rope_theta\": 10000.0, \"partial_rotary_factor\": 0.5}"},
      {"phi", "{\"partial_rotary_factor\": 0.5}"},
      {"phimoe", "{\"rope_theta\": 1000000.0, \"attention_bias\": false, \"lm_head_bias\": "
                 "false}"},
      {"qwen2", "{\"rope_theta\": 10000.0}"},
      {"qwen2_moe", "{\"rope_theta\": 10000.0, \"moe_intermediate_size\": 1408, "
                    "\"num_experts\": 60, \"num_experts_per_tok\": 4, "
                    "\"shared_expert_intermediate_size\": 5632}"},
      {"qwen3", "{\"rope_theta\": 10000.0, \"head_dim\": 128}"},
      {"qwen3_5_moe_text",
       "{\"rope_theta\": 10000.0, \"head_dim\": 256, \"linear_key_head_dim\": 128, "
       "\"linear_num_value_heads\": 32, \"moe_intermediate_size\": 512, "
       "\"num_experts\": 256, \"shared_expert_intermediate_size\": 512, "
       "\"num_key_value_heads\": 2}"},
      {"qwen3_5_text", "{\"rope_theta\": 10000.0, \"head_dim\": 256, \"linear_key_head_dim\": 128, "
                       "\"linear_num_value_heads\": 32, \"num_key_value_heads\": 4}"},
      {"qwen3_moe", "{\"rope_theta\": 10000.0, \"moe_intermediate_size\": 768}"},
      {"qwen3_vl_moe_text", "{\"rope_theta\": 500000.0}"},
      {"qwen3_vl_text", "{\"rope_theta\": 500000.0}"},
      {"qwen3_next", "{\"rope_theta\": 10000.0, \"norm_topk_prob\": true, \"head_dim\": 256, "
                     "\"linear_key_head_dim\": 128, \"linear_num_value_heads\": 32, "
                     "\"linear_value_head_dim\": 128, \"moe_intermediate_size\": 512, "
                     "\"num_experts\": 512, \"shared_expert_intermediate_size\": 512, "
                     "\"linear_conv_kernel_dim\": 4, \"num_key_value_heads\": 2}"},
      {"recurrent_gemma", "{\"partial_rotary_factor\": 0.5, \"attention_window_size\": 2048}"},
      {"sarvam_mla", "{\"q_lora_rank\": null, \"n_shared_experts\": 1, \"n_routed_experts\": 128, "
                     "\"num_experts_per_tok\": 8, \"first_k_dense_replace\": 1, "
                     "\"routed_scaling_factor\": 2.5, \"moe_intermediate_size\": 2048}"},
      {"sarvam_moe",
       "{\"head_dim\": 64, \"rope_theta\": 8000000.0, \"use_qk_norm\": true, \"n_shared_experts\": "
       "1, \"n_routed_experts\": 128, \"num_experts_per_tok\": 6, \"first_k_dense_replace\": 1, "
       "\"routed_scaling_factor\": 2.5, \"moe_intermediate_size\": 1024}"},
      {"seed_oss", "{\"head_dim\": 128, \"attention_bias\": true}"},
      {"smollm3", "{\"rope_theta\": 2000000.0}"},
      {"solar_open", "{\"n_shared_experts\": 1, \"head_dim\": 128, \"moe_intermediate_size\": "
                     "1280, \"n_routed_experts\": 128}"},
      {"stablelm", "{\"partial_rotary_factor\": 0.25}"},
      {"starcoder2", "{\"num_key_value_heads\": 2}"},
      {"vaultgemma", "{\"sliding_window\": 4096}"},
      {"voxtral", "{\"rms_norm_eps\": 1e-05, \"num_key_value_heads\": 8, "
                  "\"rope_theta\": 100000000.0, \"head_dim\": 128}"},
      {"xlstm", "{\"ffn_round_up_to_multiple_of\": 64, \"num_heads\": 8}"},
      {"youtu", "{\"rope_theta\": 10000.0}"},
};

const char *model_defaults(const char *model_type, bool transformers)
{
    for (size_t i = 0; transformers && i < COUNT(of_transformers); i++)
        if (strcmp(of_transformers[i].model_type, model_type) == 0)
            return of_transformers[i].keys;
    for (size_t i = 0; !transformers && i < COUNT(of_mlx); i++)
        if (strcmp(of_mlx[i].model_type, model_type) == 0)
            return of_mlx[i].keys;
    return NULL;
}

#define SIZES(hidden, inner, layers, heads, vocab)                                                 \
    "\"hidden_size\": " hidden ", \"intermediate_size\": " inner                                   \
    ", \"num_hidden_layers\": " layers ", \"num_attention_heads\": " heads                         \
    ", \"vocab_size\": " vocab

const char *model_part_defaults(const char *model_type)
{
    static const struct {
        const char *model_type, *keys;
    } known[] = {
        {"gemma", "{" SIZES("3072", "24576", "28", "16", "256000") ", \"head_dim\": 256}"},
        {"gemma2", "{" SIZES("2304", "9216", "26", "8",
                             "256000") ", \"head_dim\": 256, \"num_key_value_heads\": 4}"},
        {"llama", "{" SIZES("4096", "11008", "32", "32", "32000") "}"},
        {"mistral",
         "{" SIZES("4096", "14336", "32", "32", "32000") ", \"num_key_value_heads\": 8}"},
        {"mixtral",
         "{" SIZES("4096", "14336", "32", "32", "32000") ", \"num_key_value_heads\": 8}"},
        {"opt", "{\"hidden_size\": 768, \"ffn_dim\": 3072, \"num_hidden_layers\": 12, "
                "\"num_attention_heads\": 12, \"vocab_size\": 50272}"},
        {"phi3", "{" SIZES("3072", "8192", "32", "32", "32064") "}"},
        {"qwen2", "{" SIZES("4096", "22016", "32", "32", "151936") "}"},
        {"qwen3", "{" SIZES("4096", "22016", "32", "32", "151936") "}"},
    };

    for (size_t i = 0; i < COUNT(known); i++)
        if (strcmp(known[i].model_type, model_type) == 0)
            return known[i].keys;
    return NULL;
}

double model_norm_eps(const char *model_type)
{
    static const struct {
        double eps;
        const char *types;
    } known[] = {
        {1e-5, "granite_swa afmoe apertus apertus1p5_text phi4_multimodal arcee bamba bitnet cwm "
               "ernie4_5 ernie4_5_moe exaone4 "
               "ernie4_5_vl_moe_text exaone_moe "
               "falcon_h1 glm4_moe glm4_moe_lite glm_moe_dsa gpt_oss hunyuan_v1_dense "
               "hunyuan_v1_moe hy_v3 kimi_linear llama4_text longcat_flash mimo_v2_flash minicpm3 "
               "minimax glm4v_text emu3_text_model glm_ocr_text glm4v_moe_text paddleocr_vl_text "
               "hunyuan_vl_text "
               "ministral3 mixtral olmo2 olmo3 olmoe phi3 qwen2_vl_text qwen2_5_vl_text "
               "solar_open"},
        {1e-6, "aria_text lara_mini kolibri1 axk1 bailing_hybrid deepseek_ocr2_text deepseek_v2 "
               "deepseek_v3 "
               "deepseek_v32 dots1 flex_olmo flint "
               "gemma gemma2 "
               "gemma3_text gemma3n_text gemma4_text granite granitemoe granitemoehybrid "
               "granitemoeshared granitemoe_swa hyperclovax jamba laguna llama mellum minimax_m2 "
               "ministral "
               "mistral nanochat olmo_hybrid qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next "
               "qwen3_5_text qwen3_5_moe_text qwen3_vl_text qwen3_vl_moe_text recurrent_gemma "
               "seed_oss smollm3 vaultgemma youtu sarvam_moe sarvam_mla qwen2_5_omni_text "
               "qwen3_omni_moe_text"},
        {0.00000015625, "glm glm4"},
        {1e-8, "helium"},
    };

    size_t length = strlen(model_type), n;

    for (size_t i = 0; i < COUNT(known); i++)
        for (const char *at = known[i].types; *at; at += n + (at[n] == ' ')) {
            n = strcspn(at, " ");
            if (n == length && strncmp(at, model_type, n) == 0)
                return known[i].eps;
        }
    return 0;
}
