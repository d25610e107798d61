"""Writes adapters.h: adapters of PEFT for small models, and the logits that PEFT and transformers compute with them.

usage: adapters.py GOLDENS, the folder with models_hf/. Weights follow from the names of tensors, the adapters' too; peft
0.21 and transformers 5 are needed.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from hashed import LEFT_OUT, floats, listed, strings, value

TOKENS = [3, 17, 9, 30, 5, 22, 41, 7, 12, 33, 4, 19]
ATTENTION = r".*self_attn\.[a-z_]*proj(_with_mqa)?"
STACKS = ["experts.gate_up_proj", "experts.down_proj"]
# 16 has a root that is the same in bfloat16, to which clm rounds Gemma 3's scale as mlx-lm does
TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "tie_word_embeddings": True,
        "layer_types": ["sliding_attention", "full_attention"]}
VISION = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "image_token_index": 79,
          "boi_token_index": 77, "eoi_token_index": 78, "mm_tokens_per_image": 1,
          "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1,
                            "num_attention_heads": 2, "intermediate_size": 16, "image_size": 16, "patch_size": 8}}
# Types that the goldens do not have.
CONFIGS = {
    "exaone":
        {"architectures": ["LlamaForCausalLM"], "model_type": "exaone", "vocab_size": 80, "hidden_size": 32,
         "intermediate_size": 48, "num_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 512, "layer_norm_epsilon": 1e-05, "activation_function": "silu",
         "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "tie_word_embeddings": False,
         "transformers_version": "5.24.0"},
    "step3p7":
        {"architectures": ["Step3p7ForConditionalGeneration"], "model_type": "step3p7", "transformers_version": "5.24.0",
         "tie_word_embeddings": False, "text_config":
             {"model_type": "step3p5", "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24,
              "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
              "mlp_layer_types": ["dense", "sparse"], "layer_types": ["full_attention", "sliding_attention"],
              "moe_intermediate_size": 8, "share_expert_dim": 8, "n_routed_experts": 3, "num_experts_per_tok": 2,
              "num_sliding_attention_heads": 2, "sliding_window": 5, "pad_token_id": 0},
         "vision_config": {"hidden_size": 16, "image_size": 28, "mlp_ratio": 2.0, "num_attention_heads": 2,
                           "num_hidden_layers": 1, "patch_size": 14}},
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
}
CASES = [
    ("llama", {}, {"target_modules": r".*\.(q_proj|down_proj|lm_head)", "exclude_modules": r".*\.0\.mlp\..*", "r": 2,
                   "use_dora": True, "use_rslora": True, "rank_pattern": {r"layers\.\d\.self.*_proj": 3, "down_proj": 4},
                   "alpha_pattern": {r"^model\.(?:layers)\.1\.\w+\.q_proj": 5}}),
    ("llama", {}, {"target_modules": ["q_proj", "up_proj", "lm_head"], "layers_to_transform": [1],
                   "layers_pattern": "layers", "lora_bias": True}),
    ("qwen2", {"tie_word_embeddings": True}, {"target_modules": ["embed_tokens", "v_proj"], "use_dora": True}),
    ("qwen2", {"tie_word_embeddings": True}, {"target_modules": ["lm_head", "k_proj"], "bias": "all"}),
    ("qwen2", {"tie_word_embeddings": True}, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    ("qwen2", {"tie_word_embeddings": True}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    ("gemma", {}, {"target_modules": ["embed_tokens", "o_proj"], "use_dora": True}),
    ("gpt2", {}, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "use_dora": True}),
    ("gpt2", {}, {"target_modules": ["wte", "wpe"], "use_dora": True, "r": 2}),
    ("gpt_neox", {}, {"target_modules": ["query_key_value", "dense", "lm_head"], "use_dora": True, "bias": "lora_only"}),
    ("qwen3_moe", {}, {"target_modules": ["q_proj"], "target_parameters": STACKS + ["mlp.gate.weight"],
                       "rank_pattern": {"down_proj": 3}}),
    ("mixtral", {}, {"target_modules": [], "target_parameters": STACKS}),
    ("gpt_oss", {}, {"target_modules": ["q_proj"], "target_parameters": STACKS}),
    ("llama4_text", {}, {"target_modules": [], "target_parameters": STACKS}),
    ("longcat_flash", {}, {"target_modules": [], "target_parameters": STACKS}),
    ("deepseek_v2", {}, {"target_modules": ATTENTION, "use_dora": True}),
    ("deepseek_v3", {}, {"target_modules": ATTENTION, "lora_bias": True}),
    ("gemma3n_text", {}, {"target_modules": r".*\.(altup_(unembed_)?projections\.\d|modality_router|embed_tokens_per_layer)"}),
    ("exaone", {}, {"target_modules": ["q_proj", "o_proj", "gate_proj", "down_proj"], "modules_to_save": ["embed_tokens"]}),
    ("step3p7", {}, {"target_modules": r".*language_model.*(q_proj|shared_experts\.down_proj|mlp\.up_proj)",
                     "target_parameters": STACKS}),
    ("bailing_hybrid", {}, {"target_modules": r".*self_attn\.(forget_gate\.)?[a-z_]*proj(_with_mqa)?",
                            "exclude_modules": "kv_b_proj", "use_dora": True}),
    ("gemma3_text", VISION, {"target_modules": r".*\.(q_proj|embed_tokens|fc1)"}),
]


def config_of(goldens, fixture, change):
    if fixture in CONFIGS:
        return CONFIGS[fixture] | change
    config = json.loads((goldens / "models_hf" / fixture / "config.json").read_text())
    if "vision_config" in change:
        return change | {"text_config": config | TEXT, "tie_word_embeddings": True}
    return config | change


def hash_weights(path):
    """The shapes of a file's tensors, which get the numbers that follow from their names."""
    with safe_open(path, "np") as f:
        shapes = {n: tuple(f.get_slice(n).get_shape()) for n in f.keys()}
    save_file({n: value(n, s).astype(np.float32) for n, s in shapes.items()}, path, metadata={"format": "pt"})
    return shapes


def adapted(model, base, folder, settings):
    """An adapter in its folder, with hashed weights, and the logits that it gives."""
    tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **({"r": 3, "lora_alpha": 6} | settings)))
    tuned.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    with safe_open(file, "np") as f:
        kept = {n: f.get_tensor(n) for n in f.keys() if ".base_layer.weight" in n}
    shapes = hash_weights(file)
    if kept:  # of the checkpoint, as they are there
        with safe_open(file, "np") as f:
            save_file({n: f.get_tensor(n) for n in f.keys() if n not in kept}, file, metadata={"format": "pt"})
        shapes = {n: s for n, s in shapes.items() if n not in kept}
    model = type(model).from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    tuned = peft.PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        logits = tuned(input_ids=torch.tensor([TOKENS]), use_cache=False).logits[0, -1].numpy()
    config = json.loads((folder / "adapter_config.json").read_text())
    return {k: v for k, v in config.items() if v not in (None, False, [], {})}, shapes, logits


def case(goldens, fixture, change, settings):
    config = config_of(goldens, fixture, change)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        base = path / "base"
        base.mkdir()
        (base / "config.json").write_text(json.dumps(config))
        kind = getattr(transformers, config["architectures"][0])
        kind._from_config(transformers.AutoConfig.from_pretrained(base), dtype=torch.float32).save_pretrained(base)
        shapes = hash_weights(base / "model.safetensors")
        model = kind.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        how, parts, logits = adapted(model, base, path / "adapter", settings)
    how.pop("base_model_name_or_path", None)
    text = json.dumps({k: v for k, v in config.items() if k not in LEFT_OUT}, separators=(",", ":"))
    return "    {%s,\n     %s,\n     {%s},\n     %s,\n     {%s},\n     {%s}},\n" % (
        json.dumps(f"{fixture} {json.dumps(settings)}"), json.dumps(text), strings(listed(shapes)),
        json.dumps(json.dumps(how, separators=(",", ":"), sort_keys=True)), strings(listed(parts)), floats(logits))


torch.set_num_threads(1)
goldens = pathlib.Path(sys.argv[1])
text = "".join(case(goldens, *c) for c in CASES)
(pathlib.Path(__file__).parent / "adapters.h").write_text(
    "/* tests/engine/adapters.h: PEFT's adapters, their tensors and last logits; written by adapters.py. */\n"
    "#ifndef ADAPTERS_H\n#define ADAPTERS_H\n\n#include <stdint.h>\n\n"
    f"static const int32_t adapter_tokens[] = {{{', '.join(map(str, TOKENS))}}};\n\n// clang-format off\n"
    "static const struct adapter_case {\n    const char *name, *config, *tensors[2], *adapter_config, *adapter[2];\n"
    "    float logits[128];\n} adapter_cases[] = {\n" + text + "};\n// clang-format on\n\n#endif\n")
