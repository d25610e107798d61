"""Writes toggles.h: small configs with one key other than in the shared goldens, and the logits that transformers computes for them.

usage: toggles.py GOLDENS, the folder with models_hf/. Weights follow from the names of tensors.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from hashed import LEFT_OUT, floats, listed, strings, value

TOKENS = [3, 17, 9, 30, 5, 22, 41, 7, 12, 33, 4, 19]
GONE = "left out"  # the key is not in config.json
CASES = [
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
]


def case(goldens, fixture, change):
    config = json.loads((goldens / "models_hf" / fixture / "config.json").read_text()) | change
    config = {k: v for k, v in config.items() if v != GONE}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "config.json").write_text(json.dumps(config))
        read = transformers.AutoConfig.from_pretrained(folder)
        kind = getattr(transformers, config["architectures"][0])
        kind._from_config(read, dtype=torch.float32).save_pretrained(folder)
        with safe_open(path / "model.safetensors", "np") as f:
            shapes = {n: tuple(f.get_slice(n).get_shape()) for n in f.keys()}
        save_file({n: value(n, s).astype(np.float32) for n, s in shapes.items()}, path / "model.safetensors",
                  metadata={"format": "pt"})
        model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS]), use_cache=False).logits[0, -1].numpy()
    text = json.dumps({k: v for k, v in config.items() if k not in LEFT_OUT}, separators=(",", ":"))
    return "    {%s,\n     %s,\n     {%s},\n     {%s}},\n" % (
        json.dumps(f"{fixture} {json.dumps(change)}"), json.dumps(text), strings(listed(shapes)), floats(logits))


torch.set_num_threads(1)
goldens = pathlib.Path(sys.argv[1])
text = "".join(case(goldens, *c) for c in CASES)
(pathlib.Path(__file__).parent / "toggles.h").write_text(
    "/* tests/engine/toggles.h: configs, tensors and last logits; written by toggles.py. */\n"
    "#ifndef TOGGLES_H\n#define TOGGLES_H\n\n#include <stdint.h>\n\n"
    f"static const int32_t toggle_tokens[] = {{{', '.join(map(str, TOKENS))}}};\n\n// clang-format off\n"
    "static const struct toggle {\n    const char *name, *config, *tensors[2];\n    float logits[128];\n} toggles[] = {\n"
    + text + "};\n// clang-format on\n\n#endif\n")
