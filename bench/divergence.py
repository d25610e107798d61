#!/usr/bin/env python3
"""What the default mode says beside --exact: divergence and perplexity on a text, at 16, 8 and 4 bits.

    bench/divergence.py MODEL TEXT [--clm build/clm] [--bits 16 8 4] [--window 512] [--windows 16]

MODEL is a folder in bf16 or f16; for fewer bits its matrices are quantised in groups of 64 as MLX lays them out. Each
window is evaluated as one prompt, eight tokens at a time and token by token (`clm logits --tokens`, with
`--prefill-step-size`, and `--decode`), as different kernels serve them.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

GROUP = 64
PATHS = ("prompt", "eights", "single tokens")


def read_tensors(path):
    """Name -> (dtype, array); bf16 as its 16 bits."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    kinds = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "U32": np.uint32}
    tensors = {}
    for name, t in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in t["data_offsets"])
            tensors[name] = t["dtype"], np.frombuffer(data[begin:end], kinds[t["dtype"]]).reshape(t["shape"])
    return tensors


def write_tensors(path, tensors):
    header, at = {}, 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for _, a in tensors.values()))


def numbers(dtype, array):
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array.astype(np.float32)


def bf16(x):
    """Rounded to nearest; no number here is infinite."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def quantise(w, bits):
    """Codes in words, scales and biases: w is about code * scale + bias within a group."""
    rows, cols = w.shape
    groups = w.reshape(rows, cols // GROUP, GROUP)
    low = groups.min(2)
    scale = bf16(np.maximum(groups.max(2) - low, 1e-7) / (2**bits - 1))
    bias = bf16(low)
    step, base = numbers("BF16", scale)[..., None], numbers("BF16", bias)[..., None]
    codes = np.clip(np.rint((groups - base) / step), 0, 2**bits - 1).astype(np.uint32)
    in_order = np.unpackbits(codes.astype(np.uint8)[..., None], axis=3, count=bits, bitorder="little")
    words = np.packbits(in_order.reshape(rows, -1), axis=1, bitorder="little").view(np.uint32)
    return words, scale, bias


def make(model, folder, bits):
    """The model at so many bits."""
    folder.mkdir()
    for file in model.iterdir():
        if not file.name.startswith("model.safetensors"):
            shutil.copy(file, folder / file.name)
    config = json.loads((model / "config.json").read_text())
    config["quantization"] = {"group_size": GROUP, "bits": bits, "mode": "affine"}
    (folder / "config.json").write_text(json.dumps(config))
    out = {}
    for name, (dtype, array) in read_tensors(model / "model.safetensors").items():
        base = name.removesuffix(".weight")
        if array.ndim != 2 or array.shape[1] % GROUP:
            out[name] = dtype, array
            continue
        words, scale, bias = quantise(numbers(dtype, array), bits)
        out.update({name: ("U32", words), base + ".scales": ("BF16", scale), base + ".biases": ("BF16", bias)})
    write_tensors(folder / "model.safetensors", out)
    return folder


def log_probabilities(clm, model, ids, path, *options):
    """[len(ids), vocabulary] after each token, in float64."""
    first = 1 if path == "single tokens" else len(ids)
    tokens = []
    for option, part in (("--tokens", ids[:first]), ("--decode", ids[first:])):
        tokens += [option, ",".join(map(str, part))] if part else []
    tokens += ["--prefill-step-size", "8"] if path == "eights" else []
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as out:
        subprocess.run([clm, "logits", "-m", model, "-o", out.name, *tokens, *options], check=True)
        found = read_tensors(pathlib.Path(out.name))
    parts = [found[name][1] for name in ("prompt_logits", "decode_logits") if name in found]
    logits = np.concatenate(parts).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def compare(clm, model, windows, path):
    """Divergence of each token, and the sums of what both say of the tokens that come."""
    divergences, losses, counts = [], np.zeros(2), 0
    for ids in windows:
        exact = log_probabilities(clm, model, ids, path, "--exact")
        default = log_probabilities(clm, model, ids, path)
        divergences.append((np.exp(exact) * (exact - default)).sum(1))
        at = np.arange(len(ids) - 1)
        losses += [-said[at, ids[1:]].sum() for said in (exact, default)]
        counts += len(at)
    return np.concatenate(divergences), np.exp(losses / counts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--clm", default="build/clm")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 8, 4], choices=(2, 3, 4, 5, 6, 8, 16))
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--windows", type=int, default=16)
    args = parser.parse_args()
    said = subprocess.run([args.clm, "tokenize", "-m", args.model], check=True, capture_output=True,
                          input=json.dumps({"text": args.text.read_text()}).encode()).stdout
    ids = json.loads(said)["ids"]
    windows = [ids[i:i + args.window] for i in range(0, len(ids) - args.window + 1, args.window)][:args.windows]
    print("%d windows of %d tokens" % (len(windows), args.window))
    print("%-5s %-13s %12s %12s %12s %12s %10s" % ("bits", "path", "divergence", "most", "exact", "default", "change"))
    with tempfile.TemporaryDirectory() as folder:
        for bits in args.bits:
            model = args.model if bits == 16 else make(args.model, pathlib.Path(folder, str(bits)), bits)
            for path in PATHS:
                divergence, (exact, default) = compare(args.clm, model, windows, path)
                print("%-5d %-13s %12.2e %12.2e %12.4f %12.4f %9.4f%%" % (
                    bits, path, divergence.mean(), divergence.max(), exact, default,
                    100 * (default / exact - 1)), flush=True)


if __name__ == "__main__":
    main()
