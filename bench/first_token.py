#!/usr/bin/env python3
"""How long a GPU takes from the start of clm to the first token, beside what cannot be less.

    bench/first_token.py MODEL [--clm build/clm] [-r 5]

Of runs of `clm generate -n 1`: when the first byte of the text came and when the command ended. Beside it, in processes
of their own: a context on the GPU opened through the driver and nothing else; and copies from pinned memory, which the
bytes of the checkpoint are put over. The checkpoint is read once beforehand, so that its pages are in memory.
"""
import argparse
import ctypes
import pathlib
import subprocess
import sys
import time

COPY = 1 << 30


def driver():
    """Seconds to open a context, and the bytes that copies from pinned memory carry in one."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name, *args):
        if status := getattr(cuda, name)(*args):
            sys.exit("%s: error %d" % (name, status))

    device, context = ctypes.c_int(), ctypes.c_void_p()
    host, memory = ctypes.c_void_p(), ctypes.c_void_p()
    start = time.perf_counter()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    opened = time.perf_counter() - start
    call("cuCtxSetCurrent", context)
    call("cuMemHostAlloc", ctypes.byref(host), ctypes.c_size_t(COPY), 0)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(COPY))
    ctypes.memset(host, 1, COPY)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        call("cuMemcpyHtoD_v2", memory, host, ctypes.c_size_t(COPY))
        rates.append(COPY / (time.perf_counter() - start))
    print(opened, max(rates))


def first_token(clm, model):
    command = [clm, "generate", "--device", "cuda", "-m", model, "--ignore-chat-template", "--temp", "0", "-n", "1",
               "-p", "Once upon a time there was a little dog"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
        if not p.stdout.read(1):
            sys.exit("no text: " + " ".join(map(str, command)))
        first = time.perf_counter() - start
        p.stdout.read()
    return first, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--clm", type=pathlib.Path, default=pathlib.Path("build/clm"))
    parser.add_argument("-r", "--repeat", type=int, default=5)
    args = parser.parse_args()
    size = 0
    for path in args.model.glob("*.safetensors"):
        size += path.stat().st_size
        with open(path, "rb") as f:
            while f.read(64 << 20):
                pass
    own = [sys.executable, __file__, "--driver"]
    opened, rates = zip(*(map(float, subprocess.check_output(own).split()) for _ in range(args.repeat)))
    firsts, ends = zip(*(first_token(args.clm.resolve(), args.model) for _ in range(args.repeat)))
    copies = size / max(rates)
    print("first byte %.0f ms (%s), end %.0f ms" % (min(firsts) * 1e3, " ".join("%.0f" % (t * 1e3) for t in firsts),
                                                  min(ends) * 1e3))
    print("a context %.0f ms, copies of %.2f GB at %.1f GB/s %.0f ms" % (min(opened) * 1e3, size / 1e9,
                                                                       max(rates) / 1e9, copies * 1e3))
    print("first byte less the context: %.2f of the copies" % ((min(firsts) - min(opened)) / copies))


if __name__ == "__main__":
    driver() if sys.argv[1:] == ["--driver"] else main()
