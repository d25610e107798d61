"""Writes toggles_mlx.h: small configs with one key other than in the shared goldens, and the logits that mlx-lm computes for them.

usage: toggles_mlx.py GOLDENS, the folder with models/. Weights follow from the names of tensors, which are mlx-lm's.
"""

import json
import pathlib
import sys
import tempfile

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm import utils
from mlx_lm.models.cache import make_prompt_cache

from hashed import LEFT_OUT, floats, listed, strings, value

TOKENS = [3, 17, 9, 30, 5, 22, 41, 7, 12, 33, 4, 19]
GONE = "left out"  # the key is not in config.json
LONGROPE = {"type": "longrope", "original_max_position_embeddings": 8, "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 1.5, 2.0, 2.5]}
CASES = [
    ("longcat_flash", {"tie_word_embeddings": True}),
    ("mimo_v2_flash", {"tie_word_embeddings": True}),
    ("nemotron_h", {"tie_word_embeddings": True}),
    ("llama4", {"text_config": {"attn_temperature_tuning": None}}),
    ("mistral4", {"num_experts_per_tok": 1}),
    ("ministral3", {"rope_parameters": {"mscale": GONE}}),
    ("mellum", {"rope_parameters": {"full_attention": {"original_max_position_embeddings": GONE}}}),
    ("kimi_k3", {"text_config": {"hidden_act": GONE}}),
    ("nemotron-nas", {"rope_theta": GONE, "rms_norm_eps": GONE}),
    ("mixtral", {"rms_norm_eps": GONE}),
    ("nanbeige", {"num_loops": GONE}),
    ("starcoder2", {"rope_theta": GONE}),
    ("bailing_moe_v3", {"num_experts_per_tok": 1, "routed_scaling_factor": GONE, "rms_norm_eps": GONE}),
    ("nemotron_h_moe", {"norm_topk_prob": GONE}),
    ("youtu_llm", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                    "mscale": 0.7, "mscale_all_dim": 0.5}}),
    ("deepseek_v3", {"rope_scaling": {"type": GONE}}),
    ("apertus", {"attention_bias": True, "qk_norm": False, "post_norm": True}),
    ("glm4_moe", {"scoring_func": "softmax"}),
    ("glm4_moe_lite", {"rope_scaling": LONGROPE}),
    ("glm4_moe_lite", {"q_lora_rank": GONE, "v_head_dim": GONE, "first_k_dense_replace": GONE}),
    ("glm_moe_dsa", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                                      "mscale_all_dim": 0.7}}),
    ("gpt_neox", {"num_key_value_heads": 1}),
    ("gpt_oss", {"head_dim": GONE}),
    ("falcon_h1", {"head_dim": GONE, "num_key_value_heads": GONE}),
    ("afmoe", {"head_dim": GONE}),
    ("gemma3n", {"text_config": {"rope_scaling": {"type": "linear", "factor": 4.0}}}),
    ("gemma3_text", {"rope_scaling": LONGROPE | {"long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5], "long_mscale": 1.3},
                     "max_position_embeddings": GONE}),
    ("gemma4_text", {"global_head_dim": GONE}),
    ("dots1", {"attention_bias": True, "mlp_bias": True}),
    ("helium", {"head_dim": 6}),
    ("gemma3_text", {"tie_word_embeddings": True}),
    ("glm4", {"tie_word_embeddings": True}),
    ("deepseek_v41", {"num_attention_heads": 6, "o_groups": 4}),
    ("granitemoehybrid", {"num_local_experts": 1, "num_experts_per_tok": 1}),
    ("granitemoehybrid", {"num_local_experts": GONE}),
    ("Klear", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("baichuan_m1", {}),
    ("bailing_moe_v1", {}),
    ("qwen3_vl_moe", {"text_config": {"hidden_size": 16, "moe_intermediate_size": 8}}),
    ("qwen3_vl_moe", {"text_config": {"hidden_size": 16, "moe_intermediate_size": 16}}),
    ("mistral4", {"rope_theta": GONE, "rope_parameters": {"rope_theta": GONE}}),
    ("recurrent_gemma", {"num_key_value_heads": 2}),
    ("plamo3", {"head_dim": GONE, "num_key_value_heads": GONE}),
    ("laguna", {"head_dim": GONE}),
    ("talkie", {"head_dim": GONE}),
    ("phimoe", {"rms_norm_eps": GONE}),
    ("exaone4", {"sliding_window_pattern": None}),
    ("pixtral", {"text_config": {"tie_word_embeddings": True, "num_attention_heads": GONE}}),
    ("glm_moe_dsa", {"rope_parameters": LONGROPE}),
    ("mistral4", {"rope_interleave": None}),
    ("llama", {"rope_scaling": LONGROPE, "rope_traditional": True}),
    ("llama4", {"text_config": {"rope_scaling": LONGROPE}}),
]
HALVES = {"baichuan_m1": {"lm_head.weight"}, "bailing_moe_v1": {"lm_head.weight"}}  # tensors of bf16


def published(fixture, shapes):
    """Names and shapes as the original checkpoint has them, where it is about these."""
    if fixture != "qwen3_vl_moe":
        return shapes
    out = {}
    for name, shape in shapes.items():
        name = name.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head")
        if "switch_mlp.up_proj" in name:
            continue
        if "switch_mlp" in name:
            name = name.replace("switch_mlp.gate_proj.weight", "experts.gate_up_proj").replace("switch_mlp.down_proj.weight", "experts.down_proj")
            shape = (shape[0], shape[2], shape[1] * (2 if "gate_up" in name else 1))
        out[name] = shape
    return out


def changed(config, change):
    """A value that is an object changes keys inside."""
    out = dict(config)
    for key, new in change.items():
        if new == GONE:
            out.pop(key)
        else:
            out[key] = changed(out.get(key) or {}, new) if isinstance(new, dict) else new
    return out


def case(goldens, fixture, change):
    config = changed(json.loads((goldens / "models" / fixture / "config.json").read_text()), change)
    kind, args = utils._get_classes(config)
    shapes = {n: tuple(p.shape) for n, p in tree_flatten(kind(args.from_dict(config)).parameters())}
    shapes = published(fixture, shapes)
    halves = HALVES.get(fixture, ())
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "config.json").write_text(json.dumps(config))
        mx.save_safetensors(str(path / "model.safetensors"),
                            {n: mx.array(value(n, s).astype(np.float32)).reshape(s).astype(mx.bfloat16 if n in halves else mx.float32)
                             for n, s in shapes.items()})
        model, _ = utils.load_model(path)
        logits = np.array(model(mx.array([TOKENS]), cache=make_prompt_cache(model)).astype(mx.float32)[0, -1])
    text = json.dumps({k: v for k, v in config.items() if k not in LEFT_OUT}, separators=(",", ":"))
    return "    {%s,\n     %s,\n     {%s},\n     {%s}},\n" % (
        json.dumps(f"{fixture} {json.dumps(change)}"), json.dumps(text), strings(listed({n: (s or (1,)) + (("bf16",) if n in halves else ()) for n, s in shapes.items()})), floats(logits))


mx.set_default_device(mx.cpu)
goldens = pathlib.Path(sys.argv[1])
text = "".join(case(goldens, *c) for c in CASES)
(pathlib.Path(__file__).parent / "toggles_mlx.h").write_text(
    "/* tests/engine/toggles_mlx.h: configs, tensors and last logits; written by toggles_mlx.py. */\n"
    "#ifndef TOGGLES_MLX_H\n#define TOGGLES_MLX_H\n\n#include \"toggles.h\"\n\n// clang-format off\n"
    "static const struct toggle toggles_mlx[] = {\n" + text + "};\n// clang-format on\n\n#endif\n")
