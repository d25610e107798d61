#!/usr/bin/env python3
"""Write a checkpoint of random weights in the shape of llama-3.2-1b or llama-3.1-8b, in MLX's layout.

    bench/random_checkpoint.py FOLDER [--shape llama-3.1-8b] [--bits 16] [--tokenizer models/storyteller-4bit]

For measuring what a mapped model costs: resident memory, time to the first token. The tokenizer is copied from
another model; its ids are valid here, its text means nothing.
"""
import argparse
import json
import pathlib
import shutil

import numpy as np

# hidden, layers, intermediate, numbers of all keys, of a head, is the embedding the head too
SHAPES = {"llama-3.2-1b": (2048, 16, 8192, 512, 64, True), "llama-3.1-8b": (4096, 32, 14336, 1024, 128, False)}
VOCAB, GROUP = 128256, 64
PIECE = 10 << 20  # written at a time, as huggingface_hub does: Linux keeps a file in pieces of up to what was written at once


def matrices(shape):
    hidden, layers, intermediate, kv, _, tied = SHAPES[shape]
    yield "model.embed_tokens", VOCAB, hidden
    if not tied:
        yield "lm_head", VOCAB, hidden
    for layer in range(layers):
        at = "model.layers.%d." % layer
        yield at + "self_attn.q_proj", hidden, hidden
        yield at + "self_attn.k_proj", kv, hidden
        yield at + "self_attn.v_proj", kv, hidden
        yield at + "self_attn.o_proj", hidden, hidden
        yield at + "mlp.gate_proj", intermediate, hidden
        yield at + "mlp.up_proj", intermediate, hidden
        yield at + "mlp.down_proj", hidden, intermediate


def bf16(x):
    return (np.asarray(x, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)


def dense(rows, cols, rng, drawn={}):
    """Random bf16 numbers; of each number of columns the same ones again and again, for speed."""
    if cols not in drawn:
        drawn[cols] = bf16(rng.standard_normal(1 << 22, dtype=np.float32) / cols**0.5)
    return np.resize(drawn[cols], rows * cols)


def tensors(shape, bits, rng):
    """(name, dtype, shape, bytes in a function) one after another."""
    for name, rows, cols in matrices(shape):
        if bits == 16:
            yield name + ".weight", "BF16", (rows, cols), lambda r=rows, c=cols: dense(r, c, rng)
            continue
        scale = 3.46 / 2**bits / cols**0.5
        words, groups = (rows, cols * bits // 32), (rows, cols // GROUP)
        yield name + ".weight", "U32", words, lambda w=words: rng.integers(0, 2**32, w, dtype=np.uint32)
        yield name + ".scales", "BF16", groups, lambda g=groups, s=scale: bf16(np.full(g, s))
        yield name + ".biases", "BF16", groups, lambda g=groups, s=scale: bf16(np.full(g, -s * (2**bits - 1) / 2))
    hidden, layers = SHAPES[shape][:2]
    norms = ["model.norm"]
    for layer in range(layers):
        norms += ["model.layers.%d.%s" % (layer, n) for n in ("input_layernorm", "post_attention_layernorm")]
    for name in norms:
        yield name + ".weight", "BF16", (hidden,), lambda: bf16(np.ones(hidden))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.2-1b")
    parser.add_argument("--bits", type=int, default=4, choices=(2, 4, 8, 16))
    parser.add_argument("--tokenizer", type=pathlib.Path, default=pathlib.Path("models/storyteller-4bit"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    hidden, layers, intermediate, kv, head, tied = SHAPES[args.shape]
    config = {"model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers,
              "intermediate_size": intermediate, "num_attention_heads": hidden // head,
              "num_key_value_heads": kv // head, "head_dim": head, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
              "vocab_size": VOCAB, "max_position_embeddings": 131072, "tie_word_embeddings": tied}
    if args.bits < 16:
        config["quantization"] = {"group_size": GROUP, "bits": args.bits, "mode": "affine"}
    (args.folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(args.tokenizer / name, args.folder / name)
    header, at = {}, 0
    sizes = {"U32": 4, "BF16": 2}
    for name, dtype, shape, _ in tensors(args.shape, args.bits, None):
        size = int(np.prod(shape)) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rest = bytearray(len(text).to_bytes(8, "little") + text)
    with open(args.folder / "model.safetensors", "wb", buffering=0) as out:
        for _, _, _, numbers in tensors(args.shape, args.bits, np.random.default_rng(1)):
            rest += memoryview(np.ascontiguousarray(numbers())).cast("B")
            whole = len(rest) - len(rest) % PIECE
            for at in range(0, whole, PIECE):
                out.write(rest[at:at + PIECE])
            del rest[:whole]
        out.write(rest)


if __name__ == "__main__":
    main()
