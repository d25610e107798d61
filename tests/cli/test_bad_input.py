#!/usr/bin/env python3
"""Bad input: one line that says what to do, and exit status 1 or 2."""
import json
import os
import shutil

import command
from command import MODEL, Case, environment, run


def not_root(folder):
    """How to run as somebody else where root can read everything: the command then lies in folder,
    for its own may be root's alone."""
    if os.geteuid() != 0:
        return {}
    folder.chmod(0o755)
    return {"preexec_fn": lambda: os.setuid(65534), "executable": shutil.copy(command.CLM, folder)}


class BadModel(Case):
    def test_nowhere(self):
        cache = environment(HF_HUB_CACHE=self.folder)
        self.fails(1, ["nowhere", "no such folder"], "generate", "-m", "nowhere", env=cache)
        self.fails(1, ["./no/where", "no such folder"], "generate", "-m", "./no/where", env=cache)
        self.fails(1, ["org/model", "hf download org/model"], "generate", "-m", "org/model",
                   env=cache)
        for host in ("https://huggingface.co/", "hf.co/"):
            self.fails(1, [": org/model: ", "hf download org/model"], "generate", "-m", host + "org/model", env=cache)
        self.fails(1, "nowhere", "generate", env=environment(CLM_MODEL="nowhere"))
        self.fails(2, "--model", "generate", "-m", "")
        self.fails(2, "--draft-model", "generate", "--draft-model", "")

    def test_empty_folder(self):
        for name in ("generate", "inspect", "tokenize", "render"):
            self.fails(1, ["no model", "config.json", "tokenizer.json"], name, "-m", self.folder)

    def test_folder_that_cannot_be_read(self):
        folder = self.model("closed")
        other = not_root(self.folder)
        for mode in (0o000, 0o400):
            folder.chmod(mode)
            self.addCleanup(folder.chmod, 0o700)
            for path in (folder, folder / "below"):
                result = run("inspect", "-m", path, **other)
                if result.returncode == 0:
                    self.skipTest("everything can be read here")
                self.one_line(result.stderr.decode(), [str(path), "Permission denied"])

    def test_file(self):
        gguf = self.folder / "model.gguf"
        gguf.write_bytes(b"GGUF" + bytes(100))
        self.fails(1, ["GGUF", "not supported"], "generate", "-m", gguf)
        self.fails(1, "folder", "generate", "-m", MODEL / "model.safetensors")

    def test_unknown_model_type(self):
        self.fails(1, ["model_type", "transmogrifier", "clm models"], "generate", "-m",
                   self.model(model_type="transmogrifier"))

    def test_config_contradicts_tensors(self):
        for key, value in (("hidden_size", 768), ("num_hidden_layers", 9), ("vocab_size", 5000),
                           ("num_key_value_heads", 3), ("intermediate_size", 2048)):
            self.fails(1, "model.", "generate", "-m", self.model(key, **{key: value}))

    def test_config_contradicts_itself(self):
        for key, value in (("num_attention_heads", 5), ("num_attention_heads", 0),
                           ("hidden_size", -1), ("hidden_size", "many"), ("num_hidden_layers", 0),
                           ("num_hidden_layers", 10 ** 12), ("rms_norm_eps", "small"),
                           ("rope_scaling", {"rope_type": "telescopic", "factor": 2.0})):
            folder = self.model("%s-%s" % (key, id(value)), **{key: value})
            self.fails(1, "", "generate", "-m", folder)

    def test_broken_files(self):
        for name, text in (("config.json", b"{"), ("config.json", b""), ("tokenizer.json", b"[1]"),
                           ("model.safetensors", b""), ("model.safetensors", b"\xff" * 64),
                           ("generation_config.json", b"]")):
            folder = self.model("%s-%d" % (name, len(text)), skip=[name])
            (folder / name).write_bytes(text)
            self.fails(1, name, "generate", "-m", folder)

    def test_pointers(self):
        """What git leaves of a large file that it was not asked to get."""
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            folder = self.model("pointer-" + name, skip=[name])
            (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
            self.fails(1, [name, "git lfs pull"], "generate", "-m", folder)

    def test_pickled_weights(self):
        folder = self.model(skip=["model.safetensors", "model.safetensors.index.json"])
        (folder / "pytorch_model.bin").write_bytes(b"x")
        self.fails(1, ["pytorch_model.bin", "as safetensors"], "generate", "-m", folder)

    def test_truncated_weights(self):
        folder = self.model(skip=["model.safetensors"])
        data = (MODEL / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:len(data) // 2])
        self.fails(1, "model.safetensors", "generate", "-m", folder)

    def test_missing_files(self):
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            self.fails(1, name, "generate", "-m", self.model("no-" + name, skip=[name]))

    def test_tokenizer_without_vocabulary(self):
        tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
        for n, vocabulary in enumerate(({}, None, [], 5)):
            folder = self.model("tokenizer%d" % n, skip=["tokenizer.json"])
            tokenizer["model"]["vocab"] = vocabulary
            tokenizer["model"]["merges"] = []
            (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
            self.fails(1, "tokenizer.json", "generate", "-m", folder)
            self.fails(1, "tokenizer.json", "tokenize", "-m", folder, input='{"text": "a"}\n')


    def test_tokenizer_of_another_model(self):
        folder = self.model(skip=["tokenizer.json"])
        tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 4096, "content": "<new>"})
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        text = self.folder / "text"
        text.write_text("a <new> b")
        for args in (["generate", "-p", "<new>"], ["perplexity", text],
                     ["cache-prompt", "-p", "<new>", "--prompt-cache-file", self.folder / "cache"]):
            self.fails(1, ["token 4096", "same model"], *args, "-m", folder)


class BadPrompt(Case):
    def test_longer_than_the_context(self):
        self.fails(1, ["context", "1024"], "generate", "-p", "-", input="a word and " * 2000)

    def test_no_tokens(self):
        tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
        tokenizer["post_processor"] = None
        folder = self.model(skip=["tokenizer.json"])
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.fails(2, "prompt is empty", "generate", "-m", folder, "-p", "",
                   "--ignore-chat-template")


class BadOptions(Case):
    def test_ranges(self):
        for option, values in {
                "--max-tokens": ["-1", "0", "many", "1.5", "", "99999999999999999999"],
                "--temp": ["-1", "nan", "inf", "hot", ""],
                "--top-p": ["-0.1", "1.5", "x"],
                "--min-p": ["-0.1", "1.5"],
                "--top-k": ["-1", "0.5"],
                "--xtc-probability": ["-1", "2"],
                "--xtc-threshold": ["0.6", "-1"],
                "--typical": ["-0.1", "1.5"],
                "--top-nsigma": ["-2", "nan"],
                "--dynatemp-range": ["-1", "x"],
                "--dynatemp-exp": ["-1"],
                "--dry-multiplier": ["-1", "inf"],
                "--dry-base": ["0.9"],
                "--dry-allowed-length": ["-1", "1.5"],
                "--dry-penalty-last-n": ["-2"],
                "--mirostat": ["-1", "3"],
                "--mirostat-ent": ["-1"],
                "--mirostat-lr": ["nan"],
                "--logprobs": ["-1", "1001"],
                "--seed": ["-1", "x", "18446744073709551616"],
                "--threads": ["-1", "5000"],
                "--prefill-step-size": ["-1"],
                "--cache-type": ["f64", ""],
                "--kv-bits": ["3", "x"],
                "--kv-group-size": ["48"],
                "--quantized-kv-start": ["-1"],
                "--max-kv-size": ["4", "x"],
                "--verbose": ["perhaps"],
        }.items():
            for value in values:
                self.fails(2, [option, "clm help generate"], "generate", option, value)
                self.fails(2, option, "generate", "%s=%s" % (option, value))

    def test_sizes(self):
        for value in ("", "-1", "x", "GB", "1X", "1BB", "1 GB", "nan", "1e30", "9999999999GB"):
            self.fails(2, ["--prompt-cache-bytes", "4G"], "chat", "--prompt-cache-bytes", value)
        self.fails(2, "--prompt-cache-size", "chat", "--prompt-cache-size", "0")
        self.fails(1, "folder", "chat", "--prompt-cache-dir", self.folder / "no" / "where")
        for value in ("1", "1.5G", "2MB", "3KiB", "1t"):
            self.done("chat", "--prompt-cache-bytes", value, input="")

    def test_what_mirostat_excludes(self):
        mirostat = ["generate", "--mirostat", "2", "--temp", "1"]
        for option, value in {"top-k": "5", "top-p": "0.9", "min-p": "0.1", "typical": "0.5",
                              "top-nsigma": "1", "xtc-probability": "0.5",
                              "dynatemp-range": "0.5"}.items():
            self.fails(2, "mirostat takes the place of", *mirostat, "--" + option, value)
        self.fails(2, "temp above 0", "generate", "--mirostat", "2")
        self.fails(2, "mirostat must be 2", "generate", "--mirostat", "1", "--temp", "1")

    def test_what_alone_changes_nothing(self):
        for option, other in {
                "--kv-group-size=32": "--kv-bits", "--quantized-kv-start=5": "--kv-bits",
                "--prompt-cache-dir-bytes=1G": "--prompt-cache-dir", "--tool-parser=none": "--parse or --batch",
                "--dynatemp-exp=2": "--dynatemp-range or --batch", "--min-tokens-to-keep=2": "--min-p or --batch",
                "--xtc-threshold=0.2": "--xtc-probability or --batch",
                "--repetition-context-size=9": "--repetition-penalty or --batch",
                "--dry-base=2": "--dry-multiplier or --batch", "--dry-allowed-length=3": "--dry-multiplier or --batch",
                "--dry-penalty-last-n=9": "--dry-multiplier or --batch",
                "--dry-sequence-breaker=x": "--dry-multiplier or --batch",
                "--mirostat-ent=3": "--mirostat or --batch", "--mirostat-lr=0.2": "--mirostat or --batch"}.items():
            self.fails(2, "%s changes nothing without %s (see" % (option.split("=")[0], other), "generate", option)
        self.fails(2, "--dry-base changes nothing without --dry-multiplier (see", "chat", "--dry-base", "2")
        self.fails(2, "--kv-group-size changes nothing without --kv-bits (see", "bench", "--kv-group-size", "32")
        for option in ("--prompt-cache-size", "--prompt-cache-bytes"):
            self.fails(2, [option, "--batch"], "generate", option, "5")
        self.fails(2, "unknown option --tool-parser", "cache-prompt", "--tool-parser", "none")
        self.fails(2, ["--group-size", "16"], "bench", "--shape", "storyteller", "--bits", "16", "--group-size", "64")

    def test_in_company(self):
        line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions",
                           "body": {"prompt": "Hi", "max_tokens": 1}})
        self.done("generate", "--batch", "-", "--dry-base", "2", "--xtc-threshold", "0.2", "--tool-parser", "none",
                  "--prompt-cache-size", "5", "--top-p", "0.5", input=line)
        self.done("generate", "-n", "1", "--kv-group-size", "32", "--kv-bits", "none", "--mirostat-lr", "0.2",
                  "--mirostat", "0")

    def test_filters_of_nothing(self):
        """The text is made all the same, as mlx_lm does."""
        for option, value in {"top-p": "0.9", "top-k": "5", "min-p": "0.1", "typical": "0.5", "top-nsigma": "1",
                              "xtc-probability": "0.5"}.items():
            for args in (["generate", "-n", "1"], ["chat"]):
                told = run(*args, "--" + option, value)
                self.assertEqual(told.returncode, 0)
                self.one_line(told.stderr.decode(), "warning: --%s changes nothing while --temp is 0" % option)
        self.done("generate", "-n", "1", "--top-p", "1", "--top-k", "0", "--min-p", "0")
        self.done("generate", "-n", "1", "--top-p", "0.9", "--dynatemp-range", "0.5")

    def test_logprobs_without_json(self):
        self.fails(2, ["--logprobs is for --json", "both"], "generate", "--logprobs", "2")
        self.fails(2, ["--logprobs is for --json", "line"], "generate", "--logprobs", "2", "--batch", "-")

    def test_beyond_the_vocabulary(self):
        self.fails(2, ["top_k", "4096"], "generate", "--temp", "1", "--top-k", "4096")
        self.fails(2, "no-such-token", "generate", "--extra-eos-token", "no-such-token")
        self.fails(2, "--stop is empty", "generate", "--stop", "")

    def test_unknown(self):
        self.fails(2, ["--tempp", "--temp?"], "generate", "--tempp", "1")
        self.fails(2, "--frobnicate", "generate", "--frobnicate")
        self.fails(2, "-Z", "generate", "-Z")
        self.fails(2, ["stray", "--prompt"], "generate", "stray")
        self.fails(2, "stray", "tokenize", "stray")
        self.fails(2, ["genrate", "generate?"], "genrate")
        self.fails(2, ["gen", "generate?"], "gen")
        self.fails(2, "xyzzy", "xyzzy")
        self.fails(2, ["benhc", "bench?"], "help", "benhc")
        self.fails(2, "unknown command nope (", "nope")
        self.fails(2, "did you mean --repetition-penalty?", "generate", "--repetition-pen", "1")
        self.fails(2, "/load", "chat", "--prompt-cache-file", "x")
        self.fails(2, "each run has another", "generate", "--seed", "-1")

    def test_value_that_is_an_option(self):
        """It would be taken for one of several texts, and what follows it for another."""
        for option in ("-n", "--temp", "--temp=1"):
            self.fails(2, ["--stop needs a value before " + option, "--stop=" + option], "generate", "--stop", option, "3")
        for value in ("-", "-x", "--", "-5"):
            self.done("generate", "-n", "1", "--verbose", "false", "--stop", value)

    def test_now(self):
        for now in ("", "x", "2025-03-09", "2025-02-29T00:00:00", "2025-04-31T00:00:00", "2025-13-01T00:00:00",
                    "2025-03-09T25:00:00", "2025-03-09T08:05:07Z"):
            self.fails(2, ["--now", "2025-03-09T08:05:07"], "render", "--raw", "--now", now)
        self.done("render", "--raw", "--now", "2024-02-29T23:59:59")

    def test_template_of_two_origins(self):
        for name in ("--model", "--template-name"):
            self.fails(2, [name, "--raw"], "render", name, "x", "--raw")
            self.fails(2, [name, "--template"], "render", name, "x", "--template", "y")

    def test_operands(self):
        self.fails(2, ['"x"', "a prompt is given with --prompt, a model with --model"], "generate", "x")
        for name in ("chat", "inspect", "bench"):
            self.fails(2, '"x"; a model with --model', name, "x")
        self.fails(2, 'no use for "x" (see', "models", "x")
        for name in ("score", "render"):
            self.fails(2, '"x"; lines are read from standard input: clm %s < FILE' % name, name, "x")

    def test_values(self):
        self.fails(2, ["--temp", "needs a value"], "generate", "--temp")
        self.fails(2, ["--tools", "empty"], "generate", "--tools", "")
        self.fails(2, ["--prompt-cache-dir", "empty"], "chat", "--prompt-cache-dir=")
        self.fails(2, ["FILE", "empty"], "perplexity", "")
        self.fails(2, ["--json", "no value"], "generate", "--json=1")

    def test_logits(self):
        out = self.folder / "out.safetensors"
        self.fails(2, "--tokens", "logits", "--out", out)
        self.fails(2, "--out", "logits", "--tokens", "1,2")
        for ids in ("1,,2", "1,2,", "a", "-1", "1;2", "99999999999"):
            self.fails(2, "--tokens", "logits", "--tokens", ids, "--out", out)
        self.fails(2, "4096", "logits", "--tokens", "1,4096", "--out", out)
        self.fails(1, "no/folder", "logits", "--tokens", "1", "--out", "no/folder/out")
        self.assertEqual(os.listdir(self.folder), [])

    def test_no_adapter(self):
        self.fails(1, "config.json is no folder of an adapter", "generate", "--adapter-path", MODEL / "config.json")
        self.fails(1, "adapter_config.json", "generate", "--adapter-path", self.folder)

    def test_nowhere_to_write(self):
        """Said before there is work done: not even the model is looked for."""
        for args in (["cache-prompt", "-p", "a", "--prompt-cache-file"],
                     ["logits", "--tokens", "1", "--out"],
                     ["logits", "--tokens", "1", "--out", self.folder / "a", "--save-prompt-cache"],
                     ["perplexity", "nowhere.txt", "--save-logits"]):
            self.fails(1, "no/folder", *args, "no/folder/out", "-m", "nowhere")
            self.fails(1, "directory", *args, self.folder, "-m", "nowhere")

    def test_perplexity(self):
        self.fails(2, "FILE", "perplexity")
        self.fails(2, "too many", "perplexity", "a", "b")
        self.fails(1, "no-such-file", "perplexity", "no-such-file")
        self.fails(2, "window", "perplexity", "--window", "4096", "-", input="Some text.")
        self.fails(2, "tokens", "perplexity", "-", input="")

    def test_bench(self):
        self.fails(2, ["no-such", "llama-3.2-1b"], "bench", "--shape", "no-such")
        self.fails(2, "--bits", "bench", "--shape", "storyteller", "--bits", "7")
        self.fails(2, "--bits", "bench", "--shape", "storyteller", "--bits", "32")
        self.fails(2, "--group-size", "bench", "--shape", "storyteller", "--group-size", "48")
        self.fails(2, "exclude", "bench", "--shape", "storyteller", "-m", MODEL)
        self.fails(2, "--layers", "bench", "--layers", "3")
        self.fails(2, "nothing", "bench", "-p", "0", "-n", "0")
        self.fails(2, ["--bits", "--shape"], "bench", "--bits", "4")
        self.fails(2, ["--group-size", "--shape"], "bench", "--group-size", "64")
        self.fails(2, ["--json", "csv"], "bench", "--json", "-o", "csv")
        self.fails(2, ["--cache-type", "f17"], "bench", "--cache-type", "f16,f17")
        self.fails(2, ["--output", "sql"], "bench", "-o", "sql")
        self.fails(2, "--threads", "bench", "-t", "1,2", "--tensor-parallel", "2")
        for both in ("8", "8,", "0,8", "8,0", "8,8,8", "8x8"):
            self.fails(2, ["--prompt-generate", both], "bench", "--prompt-generate", both)

    def test_lists(self):
        for said in ("", ",", "8,", ",8", "8-4", "8-", "8-16+", "8-16+0", "8-16*1", "0-16*2", "8 9", "-8", "1-20000000",
                     "99999999999999999999", "0-100000", "8-16-24", "8-16^2"):
            self.fails(2, ["--prompt", said], "bench", "--prompt=" + said)
        self.fails(2, "10000", "bench", "-p", "1-200", "-n", "0", "-d", "0-100")
        self.fails(2, "10000", "bench", "-p", "1-200", "-n", "0", "-t", "1-100")
        # 450 GB of weights: refused before anything is allocated.
        self.fails(1, ["GB of memory", "available"], "bench", "--shape", "llama-3.1-8b", "--layers",
                   "1024", "--bits", "16")


class BadLines(Case):
    def test_tokenize(self):
        for line in ("{", "[]", "5", "{}", '{"text": 5}', '{"txt": "a"}', '{"text": "a"} x'):
            self.fails(1, "line 1", "tokenize", input=line + "\n")
        result = command.run("tokenize", input='{"text": "a"}\n\n{"text": }\n')
        self.assertEqual((result.returncode, len(result.stdout.splitlines())), (1, 1))
        self.one_line(result.stderr.decode(), "line 3")

    def test_detokenize(self):
        for line in ("{}", '{"ids": "1"}', '{"ids": ["1"]}', '{"ids": [1.5]}', '{"ids": [-1]}',
                     '{"ids": [4294967296]}'):
            self.fails(1, "line 1", "detokenize", input=line + "\n")


class OtherNames(Case):
    """What users of other programs try is answered with what it is here."""

    def test_options(self):
        for given, words in ((["--temperature", "1"], "--temp "), (["--temperature=1"], "--temp "),
                             (["-ngl", "99"], ["-ngl", "--gpu-layers"]), (["-c", "2048"], "--max-kv-size"),
                             (["-md", "x"], "--draft-model"), (["-ctk", "q8_0"], "--kv-bits"),
                             (["--n-predict", "9"], "--max-tokens"), (["-sys", "x"], "--system-prompt"),
                             (["-no-cnv"], "--ignore-chat-template"), (["-f", "x"], "- < FILE"),
                             (["--trust-remote-code"], "leave it out"), (["-fa"], "leave it out"),
                             (["--tmp", "1"], "did you mean --temp?"), (["-x"], "unknown option -x")):
            self.fails(2, words, "generate", *given)
        for name, options in {
                "generate": {"revision": "org/model@revision", "keep": "--max-kv-size", "cb": "leave it out",
                             "kv-cache-dtype": "--cache-type", "list-devices": "clm models", "num-samples": "--batch"},
                "bench": {"prompt-tokens": "--prompt ", "generation-tokens": "--generate", "num-trials": "--repetitions",
                          "batch-size": "--concurrent"},
                "chat": {"prompt": "clm generate"},
                "perplexity": {"sequence-length": "--window", "data-path": "FILE", "file": "as a FILE"}}.items():
            for option, words in options.items():
                self.fails(2, ["unknown option --" + option + "; ", words], name, "--" + option, "1")

    def test_letters_of_others(self):
        self.fails(2, "unknown option -p; a prompt is for clm generate", "chat", "-p", "Hello")
        self.fails(2, "unknown option -f; give the text as a FILE", "perplexity", "-f", "x")
        self.fails(2, "unknown option -f (see", "inspect", "-f", "x")

    def test_only_where_they_lead(self):
        self.fails(2, "unknown option --temperature (", "models", "--temperature")
        self.fails(2, "--ctx-size", "perplexity", "-c", "none", "file")  # it is an option there
        self.done("generate", "-n5", "-t1", "--verbose=f")

    def test_commands(self):
        for given, words in (("run", "clm chat"), ("serve", "no server"), ("pull", "hf download"),
                             ("version", "--version"), ("genrate", "did you mean generate?")):
            for args in ([given], ["help", given]):
                self.fails(2, [given, words, "(see clm help)"], *args)
        for option in ("-m", "--model", "-p"):
            self.fails(2, ["no command before " + option + ";", "clm generate"], option, "x")
        for words in ("Tell me a story", "org/model", "./model"):
            self.fails(2, ['unknown command "%s"; ' % words, "clm generate -m MODEL -p PROMPT"], words)


command.main()
