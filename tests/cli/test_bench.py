#!/usr/bin/env python3
"""clm bench on small shapes: what it counts, and what it prints."""
import json

import command
from command import Case

# 4096 x 384 of the embedding, and 8 layers of attention and mlp.
WEIGHTS = 4096 * 384 + 8 * (2 * 384 * 384 + 2 * 384 * 128 + 3 * 384 * 1024)
SMALL = ["bench", "--shape", "storyteller", "-p", "16", "-n", "4", "-r", "2"]


class Bench(Case):
    def bench(self, *args):
        return json.loads(self.done(*SMALL, "--json", *args))

    def test_json(self):
        out = self.bench()
        self.assertEqual((out["model"], out["bits"], out["group_size"], out["layers"]),
                         ("storyteller", 4, 64, 8))
        for value in (out["limits"]["read_bytes_per_second"], out["limits"]["f32_flops_per_second"],
                      out["weight_bytes"], out["activation_bytes"], out["threads"]):
            self.assertGreater(value, 0)
        for name, tokens in (("prompt", 16), ("generation", 4)):
            series = out[name]
            self.assertEqual(series["tokens"], tokens)
            for key in ("tokens_per_second", "bytes_per_token", "flops_per_token"):
                self.assertGreater(series[key], 0)
            self.assertGreaterEqual(series["deviation"], 0)
            self.assertAlmostEqual(series["read_fraction"], series["tokens_per_second"] *
                                   series["bytes_per_token"] /
                                   out["limits"]["read_bytes_per_second"], 3)
        # Weights, tied head included, and half of the four tokens' cache: 8 layers, keys and values,
        # 2 heads of 64 f16 numbers.
        self.assertEqual(out["generation"]["bytes_per_token"] % 64, 0)
        self.assertLess(out["weight_bytes"], 1.01 * out["generation"]["bytes_per_token"])
        self.assertLess(out["prompt"]["bytes_per_token"], out["generation"]["bytes_per_token"] / 8)

    def test_bits(self):
        """Bytes of a weight: bits, and a scale and a bias of 16 bits a group."""
        for bits, group in ((2, 64), (3, 64), (4, 32), (4, 128), (5, 64), (6, 64), (8, 64)):
            out = self.bench("--bits", bits, "--group-size", group, "-p", "0", "-n", "1", "-r", "1")
            self.assertAlmostEqual(out["weight_bytes"] / WEIGHTS, (bits + 32 / group) / 8, 2)
            self.assertIsNone(out["prompt"])
        out = self.bench("--bits", "16", "-n", "0")
        self.assertAlmostEqual(out["weight_bytes"] / WEIGHTS, 2, 2)
        self.assertIsNone(out["generation"])

    def test_layers_and_depth(self):
        whole, cut = self.bench(), self.bench("--layers", "2", "--depth", "100")
        self.assertEqual((cut["layers"], cut["depth"]), (2, 100))
        self.assertLess(cut["weight_bytes"], whole["weight_bytes"])
        deep = self.bench("--depth", "100")
        # 100 more tokens in the cache, 4096 bytes each.
        self.assertEqual(deep["generation"]["bytes_per_token"] - whole["generation"]["bytes_per_token"],
                         409600)

    def test_concurrent(self):
        out = self.bench("--concurrent", "4")
        one, four = out["generation"], out["concurrent"]
        self.assertEqual((out["texts"], four["tokens"]), (4, 4))
        self.assertGreater(four["tokens_per_second"], 0)
        self.assertEqual(four["flops_per_token"], one["flops_per_token"])
        self.assertLess(four["bytes_per_token"], one["bytes_per_token"] / 2)
        self.assertIsNone(self.bench()["concurrent"])
        self.assertIn("concurrent", self.done(*SMALL, "--concurrent", "2").decode())

    def test_checkpoint(self):
        out = json.loads(self.done("bench", "-p", "8", "-n", "2", "-r", "1", "--json", "--exact"))
        self.assertTrue(out["model"].endswith("storyteller-4bit") and out["exact"])

    def test_table(self):
        out = self.done(*SMALL).decode().splitlines()
        self.assertRegex(out[0], r"\Astoryteller, 8 layers, 4 bits in groups of 64, 0\.008 GB")
        self.assertRegex(out[1], r"reads \d+\.\d GB/s, computes \d+ GFLOP/s in f32")
        self.assertRegex(out[-2], r"\Aprompt +16 +\d+\.\d\d \+- \d+\.\d\d")
        self.assertRegex(out[-1], r"\Ageneration +4 +\d+\.\d\d \+- \d+\.\d\d")

    def test_experts(self):
        """Of stacked experts a generated token reads only those chosen."""
        out = json.loads(self.done("bench", "--shape", "qwen3-30b-a3b", "--layers", "1", "--bits", "2",
                                   "-p", "4", "-n", "2", "-r", "1", "--json"))
        self.assertLess(out["generation"]["bytes_per_token"], 0.6 * out["weight_bytes"])


command.main()
