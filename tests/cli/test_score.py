#!/usr/bin/env python3
"""clm score and clm perplexity, against what clm logits says of the same tokens."""
import json
import math
import resource
import signal

import command
from command import Case, read_safetensors, run

TEXT = "Once upon a time, there was a little fox. The fox lived near the river with his family. "
LINES = [{"context": "Once upon a", "continuation": " time"},
         {"context": "Once upon a ", "continuation": "time"},
         {"context": "The cat", "continuation": " ran to the river and saw a dog.", "per_token": True},
         {"context_ids": [0, 5, 9], "continuation_ids": [11, 7]},
         {"context": "Yes", "continuation": ""}, {"context": "", "continuation": "Once"},
         {"text": TEXT}]


class Logits(Case):
    def lines(self, name, items, *args):
        return self.json_lines(name, *args, input="".join(json.dumps(i) + "\n" for i in items))

    def ids(self, text):
        return self.lines("tokenize", [{"text": text}])[0]["ids"]

    def log_probs(self, ids):
        """Of token i + 1, and whether it is the most probable, by what comes before it."""
        out = self.folder / "logits"
        self.done("logits", "--exact", "--tokens", ",".join(map(str, ids)), "--out", out)
        (n, size), numbers = read_safetensors(out)["prompt_logits"]
        found = []
        for i in range(n - 1):
            row = numbers[i * size:(i + 1) * size]
            top = max(row)
            total = top + math.log(math.fsum(math.exp(x - top) for x in row))
            found.append((row[ids[i + 1]] - total, row[ids[i + 1]] == top))
        return found

    def split(self, line):
        """The tokens of a line, and the number of those that are given."""
        if "text" in line:
            return self.ids(line["text"]), 1
        if "context_ids" in line:
            return line["context_ids"] + line["continuation_ids"], len(line["context_ids"])
        whole = self.ids(line["context"] + line["continuation"])
        return whole, len(self.ids(line["context"].rstrip()))


class Scores(Logits):
    def test_lines(self):
        answers = self.lines("score", LINES, "--exact")
        for line, answer in zip(LINES, answers, strict=True):
            ids, given = self.split(line)
            want = self.log_probs(ids)[given - 1:] if given < len(ids) else []
            self.assertAlmostEqual(answer["logprob"], sum(x for x, _ in want), 3)
            self.assertEqual((answer["tokens"], answer["greedy"]),
                             (len(want), all(best for _, best in want)))
            self.assertEqual("per_token" in answer, "per_token" in line)
            for token, (x, best), i in zip(answer.get("per_token", []), want, ids[given:]):
                self.assertEqual((token["id"], token["greedy"]), (i, best))
                self.assertAlmostEqual(token["logprob"], x, 3)
        self.assertEqual(answers[0], answers[1], "a space at the end of a context")

    def test_together_as_alone(self):
        many = LINES * 30
        together = self.lines("score", many, "--exact", "--per-token")
        for line, answer in zip(LINES, together):
            self.assertEqual(self.lines("score", [line], "--exact", "--per-token"), [answer] if
                             "per_token" in answer else None)
        self.assertEqual(together, together[:len(LINES)] * 30)

    def test_longer_than_the_context(self):
        model = self.model(max_position_embeddings=16)
        ids = self.ids(TEXT)
        want = sum(x for begin in range(0, len(ids) - 1, 16)
                   for x, _ in self.log_probs(ids[begin:begin + 17]))
        text, pair = self.lines("score", [{"text": TEXT}, {"context_ids": ids[:-3],
                                                           "continuation_ids": ids[-3:]}],
                                "-m", model, "--exact")
        self.assertAlmostEqual(text["logprob"], want, 3)
        self.assertEqual(text["tokens"], len(ids) - 1)
        self.assertEqual(pair["dropped"], len(ids) - 17)
        self.assertAlmostEqual(pair["logprob"], sum(x for x, _ in self.log_probs(ids[-17:])[-3:]), 3)
        self.fails(1, ["line 1", "up to 16"], "score", "-m", model, input=json.dumps(
            {"context_ids": [1], "continuation_ids": ids[:17]}))

    def test_bad_lines(self):
        for line, words in (("{}", "expected"), ("[]", "object"), ("{", "line 1"),
                            ('{"text": 1}', "no string"), ('{"context": "a"}', "continuation"),
                            ('{"context_ids": [], "continuation_ids": [1]}', "one token"),
                            ('{"context_ids": [1], "continuation_ids": [-1]}', "no token id"),
                            ('{"context_ids": [1], "continuation_ids": [99999]}', "vocabulary")):
            self.fails(1, words, "score", input=line + "\n")
            good = '{"text": "Once upon a time"}\n'
            result = run("score", input=good * 3 + line + "\n" + good)
            self.assertEqual((result.returncode, result.stdout), (1, self.done("score", input=good * 3)))
            self.one_line(result.stderr.decode(), "line 4")
        self.assertEqual(self.done("score", input="\n \n"), b"")


class Perplexity(Logits):
    def setUp(self):
        super().setUp()
        self.text = self.folder / "text"
        self.text.write_text(TEXT * 3)
        self.base = self.folder / "base"

    def measure(self, *args, **options):
        return self.json_lines("perplexity", "--json", *args, self.text, **options)[0]

    def test_stride(self):
        """As transformers' guide has it, with a max_length of 25 tokens and a stride of 10."""
        ids, before, want = self.ids(TEXT * 3), 0, []
        for begin in range(0, len(ids), 10):
            end = min(begin + 25, len(ids))
            found = self.log_probs(ids[begin:end])
            want += [x for x, _ in found[max(before - begin - 1, 0):]]
            before = end
            if end == len(ids):
                break
        got = self.measure("--exact", "--window", "24", "--stride", "10")
        self.assertEqual((got["tokens"], got["window"], got["stride"]), (len(want), 24, 10))
        self.assertAlmostEqual(got["nll"], -sum(want) / len(want), 4)
        self.assertAlmostEqual(got["perplexity"], math.exp(got["nll"]), 2)
        mean = sum(want) / len(want)
        error = math.sqrt(sum((x - mean) ** 2 for x in want) / (len(want) - 1) / len(want))
        self.assertAlmostEqual(got["standard_error"], got["perplexity"] * error, 2)

    def test_chunks(self):
        """As llama.cpp has it, the first token of each replaced by the one that begins texts."""
        ids, want = self.ids(TEXT * 3), []
        for begin in range(0, len(ids) - 15, 16):
            chunk = self.ids("")[:1] + ids[begin + 1:begin + 16]
            want += [x for x, _ in self.log_probs(chunk)[8:]]
        got = self.measure("--exact", "--ctx-size", "16")
        self.assertEqual(got["tokens"], len(want))
        self.assertAlmostEqual(got["nll"], -sum(want) / len(want), 4)

    def test_divergence(self):
        saved = self.measure("--exact", "--save-logits", self.base)
        plain = self.measure("--exact")
        self.assertEqual(saved["nll"], plain["nll"])
        same = self.measure("--exact", "--kl-divergence", self.base)
        self.assertLess(same["kl"]["max"], 1e-5)
        self.assertEqual((same["same_top"], same["nll"]), (1, plain["nll"]))
        self.assertAlmostEqual(same["base_nll"], plain["nll"], 3)
        other = self.measure("-m", self.model(rms_norm_eps=0.1), "--kl-divergence", self.base)
        kl = other["kl"]
        self.assertTrue(1e-4 < kl["median"] < kl["mean"] < kl["p99"] <= kl["max"], kl)
        self.assertTrue(0 < other["same_top"] < 1)
        self.assertAlmostEqual(other["log_ratio"], other["nll"] - other["base_nll"], 3)
        out = self.done("perplexity", "--kl-divergence", self.base, self.text).decode()
        self.assertRegex(out, r"\nKL divergence: mean \d\.\d+ \+- \d\.\d+, median ")

    def test_not_of_this_text(self):
        self.measure("--save-logits", self.base)
        args = ["perplexity", "--kl-divergence", self.base]
        self.fails(1, "other windows", *args, "--window", "9", self.text)
        self.fails(1, "another text", *args, "-", input="A" + TEXT)
        self.fails(1, "tokens", *args, "-", input=TEXT * 4)
        data = self.base.read_bytes()
        self.base.write_bytes(data[:-1])
        self.fails(1, "base", *args, self.text)
        self.fails(1, "no log-probabilities", "perplexity", "--kl-divergence",
                   command.MODEL / "model.safetensors", self.text)
        self.fails(2, "--ctx-size", "perplexity", "-c", "16", "--stride", "3", self.text)
        self.fails(2, "stride", "perplexity", "-w", "16", "--stride", "18", self.text)

    def test_full_disk(self):
        self.base.write_text("before")

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

        self.fails(1, "cannot write", "perplexity", "--save-logits", self.base, self.text,
                   preexec_fn=limit)
        self.assertEqual(self.base.read_text(), "before")
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["base", "text"])

    def test_any_bytes(self):
        self.text.write_bytes(TEXT.encode() + b"\xff\xc3 \0 \xe2\x82 " + TEXT.encode())
        count = len(self.ids(TEXT + "\ufffd\ufffd \0 \ufffd " + TEXT))
        self.assertEqual(self.measure()["tokens"], count - 1)


if __name__ == "__main__":
    command.main()
