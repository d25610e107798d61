"""Writes family_configs.h: a small config.json of every family in src/models, from the shared goldens.

usage: family_configs.py GOLDENS, the folder with models/ and models_hf/. A family takes the smallest fixture of the
first of its model_types that has one; what does not matter for the architecture is left out. Families without a fixture
are written here.
"""

import json
import pathlib
import re
import sys

LEFT_OUT = {"architectures", "torch_dtype", "dtype", "bos_token_id", "eos_token_id",
            "pad_token_id", "initializer_range", "use_cache", "attention_dropout", "quantization",
            "quantization_config", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"}

WRITTEN = [
    {"model_type": "minimax_text_01", "attn_type_list": [0, 1], "head_dim": 16, "hidden_act": "silu",
     "hidden_size": 64, "intermediate_size": 48, "layernorm_full_attention_alpha": 3.5,
     "layernorm_full_attention_beta": 1.0, "layernorm_linear_attention_alpha": 3.5,
     "layernorm_linear_attention_beta": 1.0, "layernorm_mlp_alpha": 3.5, "layernorm_mlp_beta": 1.0,
     "max_position_embeddings": 512, "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
     "num_key_value_heads": 2, "num_local_experts": 4, "postnorm": True, "rms_norm_eps": 1e-05,
     "rope_theta": 10000.0, "rotary_dim": 8, "shared_intermediate_size": 0, "tie_word_embeddings": False,
     "vocab_size": 256},
    {"model_type": "gpt_neo", "activation_function": "gelu_new", "attention_layers": ["global", "local"],
     "hidden_size": 64, "layer_norm_epsilon": 1e-05, "max_position_embeddings": 64, "num_heads": 4, "num_layers": 2,
     "vocab_size": 256, "window_size": 8},
    {"model_type": "hy_v3", "head_dim": 16, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 48,
     "max_position_embeddings": 512, "mlp_layer_types": ["dense", "sparse"], "moe_intermediate_size": 16,
     "num_attention_heads": 4, "num_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
     "num_key_value_heads": 2, "num_shared_experts": 1, "rms_norm_eps": 1e-05, "router_scaling_factor": 2.826,
     "rope_parameters": {"rope_theta": 11158840.0, "rope_type": "default"}, "tie_word_embeddings": False,
     "vocab_size": 256},
    {"model_type": "cohere2_moe", "expert_selection_fn": "sigmoid", "head_dim": 16, "hidden_act": "silu",
     "hidden_size": 64, "intermediate_size": 48, "layer_norm_eps": 1e-05, "layer_types":
     ["full_attention", "sliding_attention"], "logit_scale": 0.25, "max_position_embeddings": 512, "mlp_layer_types":
     ["dense", "sparse"], "num_attention_heads": 4, "num_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 2,
     "num_key_value_heads": 2, "num_shared_experts": 1, "prefix_dense_intermediate_size": 32, "rope_parameters":
     {"rope_theta": 10000.0, "rope_type": "default"}, "sliding_window": 8, "tie_word_embeddings": True,
     "vocab_size": 256},
    {"model_type": "flint", "head_dim": 16, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 48,
     "layer_types": ["full_attention", "sliding_attention"], "max_position_embeddings": 512, "mlp_only_layers": [0],
     "moe_intermediate_size": 16, "norm_topk_prob": True, "num_attention_heads": 4, "num_experts": 4,
     "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
     "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "shared_expert_intermediate_size": 32,
     "sliding_window": 8, "tie_word_embeddings": False, "vocab_size": 256},
    {"model_type": "ernie4_5_vl_moe_text", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24,
     "max_position_embeddings": 512, "mlp_layer_types": ["dense", "sparse"], "moe_intermediate_size": [12, 8], "moe_k": 2,
     "moe_layer_interval": 1, "moe_num_experts": 4, "moe_num_shared_experts": 1, "num_attention_heads": 4,
     "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_parameters":
     {"mrope_section": [1, 1, 2], "rope_theta": 500000.0, "rope_type": "default"}, "tie_word_embeddings": False,
     "use_bias": False, "vocab_size": 48},
    {"model_type": "lfm3", "conv_L_cache": 4, "conv_bias": False, "head_dim": 12, "hidden_size": 32, "intermediate_size": 24,
     "layer_types": ["conv", "full_attention", "sliding_attention"], "max_position_embeddings": 512, "norm_eps": 1e-05,
     "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2, "rope_parameters": {"full_attention":
     {"partial_rotary_factor": 0.5, "rope_theta": 1000000.0, "rope_type": "proportional"}, "sliding_attention":
     {"rope_theta": 10000.0, "rope_type": "default"}}, "sliding_window": 5, "tie_word_embeddings": True,
     "use_attention_gate": True, "use_sandwich_norm": True, "vocab_size": 48},
    {"model_type": "biogpt", "hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 48,
     "max_position_embeddings": 128, "num_attention_heads": 4, "num_hidden_layers": 2, "scale_embedding": True,
     "tie_word_embeddings": True, "vocab_size": 80},
    {"model_type": "aria_text", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24,
     "max_position_embeddings": 512, "moe_num_experts": 5, "moe_num_shared_experts": 2, "moe_topk": 2,
     "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
     "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "tie_word_embeddings": False, "vocab_size": 80},
    {"model_type": "lara_mini", "head_dim": 12, "hidden_act": "silu", "hidden_size": 32, "layer_types":
     ["linear_attention", "sliding_attention", "full_attention"], "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8,
     "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 12, "max_position_embeddings": 512,
     "moe_intermediate_size": 16, "norm_topk_prob": True, "num_attention_heads": 4, "num_experts": 5,
     "num_experts_per_tok": 2, "num_hidden_layers": 3, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
     "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "shared_expert_intermediate_size": 24,
     "sliding_window": 5, "tie_word_embeddings": True, "vocab_size": 80},
    {"model_type": "kolibri1", "head_dim": 12, "hidden_act": "silu", "hidden_size": 32, "layer_types":
     ["sliding_attention", "full_attention"], "max_position_embeddings": 512, "moe_intermediate_size": 16,
     "norm_topk_prob": True, "num_attention_heads": 4, "num_experts": 5, "num_experts_per_tok": 2,
     "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_parameters":
     {"rope_theta": 10000.0, "rope_type": "default"}, "shared_expert_intermediate_size": 24, "sliding_window": 5,
     "tie_word_embeddings": False, "vocab_size": 80},
    {"model_type": "mllama", "text_config": {"model_type": "mllama_text_model", "cross_attention_layers": [1],
     "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 48, "max_position_embeddings": 512,
     "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-05,
     "rope_theta": 500000.0, "tie_word_embeddings": False, "vocab_size": 256}},
    {"model_type": "gpt_neox_japanese", "hidden_act": "gelu", "hidden_size": 32, "intermediate_multiple_size": 2,
     "layer_norm_eps": 1e-05, "max_position_embeddings": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
     "rotary_emb_base": 10000, "rotary_pct": 1.0, "vocab_size": 80},
    {"model_type": "openai-gpt", "afn": "gelu", "layer_norm_epsilon": 1e-05, "n_embd": 32, "n_head": 4, "n_layer": 2,
     "n_positions": 64, "vocab_size": 80},
    {"model_type": "baichuan", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "model_max_length": 128,
     "num_attention_heads": 4, "num_hidden_layers": 2, "rms_norm_eps": 1e-06, "tie_word_embeddings": False,
     "vocab_size": 80},
    {"model_type": "internlm", "bias": True, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24,
     "max_position_embeddings": 128, "num_attention_heads": 4, "num_hidden_layers": 2, "rms_norm_eps": 1e-06,
     "rotary": {"base": 10000, "type": "dynamic"}, "tie_word_embeddings": False, "vocab_size": 80},
    {"model_type": "orion", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "max_position_embeddings": 128,
     "max_sequence_length": 128, "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
     "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 80},
    {"model_type": "codeshell", "activation_function": "gelu_pytorch_tanh", "group_query_attention": True,
     "layer_norm_epsilon": 1e-05, "n_embd": 32, "n_head": 4, "n_inner": 24, "n_layer": 2, "n_positions": 128,
     "num_query_groups": 2, "position_embedding_type": "rope", "scale_attn_weights": True, "vocab_size": 80},
    {"model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True, "ffn_hidden_size": 24, "hidden_size": 32,
     "kv_channels": 8, "layernorm_epsilon": 1e-05, "multi_query_attention": True, "multi_query_group_num": 2,
     "num_attention_heads": 4, "num_layers": 2, "padded_vocab_size": 80, "post_layer_norm": True, "rmsnorm": True,
     "rope_ratio": 50, "seq_length": 128, "tie_word_embeddings": False},
    {"model_type": "molmo2", "text_config": {"model_type": "molmo2_text", "additional_vocab_size": 8, "head_dim": 12,
     "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 24, "max_position_embeddings": 128, "norm_after": True,
     "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "qk_norm_type": "qwen3",
     "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
     "rope_scaling_layers": [0], "tie_word_embeddings": False, "vocab_size": 80}},
    {"model_type": "emu3", "text_config": {"model_type": "emu3_text_model", "hidden_act": "silu", "hidden_size": 32,
     "intermediate_size": 24, "max_position_embeddings": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
     "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_parameters": {"rope_theta": 1000000.0, "rope_type":
     "default"}, "tie_word_embeddings": False, "vocab_size": 80}},
    {"model_type": "deepseek_ocr2", "text_config": {"model_type": "deepseek_ocr2_text", "hidden_act": "silu",
     "hidden_size": 32, "intermediate_size": 24, "max_position_embeddings": 128, "mlp_layer_types": ["dense", "sparse"],
     "moe_intermediate_size": 16, "n_group": 3, "n_routed_experts": 6, "n_shared_experts": 1, "num_attention_heads": 4,
     "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
     "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "routed_scaling_factor": 1.5,
     "tie_word_embeddings": False, "topk_group": 2, "topk_method": "group_limited_greedy", "vocab_size": 80}},
]

here = pathlib.Path(__file__).parent
fixtures = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("models*/*/config.json")):
    config = json.loads(path.read_text())
    weights = path.with_name("model.safetensors")
    if "quantization" not in config and "quantization_config" not in config and weights.exists():
        fixtures.setdefault(config["model_type"], []).append((weights.stat().st_size, str(path), config))

for config in WRITTEN:
    fixtures.setdefault(config["model_type"], []).append((0, "", config))

lines = []
for source in sorted((here / "../../src/models").glob("*.c")):
    for types in re.findall(r"\.model_types\s*=\s*\{([^}]*)\}", source.read_text()):
        if re.findall(r'"([^"]+)"', types) == ["prism_hadamard_qwen35"]:
            continue  # its config.json lists tensors that only quantised checkpoints have
        found = [min(fixtures[t], key=lambda f: f[:2]) for t in re.findall(r'"([^"]+)"', types) if t in fixtures]
        if not found:
            sys.exit(f"{source.name}: no fixture of {types}")
        config = {k: v for k, v in found[0][2].items() if k not in LEFT_OUT}
        lines.append("    " + json.dumps(json.dumps(config, separators=(",", ":"))) + ",\n")

(here / "family_configs.h").write_text(
    "/* tests/models/family_configs.h: a small config.json of every family; written by family_configs.py. */\n"
    "#ifndef FAMILY_CONFIGS_H\n#define FAMILY_CONFIGS_H\n\n// clang-format off\n"
    "static const char *const family_configs[] = {\n" + "".join(lines) + "};\n// clang-format on\n\n#endif\n")
