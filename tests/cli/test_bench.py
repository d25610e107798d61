#!/usr/bin/env python3
"""clm bench on small shapes: what it counts, and what it prints."""
import csv
import io
import json
import os
import signal
import subprocess
import time

import command
from command import Case

# 4096 x 384 of the embedding, and 8 layers of attention and mlp.
WEIGHTS = 4096 * 384 + 8 * (2 * 384 * 384 + 2 * 384 * 128 + 3 * 384 * 1024)
MEASURED = ["bench", "--shape", "storyteller", "-p", "16", "-n", "4", "-r", "2"]
SMALL = [*MEASURED, "--no-limits"]
QUICK = ["-r", "1", "--no-limits", "--json"]


def catches_interrupts(pid):
    with open(f"/proc/{pid}/status") as f:
        mask = next(line.split()[1] for line in f if line.startswith("SigCgt"))
    return int(mask, 16) >> (signal.SIGINT - 1) & 1


class Bench(Case):
    def rows(self, *args, base=SMALL):
        return json.loads(self.done(*base, "--json", *args))

    def bench(self, *args, base=SMALL):
        """The rows of a run whose tests differ in kind alone."""
        rows = self.rows(*args, base=base)
        self.assertEqual(len({row["test"] for row in rows}), len(rows))
        return {row["test"]: row for row in rows}

    def test_json(self):
        out = self.bench(base=MEASURED)
        self.assertEqual(sorted(out), ["generation", "prompt"])
        for name, tokens in (("prompt", (16, 0)), ("generation", (0, 4))):
            row = out[name]
            self.assertEqual((row["model"], row["bits"], row["group_size"], row["layers"]),
                             ("storyteller", 4, 64, 8))
            self.assertEqual((row["prompt"], row["generate"], row["repetitions"]), (*tokens, 2))
            for key in ("read_bytes_per_second", "f32_flops_per_second", "weight_bytes", "activation_bytes",
                        "best_read_bytes_per_second", "threads", "tokens_per_second", "bytes_per_token",
                        "flops_per_token"):
                self.assertGreater(row[key], 0, key)
            self.assertGreaterEqual(row["deviation"], 0)
            # Six digits of each, however slow the machine is while one of them is measured.
            self.assertAlmostEqual(row["tokens_per_second"] * row["bytes_per_token"] / row["read_bytes_per_second"] /
                                   row["read_fraction"], 1, 4)
            self.assertEqual(row["samples"], sorted(row["samples"]))
            self.assertAlmostEqual(sum(row["samples"]) / 2 / row["tokens_per_second"], 1, 4)
        # Weights, tied head included, and half of the four tokens' cache: 8 layers, keys and values,
        # 2 heads of 64 f16 numbers.
        generation = out["generation"]
        self.assertEqual(generation["bytes_per_token"] % 64, 0)
        self.assertLess(generation["weight_bytes"], 1.01 * generation["bytes_per_token"])
        self.assertLess(out["prompt"]["bytes_per_token"], generation["bytes_per_token"] / 8)

    def test_bits(self):
        """Bytes of a weight: bits, and a scale and a bias of 16 bits a group; bf16 has no groups."""
        rows = self.rows("--bits", "2-6,8,16", "-p", "0", "-n", "1", "-r", "1")
        rows += self.rows("--bits", "4,16", "--group-size", "32,128", "-p", "0", "-n", "1", "-r", "1")
        self.assertEqual([(row["bits"], row["group_size"]) for row in rows],
                         [(b, 64) for b in (2, 3, 4, 5, 6, 8)] + [(16, 0), (4, 32), (4, 128), (16, 0)])
        for row in rows:
            bits = row["bits"] + (32 / row["group_size"] if row["group_size"] else 0)
            self.assertAlmostEqual(row["weight_bytes"] / WEIGHTS, bits / 8, 2)

    def test_layers_and_depth(self):
        whole, cut = self.bench()["generation"], self.bench("--layers", "2", "--depth", "100")["generation"]
        self.assertEqual((cut["layers"], cut["depth"]), (2, 100))
        self.assertLess(cut["weight_bytes"], whole["weight_bytes"])
        deep = self.rows("--depth", "100,50,200", "-p", "0")
        self.assertEqual([row["depth"] for row in deep], [100, 50, 200])
        for row in deep: # tokens in the cache, 4096 bytes each
            self.assertEqual(row["bytes_per_token"] - whole["bytes_per_token"], 4096 * row["depth"])

    def test_concurrent(self):
        out = self.bench("--concurrent", "4")
        one, four = out["generation"], out["texts"]
        self.assertEqual((four["texts"], four["generate"], one["texts"]), (4, 4, 1))
        self.assertGreater(four["tokens_per_second"], 0)
        self.assertEqual(four["flops_per_token"], one["flops_per_token"])
        self.assertLess(four["bytes_per_token"], one["bytes_per_token"] / 2)
        several = [row["texts"] for row in self.rows("--concurrent", "2,3") if row["test"] == "texts"]
        self.assertEqual(several, [2, 3])
        self.assertIn("2 texts", self.done(*SMALL, "--concurrent", "2").decode())

    def test_both(self):
        """A prompt and what follows cost what each of them costs."""
        rows = self.bench("-p", "24", "-n", "8", "--prompt-generate", "24,8")
        both, prompt, generation = rows["both"], rows["prompt"], rows["generation"]
        self.assertEqual((both["prompt"], both["generate"]), (24, 8))
        self.assertAlmostEqual(both["flops_per_token"],
                               (24 * prompt["flops_per_token"] + 8 * generation["flops_per_token"]) / 32, -1)
        # What is generated has the 24 tokens of the prompt before it.
        self.assertAlmostEqual(both["bytes_per_token"],
                               (24 * prompt["bytes_per_token"] + 8 * (generation["bytes_per_token"] + 24 * 4096)) / 32, -1)

    def test_combinations(self):
        """Each makes a row, in the order of the options' help, over one model."""
        rows = self.rows("-p", "8-16*2", "-n", "2", "-r", "1", "-t", "1,2", "--cache-type", "f32,f16",
                         "--prefill-step-size", "4,64")
        said = [(row["threads"], row["cache_type"], row["prefill_step_size"], row["test"], row["prompt"])
                for row in rows]
        self.assertEqual(said, [(t, c, s, test, p) for t in (1, 2) for c in ("f32", "f16") for s in (4, 64)
                                for test, p in (("prompt", 8), ("prompt", 16), ("generation", 0))])

    def test_shapes_and_models(self):
        rows = json.loads(self.done("bench", "--shape", "storyteller,qwen3-0.6b", "--layers", "1", "-n", "1",
                                    "-p", "0", *QUICK))
        self.assertEqual([row["model"] for row in rows], ["storyteller", "qwen3-0.6b"])
        other = self.model("other")
        rows = json.loads(self.done("bench", "-m", command.MODEL, other, "-p", "8", "-n", "0", *QUICK))
        self.assertEqual([row["model"] for row in rows], [str(command.MODEL), str(other)])

    def test_checkpoint(self):
        rows = json.loads(self.done("bench", "-p", "8", "-n", "2", "--exact", *QUICK))
        for row in rows:
            self.assertTrue(row["model"].endswith("storyteller-4bit") and row["exact"] is True)
            self.assertEqual((row["bits"], row["cache_type"]), (0, "f32"))

    def test_table(self):
        out = self.done(*MEASURED).decode().splitlines()
        self.assertRegex(out[0], r"\Astoryteller, 8 layers, 4 bits in groups of 64, 0\.008 GB")
        self.assertRegex(out[1], r"reads up to \d+\.\d GB/s, computes \d+ GFLOP/s in f32")
        self.assertRegex(out[2], r"\A2 repetitions, prompts in steps of 512, cache: f16")
        self.assertIn("\n1 repetition, ", self.done("bench", "-p", "8", "-n", "0", "-r", "1", "--no-limits").decode())
        self.assertRegex(out[-2], r"\Aprompt +16 +0 +\d+\.\d\d \+- \d+\.\d\d")
        self.assertRegex(out[-1], r"\Ageneration +4 +0 +\d+\.\d\d \+- \d+\.\d\d")
        unmeasured = self.done(*SMALL).decode().splitlines()
        self.assertRegex(unmeasured[1], r"\Acpu \([^:]+\)\Z")
        self.assertRegex(unmeasured[-1], r"\Ageneration .*( +-){4}\Z")
        two = self.done(*SMALL, "--kv-bits", "none,8").decode().split("\n\n")
        self.assertEqual(len(two), 4)
        self.assertIn("cache: 8 bits", two[2])

    def test_forms(self):
        """Names and values are the same in all forms."""
        lists = ("-r", "1", "-d", "0,4")
        names = list(self.rows(*lists)[0])
        lines = self.json_lines(*SMALL, *lists, "-o", "jsonl")
        self.assertEqual([list(line) for line in lines], [names] * 4)
        table = list(csv.reader(io.StringIO(self.done(*SMALL, *lists, "--output", "csv").decode())))
        self.assertEqual(table[0], names[:-1]) # but for the samples
        for row, line in zip(table[1:], lines, strict=True):
            for name, value in zip(table[0], row, strict=True):
                if name in ("model", "device", "isa", "test", "depth", "prompt", "generate", "weight_bytes"):
                    self.assertEqual(value, str(line[name]))
        said = self.done(*SMALL, *lists, "-o", "markdown").decode().splitlines()
        self.assertEqual(len(said), 6)
        self.assertEqual({line.count("|") for line in said}, {17})

    def test_experts(self):
        """Of stacked experts a generated token reads only those chosen."""
        out = json.loads(self.done("bench", "--shape", "qwen3-30b-a3b", "--layers", "1", "--bits", "2",
                                   "-p", "0", "-n", "2", *QUICK))
        self.assertLess(out[0]["bytes_per_token"], 0.6 * out[0]["weight_bytes"])

    def test_what_was_done_is_written(self):
        """When what comes later fails, and after an interruption."""
        result = command.run("bench", "-m", command.MODEL, "nowhere", "-p", "8", "-n", "0", *QUICK)
        self.assertEqual((result.returncode, [row["prompt"] for row in json.loads(result.stdout)]), (1, [8]))
        self.one_line(result.stderr.decode(), "nowhere")
        process = subprocess.Popen([command.CLM, *SMALL, "-p", "1", "-n", "0", "-r", "100", "--prefill-step-size", "1-1000",
                                    "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=command.environment())
        with process.stdout as out, process.stderr as said:
            first = out.read(1)
            process.send_signal(signal.SIGINT)
            rows = json.loads(first + out.read())
            self.assertEqual((said.read(), process.wait(command.PATIENCE)), (b"", 130))
        self.assertEqual([row["prefill_step_size"] for row in rows], list(range(1, len(rows) + 1)))


    def test_making_weights_is_interrupted(self):
        """Long before all of them are there."""
        process = subprocess.Popen([command.CLM, "bench", "--shape", "llama-3.2-1b", "--bits", "8", "-p", "0", "-n", "1",
                                    "--no-limits", "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=command.environment())
        with process.stdout as out, process.stderr as said:
            while not catches_interrupts(process.pid):
                time.sleep(0.001)
            process.send_signal(signal.SIGINT)
            self.assertEqual((out.read(), said.read()), (b"", b""))
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 130)
        self.assertLess(usage.ru_maxrss, 900000)  # kB, of 1313 MB of weights


command.main()
