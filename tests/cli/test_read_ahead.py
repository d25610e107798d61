#!/usr/bin/env python3
"""Weights that are not in memory are read before they are used, and no others."""
import ctypes
import json
import mmap
import os
import struct
import subprocess

import command
from command import Case, MODEL
from terminal import Terminal

LINE = b"Reading weights: "


def resident(path):
    """The part of a file's pages that are in memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE,
                                             prot=mmap.PROT_READ | mmap.PROT_WRITE) as data:
        pages = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
        begin = ctypes.c_char.from_buffer(data)
        if ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(ctypes.addressof(begin)),
                                                     ctypes.c_size_t(len(data)), pages):
            raise OSError(ctypes.get_errno(), "mincore")
        del begin
        return sum(page & 1 for page in pages) / len(pages)


def stack(source, target, times):
    """A checkpoint with all its layers so many times, one after another, larger than what a kernel reads at once."""
    data = source.read_bytes()
    size, = struct.unpack_from("<Q", data)
    tensors = json.loads(data[8:8 + size])
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("model.layers."))
    parts, header, at = [], {}, 0
    for n in range(times):
        for name, tensor in tensors.items():
            words = name.split(".")
            if name == "__metadata__" or n > 0 and words[1] != "layers":
                continue
            if words[1] == "layers":
                words[2] = str(int(words[2]) + n * layers)
            begin, end = tensor["data_offsets"]
            parts.append(data[8 + size + begin:8 + size + end])
            header[".".join(words)] = {**tensor, "data_offsets": [at, at + end - begin]}
            at += end - begin
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(b"".join([struct.pack("<Q", len(text)), text, *parts]))
    return layers * times


class ReadAhead(Case):
    def setUp(self):
        super().setUp()
        files = [MODEL / "model.safetensors", MODEL / "model.safetensors.index.json"]
        self.path = self.folder / "stacked.safetensors"
        layers = stack(files[0], self.path, 5)
        folder = self.model("cold", skip=[file.name for file in files], num_hidden_layers=layers)
        self.path = self.path.rename(folder / "model.safetensors")
        self.cool()

    def cool(self):
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if resident(self.path):
            self.skipTest("%s is on no disk" % self.folder)

    def on_terminal(self, *args):
        """What a command says there beside its output."""
        t = Terminal(*args, "-m", str(self.path.parent), stdout=subprocess.PIPE)
        t.process.stdout.read()
        t.process.stdout.close()
        self.assertEqual(t.wait(), 0)
        return t.text

    def test_line(self):
        """It comes where there is something to read, and is erased."""
        generate = ("generate", "-p", "Once", "-n", "1")
        said = self.on_terminal(*generate)
        self.assertIn(LINE, said)
        self.assertTrue(said.endswith(b"\r\x1b[K"), said[-20:])
        self.assertGreater(resident(self.path), 0.99)
        self.assertNotIn(LINE, self.on_terminal(*generate))

    def test_inspect(self):
        """What a model is like is said without its weights."""
        self.assertEqual(self.on_terminal("inspect"), b"")

    def test_all_commands_that_run_it(self):
        for args in (["bench", "-p", "1", "-n", "0", "-r", "1"], ["perplexity", MODEL / "README.md"]):
            self.cool()
            self.done(*args, "-m", self.path.parent)
            self.assertGreater(resident(self.path), 0.99, args)


command.main()
