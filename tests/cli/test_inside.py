#!/usr/bin/env python3
"""The commands that look inside: tokenize, detokenize, logits, inspect, models, perplexity, help."""
import json
import math
import os
import shutil
import subprocess

import command
from command import MODEL, ROOT, Case, environment, read_safetensors

TEXTS = ["Once upon a time", "", " ", "a\u2028b\u0085c\x0bd", "\u00e9t\u00e9 \U0001f431!", "tab\there\n",
         "nul\0inside", "<|im_start|>user\nhi<|im_end|>"]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


class Tokens(Case):
    def ids(self, *args):
        return [x["ids"] for x in self.json_lines("tokenize", *args,
                                                  input=lines({"text": t} for t in TEXTS))]

    def test_byte_order_mark(self):
        text = lines({"text": t} for t in TEXTS)
        self.assertEqual(self.done("tokenize", input=b"\xef\xbb\xbf" + text.encode()), self.done("tokenize", input=text))

    def test_round_trip(self):
        plain = self.ids("--no-special")
        back = self.json_lines("detokenize", input=lines({"ids": i} for i in plain))
        self.assertEqual([x["text"] for x in back], TEXTS)
        for ids, x in zip(plain, back):
            self.assertEqual("".join(x["segments"]), x["text"])
            self.assertEqual(len(x["segments"]), len(ids) + 1)

    def test_special(self):
        for whole, plain in zip(self.ids(), self.ids("--no-special")):
            self.assertEqual(whole, [0] + plain)
        chat = self.ids("--no-special")[-1]
        self.assertEqual((chat[0], chat[-1]), (2, 3))
        for args, text in (([], TEXTS[-1]), (["--skip-special"], "user\nhi")):
            out = self.json_lines("detokenize", *args, input=lines([{"ids": chat}]))[0]
            self.assertEqual((out["text"], "".join(out["segments"])), (text, text))

    def test_of_the_command_line(self):
        text = TEXTS[4]
        ids = self.json_lines("tokenize", input=lines([{"text": text}]))
        self.assertEqual(self.json_lines("tokenize", "-p", text), ids)
        self.assertEqual(self.json_lines("tokenize", "-p", "-", input=text), ids)
        self.assertEqual(self.json_lines("tokenize", "-p", "a\\nb"), self.json_lines("tokenize", "-p", "a\nb"))
        self.assertEqual(self.json_lines("tokenize", "-p", "", "--no-special"), [{"ids": []}])
        self.assertEqual(self.json_lines("detokenize", "--tokens", ",".join(map(str, ids[0]["ids"]))),
                         self.json_lines("detokenize", input=lines(ids)))
        self.fails(2, "--tokens", "detokenize", "--tokens", "1,x")
        self.assertEqual(self.json_lines("detokenize", "--tokens", "", input=lines([{"ids": [5]}])),
                         self.json_lines("detokenize", input=lines([{"ids": []}])))

    def test_one_line_each(self):
        """Whatever a text holds: also for readers that know of Unicode's line ends."""
        out = self.done("detokenize", input=lines({"ids": i} for i in self.ids("--no-special")))
        self.assertEqual(len(out.decode().splitlines()), len(TEXTS))

    def test_answers_at_once(self):
        with subprocess.Popen([command.CLM, "tokenize"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env=environment()) as process:
            for text in ("one", "two"):
                process.stdin.write(lines([{"text": text}]).encode())
                process.stdin.flush()
                self.assertEqual(json.loads(process.stdout.readline())["ids"][0], 0)
            process.stdin.close()
        self.assertEqual(process.returncode, 0)

    def test_no_line_end(self):
        self.assertEqual(len(self.json_lines("tokenize", input='\n{"text": "a"}\n\n {"text": "b"}')), 2)

    def test_nothing(self):
        self.assertEqual(self.done("tokenize"), b"")

    def test_needs_only_the_tokenizer(self):
        folder = self.model(skip=["model.safetensors", "config.json"])
        self.assertEqual(self.json_lines("tokenize", "-m", folder, input='{"text": ""}'), [{"ids": [0]}])

    def test_older_checkpoint(self):
        """Files that were there before tokenizer.json are enough too."""
        for name in ("gpt2-map", "spm-not-legacy", "qwen-tiktoken"):
            self.assertTrue(self.json_lines("tokenize", "-m",
                                            ROOT / "tests/tokenizer/older" / name,
                                            input='{"text": "the cat"}\n')[0]["ids"])
        shutil.copytree(ROOT / "tests/tokenizer/older/gpt2-map", self.folder / "odd")
        (self.folder / "odd/added_tokens.json").write_text('{"<x>": "7"}')
        self.fails(1, ["added_tokens.json", "<x>"], "tokenize", "-m", self.folder / "odd")


class Logits(Case):
    IDS = [0, 465, 483, 274, 427, 27, 407, 298]

    def logits(self, tokens, decode=(), *args):
        out = self.folder / "out.safetensors"
        join = lambda ids: ",".join(map(str, ids))
        self.assertEqual(self.done("logits", "--tokens", join(tokens), "--decode", join(decode),
                                   "--out", out, "--exact", *args), b"")
        return read_safetensors(out)

    def close(self, a, b):
        self.assertEqual(len(a), len(b))
        self.assertLess(max((abs(x - y) for x, y in zip(a, b)), default=0), 1e-3)

    def test_shapes(self):
        out = self.logits(self.IDS[:5], self.IDS[5:])
        self.assertEqual(out["prompt_logits"][0], [5, 4096])
        self.assertEqual(out["decode_logits"][0], [3, 4096])
        self.assertTrue(all(map(math.isfinite, out["prompt_logits"][1])))
        self.assertEqual(self.logits(self.IDS)["decode_logits"][0], [0, 4096])

    def test_standard_output(self):
        file = self.folder / "ids.jsonl"
        file.write_text(lines([{"ids": self.IDS}, {"ids": [7]}]))
        for args in (["--tokens", "1,2", "--decode", "3"], ["--batch", file]):
            self.assertEqual(self.done("logits", *args, "-o", self.folder / "out"), b"")
            self.assertEqual(self.done("logits", *args, "-o", "-", cwd=self.folder),
                             (self.folder / "out").read_bytes())
        self.assertFalse((self.folder / "-").exists())
        with open("/dev/full", "wb") as full:
            self.fails(1, "standard output", "logits", "--tokens", "1,2", "-o", "-", stdout=full)

    def test_any_cut_gives_the_same(self):
        whole = self.logits(self.IDS)["prompt_logits"][1]
        for n in (1, 3, 7):
            self.close(self.logits(self.IDS, (), "--prefill-step-size", n)["prompt_logits"][1], whole)
        out = self.logits(self.IDS[:3], self.IDS[3:])
        self.close(out["prompt_logits"][1] + out["decode_logits"][1], whole)

    def test_threads(self):
        self.assertEqual(self.logits(self.IDS, (), "--threads", "1"),
                         self.logits(self.IDS, (), "--threads", "3"))

    def test_batch(self):
        lists, out = [self.IDS, self.IDS[:3], [7], self.IDS[2:] * 9], self.folder / "batch"
        file = self.folder / "ids.jsonl"
        file.write_text(lines({"ids": ids} for ids in lists[:2]) + " \n" +
                        lines({"ids": ids} for ids in lists[2:]))
        for args, given in (([file], None), (["-"], file.read_text())):
            self.done("logits", "--exact", "--batch", *args, "--out", out, input=given)
            got = read_safetensors(out)
            self.assertEqual(len(got), len(lists))
            for i, ids in enumerate(lists):
                self.assertEqual(got["logits.%d" % i], self.logits(ids)["prompt_logits"])
        for text, said in (('{"ids": []}', "line 1"), ('{"ids": [1]}\n{"tokens": [1]}', "line 2"),
                           ('{"ids": [1, 4096]}', "4096"), ("[1]", "ids"), ("", "standard input: no lists")):
            self.fails(1, said, "logits", "--batch", "-", "--out", out, input=text)
        self.fails(2, "--batch", "logits", "--batch", file, "--tokens", "1", "--out", out)

    def test_greedy_is_the_largest(self):
        rows = self.logits(self.IDS)["prompt_logits"][1]
        last = rows[-4096:]
        told = self.json_lines("generate", "--ignore-chat-template", "--exact", "--json", "-n", "1",
                               "-p", "Once upon a time, there was")
        text = self.json_lines("tokenize", input='{"text": "Once upon a time, there was"}')
        again = self.logits(text[0]["ids"])["prompt_logits"][1][-4096:]
        self.assertEqual(told[0]["token"], again.index(max(again)))
        self.assertEqual(len(last), 4096)


class Inspect(Case):
    def test_json(self):
        out = self.json_lines("inspect", "--json")[0]
        self.assertEqual((out["model_type"], out["vocab_size"], out["n_layers"]), ("llama", 4096, 8))
        self.assertEqual(out["parameters"], 14162304)
        self.assertEqual(len(out["layers"]), 8)
        attention, mlp = out["layers"][0]
        self.assertEqual((attention["op"], attention["n_heads"], attention["rope"]["theta"]),
                         ("attention", 6, 10000))
        self.assertEqual((mlp["op"], mlp["intermediate_size"]), ("mlp", 1024))
        formats = out["formats"]
        self.assertEqual([(f["format"], f["bits"]) for f in formats], [("affine", 4)])
        self.assertEqual(formats[0]["matrices"], 8 * 7 + 1)
        self.assertLess(formats[0]["bytes"], out["weight_bytes"])
        self.assertNotIn("adapter", out)
        names = [t["name"] for t in out["tensors"]]
        self.assertEqual(names, sorted(names))
        data = (MODEL / "model.safetensors").stat().st_size
        self.assertTrue(0 < data - sum(t["bytes"] for t in out["tensors"]) < 100000)
        for t in out["tensors"]:
            self.assertEqual(t["bytes"], math.prod(t["shape"]) * {"U32": 4, "BF16": 2}[t["type"]])
        # 8 layers, keys and values, 2 heads of 64 numbers.
        self.assertEqual(out["cache_bytes_per_token"], 8 * 2 * 2 * 64 * 2)
        self.assertEqual(out["memory_needed"], out["weight_bytes"] + out["cache_bytes_for_context"])
        exact = self.json_lines("inspect", "--json", "--exact")[0]
        self.assertEqual(exact["cache_bytes_per_token"], 2 * out["cache_bytes_per_token"])

    def test_text(self):
        out = self.done("inspect").decode()
        for words in ("layers 0-7: attention", "model.embed_tokens.weight", "memory needed", "llama",
                      "57 matrices affine, 4 bits in groups of"):
            self.assertIn(words, out)

    def test_hostile_name(self):
        """A name commands no terminal."""
        folder = self.model(skip=["model.safetensors", "model.safetensors.index.json"])
        data = (MODEL / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8:8 + size])
        name = "vision_tower.\x1b[2J\u009b1m" + 50 * "n"
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data) - 8 - size, len(data) - 4 - size]}
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size:] + bytes(4))
        out = self.done("inspect", "-m", folder).decode()
        self.assertIn("?[2J??1mnnn", out)
        self.assertNotRegex(out, "[\x00-\x09\x0b-\x1f\x7f-\x9f]")
        self.assertIn(name, [t["name"] for t in self.json_lines("inspect", "--json", "-m", folder)[0]["tensors"]])


class Models(Case):
    def test_cache(self):
        for name, kind in (("models--a--known", "qwen3"), ("models--b--unknown", "transmogrifier"),
                           ("models--c--hostile", "\x1b[2Jtype\n")):
            folder = self.folder / name / "snapshots/1"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        env = environment(HF_HUB_CACHE=self.folder)
        out = json.loads(self.done("models", "--json", env=env))
        types = [t for f in out["families"] for t in f["model_types"]]
        for kind in ("llama", "mistral", "gemma", "gemma2", "gemma3", "gemma3_text", "mixtral", "phi3",
                     "qwen2", "qwen3", "qwen3_moe"):
            self.assertIn(kind, types)
        features = {t: f["features"] for f in out["families"] for t in f["model_types"]}
        self.assertEqual(features["mamba2"], ["state space"])
        self.assertEqual(features["mixtral"], ["attention", "experts"])
        found = {m["name"]: m for m in out["models"]}
        self.assertTrue(found["a/known"]["supported"])
        self.assertFalse(found["b/unknown"]["supported"])
        self.assertEqual(found["a/known"]["path"], str(self.folder / "models--a--known/snapshots/1"))
        lost = self.done("models", env=dict(env, CLM_MODEL="/no/where")).decode()
        self.assertIn("(without -m)  /no/where: no such folder", lost)
        text = self.done("models", env=env).decode()
        self.assertIn("a/known", text)
        self.assertIn("transmogrifier (not supported)", text)
        self.assertIn(", ?[2Jtype? (not supported)", text)

    def test_devices(self):
        out = {d["name"]: d for d in json.loads(self.done("models", "--devices", "--json"))["devices"]}
        self.assertEqual(set(out), {"cpu", "cuda"})
        self.assertTrue(out["cpu"]["present"])
        text = self.done("models", "--devices").decode()
        self.assertIn(out["cpu"]["is"], text)
        self.assertIn(out["cuda"]["is" if out["cuda"]["present"] else "why"], text)
        logits = ("logits", "--tokens", "1,2", "--out", self.folder / "out.safetensors")
        self.done(*logits, "--device", "cpu", env=environment(CLM_DEVICE="none"))
        self.fails(2, "CLM_DEVICE: unknown device none", *logits, env=environment(CLM_DEVICE="none"))
        whole = self.done(*logits, "--device", "cpu")
        for layers in ("auto", "0"):
            self.assertEqual(self.done(*logits, "--device", "cpu", "--gpu-layers", layers), whole)
        told = command.run(*logits, "--device", "cpu", "--gpu-layers", "all")
        self.assertEqual((told.returncode, told.stdout), (0, whole))
        self.one_line(told.stderr.decode(), "warning: --gpu-layers all: the device is the CPU")
        self.fails(2, "3 layers on a GPU", *logits, "--device", "cpu", "--gpu-layers", "3")
        self.fails(2, "--gpu-layers must be", *logits, "--gpu-layers", "some")
        if not out["cuda"]["present"]:
            self.fails(1, "cuda", *logits, "--device", "cuda")

    def test_no_cache(self):
        self.done("models", env=environment(HF_HUB_CACHE="/no/such/folder"))
        self.done("models", env=environment(HOME=None, XDG_CACHE_HOME=None))


class Perplexity(Case):
    TEXT = "Once upon a time, there was a little fox. The fox lived near the river with his family. " * 4

    def test_beyond_numbers(self):
        """What is too large for a double is what Python's json calls it."""
        folder = self.model(skip=["model.safetensors"])
        data = bytearray((MODEL / "model.safetensors").read_bytes())
        size = 8 + int.from_bytes(data[:8], "little")
        norm = json.loads(data[8:size])["model.norm.weight"]
        self.assertEqual(norm["dtype"], "BF16")
        begin, end = (size + offset for offset in norm["data_offsets"])
        data[begin:end] = b"\x7a\x47" * ((end - begin) // 2)
        (folder / "model.safetensors").write_bytes(data)
        out = self.json_lines("perplexity", "--json", "-m", folder, "-", input=self.TEXT)[0]
        self.assertEqual((out["perplexity"], out["standard_error"]), (math.inf, math.inf))
        self.assertGreater(out["nll"], 1000)

    def test_windows(self):
        path = self.folder / "text"
        path.write_text(self.TEXT)
        wide = self.json_lines("perplexity", "--json", "--exact", path)[0]
        narrow = self.json_lines("perplexity", "--json", "--exact", "--window", "2", path)[0]
        count = len(self.json_lines("tokenize", input=lines([{"text": self.TEXT}]))[0]["ids"])
        self.assertEqual((wide["tokens"], narrow["tokens"]), (count - 1, count - 1))
        self.assertAlmostEqual(math.log(wide["perplexity"]), wide["nll"], 4)
        self.assertLess(wide["perplexity"], narrow["perplexity"])
        self.assertTrue(1 < wide["perplexity"] < 100 and wide["standard_error"] > 0)

    def test_standard_input_and_text(self):
        out = self.done("perplexity", "--max-tokens", "20", "-", input=self.TEXT).decode()
        self.assertRegex(out, r"\APerplexity: \d+\.\d{4} \+- \d+\.\d{4}\nTokens: 19, in windows of 512; ")


class Context(Case):
    """What goes past what a model was made for, which its speeds of rotation do not stop."""
    TOKENS = ",".join(["5"] * 40)

    def warns(self, *args, **options):
        result = command.run(*args, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr.decode(), r"\Aclm: warning: \d+ tokens, where the model was made for 32: [^\n]+\n\Z")

    def test_warnings(self):
        model, out = self.model(max_position_embeddings=32), self.folder / "out"
        self.warns("logits", "-m", model, "--tokens", self.TOKENS, "-o", out)
        self.warns("logits", "-m", model, "--tokens", "5,6,7", "--decode", self.TOKENS, "-o", out)
        self.warns("cache-prompt", "-m", model, "-p", "a fox " * 40, "--prompt-cache-file", out)
        self.warns("bench", "-m", model, "-p", "20", "-n", "13", "-d", "0,13", "-r", "1", "--no-limits")
        self.warns("generate", "-m", model, "-p", "a fox " * 40, "-n", "1", "--max-kv-size", "16")
        for more in ("--json",), ("--verbose", "false"):
            self.warns("generate", "-m", model, "-p", "a", "--ignore-eos", "-n", "60", "--max-kv-size", "16", *more)
        lines = '{"body": {"prompt": "a", "max_tokens": 60, "ignore_eos": true}}\n' * 2
        self.warns("generate", "-m", model, "--batch", "-", "--max-kv-size", "16", input=lines)
        self.fails(1, "32", "generate", "-m", model, "-p", "a fox " * 40, "-n", "1")
        self.done("logits", "-m", model, "--tokens", self.TOKENS[:2 * 32 - 1], "-o", out)
        self.done("bench", "-m", model, "-p", "32", "-n", "0", "-r", "1", "--no-limits")
        plain = "generate", "-m", model, "-p", "a", "--ignore-chat-template", "--ignore-eos"
        self.done(*plain, "-n", "all", "--verbose", "false")
        result = command.run(*plain, "-n", "60", stderr=subprocess.STDOUT)
        self.assertRegex(result.stdout.decode(), r"GB\nclm: warning: the text ends where the model's context of 32 is full\n\Z")
        folder = "--prompt-cache-dir", self.folder / "kept", "--prompt-cache-dir-bytes", "1000"
        result = command.run(*plain, "-n", "1", *folder, stderr=subprocess.STDOUT)
        self.assertRegex(result.stdout.decode(), r"GB\nclm: warning: a prompt cache is not kept: [^\n]+\n\Z")

    def test_yarn(self):
        """Configs to which it was added keep the length from before it."""
        def length(**scaling):
            scaling = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=1000, **scaling)
            model = self.model("m%d" % len(list(self.folder.iterdir())), rope_scaling=scaling)
            return json.loads(self.done("inspect", "--json", "-m", model))["context_length"]
        self.assertEqual(length(), 4000)
        self.assertEqual(length(beta_fast=16), 4000)


class Help(Case):
    def test_overview(self):
        out = self.done("--help").decode()
        self.assertEqual(self.done("help").decode(), out)
        self.assertEqual(self.done().decode(), out)
        for name in ("generate", "bench", "perplexity", "tokenize", "detokenize", "logits", "inspect",
                     "models", "help"):
            self.assertIn("\n  %s " % name, out)
            told = self.done("help", name).decode()
            self.assertTrue(told.startswith("usage: clm %s" % name))
            self.assertEqual(self.done(name, "--help").decode(), told)
            self.assertEqual(self.done(name, "-h").decode(), told)
            self.assertLessEqual(max(map(len, told.splitlines())), 79)

    def test_no_name_of_a_file(self):
        for args in (["logits", "--tokens", "1", "-o", "x", "--save-prompt-cache", "-"],
                     ["cache-prompt", "-p", "x", "--prompt-cache-file", "-"],
                     ["perplexity", __file__, "--save-logits", "-"]):
            self.fails(2, ["%s needs the name of a file" % args[-2], "./-"], *args, cwd=self.folder)

    def test_version(self):
        self.assertRegex(self.done("--version").decode(), r"\Aclm \d+\.\d+\.\d+\n\Z")

    def test_letters_and_values(self):
        for args in (["-n", "3"], ["-n3"], ["--max-tokens", "3"], ["--max-tokens=3"]):
            self.assertEqual(len(self.json_lines("generate", "--json", *args)), 4)


command.main()
