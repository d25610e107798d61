#!/usr/bin/env python3
"""Many texts at once: clm beside llama.cpp, the same shape and bytes per weight, turn by turn in one run.

    bench/batch.py [--clm build/clm] [--rounds 3] [--requests 16] [--prompt 32] [--generate 32] [--threads 2]

What llama-batched-bench measures, the tokens that all texts together get in a second while they are generated,
here from `clm bench --concurrent`, which chooses each token too, and from llama_decode with one token of each
sequence. Both also say the speed of one text alone. See compare.py for the weights and the peer.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import compare


def run_peer(path, requests, prompt, generate, threads):
    """Tokens per second of one sequence and of many, as JSON."""
    import ctypes

    import llama_cpp as llama

    silent = llama.llama_log_callback(lambda level, text, user: None)
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    params.n_ctx = requests * (prompt + generate + 16)
    params.n_batch = params.n_ubatch = max(requests, prompt)
    params.n_seq_max = requests
    params.n_threads = params.n_threads_batch = threads
    context = llama.llama_init_from_model(model, params)
    batch = llama.llama_batch_init(params.n_batch, 0, 1)

    def decode(entries):
        """Of (token, position, sequence, wants logits)."""
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, logits) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, logits
        if llama.llama_decode(context, batch):
            sys.exit("llama_decode failed")

    def measure(n):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        for s in range(n):
            decode([((7 * s + i) % 1000, i, s, i == prompt - 1) for i in range(prompt)])
        start = time.perf_counter()
        for step in range(generate):
            decode([((13 * s + step) % 1000, prompt + step, s, True) for s in range(n)])
            llama.llama_synchronize(context)
        return n * generate / (time.perf_counter() - start)

    print(json.dumps({"one": measure(1), "many": measure(requests)}))


def run_clm(args):
    found = compare.bench(args.clm, "--bits", compare.FORMATS[args.format], "-p", 0, "-d", args.prompt,
                          "-n", args.generate, "-t", args.threads, "--concurrent", args.requests)
    return {"one": found["generation"]["tokens_per_second"], "many": found["texts"]["tokens_per_second"]}


def compare_all(args):
    python = compare.peer_python()
    subprocess.run([python, compare.__file__, "--make", args.format], check=True)
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(run_clm(args))
        theirs.append(json.loads(subprocess.run(
            [python, __file__, "--peer", str(compare.CACHE / ("llama-3.2-1b-%s.gguf" % args.format)),
             "--requests", str(args.requests), "--prompt", str(args.prompt), "--generate", str(args.generate),
             "--threads", str(args.threads)], check=True, capture_output=True, text=True).stdout))
    print("%-14s %12s %12s %8s" % ("tokens/s", "clm", "llama.cpp", "ratio"))
    for name, what in (("one", "1 text"), ("many", "%d texts" % args.requests)):
        print("%-14s %12.1f %12.1f %8.2f" % (
            what, statistics.median(o[name] for o in ours), statistics.median(t[name] for t in theirs),
            statistics.median(o[name] / t[name] for o, t in zip(ours, theirs))))
    print("%-14s %12.2f %12.2f" % ("gain", statistics.median(o["many"] / o["one"] for o in ours),
                                   statistics.median(t["many"] / t["one"] for t in theirs)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clm", default="build/clm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--generate", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", default="q4_0", choices=list(compare.FORMATS))
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        run_peer(args.peer, args.requests, args.prompt, args.generate, args.threads)
    else:
        compare_all(args)


if __name__ == "__main__":
    main()
