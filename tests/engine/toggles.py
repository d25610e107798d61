"""Writes toggles.h: small configs with one key other than in the shared goldens, and the logits that transformers computes for them.

usage: toggles.py GOLDENS, the folder with models_hf/. Weights follow from the names of tensors.
"""

import json
import pathlib
import re
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from hashed import LEFT_OUT, floats, listed, strings, value
from renamed import RENAMED, renamed

TOKENS = [3, 17, 9, 30, 5, 22, 41, 7, 12, 33, 4, 19]
GONE = "left out"  # the key is not in config.json
# Types that the goldens of models_hf do not have.
CONFIGS = {
    "muse_spark":
        {"architectures": ["MuseSparkForConditionalGeneration"], "model_type": "muse_spark", "tie_word_embeddings": False,
        "transformers_version": "5.24.0", "out_hidden_size": 16, "projector_hidden_size": 16, "text_config":
        {"final_logit_softcapping": 20.0, "hidden_act": "silu", "hidden_size": 32, "layer_rope_theta": [500000.0, 500000.0,
        500000.0, 0], "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "max_position_embeddings": 64, "mlp_layer_types": ["sparse", "dense", "sparse", "sparse"], "intermediate_size": 24,
        "model_type": "muse_spark_text", "moe_hidden_size": 20, "moe_intermediate_size": 8, "num_attention_heads": 4,
        "num_experts_per_tok": 2, "num_hidden_layers": 4, "num_key_value_heads": 2, "num_local_experts": 6,
        "output_multiplier": 0.5, "rope_parameters": {"rope_type": "default"}, "sliding_window": 5, "vocab_size": 48},
        "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "patch_size": 2, "pos_emb_height": 4, "pos_emb_width": 4}, "audio_config": {"hidden_sizes": [8, 8, 8, 8], "depths":
        [1, 1, 1, 1], "out_hidden_size": 32}},
    "muse_glimmer":
        {"architectures": ["MuseGlimmerForConditionalGeneration"], "model_type": "muse_glimmer", "tie_word_embeddings": False,
        "transformers_version": "5.24.0", "text_config": {"attention_bias": True, "hidden_activation": "silu",
        "hidden_size": 32, "intermediate_size": 24, "max_position_embeddings": 64, "model_type": "muse_glimmer_text",
        "num_attention_heads": 2, "num_hidden_layers": 5, "output_multiplier": 0.6, "rms_norm_eps": 1e-05, "sliding_window": 5,
        "tie_word_embeddings": False, "vocab_size": 48}, "vision_config": {"hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}},
    "molmo2":
        {"architectures": ["Molmo2ForConditionalGeneration"], "model_type": "molmo2", "tie_word_embeddings": False,
        "transformers_version": "5.24.0", "image_token_id": 60, "text_config": {"additional_vocab_size": 48, "attention_bias":
        True, "head_dim": 12, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "max_position_embeddings": 64,
        "model_type": "molmo2_text", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "qk_norm_type": "qwen3", "rms_norm_eps": 1e-06, "rope_parameters": {"factor": 4.0, "rope_theta": 500.0, "rope_type":
        "linear"}, "rope_scaling_layers": [1], "tie_word_embeddings": False, "vocab_size": 48}, "vision_config":
        {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads":
        2, "head_dim": 8, "patch_size": 2, "image_size": [4, 4]}, "adapter_config": {"hidden_size": 16,
        "text_hidden_size": 32, "intermediate_size": 16, "vision_feature_layer": [-1], "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8}},
    "gpt_neox_japanese":
        {"architectures": ["GPTNeoXJapaneseForCausalLM"], "hidden_act": "gelu", "hidden_size": 32,
        "intermediate_multiple_size": 2, "layer_norm_eps": 1e-05, "max_position_embeddings": 64, "model_type":
        "gpt_neox_japanese", "num_attention_heads": 4, "num_hidden_layers": 2, "rope_parameters": {"rope_theta": 10000.0,
        "rope_type": "default"}, "tie_word_embeddings": True, "transformers_version": "5.24.0", "vocab_size": 48},
    "openai-gpt":
        {"afn": "gelu", "architectures": ["OpenAIGPTLMHeadModel"], "layer_norm_epsilon": 1e-05, "model_type": "openai-gpt",
        "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "tie_word_embeddings": True, "transformers_version":
        "5.24.0", "vocab_size": 48},
    "emu3":
        {"architectures": ["Emu3ForConditionalGeneration"], "model_type": "emu3", "tie_word_embeddings": False,
        "transformers_version": "5.24.0", "vocabulary_map": {"<image>": 40}, "vq_config": {"codebook_size": 8, "embed_dim": 4,
        "latent_channels": 4, "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "attn_resolutions": [3],
        "hidden_size": 16, "num_attention_heads": 1}, "text_config": {"hidden_act": "silu", "hidden_size": 32,
        "intermediate_size": 24, "max_position_embeddings": 64, "model_type": "emu3_text_model", "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": 0, "rms_norm_eps": 1e-05, "rope_parameters":
        {"rope_theta": 1000000.0, "rope_type": "default"}, "tie_word_embeddings": False, "vocab_size": 48}},
    "deepseek_ocr2":
        {"architectures": ["DeepseekOcr2ForConditionalGeneration"], "model_type": "deepseek_ocr2", "tie_word_embeddings":
        False, "transformers_version": "5.24.0", "image_token_id": 40, "text_config": {"hidden_act": "silu", "hidden_size": 32,
        "intermediate_size": 24, "max_position_embeddings": 64, "mlp_layer_types": ["dense", "sparse"], "model_type":
        "deepseek_ocr2_text", "moe_intermediate_size": 16, "n_group": 3, "n_routed_experts": 6, "n_shared_experts": 2,
        "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps":
        1e-06, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "routed_scaling_factor": 1.5,
        "tie_word_embeddings": False, "topk_group": 2, "topk_method": "group_limited_greedy", "vocab_size": 48},
        "vision_config": {"sam_config": {"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "global_attn_indexes": [0], "mlp_dim": 16,
        "downsample_channels": [8, 16]}, "encoder_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 8}}},
    "minimax":
        {"architectures": ["MiniMaxForCausalLM"], "block_size": 4, "full_attn_alpha_factor": 1.5,
        "full_attn_beta_factor": 0.75, "head_dim": 12, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_attn_alpha_factor": 1.25,
        "linear_attn_beta_factor": 0.5, "max_position_embeddings": 512, "mlp_alpha_factor": 2.0, "mlp_beta_factor": 0.875,
        "model_type": "minimax", "num_attention_heads": 3, "num_experts_per_tok": 2, "num_hidden_layers": 3,
        "num_key_value_heads": 1, "num_local_experts": 4, "rms_norm_eps": 1e-05, "rope_parameters":
        {"rope_theta": 1000000.0, "rope_type": "default"}, "tie_word_embeddings": False, "transformers_version": "5.24.0",
        "vocab_size": 80},
    "mimo_v2_flash":
        {"pad_token_id": 2, "architectures": ["MiMoV2FlashForCausalLM"], "attention_bias": True, "attention_value_scale": 0.707,
        "head_dim": 16, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "layer_types":
        ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
        "max_position_embeddings": 512, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        "model_type": "mimo_v2_flash", "moe_intermediate_size": 8, "n_group": 2, "n_routed_experts": 6,
        "norm_topk_prob": True, "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 4,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-05, "rope_parameters": {"full_attention":
        {"partial_rotary_factor": 0.5, "rope_theta": 5000000.0, "rope_type": "default"}, "sliding_attention":
        {"partial_rotary_factor": 0.5, "rope_theta": 10000.0, "rope_type": "default"}}, "routed_scaling_factor":
        1.0, "scoring_func": "sigmoid", "sliding_window": 7, "sliding_window_size": 6, "tie_word_embeddings":
        False, "topk_group": 1, "topk_method": "noaux_tc", "transformers_version": "5.24.0", "v_head_dim": 8,
        "vocab_size": 48},
    "olmo_hybrid":
        {"pad_token_id": 2, "architectures": ["OlmoHybridForCausalLM"], "attention_bias": False, "hidden_act": "silu",
        "hidden_size": 32, "intermediate_size": 24, "layer_types": ["linear_attention", "full_attention",
        "linear_attention"], "linear_a_log_max": 16.0, "linear_a_log_min": 0.0, "linear_allow_neg_eigval": True,
        "linear_conv_kernel_dim": 4, "linear_dt_init_floor": 0.0001, "linear_dt_max": 0.1, "linear_dt_min":
        0.001, "linear_key_head_dim": 8, "linear_num_key_heads": 4, "linear_num_value_heads": 4,
        "linear_value_head_dim": 8, "max_position_embeddings": 512, "model_type": "olmo_hybrid",
        "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 4, "rms_norm_eps": 1e-05,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "tie_word_embeddings": False,
        "transformers_version": "5.24.0", "vocab_size": 48},
    "mellum":
        {"pad_token_id": 2, "architectures": ["MellumForCausalLM"], "attention_bias": False, "head_dim": 12, "hidden_act": "silu",
        "hidden_size": 32, "intermediate_size": 24, "layer_types": ["sliding_attention", "full_attention",
        "sliding_attention"], "max_position_embeddings": 512, "mlp_layer_types": ["sparse", "dense", "sparse"],
        "model_type": "mellum", "moe_intermediate_size": 8, "norm_topk_prob": True, "num_attention_heads": 4,
        "num_experts_per_tok": 2, "num_hidden_layers": 3, "num_key_value_heads": 2, "num_local_experts": 5,
        "rms_norm_eps": 1e-05, "rope_parameters": {"full_attention": {"factor": 8.0,
        "original_max_position_embeddings": 64, "rope_theta": 500000.0, "rope_type": "yarn"},
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"}}, "sliding_window": 6,
        "tie_word_embeddings": False, "transformers_version": "5.24.0", "vocab_size": 48},
    "bailing_hybrid":
        {"pad_token_id": 2, "architectures": ["BailingHybridForCausalLM"], "attention_bias": False, "first_k_dense_replace": 1,
        "head_dim": 8, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "kda_lower_bound":
        -5.0, "kda_safe_gate": True, "kv_lora_rank": 16, "layer_group_size": 2, "layer_types":
        ["linear_attention", "full_attention", "linear_attention"], "linear_conv_kernel_dim": 4,
        "linear_head_dim": 8, "linear_num_heads": 4, "mlp_layer_types": ["dense", "sparse", "sparse"],
        "model_max_length": 512, "model_type": "bailing_hybrid", "moe_intermediate_size": 8, "moe_renormalize":
        True, "num_attention_heads": 4, "num_expert_group": 3, "num_experts": 6, "num_experts_per_token": 2,
        "num_hidden_layers": 3, "num_key_value_heads": 4, "num_nextn_predict_layers": 1, "num_shared_experts":
        1, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 6000000.0, "rope_type": "default"}, "rope_theta": 6000000.0,
        "routed_scaling_factor": 2.5, "short_conv_kernel_size": 4, "tie_word_embeddings": False, "topk_group":
        2, "transformers_version": "5.24.0", "v_head_dim": 8, "vocab_size": 48},
    "deepseek_v32":
        {"pad_token_id": 2, "architectures": ["DeepseekV32ForCausalLM"], "attention_bias": False, "head_dim": 8, "hidden_act":
        "silu", "hidden_size": 32, "index_head_dim": 16, "index_n_heads": 24, "index_topk": 6,
        "intermediate_size": 24, "kv_lora_rank": 16, "layer_types": ["indexed_attention", "indexed_attention"],
        "max_position_embeddings": 512, "mlp_bias": False, "mlp_layer_types": ["sparse", "dense"], "model_type":
        "deepseek_v32", "moe_intermediate_size": 8, "n_group": 3, "n_routed_experts": 6, "n_shared_experts": 1,
        "norm_topk_prob": True, "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
        "num_key_value_heads": 4, "q_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
        "rms_norm_eps": 1e-06, "rope_parameters": {"beta_fast": 32, "beta_slow": 1, "factor": 4.0, "mscale":
        0.7, "mscale_all_dim": 1.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0, "rope_type":
        "yarn", "type": "yarn"}, "routed_scaling_factor": 1.5, "tie_word_embeddings": False, "topk_group": 2,
        "transformers_version": "5.24.0", "v_head_dim": 8, "vocab_size": 48},
    "glm_moe_dsa":
        {"pad_token_id": 2, "architectures": ["GlmMoeDsaForCausalLM"], "attention_bias": False, "head_dim": 8, "hidden_act":
        "silu", "hidden_size": 32, "index_head_dim": 16, "index_n_heads": 24, "index_topk": 4,
        "intermediate_size": 24, "kv_lora_rank": 16, "max_position_embeddings": 512, "mlp_bias": False, "mlp_layer_types":
        ["dense", "sparse", "sparse", "dense", "sparse"], "model_type":
        "glm_moe_dsa", "moe_intermediate_size": 8, "n_group": 3, "n_routed_experts": 6, "n_shared_experts": 1,
        "norm_topk_prob": True, "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 5,
        "num_key_value_heads": 4, "q_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
        "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "routed_scaling_factor": 1.5, "tie_word_embeddings": False, "topk_group": 2,
        "transformers_version": "5.24.0", "v_head_dim": 8, "vocab_size": 48},
    "minicpm3":
        {"pad_token_id": 2, "architectures": ["MiniCPM3ForCausalLM"], "attention_bias": False, "dim_model_base": 16, "head_dim": 8,
        "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "kv_lora_rank": 16,
        "max_position_embeddings": 512, "mlp_bias": False, "model_type": "minicpm3", "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 4, "q_lora_rank": 16, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8, "rms_norm_eps": 1e-05, "rope_parameters": {"long_factor": [1.0, 1.5, 2.0, 3.0],
        "original_max_position_embeddings": 2, "rope_theta": 10000.0, "rope_type": "longrope", "short_factor":
        [1.0, 1.1, 1.2, 1.3], "type": "longrope"}, "scale_emb": 4, "tie_word_embeddings": True,
        "transformers_version": "5.24.0", "v_head_dim": 8, "vocab_size": 48},
    "qwen3_vl_moe":
        {"architectures": ["Qwen3VLMoeForConditionalGeneration"], "model_type": "qwen3_vl_moe",
        "transformers_version": "5.24.0", "text_config": {"attention_bias": False, "decoder_sparse_step": 1,
        "head_dim": 16, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
        "max_position_embeddings": 512, "mlp_only_layers": [], "model_type": "qwen3_vl_moe_text",
        "moe_intermediate_size": 12, "norm_topk_prob": True, "num_attention_heads": 4, "num_experts_per_tok": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "num_local_experts": 4, "pad_token_id": 0,
        "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "use_sliding_window": False, "vocab_size": 80}, "vision_config": {"hidden_size": 16,
        "intermediate_size": 16, "depth": 1, "num_heads": 2, "patch_size": 14, "out_hidden_size": 32,
        "deepstack_visual_indexes": [0]}},
    "llava_next":
        {"architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next",
        "transformers_version": "5.24.0", "text_config": {"head_dim": 16, "hidden_act": "silu", "hidden_size":
        32, "intermediate_size": 48, "max_position_embeddings": 512, "model_type": "mistral",
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": 0,
        "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "sliding_window": 7, "vocab_size": 80, "tie_word_embeddings": False}, "vision_config": {"hidden_size":
        16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
        "patch_size": 14}},
    "gpt_neo":
        {"architectures": ["GPTNeoForCausalLM"], "activation_function": "gelu_new", "attention_layers": ["global",
        "local", "local"], "attention_types": [[["global"], 1], [["local"], 2]], "bos_token_id": 0, "eos_token_id": 0,
        "hidden_size": 36, "intermediate_size": None, "layer_norm_epsilon": 1e-05, "max_position_embeddings": 64,
        "model_type": "gpt_neo", "num_heads": 3, "num_layers": 3, "transformers_version": "5.24.0", "vocab_size": 48,
        "window_size": 5},
    "hy_v3":
        {"pad_token_id": 2, "architectures": ["HYV3ForCausalLM"], "attention_bias": False, "enable_moe_fp32_combine": True,
        "head_dim": 12, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "max_position_embeddings": 512,
        "mlp_bias": False, "mlp_layer_types": ["dense", "sparse", "sparse"], "model_type": "hy_v3", "moe_intermediate_size":
        8, "num_attention_heads": 4, "num_experts": 6, "num_experts_per_tok": 3, "num_hidden_layers": 3,
        "num_key_value_heads": 2, "num_shared_experts": 1, "rms_norm_eps": 1e-05, "rope_parameters": {"rope_theta":
        11158840.0, "rope_type": "default"}, "router_scaling_factor": 1.5, "tie_word_embeddings": False,
        "transformers_version": "5.24.0", "vocab_size": 48},
    "cohere2_moe":
        {"pad_token_id": 2, "architectures": ["Cohere2MoeForCausalLM"], "attention_bias": False, "expert_selection_fn":
        "softmax", "head_dim": 12, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 8, "layer_norm_eps": 1e-05,
        "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention"], "logit_scale": 0.25,
        "max_position_embeddings": 512, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "model_type":
        "cohere2_moe", "norm_topk_prob": True, "num_attention_heads": 4, "num_experts": 6, "num_experts_per_tok": 3,
        "num_hidden_layers": 4, "num_key_value_heads": 2, "num_shared_experts": 2, "prefix_dense_intermediate_size": 24,
        "prefix_dense_sliding_window_pattern": 1, "rms_norm_eps": None, "rope_parameters": {"rope_theta": 10000.0,
        "rope_type": "default"}, "shared_expert_combination_strategy": "average", "sliding_window": 5,
        "sliding_window_pattern": 4, "tie_word_embeddings": True, "transformers_version": "5.24.0", "vocab_size": 48},
    "step3p7":
        {"architectures": ["Step3p7ForConditionalGeneration"], "model_type": "step3p7", "tie_word_embeddings": False,
        "transformers_version": "5.24.0", "text_config": {"head_dim": 8, "hidden_size": 32, "intermediate_size": 24,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "max_position_embeddings": 512, "mlp_layer_types": ["dense", "sparse", "dense", "sparse"], "model_type": "step3p5",
        "moe_intermediate_size": 8, "moe_router_scaling_factor": 1.5, "n_routed_experts": 6, "num_attention_heads": 4,
        "num_experts_per_tok": 3, "num_hidden_layers": 4, "num_key_value_heads": 2, "num_sliding_attention_heads": 6,
        "pad_token_id": 0, "rms_norm_eps": 1e-05, "rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5,
        "rope_theta": 5000000.0, "rope_type": "default"}, "sliding_attention": {"rope_theta": 10000.0, "rope_type":
        "default"}}, "share_expert_dim": 16, "sliding_window": 5, "swiglu_limits": [0.0, 0.01, 0.0, 0.0],
        "swiglu_limits_shared": [None, 0.0, 0.02, 0.01], "vocab_size": 48}, "vision_config": {"hidden_size": 16,
        "image_size": 28, "mlp_ratio": 2.0, "num_attention_heads": 2, "num_hidden_layers": 1, "patch_size": 14}},
    "ernie4_5_vl_moe":
        {"architectures": ["Ernie4_5_VLMoeForConditionalGeneration"], "model_type": "ernie4_5_vl_moe",
        "tie_word_embeddings": False, "transformers_version": "5.24.0", "image_token_id": 40, "video_token_id": 41,
        "text_config": {"model_type": "ernie4_5_vl_moe_text", "hidden_act": "silu", "hidden_size": 16,
        "intermediate_size": 24, "max_position_embeddings": 512, "mlp_layer_types": ["dense", "sparse"],
        "moe_intermediate_size": [12, 8], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1,
        "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-05,
        "rope_parameters": {"mrope_section": [1, 1, 2], "rope_theta": 500000.0, "rope_type": "default"},
        "tie_word_embeddings": False, "use_bias": False, "vocab_size": 48}, "vision_config": {"hidden_size": 16,
        "intermediate_size": 16, "depth": 1, "num_heads": 2}},
    "lfm3":
        {"architectures": ["Lfm3ForCausalLM"], "conv_L_cache": 4, "conv_bias": False, "head_dim": 12, "hidden_size": 32,
        "intermediate_size": 24, "layer_types": ["conv", "full_attention", "sliding_attention"],
        "max_position_embeddings": 512, "model_type": "lfm3", "norm_eps": 1e-05, "num_attention_heads": 4,
        "num_hidden_layers": 3, "num_key_value_heads": 2, "pad_token_id": 2, "rope_parameters": {"full_attention":
        {"partial_rotary_factor": 0.5, "rope_theta": 1000000.0, "rope_type": "proportional"}, "sliding_attention":
        {"rope_theta": 10000.0, "rope_type": "default"}}, "sliding_window": 5, "tie_word_embeddings": True,
        "transformers_version": "5.24.0", "use_attention_gate": True, "use_sandwich_norm": True, "vocab_size": 48},
    "axk1":
        {"pad_token_id": 2, "architectures": ["AXK1ForCausalLM"], "attention_bias": False, "hidden_act": "silu", "hidden_size":
        32, "intermediate_size": 24, "kv_lora_rank": 16, "max_position_embeddings": 512, "mlp_layer_types": ["dense",
        "sparse"], "model_type": "axk1", "moe_intermediate_size": 8, "n_group": 2, "n_routed_experts": 6,
        "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 4, "num_experts_per_tok": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 4, "q_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
        "rms_norm_eps": 1e-06, "rope_interleave": True, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "routed_scaling_factor": 1.5, "tie_word_embeddings": False, "topk_group": 1, "transformers_version": "5.24.0",
        "v_head_dim": 8, "vocab_size": 48},
    "flint":
        {"pad_token_id": 2, "architectures": ["FlintForCausalLM"], "attention_bias": False, "decoder_sparse_step": 1,
        "head_dim": 12, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "layer_types": ["full_attention",
        "sliding_attention", "full_attention"], "max_position_embeddings": 512, "mlp_only_layers": [0], "model_type": "flint",
        "moe_intermediate_size": 8, "norm_topk_prob": True, "num_attention_heads": 4, "num_experts": 6,
        "num_experts_per_tok": 3, "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "shared_expert_intermediate_size": 16,
        "sliding_window": 5, "tie_word_embeddings": False, "transformers_version": "5.24.0", "vocab_size": 48},
    "laguna":
        {"pad_token_id": 2, "architectures": ["LagunaForCausalLM"], "attention_bias": False, "gating": True,
        "head_dim": 16, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "layer_types":
        ["full_attention", "sliding_attention", "sliding_attention"], "max_position_embeddings": 131072,
        "mlp_layer_types": ["dense", "sparse", "sparse"], "model_type": "laguna",
        "moe_apply_router_weight_on_input": False, "moe_intermediate_size": 8, "moe_routed_scaling_factor": 2.5,
        "moe_router_logit_softcapping": 0.0, "moe_router_score_func": "sigmoid", "num_attention_heads": 4,
        "num_attention_heads_per_layer": [4, 6, 4], "num_experts": 6, "num_experts_per_tok": 2,
        "num_hidden_layers": 3, "num_key_value_heads": 2, "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-06,
        "rope_parameters": {"full_attention": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0,
        "original_max_position_embeddings": 64, "partial_rotary_factor": 0.5, "rope_theta": 500000.0,
        "rope_type": "yarn"}, "sliding_attention": {"partial_rotary_factor": 1.0, "rope_theta": 10000.0,
        "rope_type": "default"}}, "shared_expert_intermediate_size": 16, "sliding_window": 6,
        "tie_word_embeddings": False, "transformers_version": "5.24.0", "vocab_size": 48},
}
# The schema of its published file.
STEP = {k: v for k, v in CONFIGS["step3p7"]["text_config"].items() if k not in
        ("mlp_layer_types", "n_routed_experts", "num_experts_per_tok", "num_key_value_heads", "rope_parameters",
         "num_sliding_attention_heads", "swiglu_limits", "moe_router_scaling_factor")} | {
    "moe_num_experts": 6, "moe_top_k": 2, "num_attention_groups": 2, "moe_layers_enum": "1,3", "attention_other_setting":
    {"num_attention_heads": 2}, "rope_theta": [5000000.0, 10000.0, 10000.0, 5000000.0], "partial_rotary_factors":
    [0.5, 1.0, 1.0, 0.5], "rope_scaling": {"rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 64,
    "low_freq_factor": 1.0, "high_freq_factor": 32.0}}
# Models that also see or hear, around the text of a golden checkpoint; a tower of one small layer.
TOWER = {"hidden_size": 16, "embed_dim": 16, "intermediate_size": 16, "num_hidden_layers": 1, "depth": 1,
         "num_attention_heads": 2, "num_heads": 2, "image_size": 28, "patch_size": 14, "out_hidden_size": 32,
         "intermediate_layers_indices": [0], "num_global_layers": 1, "vision_output_dim": 32, "attention_heads": 2,
         "deepstack_visual_indexes": [0], "fullatt_block_indexes": [0], "mlp_ratio": 2}
# Of the later ones.
SECTION = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
SMALL = {k: v for k, v in TOWER.items() if k not in ("attention_heads", "mlp_ratio", "vision_output_dim")} | {
    "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "num_mel_bins": 8,
    "output_dim": 32, "num_visual_indicator_tokens": 5, "vocab_size": 64, "window_size": 28, "max_source_positions": 20,
    "insert_layer_id": 0, "num_key_value_heads": 2, "in_channels": 3}
WRAPPERS = [
    ("aya_vision", "AyaVisionForConditionalGeneration", "cohere2", {"logit_scale": 1.0}),
    ("cohere2_vision", "Cohere2VisionForConditionalGeneration", "cohere2", {"logit_scale": 1.0}),
    ("exaone4_5", "Exaone4_5_ForConditionalGeneration", "exaone4", {}),
    ("gemma3", "Gemma3ForConditionalGeneration", "gemma3_text", {}),
    ("idefics3", "Idefics3ForConditionalGeneration", "llama", {}),
    ("internvl", "InternVLForConditionalGeneration", "qwen2", {}),
    ("kimi_k25", "Kimi_K25ForConditionalGeneration", "deepseek_v3", {}),
    ("lfm2_vl", "Lfm2VlForConditionalGeneration", "lfm2", {}),
    ("llava", "LlavaForConditionalGeneration", "llama", {}),
    ("llava_onevision", "LlavaOnevisionForConditionalGeneration", "qwen2", {}),
    ("mistral3", "Mistral3ForConditionalGeneration", "mistral", {}),
    ("mistral3", "Mistral3ForConditionalGeneration", "ministral3", {}),
    ("mllama", "MllamaForConditionalGeneration", "llama",
     {"model_type": "mllama_text_model", "pad_token_id": 0, "num_hidden_layers": 4,
      "cross_attention_layers": [1, 2]}),
    ("paligemma", "PaliGemmaForConditionalGeneration", "gemma", {}),
    ("paligemma", "PaliGemmaForConditionalGeneration", "gemma2", {}),
    ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", "qwen2", {"model_type": "qwen2_5_vl_text",
     "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}),
    ("qwen2_vl", "Qwen2VLForConditionalGeneration", "qwen2", {"model_type": "qwen2_vl_text",
     "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}),
    ("qwen3_5", "Qwen3_5ForConditionalGeneration", "qwen3_5_text", {}),
    ("qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", "qwen3_5_moe_text", {}),
    ("qwen3_vl", "Qwen3VLForConditionalGeneration", "qwen3", {"model_type": "qwen3_vl_text"}),
    ("smolvlm", "SmolVLMForConditionalGeneration", "llama", {}),
    ("voxtral", "VoxtralForConditionalGeneration", "llama", {}),
    ("voxtral", "VoxtralForConditionalGeneration", "llama", {"rope_parameters": GONE, "rms_norm_eps": GONE}),
]
MORE_WRAPPERS = [
    ("deepseek_vl", "DeepseekVLForConditionalGeneration", "llama", {}),
    ("glmasr", "GlmAsrForConditionalGeneration", "llama", {"rms_norm_eps": GONE}),
    ("idefics2", "Idefics2ForConditionalGeneration", "mistral", {}),
    ("janus", "JanusForConditionalGeneration", "llama", {}),
    ("llava_next_video", "LlavaNextVideoForConditionalGeneration", "llama", {}),
    ("video_llava", "VideoLlavaForConditionalGeneration", "llama", {}),
    ("vipllava", "VipLlavaForConditionalGeneration", "llama", {}),
    ("got_ocr2", "GotOcr2ForConditionalGeneration", "qwen2", {}),
    ("lighton_ocr", "LightOnOcrForConditionalGeneration", "qwen3", {}),
    ("ovis2", "Ovis2ForConditionalGeneration", "qwen2", {}),
    ("qianfan_ocr", "QianfanOCRForConditionalGeneration", "qwen3", {}),
    ("qwen2_audio", "Qwen2AudioForConditionalGeneration", "qwen2", {}),
    ("qwen3_asr", "Qwen3ASRForConditionalGeneration", "qwen3", {}),
    ("video_llama_3", "VideoLlama3ForConditionalGeneration", "qwen2", {}),
    ("qwen2_5_omni_thinker", "Qwen2_5OmniThinkerForConditionalGeneration", "qwen2",
     {"model_type": "qwen2_5_omni_text", "rope_parameters": SECTION}),
    ("qwen3_omni_moe_thinker", "Qwen3OmniMoeThinkerForConditionalGeneration", "qwen3_moe",
     {"model_type": "qwen3_omni_moe_text", "num_experts": 4, "rope_parameters": SECTION}),
    ("minicpmv4_6", "MiniCPMV4_6ForConditionalGeneration", "qwen3_5_text", {}),
    ("granite_speech", "GraniteSpeechForConditionalGeneration", "granite", {"logits_scaling": 1.0}),
    ("paddleocr_vl", "PaddleOCRVLForConditionalGeneration", "ernie4_5",
     {"model_type": "paddleocr_vl_text", "rope_parameters": SECTION | {"mrope_section": [2, 3, 3]}}),
    ("glm4v", "Glm4vForConditionalGeneration", "glm4",
     {"model_type": "glm4v_text", "num_attention_heads": 2, "num_key_value_heads": 1,
      "rope_parameters": SECTION | {"partial_rotary_factor": 0.5}}),
    ("glm46v", "Glm46VForConditionalGeneration", "glm4",
     {"model_type": "glm4v_text", "num_attention_heads": 2, "num_key_value_heads": 1,
      "rope_parameters": SECTION | {"partial_rotary_factor": 0.5}}),
    ("glm_ocr", "GlmOcrForConditionalGeneration", "glm4",
     {"model_type": "glm_ocr_text", "rope_parameters": SECTION | {"mrope_section": [2, 2, 4]}}),
    ("glm4v_moe", "Glm4vMoeForConditionalGeneration", "glm4_moe",
     {"model_type": "glm4v_moe_text", "rope_parameters": SECTION | {"partial_rotary_factor": 0.5}}),
    ("hunyuan_vl", "HunYuanVLForConditionalGeneration", "hunyuan_v1_dense",
     {"model_type": "hunyuan_vl_text", "rope_parameters": SECTION | {"mrope_section": [2, 2, 2, 2]}}),
]
CODES = {"num_embeddings": 8, "embed_dim": 8, "latent_channels": 8, "base_channels": 32, "channel_multiplier": [1],
         "num_res_blocks": 1}  # of Janus
TOWERS = "vision|visual|audio|video|(?<!mm_)projector|connector|image|aligner|generation_|vqmodel|^encoder|^mlp1|^mlp_AR|^vit|merger|sam_model|qwen2_model|view_sep"
CASES = [
    ("codegen", {"n_head": 2}),
    ("xlstm", {"use_bias": True}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}),
    ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0,
                                   "original_max_position_embeddings": 8, "short_factor": [1.0, 1.1, 1.2, 1.3],
                                   "long_factor": [1.0, 1.5, 2.0, 2.5]}}),
    ("deepseek_v3", {"num_experts_per_tok": 1}),
    ("exaone_moe", {"n_group": 2}),
    ("exaone_moe", {"layer_types": ["full_attention"] * 4}),
    ("gpt2", {"scale_attn_weights": False}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gpt_bigcode", {"scale_attn_weights": False, "multi_query": False}),
    ("llama4_text", {"no_rope_layers": [0, 1, 1, 0]}),
    ("llama4_text", {"layer_types": ["full_attention", "chunked_attention"] * 2}),
    ("gemma3n_text", {"hidden_activation": "silu"}),
    ("longcat_flash", {"hidden_act": "relu"}),
    ("recurrent_gemma", {"hidden_activation": "relu"}),
    ("olmo3", {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 500000.0},
                                   "sliding_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}}),
    ("olmoe", {"clip_qkv": 0.1}),
    ("phimoe", {"num_experts_per_tok": 1}),
    ("kimi_linear", {"num_experts_per_token": 1}),
    ("afmoe", {"num_experts_per_tok": 1}),
    ("gemma3_text", {"hidden_size": 48}),
    ("mpt", {"attn_config": {"alibi": False}}),
    ("opt", {"layer_norm_elementwise_affine": False, "_remove_final_layer_norm": True}),
    ("opt", {"do_layer_norm_before": False}),
    ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 20}),
    ("bloom", {"apply_residual_connection_post_layernorm": True}),
    ("kimi_linear", {"num_shared_experts": 0}),
    ("llama", {"model_type": "ministral", "architectures": ["MinistralForCausalLM"], "sliding_window": 5,
               "layer_types": ["sliding_attention", "full_attention"]}),
    ("llama", {"model_type": "ministral", "architectures": ["MinistralForCausalLM"], "sliding_window": 5}),
    ("llama", {"model_type": "cwm", "architectures": ["CwmForCausalLM"], "num_hidden_layers": 5, "sliding_window": 5,
               "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 16.0, "low_freq_factor": 1.0,
                                   "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}),
    ("granite", {"model_type": "hyperclovax", "architectures": ["HyperCLOVAXForCausalLM"]}),
    ("granite", {"model_type": "hyperclovax", "architectures": ["HyperCLOVAXForCausalLM"], "use_post_norm": False,
                 "attention_multiplier": None}),
    ("granitemoe", {"model_type": "granitemoeshared", "architectures": ["GraniteMoeSharedForCausalLM"],
                    "shared_intermediate_size": 12}),
    ("granitemoe", {"model_type": "granitemoeshared", "architectures": ["GraniteMoeSharedForCausalLM"],
                    "shared_intermediate_size": 0}),
    ("qwen2", {"rope_parameters": {"rope_type": "default"}}),
    ("glm", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    ("deepseek_v3", {"routed_scaling_factor": GONE}),
    ("afmoe", {"layer_types": GONE, "route_scale": GONE}),
    ("exaone_moe", {"layer_types": GONE, "routed_scaling_factor": GONE}),
    ("vaultgemma", {"layer_types": GONE}),
    ("kimi_linear", {"routed_scaling_factor": GONE}),
    ("smollm3", {"rope_parameters": GONE}),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                   "high_freq_factor": 4.0}}),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "mscale_all_dim": 1.0,
                                   "original_max_position_embeddings": 8}}),
    ("apertus", {"hidden_act": "silu"}),
    ("mixtral", {"head_dim": 8, "rope_parameters": GONE, "rope_theta": 10000.0, "transformers_version": "4.52.4",
               "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}}),
    ("qwen3_moe", {"rope_parameters": GONE, "rope_theta": 10000.0, "transformers_version": "4.52.4",
                 "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}}),
    ("glm4_moe", {"rope_parameters": GONE, "rope_theta": 10000.0, "transformers_version": "4.52.4",
                  "partial_rotary_factor": 0.5,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}}),
    ("llama", {"model_type": "ministral", "architectures": ["MinistralForCausalLM"], "sliding_window": 5,
               "attention_bias": True, "mlp_bias": True}),
    ("mimo_v2_flash", {}),
    ("olmo_hybrid", {}),
    ("mellum", {}),
    ("bailing_hybrid", {}),
    ("deepseek_v32", {}),
    ("minicpm3", {}),
    ("qwen3_vl_moe", {}),
    ("llava_next", {}),
    ("glm4", {"rms_norm_eps": GONE}),
    ("deepseek_v2", {"n_shared_experts": GONE}),
    ("laguna", {"attention_bias": True}),
    ("laguna", {"gating": "per-element"}),
    ("bailing_hybrid", {"attention_bias": True}),
    ("bailing_hybrid", {"hidden_act": "relu"}),
    ("bailing_hybrid", {"n_group": 1, "num_experts_per_tok": 3, "norm_topk_prob": False}),
    ("deepseek_v3", {"norm_topk_prob": None, "rope_interleave": None}),
    ("gpt_oss", {"rope_parameters": None}),
    ("dbrx", {"max_seq_len": 64, "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}}),
    ("deepseek_v3", {"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 3.0, "mscale_all_dim": 1.0,
                                         "rope_theta": 10000.0}}),
    ("deepseek_v3", {"model_type": "mistral4", "architectures": ["Mistral4ForCausalLM"], "rope_parameters": GONE,
                     "head_dim": GONE}),
    ("gemma4_text", {"model_type": "gemma4_unified_text", "architectures": ["Gemma4UnifiedForCausalLM"],
                     "hidden_size_per_layer_input": GONE, "vocab_size_per_layer_input": GONE,
                     "num_kv_shared_layers": GONE, "sliding_window": GONE}),
    ("gpt_oss", {"num_hidden_layers": 3, "layer_types": GONE}),
    ("granitemoehybrid", {"num_local_experts": 1, "num_experts_per_tok": 1}),
    ("granitemoehybrid", {"num_local_experts": 0}),
    ("granitemoehybrid", {"tie_word_embeddings": GONE}),
    ("bitnet", {"tie_word_embeddings": GONE}),
    ("glm", {"tie_word_embeddings": GONE}),
    ("granite", {"tie_word_embeddings": GONE}),
    ("jamba", {"tie_word_embeddings": GONE}),
    ("falcon_h1", {"mamba_d_conv": 1, "embedding_multiplier": 2.0, "key_multiplier": 0.4, "lm_head_multiplier": 0.5,
                   "attention_in_multiplier": 1.5, "mlp_multipliers": [0.9, 0.6], "ssm_in_multiplier": 1.2,
                   "ssm_multipliers": [0.3, 0.5, 0.7, 0.9, 1.2], "ssm_out_multiplier": 0.8}),
    ("qwen3_vl_moe", {"text_config": CONFIGS["qwen3_vl_moe"]["text_config"] | {"moe_intermediate_size": 16}}),
    ("qwen3_vl_moe", {"text_config": CONFIGS["qwen3_vl_moe"]["text_config"] | {"moe_intermediate_size": 32}}),
    ("qwen3_vl_moe", {"text_config": CONFIGS["qwen3_vl_moe"]["text_config"] | {"norm_topk_prob": False}}),
    ("qwen3_5_text", {"num_hidden_layers": 1, "layer_types": ["full_attention"]}),
    ("qwen3_5_moe_text", {"num_hidden_layers": 1, "layer_types": ["full_attention"]}),
    ("qwen3_next", {"num_hidden_layers": 1, "layer_types": ["full_attention"]}),
    ("olmo_hybrid", {"linear_key_head_dim": 6, "linear_value_head_dim": 20}),
    ("qwen3_5_text", {"linear_conv_kernel_dim": 1}),
    ("minimax", {}),
    ("gpt_oss", {"swiglu_limit": 0.5}),
    ("gpt_oss", {"swiglu_alpha": 1.25}),
    ("falcon", {"alibi": True}),
    ("falcon", {"alibi": True, "new_decoder_architecture": False, "multi_query": False, "parallel_attn": False,
                "bias": True}),
    ("ernie4_5_moe", {"moe_k": GONE, "num_experts_per_tok": 3}),
    ("hunyuan_v1_moe", {"num_experts_per_tok": 3}),
    ("kimi_linear", {"num_experts_per_token": GONE, "num_experts_per_tok": 3, "num_shared_experts": GONE,
                     "n_shared_experts": 2}),
    ("kimi_linear", {"num_experts_per_tok": 3}),
    ("longcat_flash", {"moe_topk": GONE, "num_experts_per_tok": 3, "ffn_hidden_size": GONE, "intermediate_size": 40}),
    ("recurrent_gemma", {"sliding_window": 4}),
    ("gpt2", {"n_head": GONE, "num_attention_heads": 2, "n_layer": GONE, "num_hidden_layers": 1}),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("dbrx", {"rope_parameters": GONE, "rope_theta": 100.0}),
    ("glm_moe_dsa", {"index_topk_freq": 3}),
    ("glm_moe_dsa", {"indexer_types": ["full", "shared", "full", "shared", "shared"]}),
    ("glm_moe_dsa", {"index_topk_pattern": "FSSFS"}),
    ("glm4", {"head_dim": 6}),
    ("gpt_neox", {"hidden_size": 36, "num_attention_heads": 3, "rope_parameters": {"rope_type": "linear", "factor": 2.0,
                  "rope_theta": 10000.0, "partial_rotary_factor": 0.25}}),
    ("mimo_v2_flash", {"rope_parameters": {t: {"partial_rotary_factor": 0.334, "rope_theta": 10000.0,
                       "rope_type": "default"} for t in ("full_attention", "sliding_attention")}}),
    ("gpt_neox", {"rope_parameters": GONE, "rotary_pct": 0.5, "transformers_version": "4.52.4"}),
    ("mamba", {"hidden_act": "gelu", "use_bias": GONE, "conv_kernel": GONE}),
    ("mamba2", {"hidden_act": "relu", "use_bias": GONE, "use_conv_bias": GONE}),
    ("falcon_h1", {"hidden_act": "gelu"}),
    ("jamba", {"hidden_act": "gelu"}),
    ("nemotron_h", {"mamba_hidden_act": "gelu"}),
    ("qwen3_next", {"hidden_act": "relu"}),
    ("kimi_linear", {"hidden_act": "relu"}),
    ("olmo_hybrid", {"hidden_act": "gelu"}),
    ("gemma2", {"layer_types": GONE, "rope_parameters": GONE, "transformers_version": "4.52.4"}),
    ("gemma", {"rope_parameters": GONE, "transformers_version": "4.52.4", "rope_scaling":
               {"type": "longrope", "factor": 1.5, "original_max_position_embeddings": 2,
                "short_factor": [1.0] * 8, "long_factor": [1.0, 1.3, 1.6, 1.9, 2.2, 2.5, 2.8, 3.1]}}),
    ("glm", {"attention_bias": GONE, "head_dim": GONE}),
    ("opt", {"max_position_embeddings": GONE}),
    ("qwen3", {"head_dim": GONE}),
    ("lfm2", {"block_multiple_of": GONE, "conv_L_cache": GONE}),
    ("llama", {"model_type": "ministral", "architectures": ["MinistralForCausalLM"], "layer_types":
               ["sliding_attention", "full_attention"]}),
    ("deepseek_v32", {"routed_scaling_factor": GONE}),
    ("glm_moe_dsa", {"routed_scaling_factor": GONE}),
    ("mellum", {"rope_parameters": GONE}),
    ("laguna", {"rope_parameters": GONE}),
    ("mimo_v2_flash", {"rope_parameters": GONE, "rms_norm_eps": GONE}),
    ("afmoe", {"mup_enabled": GONE}),
    ("minimax", {"rms_norm_eps": GONE}),
    ("bamba", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("qwen3_next", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("qwen3_5_text", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("llama", {"model_type": "cwm", "architectures": ["CwmForCausalLM"], "num_hidden_layers": 5,
               "rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("gpt_oss", {"rope_scaling": {"type": "linear", "factor": 4.0}, "sliding_window": GONE}),
    ("granite", {"model_type": "granite_swa", "architectures": ["GraniteSWAForCausalLM"], "num_hidden_layers": 5,
                 "sliding_window": 5}),
    ("granite", {"model_type": "granite_swa", "architectures": ["GraniteSWAForCausalLM"], "sliding_window": 3,
                 "layer_types": ["sliding_attention", "full_attention"], "layer_rope_theta": [100.0, 0]}),
    ("granitemoe", {"model_type": "granitemoe_swa", "architectures": ["GraniteMoeSWAForCausalLM"],
                    "sliding_window": 4, "shared_intermediate_size": 12, "layer_rope_theta": [0, 500.0]}),
    ("glm4_moe", {"model_type": "sarvam_moe", "rope_parameters": GONE, "use_qk_norm": GONE,
                  "routed_scaling_factor": GONE, "n_routed_experts": GONE, "num_experts": 4}),
    ("deepseek_v3", {"model_type": "sarvam_mla", "q_lora_rank": GONE, "routed_scaling_factor": GONE}),
    ("gpt_neo", {}),
    ("hy_v3", {}),
    ("hy_v3", {"mlp_layer_types": GONE, "rope_parameters": GONE, "rms_norm_eps": GONE, "num_shared_experts": 0,
               "mlp_bias": True}),
    ("cohere2_moe", {}),
    ("cohere2_moe", {"layer_types": GONE, "mlp_layer_types": GONE, "first_k_dense_replace": 2, "rms_norm_eps": 1e-05,
                     "prefix_dense_sliding_window_pattern": 2, "sliding_window_pattern": 2,
                     "expert_selection_fn": "sigmoid", "shared_expert_combination_strategy": "sum"}),
    ("cohere2_moe", {"expert_selection_fn": "sigmoid", "norm_topk_prob": False, "num_shared_experts": 0}),
    ("step3p7", {}),
    ("step3p7", {"text_config": STEP}),
    ("step3p7", {"text_config": STEP | {"moe_layers_enum": [0, 3], "rope_theta": 100.0, "mlp_bias": True,
                                        "attention_bias": True, "query_pre_attn_scalar": 20}}),
    ("axk1", {}),
    ("axk1", {"mlp_layer_types": GONE, "n_shared_experts": 0, "attention_bias": True, "routed_scaling_factor": GONE}),
    ("flint", {}),
    ("gpt_neox", {"rope_parameters": GONE, "partial_rotary_factor": 0.5, "rope_theta": 100.0}),
    ("gpt_neox", {"rope_parameters": GONE, "partial_rotary_factor": 0.5, "rope_theta": 100.0,
                  "transformers_version": "4.52.4"}),
    ("ministral3", {"rope_parameters": GONE}),
    ("lfm2", {"layer_types": GONE, "full_attn_idxs": [1]}),
    ("lfm2", {"layer_types": GONE}),
    ("lfm2", {"full_attn_idxs": [0]}),
    ("granitemoehybrid", {"layer_types": GONE}),
    ("mimo_v2_flash", {"layer_types": GONE, "mlp_layer_types": GONE, "num_hidden_layers": 6,
                       "n_routed_experts": 2, "n_group": 1}),
    ("recurrent_gemma", {"block_types": GONE, "num_hidden_layers": 4}),
    ("flint", {"layer_types": GONE, "mlp_only_layers": GONE, "num_hidden_layers": 5, "norm_topk_prob": False,
               "rms_norm_eps": GONE}),
    ("bamba", {"rope_parameters": GONE, "partial_rotary_factor": 0.25, "transformers_version": "4.52.4", "rope_scaling":
               {"type": "longrope", "factor": 2.0, "original_max_position_embeddings": 2, "short_factor": [1.0, 1.1],
                "long_factor": [1.0, 1.5]}}),
    ("persimmon", {"rope_parameters": GONE, "transformers_version": "4.52.4", "rope_theta": 500.0, "rope_scaling":
                   {"type": "longrope", "factor": 2.0, "original_max_position_embeddings": 2, "short_factor": [1.0, 1.1],
                    "long_factor": [1.0, 1.5]}}),
    ("ernie4_5_vl_moe", {}),
    ("lfm3", {}),
    ("lfm3", {"layer_types": GONE, "rope_parameters": GONE, "num_hidden_layers": 5, "use_attention_gate": False,
              "use_sandwich_norm": False, "conv_bias": True, "tie_word_embeddings": False}),
    ("gpt_neox_japanese", {}),
    ("gpt_neox_japanese", {"tie_word_embeddings": False, "rope_parameters": {"rope_type": "linear", "factor": 4.0,
                           "rope_theta": 500.0, "partial_rotary_factor": 0.5}}),
    ("openai-gpt", {}),
    ("openai-gpt", {"afn": "silu", "tie_word_embeddings": False}),
    ("emu3", {}),
    ("deepseek_ocr2", {}),
    ("muse_glimmer", {}),
    ("molmo2", {}),
    ("llama", {"model_type": "exaone", "rope_parameters": GONE, "hidden_act": "silu", "activation_function": "gelu"}),
    ("qwen3_vl_moe", {"text_config": CONFIGS["qwen3_vl_moe"]["text_config"] | {"rope_parameters": {"rope_type": "default"}}}),
    ("molmo2", {"text_config": CONFIGS["molmo2"]["text_config"] | {"norm_after": True, "qk_norm_type": "olmo"}}),
    ("muse_spark", {}),
    ("gemma3_text", {"head_dim": 32, "rope_parameters": {"full_attention": {"rope_theta": 10000.0, "rope_type": "default"},
                     "sliding_attention": {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0,
                                           "original_max_position_embeddings": 64, "truncate": False}}}),
]


def changed(goldens, fixture, change):
    file = goldens / "models_hf" / fixture / "config.json"
    config = (CONFIGS[fixture] if fixture in CONFIGS else json.loads(file.read_text())) | change
    return f"{fixture} {json.dumps(change)}", {k: v for k, v in config.items() if v != GONE}


def wrapped(goldens, kind, architecture, fixture, change):
    text = json.loads((goldens / "models_hf" / fixture / "config.json").read_text())
    text = {k: v for k, v in text.items() if k not in LEFT_OUT | {"architectures", "transformers_version"}} | change
    text = {k: v for k, v in text.items() if v != GONE} | {"tie_word_embeddings": False}
    tower = "audio_config" if kind == "voxtral" else "vision_config"
    return f"{kind} of {fixture}", {"model_type": kind, "architectures": [architecture], "transformers_version": "5.24.0",
                                    "tie_word_embeddings": False, "text_config": text, tower: TOWER}


def later(name, config):
    towers = {"vision_config": SMALL, "audio_config": SMALL} | ({"vq_config": CODES} if config["model_type"] == "janus" else {})
    text = config["text_config"]
    return name, config | towers | ({k: text[k] for k in ("hidden_size", "vocab_size")} if name[:5] == "ovis2" else {})


def case(name, config):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "config.json").write_text(json.dumps(config))
        read = transformers.AutoConfig.from_pretrained(folder)
        kind = getattr(transformers, config["architectures"][0])
        kind._from_config(read, dtype=torch.float32).save_pretrained(folder)
        with safe_open(path / "model.safetensors", "np") as f:
            shapes = {n: tuple(f.get_slice(n).get_shape()) for n in f.keys() if not re.search("_decay$|slope_rate$|batches_tracked$", n)}
        save_file({n: value(n, s).astype(np.float32) for n, s in shapes.items()}, path / "model.safetensors",
                  metadata={"format": "pt"})
        attention = "sdpa" if config.get("alibi") else "eager"  # eager Falcon adds its ALiBi twice
        model = kind.from_pretrained(folder, config=read, dtype=torch.float32, attn_implementation=attention).eval()
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS]), use_cache=False).logits[0, -1].numpy()
    return written(name, config, {n: s for n, s in shapes.items() if not re.search(TOWERS, n)}, logits)


def written(name, config, shapes, logits):
    text = json.dumps({k: v for k, v in config.items() if k not in LEFT_OUT}, separators=(",", ":"))
    return "    {%s,\n     %s,\n     {%s},\n     {%s}},\n" % (
        json.dumps(name), json.dumps(text), strings(listed(shapes)),
        floats(logits))


torch.set_num_threads(1)
goldens = pathlib.Path(sys.argv[1])
text = "".join(case(*changed(goldens, *c)) for c in CASES) + "".join(case(*wrapped(goldens, *w)) for w in WRAPPERS)
text += "".join(case(*later(*wrapped(goldens, *w))) for w in MORE_WRAPPERS)
text += "".join(written(f"{c['model_type']} {i}", c, *renamed(TOKENS, *r)) for i, (c, *r) in enumerate(RENAMED))
(pathlib.Path(__file__).parent / "toggles.h").write_text(
    "/* tests/engine/toggles.h: configs, tensors and last logits; written by toggles.py. */\n"
    "#ifndef TOGGLES_H\n#define TOGGLES_H\n\n#include <stdint.h>\n\n"
    f"static const int32_t toggle_tokens[] = {{{', '.join(map(str, TOKENS))}}};\n\n// clang-format off\n"
    "static const struct toggle {\n    const char *name, *config, *tensors[2];\n    float logits[128];\n} toggles[] = {\n"
    + text + "};\n// clang-format on\n\n#endif\n")
