#!/usr/bin/env python3
"""clm beside llama.cpp: the same shape, the same bytes per weight, turn by turn in one run.

    bench/compare.py [--clm build/clm] [--rounds 3] [--prompt 512] [--generate 64] [--threads 2]
                     [--peer-python PYTHON] [--formats bf16 q8_0 q4_0 q4_k]

Both get random weights in the shape of llama-3.2-1b: bf16 beside BF16, 8 bits in groups of 64 (8.5 bits a
weight) beside Q8_0, 4 bits in groups of 64 (4.5 bits) beside Q4_0 and Q4_K. Prints medians and their ratio,
and what the machine could read and compute in the same run.

The peer comes from PyPI (llama-cpp-python builds llama.cpp for this processor) into a virtual environment in
the user's cache folder, with its GGUF files beside it, or is what --peer-python has: llama_cpp built otherwise,
gguf and numpy. CLM_CPU=avx2 in the environment keeps clm to AVX2, as
CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON" does a peer.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "clm-bench"
FORMATS = {"bf16": 16, "q8_0": 8, "q4_0": 4, "q4_k": 4}
HIDDEN, LAYERS, INTERMEDIATE, KV, VOCAB = 2048, 16, 8192, 512, 128256


def peer_python():
    """A Python that has llama_cpp and gguf: this one, or that of the virtual environment."""
    try:
        import gguf  # noqa: F401
        import llama_cpp  # noqa: F401
        return sys.executable
    except ImportError:
        pass
    python = CACHE / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "llama-cpp-python", "gguf", "numpy"],
                       check=True, env={**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"})
    return str(python)


def write_gguf(kind):
    """Random weights of moderate size in a GGUF file; returns its path."""
    import gguf
    import numpy as np

    path = CACHE / ("llama-3.2-1b-%s.gguf" % kind)
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    types = gguf.GGMLQuantizationType
    part = path.with_suffix(".part")
    rng = np.random.default_rng(1)
    out = gguf.GGUFWriter(part, "llama")
    out.add_block_count(LAYERS)
    out.add_context_length(131072)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(INTERMEDIATE)
    out.add_head_count(32)
    out.add_head_count_kv(8)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(500000.0)
    out.add_rope_dimension_count(64)
    out.add_vocab_size(VOCAB)
    out.add_tokenizer_model("no_vocab")
    out.add_file_type({"bf16": 32, "q8_0": 7, "q4_0": 2, "q4_k": 14}[kind])

    def matrix(name, rows, cols):
        if kind == "bf16":
            bits = (rng.integers(0, 2**16, rows * cols, dtype=np.uint16) & 0x807F) | 0x3C00
            out.add_tensor(name, bits.view(np.uint8).reshape(rows, cols * 2), raw_dtype=types.BF16)
            return
        # Numbers and bytes of a block, and the scales it begins with; of Q4_K the second is of what is subtracted.
        dtype, numbers, size, scales = {"q8_0": (types.Q8_0, 32, 34, [0.0005]),
                                        "q4_0": (types.Q4_0, 32, 18, [0.008]),
                                        "q4_k": (types.Q4_K, 256, 144, [0.0002, 0.0015])}[kind]
        blocks = rng.integers(0, 256, (rows, cols // numbers, size), dtype=np.uint8)
        blocks[:, :, 0:2 * len(scales)] = np.array(scales, dtype=np.float16).view(np.uint8)
        out.add_tensor(name, blocks.reshape(rows, cols // numbers * size), raw_dtype=dtype)

    ones = np.ones(HIDDEN, dtype=np.float32)
    matrix("token_embd.weight", VOCAB, HIDDEN)
    out.add_tensor("output_norm.weight", ones)
    for layer in range(LAYERS):
        at = "blk.%d." % layer
        out.add_tensor(at + "attn_norm.weight", ones)
        out.add_tensor(at + "ffn_norm.weight", ones)
        for name, rows, cols in (("attn_q", HIDDEN, HIDDEN), ("attn_k", KV, HIDDEN), ("attn_v", KV, HIDDEN),
                                 ("attn_output", HIDDEN, HIDDEN), ("ffn_gate", INTERMEDIATE, HIDDEN),
                                 ("ffn_up", INTERMEDIATE, HIDDEN), ("ffn_down", HIDDEN, INTERMEDIATE)):
            matrix(at + name + ".weight", rows, cols)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    part.rename(path)
    return path


def run_peer(path, prompt, generate, threads):
    """One measurement inside this process: tokens per second of prompt and generation, as JSON."""
    import ctypes

    import llama_cpp as llama

    silent = llama.llama_log_callback(lambda level, text, user: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    params.n_ctx = prompt + generate + 16
    params.n_batch = params.n_ubatch = prompt
    params.n_threads = params.n_threads_batch = threads
    context = llama.llama_init_from_model(model, params)

    def decode(n):
        tokens = (llama.llama_token * n)(*[i % 1000 for i in range(n)])
        if llama.llama_decode(context, llama.llama_batch_get_one(tokens, n)):
            sys.exit("llama_decode failed")

    decode(16)
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    start = time.perf_counter()
    decode(prompt)
    middle = time.perf_counter()
    for _ in range(generate):
        decode(1)
    end = time.perf_counter()
    print(json.dumps({"prompt": prompt / (middle - start), "generation": generate / (end - middle)}))


def bench(clm, *args):
    """What clm bench measures of the shape: its rows by the names of their tests."""
    out = subprocess.run([clm, "bench", "--shape", "llama-3.2-1b", "--json", "-r", "1", *map(str, args)],
                         check=True, capture_output=True, text=True).stdout
    return {row["test"]: row for row in json.loads(out)}


def run_clm(args, bits):
    return bench(args.clm, "--bits", bits, "-p", args.prompt, "-n", args.generate, "-t", args.threads)


def compare(args):
    python = args.peer_python or peer_python()
    for kind in args.formats:
        subprocess.run([python, __file__, "--make", kind], check=True)
    print("%-6s %28s %28s" % ("", "prompt %d, tokens/s" % args.prompt, "generation %d, tokens/s" % args.generate))
    print("%-6s %9s %9s %8s %9s %9s %8s %28s" % ("", "clm", "llama.cpp", "ratio", "clm", "llama.cpp", "ratio",
                                                 "clm: read, f32, int8, bf16"))
    for kind in args.formats:
        ours, theirs = [], []
        for _ in range(args.rounds):
            ours.append(run_clm(args, FORMATS[kind]))
            theirs.append(json.loads(subprocess.run(
                [python, __file__, "--peer", str(CACHE / ("llama-3.2-1b-%s.gguf" % kind)), "--prompt",
                 str(args.prompt), "--generate", str(args.generate), "--threads", str(args.threads)],
                check=True, capture_output=True, text=True).stdout))
        row = [kind]
        for part in ("prompt", "generation"):
            a = statistics.median(o[part]["tokens_per_second"] for o in ours)
            b = statistics.median(t[part] for t in theirs)
            ratio = statistics.median(o[part]["tokens_per_second"] / t[part] for o, t in zip(ours, theirs))
            row += ["%9.1f" % a, "%9.1f" % b, "%8.2f" % ratio]
        row.append("%5.2f %5.2f %5.2f %5.2f" % tuple(
            statistics.median(o[part][name] for o in ours) for part, name in
            (("generation", "read_fraction"), ("prompt", "f32_fraction"), ("prompt", "int8_fraction"),
             ("prompt", "bf16_fraction"))))
        print("%-6s %s %s %s %s %s %s %28s" % tuple(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clm", default="build/clm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", help="a Python with llama_cpp, gguf and numpy")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--make", choices=list(FORMATS), help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        write_gguf(args.make)
    elif args.peer:
        run_peer(args.peer, args.prompt, args.generate, args.threads)
    else:
        compare(args)


if __name__ == "__main__":
    main()
