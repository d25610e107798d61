#!/usr/bin/env python3
"""Write an MLX-layout checkpoint of random 4-bit weights in the shape of llama-3.2-1b.

    bench/random_checkpoint.py FOLDER [--bits 4] [--tokenizer models/storyteller-4bit]

For measuring what a mapped model costs: resident memory, time to the first token. The tokenizer is copied from
another model; its ids are valid here, its text means nothing.
"""
import argparse
import json
import pathlib
import shutil

import numpy as np

HIDDEN, LAYERS, INTERMEDIATE, KV, VOCAB, GROUP = 2048, 16, 8192, 512, 128256, 64


def matrices():
    yield "model.embed_tokens", VOCAB, HIDDEN
    for layer in range(LAYERS):
        at = "model.layers.%d." % layer
        yield at + "self_attn.q_proj", HIDDEN, HIDDEN
        yield at + "self_attn.k_proj", KV, HIDDEN
        yield at + "self_attn.v_proj", KV, HIDDEN
        yield at + "self_attn.o_proj", HIDDEN, HIDDEN
        yield at + "mlp.gate_proj", INTERMEDIATE, HIDDEN
        yield at + "mlp.up_proj", INTERMEDIATE, HIDDEN
        yield at + "mlp.down_proj", HIDDEN, INTERMEDIATE


def bf16(x):
    return (np.asarray(x, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)


def tensors(bits, rng):
    """(name, dtype, shape, bytes) one after another."""
    for name, rows, cols in matrices():
        scale = 3.46 / 2**bits / cols**0.5
        words = rng.integers(0, 2**32, (rows, cols * bits // 32), dtype=np.uint32)
        yield name + ".weight", "U32", words.shape, words.tobytes()
        groups = (rows, cols // GROUP)
        yield name + ".scales", "BF16", groups, bf16(np.full(groups, scale)).tobytes()
        yield name + ".biases", "BF16", groups, bf16(np.full(groups, -scale * (2**bits - 1) / 2)).tobytes()
    norms = ["model.norm"]
    for layer in range(LAYERS):
        norms += ["model.layers.%d.%s" % (layer, n) for n in ("input_layernorm", "post_attention_layernorm")]
    for name in norms:
        yield name + ".weight", "BF16", (HIDDEN,), bf16(np.ones(HIDDEN)).tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--tokenizer", type=pathlib.Path, default=pathlib.Path("models/storyteller-4bit"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    quantization = {"group_size": GROUP, "bits": args.bits, "mode": "affine"}
    config = {"model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
              "intermediate_size": INTERMEDIATE, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
              "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "vocab_size": VOCAB, "max_position_embeddings": 131072,
              "tie_word_embeddings": True, "quantization": quantization}
    (args.folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(args.tokenizer / name, args.folder / name)
    header, at = {}, 0
    for name, dtype, shape, data in tensors(args.bits, np.random.default_rng(1)):
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(args.folder / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for _, _, _, data in tensors(args.bits, np.random.default_rng(1)):
            out.write(data)


if __name__ == "__main__":
    main()
