#!/usr/bin/env python3
"""Prompt caches: clm cache-prompt, and what goes on from its files."""
import json
import os
import resource
import signal

import command
from command import Case, environment, read_safetensors, run

BEGIN, END = "Tell me a story about a cat", " and a dog."


class Caches(Case):
    def setUp(self):
        super().setUp()
        self.file = self.folder / "cache.safetensors"

    def keep(self, *args, **options):
        return self.done("cache-prompt", "--prompt-cache-file", self.file, *args, **options)

    def text(self, *args):
        return self.done("generate", "--exact", "--verbose", "false", "-n", "40", *args)

    def go_on(self, *args):
        return self.text("--prompt-cache-file", self.file, *args)

    def test_goes_on_in_the_same_message(self):
        out = self.keep("--exact", "-p", BEGIN).decode()
        self.assertRegex(out, r"\APrompt: \d+ tokens, \d+\.\d{3} tokens-per-sec\nPeak memory: ")
        whole = self.text("-p", BEGIN + END)
        for _ in range(2):
            self.assertEqual(self.go_on("-p", END), whole)

    def test_model_is_found_again(self):
        """From another folder than the one it was named from."""
        self.model("named", skip=["config.json"])
        (self.folder / "named/config.json").write_text((command.MODEL / "config.json").read_text())
        self.keep("--exact", "-p", BEGIN, "-m", "named", cwd=self.folder)
        self.assertEqual(self.go_on("-p", END), self.text("-p", BEGIN + END))
        (self.folder / "named").rename(self.folder / "moved")
        self.fails(1, [str(self.file), str(self.folder / "named"), "--model"], "generate", "--prompt-cache-file",
                   self.file, "-p", END)
        self.assertEqual(self.go_on("-p", END, "-m", self.folder / "moved"), self.text("-p", BEGIN + END))

    def test_name_of_any_bytes(self):
        """Of a model whose folder has a name that is no text."""
        folder = os.fsencode(self.folder) + b"/caf\xe9"
        os.rename(self.model(), folder)
        self.keep("--exact", "-p", BEGIN, env=environment(CLM_MODEL=os.fsdecode(folder)))
        self.assertEqual(self.go_on("-p", END), self.text("-p", BEGIN + END))

    def test_less_is_evaluated(self):
        self.keep("-p", BEGIN)
        sizes = [self.json_lines("generate", "--json", "-n", "1", *args)[-1]["prompt_tokens"]
                 for args in (["-p", BEGIN + END], ["-p", END, "--prompt-cache-file", self.file])]
        self.assertLess(sizes[1], sizes[0])

    def test_template(self):
        """A system prompt is in the cache, and need not be said again."""
        system = ["--system-prompt", "You only say no."]
        self.keep("--exact", "-p", BEGIN, *system)
        self.assertEqual(self.go_on("-p", END), self.text("-p", BEGIN + END, *system))
        result = run("generate", "--prompt-cache-file", self.file, "-n", "1", "-p", END, *system)
        self.assertEqual(result.returncode, 0)
        self.one_line(result.stderr.decode(), ["warning", "--system-prompt changes nothing"])

    def test_template_that_trims(self):
        """The space between the two parts is within the message, and stays."""
        model = self.model("trims", skip=["tokenizer_config.json"])
        settings = json.loads((command.MODEL / "tokenizer_config.json").read_text())
        settings["chat_template"] = settings["chat_template"].replace(
            "message['content']", "message['content'] | trim")
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
        for begin, end in ((BEGIN, END), (BEGIN + "\n", END[1:]), ("  " + BEGIN, END + " "),
                           (BEGIN, "\n" + END[1:])):
            self.keep("--exact", "-m", model, "-p", begin)
            self.assertEqual(self.go_on("-p", end), self.text("-m", model, "-p", begin + end))

    def test_words_of_the_search(self):
        """What a system prompt says is not taken for what the user says."""
        for words in ("Answer <query> so.", "query", "words, queries"):
            system = ["--system-prompt", words]
            self.keep("--exact", "-p", BEGIN, *system)
            said = run("generate", "--exact", "--verbose", "false", "-n", "40", "-p", END, *system,
                       "--prompt-cache-file", self.file).stdout
            self.assertEqual(said, self.text("-p", BEGIN + END, *system))

    def test_plain(self):
        self.keep("--exact", "--ignore-chat-template", "-p", "-", input="Once upon a")
        self.assertEqual(self.go_on("--ignore-chat-template", "-p", " time"),
                         self.text("--ignore-chat-template", "-p", "Once upon a time"))

    def test_of_another_model(self):
        self.keep("-p", BEGIN)
        config, plain = self.model("config", rms_norm_eps=1e-4), self.model("plain")
        template = plain / "tokenizer_config.json"
        settings = json.loads(template.read_text())
        settings["chat_template"] += " "
        template.unlink()
        template.write_text(json.dumps(settings))
        for folder, word in ((config, "model"), (plain, "chat template"),
                             (self.renamed("ing", "gni"), "tokenizer")):
            self.fails(1, ["another " + word, "cache-prompt", self.file.name], "generate", "-m", folder,
                       "-p", END, "--prompt-cache-file", self.file)
        self.done("generate", "-m", plain, "-n", "1", "-p", END, "--ignore-chat-template",
                  "--prompt-cache-file", self.file)

    def test_model_of_the_file(self):
        other = self.model("other", rms_norm_eps=1e-4)
        self.keep("--exact", "-m", other, "-p", BEGIN)
        self.assertEqual(self.go_on("-p", END), self.text("-m", other, "-p", BEGIN + END))
        self.fails(1, "another model", "generate", "-m", command.MODEL, "-p", END,
                   "--prompt-cache-file", self.file)

    def test_damaged(self):
        self.keep("-p", BEGIN)
        data = self.file.read_bytes()
        for size in (0, 7, 100, len(data) - 1):
            self.file.write_bytes(data[:size])
            self.fails(1, self.file.name, "generate", "-p", END, "--prompt-cache-file", self.file)
        self.file.write_bytes(b"\x13\0\0\0\0\0\0\0{\"__metadata__\":{}}")
        self.fails(1, "no prompt cache", "generate", "-p", END, "--prompt-cache-file", self.file)
        self.fails(1, "no-such", "generate", "-p", END, "--prompt-cache-file", "no-such")

    def test_arguments(self):
        self.fails(2, "--prompt is missing", "cache-prompt", "--prompt-cache-file", self.file)
        self.fails(2, "--prompt-cache-file is missing", "cache-prompt", "-p", BEGIN)
        self.fails(1, "no-such", "cache-prompt", "-p", BEGIN, "--prompt-cache-file",
                   self.folder / "no-such" / "x")
        self.fails(2, "exclude each other", "generate", "--prompt-cache-file", self.file, "--prompt-cache-dir",
                   self.folder)

    def test_full_disk(self):
        """The old file stays as it is, and nothing else is left."""
        self.file.write_text("before")

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

        self.fails(1, "cannot write", "cache-prompt", "-p", BEGIN, "--prompt-cache-file", self.file,
                   preexec_fn=limit)
        self.assertEqual(self.file.read_text(), "before")
        self.assertEqual([p.name for p in self.folder.iterdir()], [self.file.name])

    def test_logits(self):
        def logits(name, *args):
            out = self.folder / name
            self.done("logits", "--exact", "--out", out, *args)
            return read_safetensors(out)

        whole = logits("whole", "--tokens", "0,5,9,11,7,8", "--decode", "3,4")
        logits("begin", "--tokens", "0,5,9", "--save-prompt-cache", self.file)
        rest = logits("rest", "--tokens", "11,7,8", "--decode", "3,4", "--prompt-cache-file", self.file)
        (_, vocab_size), prompt = whole["prompt_logits"]
        self.assertEqual(rest["prompt_logits"][1], prompt[3 * vocab_size:])
        self.assertEqual(rest["decode_logits"], whole["decode_logits"])
        one = logits("one", "--decode", "11,7", "--prompt-cache-file", self.file)
        self.assertEqual(one["decode_logits"][1], prompt[3 * vocab_size:5 * vocab_size])
        self.assertEqual(one["prompt_logits"], ([0, vocab_size], ()))


if __name__ == "__main__":
    command.main()
