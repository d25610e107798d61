"""Families that transformers does not have, but a model of the same function, under other names: RENAMED, of which
toggles.py makes cases. A test of what the names and keys mean is what they are, not of their authors' code."""

import math

import numpy as np
import torch
import transformers
import transformers.models.llama.modeling_llama as llama

from hashed import value

SIZES = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = SIZES | {"max_position_embeddings": 64, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
                 "tie_word_embeddings": False}
OWN = SIZES | {"hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
PACK = {"q_proj": "W_pack", "k_proj": "W_pack", "v_proj": "W_pack"}
CODESHELL = {"model.embed_tokens": "transformer.wte", "model.layers": "transformer.h", "input_layernorm": "ln_1",
             "self_attn.q_proj": "attn.c_attn", "self_attn.k_proj": "attn.c_attn", "self_attn.v_proj": "attn.c_attn",
             "self_attn.o_proj": "attn.c_proj", "post_attention_layernorm": "ln_2", "model.norm": "transformer.ln_f"}
CHATGLM = {"model.embed_tokens": "transformer.embedding.word_embeddings", "model.layers": "transformer.encoder.layers",
           "self_attn.q_proj": "self_attention.query_key_value", "self_attn.k_proj": "self_attention.query_key_value",
           "self_attn.v_proj": "self_attention.query_key_value", "self_attn.o_proj": "self_attention.dense",
           "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h",
           "model.norm": "transformer.encoder.final_layernorm", "lm_head": "transformer.output_layer"}
# The config, the class of the reference, its config, names of the reference's as they are in files; several that become
# one are its rows, in order.
RENAMED = [
    (OWN | {"model_type": "internlm", "bias": True, "rotary": {"base": 500, "type": "origin"}, "max_position_embeddings": 64},
     "Llama", LLAMA | {"attention_bias": True, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, {}),
    (OWN | {"model_type": "internlm", "bias": False, "max_position_embeddings": 64}, "Llama", LLAMA, {}),
    (OWN | {"model_type": "orion", "num_key_value_heads": 2, "max_sequence_length": 64}, "Llama",
     LLAMA | {"num_key_value_heads": 2, "norm": torch.nn.LayerNorm}, {}),
    (OWN | {"model_type": "baichuan", "max_position_embeddings": 64, "model_max_length": 64}, "Llama", LLAMA, PACK),
    (OWN | {"model_type": "baichuan", "model_max_length": 64, "num_attention_heads": 6, "hidden_size": 48}, "Llama",
     LLAMA | {"num_attention_heads": 6, "num_key_value_heads": 6, "hidden_size": 48, "alibi": True}, PACK),
    ({"model_type": "codeshell", "activation_function": "gelu_pytorch_tanh", "group_query_attention": True, "n_embd": 32,
      "n_head": 4, "n_inner": 24, "n_layer": 2, "n_positions": 64, "num_query_groups": 2, "vocab_size": 48,
      "position_embedding_type": "rope"}, "Starcoder2",
     SIZES | {"num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh", "sliding_window": None,
              "tie_word_embeddings": False},
     CODESHELL),
    ({"model_type": "codeshell", "activation_function": "gelu_pytorch_tanh", "group_query_attention": True, "n_embd": 32,
      "n_head": 4, "n_inner": 24, "n_layer": 2, "n_positions": 8, "vocab_size": 48, "position_embedding_type": "rope",
      "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "Starcoder2",
     SIZES | {"num_key_value_heads": 1, "max_position_embeddings": 8, "hidden_act": "gelu_pytorch_tanh",
              "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
              "sliding_window": None, "tie_word_embeddings": False},
     CODESHELL),
    ({"model_type": "chatglm", "add_qkv_bias": True, "ffn_hidden_size": 24, "hidden_size": 32, "kv_channels": 12,
      "layernorm_epsilon": 1e-5, "multi_query_attention": True, "multi_query_group_num": 2, "num_attention_heads": 4,
      "num_layers": 2, "padded_vocab_size": 48, "rope_ratio": 50, "seq_length": 64, "tie_word_embeddings": False}, "Glm",
     LLAMA | {"num_key_value_heads": 2, "head_dim": 12, "attention_bias": True, "rms_norm_eps": 1e-5, "pad_token_id": 0,
              "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5}},
     CHATGLM),
    ({"model_type": "chatglm", "add_qkv_bias": True, "ffn_hidden_size": 24, "hidden_size": 32, "kv_channels": 12,
      "layernorm_epsilon": 1e-5, "multi_query_attention": False, "multi_query_group_num": 2, "num_attention_heads": 4,
      "num_layers": 2, "padded_vocab_size": 48, "rope_ratio": 50, "seq_length": 64, "tie_word_embeddings": False}, "Glm",
     LLAMA | {"by_head": True, "head_dim": 12, "attention_bias": True, "rms_norm_eps": 1e-5, "pad_token_id": 0,
              "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5}},
     CHATGLM),
]


def alibi(n_heads, n_tokens):
    """A mask with slopes of a score's distance, beside positions that do not turn."""
    power = 2 ** int(math.log2(n_heads))
    slopes = torch.tensor([2 ** (-8 * (i + 1) / power) if i < power else 2 ** (-4 * (2 * (i - power) + 1) / power)
                           for i in range(n_heads)])
    at = torch.arange(n_tokens)
    mask = slopes[:, None, None] * at + torch.where(at > at[:, None], -1e30, 0.0)
    return {"attention_mask": mask[None], "position_ids": torch.zeros(1, n_tokens, dtype=torch.long)}


def renamed(tokens, architecture, reference, names):
    """The tensors of files, and the last logits."""
    reference = dict(reference)
    sloped, norm, usual = reference.pop("alibi", False), reference.pop("norm", None), llama.LlamaRMSNorm
    by_head = reference.pop("by_head", False)
    llama.LlamaRMSNorm = norm or usual
    config = getattr(transformers, architecture + "Config")(**reference)
    model = getattr(transformers, architecture + "ForCausalLM")._from_config(
        config, dtype=torch.float32, attn_implementation="eager").eval()
    llama.LlamaRMSNorm = usual
    files = {}
    for name, tensor in model.state_dict().items():
        other = name
        for a, b in names.items():
            other = other.replace(a, b)
        files.setdefault(other, []).append(tensor)
    shapes = {n: (sum(len(t) for t in parts), *parts[0].shape[1:]) for n, parts in files.items()}
    for name, parts in files.items():
        rows = torch.from_numpy(value(name, shapes[name]).astype(np.float32))
        if by_head and len(parts) == 3:  # each head's queries, keys and values follow one another
            rows = rows.unflatten(0, (reference["num_attention_heads"], 3, -1)).transpose(0, 1).flatten(0, 2)
        rows = rows.split([len(t) for t in parts])
        for tensor, row in zip(parts, rows):
            tensor.copy_(row)
    with torch.no_grad():
        more = alibi(reference["num_attention_heads"], len(tokens)) if sloped else {}
        return shapes, model(torch.tensor([tokens]), use_cache=False, **more).logits[0, -1].numpy()
