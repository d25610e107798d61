#!/usr/bin/env python3
"""--draft-model, --prompt-lookup and --num-draft-tokens: the same text, and what is told of it."""
import json
import re

import command
from command import MODEL, Case

LIST = "Repeat: one two three four five six. one two three four five six. one two three"
PROMPT = ["--exact", "--ignore-chat-template", "-p", LIST, "-n", "40"]
GUESSING = [["--draft-model", MODEL], ["--draft-model", MODEL, "--num-draft-tokens", "2"],
            ["--prompt-lookup"]]


class Drafts(Case):
    def test_same_tokens(self):
        for more in ([], ["--temp", "0.8", "--seed", "5"], ["--temp", "1", "--top-p", "0.9"],
                     ["--kv-bits", "4", "--kv-group-size", "32", "--quantized-kv-start", "10"],
                     ["--temp", "0.8", "--seed", "6", "--kv-bits", "8", "--max-kv-size", "30"]):
            asked = ["generate", "--json", *PROMPT, *more]
            *want, last = self.json_lines(*asked)
            self.assertNotIn("draft_n", last)
            for guessing in GUESSING:
                *tokens, end = self.json_lines(*asked, *guessing, "--seed", last["seed"])
                foreseen = [t.pop("from_draft") for t in tokens]
                self.assertEqual(tokens, want, guessing)
                self.assertEqual(sum(foreseen), end["draft_n_accepted"])
                self.assertLessEqual(end["draft_n_accepted"], end["draft_n"])
                self.assertEqual(end["finish_reason"], last["finish_reason"])

    def test_summary(self):
        self.assertRegex(self.done("generate", *PROMPT, "--prompt-lookup").decode(),
                         r"\nDrafts: \d+ guessed, \d+ right, \d+\.\d % of the text\nPeak memory")
        self.assertNotIn("Drafts", self.done("generate", *PROMPT).decode())

    def test_batch(self):
        lines = [{"custom_id": str(i), "method": "POST", "url": "/v1/completions",
                  "body": {"prompt": LIST, "max_tokens": 12 + i, "temperature": i % 2}}
                 for i in range(5)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        asked = ["generate", "--batch", "-", "--in-order", "--exact", "--seed", "3"]

        def choices(*args):
            answers = self.json_lines(*asked, *args, input=text)
            bodies = [a["response"]["body"] for a in answers]
            return [b["choices"] for b in bodies], [b["usage"] for b in bodies]
        want, usage = choices()
        self.assertNotIn("completion_tokens_details", usage[0])
        for guessing in GUESSING:
            got, usage = choices(*guessing)
            self.assertEqual(got, want, guessing)
            for u in usage:
                details = u["completion_tokens_details"]
                self.assertLess(details["accepted_prediction_tokens"], u["completion_tokens"])
                self.assertGreaterEqual(details["rejected_prediction_tokens"], 0)

    def test_chat(self):
        asked = ["chat", "--exact", "-n", "20", "--temp", "0.7", "--seed", "2"]
        said = "Hello!\nTell me a story.\n/stats\n"
        plain = command.run(*asked, input=said)
        for guessing in GUESSING:
            got = command.run(*asked, *guessing, input=said)
            self.assertEqual(got.stdout, plain.stdout)
            self.assertTrue(re.search(rb"Drafts: \d+ guessed", got.stderr), got.stderr)

    def test_another_tokenizer(self):
        folder = self.renamed("Ġgirl", "Ġgrrl")
        self.fails(2, ["draft model's tokenizer", "Ġgrrl", "Ġgirl"], "generate", "--draft-model",
                   folder)

    def test_wrong_use(self):
        self.fails(2, ["--draft-model", "--prompt-lookup"], "generate", "--draft-model", MODEL,
                   "--prompt-lookup")
        self.fails(2, ["--num-draft-tokens", "needs"], "generate", "--num-draft-tokens", "3")
        self.fails(2, "--num-draft-tokens", "chat", "--prompt-lookup", "--num-draft-tokens", "0")
        self.fails(1, "nowhere", "generate", "--draft-model", "nowhere")


command.main()
