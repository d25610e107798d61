#!/usr/bin/env python3
"""clm generate: what it writes, where, and how it ends."""
import json
import os
import re
import signal
import subprocess

import command
from command import MODEL, Case, environment

PLAIN = "--ignore-chat-template"
PROMPT = [PLAIN, "-p", "Once upon a time", "-n", "24"]
STATISTICS = re.compile(r"\n==========\nPrompt: (\d+) tokens, \d+\.\d{3} tokens-per-sec\n"
                        r"Generation: (\d+) tokens, \d+\.\d{3} tokens-per-sec\n"
                        r"Peak memory: \d+\.\d{3} GB\n\Z")


class Generate(Case):
    def plain(self, *args, **options):
        return self.done("generate", "--verbose", "false", *args, **options)


class Output(Generate):
    def test_as_mlx_lm_prints_it(self):
        out = self.done("generate", *PROMPT).decode()
        text = self.plain(*PROMPT).decode()
        match = STATISTICS.search(out)
        self.assertTrue(match, out)
        self.assertEqual(match.groups(), ("5", "24"))
        self.assertEqual(out[:match.start() + 1], "==========\n" + text)
        self.assertGreater(len(text.split()), 10)

    def test_json(self):
        *tokens, last = self.json_lines("generate", "--json", *PROMPT)
        self.assertEqual(len(tokens), 24)
        for t in tokens:
            self.assertEqual(sorted(t), ["logprob", "text", "token"])
            self.assertTrue(0 <= t["token"] < 4096 and t["logprob"] <= 0)
        self.assertEqual("".join(t["text"] for t in tokens) + "\n", self.plain(*PROMPT).decode())
        self.assertEqual((last["finish_reason"], last["prompt_tokens"], last["generation_tokens"]),
                         ("length", 5, 24))
        for key in ("prompt_tps", "generation_tps", "peak_memory"):
            self.assertGreater(last[key], 0)
        self.assertIn("seed", last)

    def test_kept_tokens_are_told(self):
        args = ("generate", "-n", "2", "-p", "A fox and a bear. " * 30, "--prompt-cache-dir", self.folder / "kept")
        first, again = (self.done(*args).decode() for _ in range(2))
        n = int(re.search(r"\nPrompt: (\d+) tokens, [\d.]+ tokens-per-sec\n", first).group(1))
        self.assertIn("\nPrompt: %d tokens, %d of them kept, " % (n, n - 1), again)

    def test_peak_memory_is_its_own(self):
        """And not that of who starts it, which the system's figure begins with."""
        large = bytearray(b"x") * (1 << 28)
        last = self.json_lines("generate", "--json", "-n", "1")[-1]
        self.assertTrue(0 < last["peak_memory"] < len(large) / 1e9, last)

    def test_default_prompt(self):
        self.assertEqual(self.plain(PLAIN, "-n", "24"), self.plain(*PROMPT))

    def test_one_token(self):
        self.assertEqual(len(self.json_lines("generate", "--json", "-n", "1")), 2)

    def test_as_many_tokens_as_there_is_room_for(self):
        *tokens, last = self.json_lines("generate", "--json", PLAIN, "-n", "all", "-p", "a b " * 500)
        self.assertEqual(last["prompt_tokens"] + len(tokens), 1025)
        self.assertEqual(self.plain("-n", "all", "-p", "hi"), self.plain("-n", "999", "-p", "hi"))

    def test_logit_bias(self):
        def first(*args):
            return self.json_lines("generate", "--json", *PROMPT, *args)[0]["token"]

        usual = first()
        self.assertNotEqual(first("--logit-bias", json.dumps({str(usual): -1000})), usual)
        self.assertEqual(first("--logit-bias", '{"77": 1000, "5": 1.5}'), 77)
        for value, word in (("[]", "object"), ('{"x": 1}', "token ids"), ('{"1": "a"}', "number"),
                            ("{", "JSON"), ('{"1": 1, "01": 2}', "twice"), ('{"9999": 1}', "9999")):
            self.fails(2, word, "generate", "--logit-bias", value)

    def test_stop_at_line_ends(self):
        args = ["-n", "60", "-p", "Tell me a story."]
        story = self.plain(*args).decode()
        self.assertIn("\n\n", story[:-1])
        self.assertEqual(self.plain(*args, "--stop", r"\n\n").decode(),
                         story[:story.index("\n\n")] + "\n")

    def test_streams(self):
        """The first token is there while the others are still to come."""
        with subprocess.Popen([command.CLM, "generate", "--json", "-m", self.endless(), "-n", "900"],
                              stdout=subprocess.PIPE, env=environment()) as process:
            command.narrow(process.stdout)
            first = json.loads(process.stdout.readline())
            self.assertIsNone(process.poll())
            rest = process.stdout.read().splitlines()
        self.assertIn("token", first)
        self.assertIn("finish_reason", json.loads(rest[-1]))
        self.assertEqual(process.returncode, 0)


class Prompt(Generate):
    def test_standard_input(self):
        self.assertEqual(self.plain(PLAIN, "-p", "-", "-n", "24", input="Once upon a time"),
                         self.plain(*PROMPT))

    def test_standard_input_that_is_not_read(self):
        def told(*args, **options):
            result = command.run("generate", "-n", "1", "--verbose", "false", *args, **options)
            self.assertEqual(result.returncode, 0)
            return result.stderr.decode()

        self.one_line(told(input="Tell me"), "warning: standard input was not read: --prompt -")
        self.assertEqual(told(), "")
        self.assertEqual(told("-p", "Once", input="Tell me"), "")
        self.assertEqual(told("-p", "-", input="Tell me"), "")

    def test_escapes(self):
        """\\n and \\t written out, as mlx-lm takes them; in standard input they are themselves."""
        for written, meant in (("The\\nfox\\tran", "The\nfox\tran"), ("a\\\\b\\x", "a\\\\b\\x")):
            self.assertEqual(self.json_lines("generate", "--json", "-n", "4", "-p", written)[:-1],
                             self.json_lines("generate", "--json", "-n", "4", "-p", "-",
                                             input=meant)[:-1])

    def test_empty(self):
        empty = self.json_lines("generate", PLAIN, "--json", "-n", "3", "-p", "")
        self.assertEqual(empty[-1]["prompt_tokens"], 1)

    def test_not_utf8(self):
        replaced = self.plain("-n", "8", "-p", "-", input="a \ufffd\ufffd b".encode())
        self.assertEqual(self.plain("-n", "8", "-p", "-", input=b"a \xff\xfe b"), replaced)
        self.assertEqual(self.plain("-n", "8", "-p", os.fsdecode(b"a \xff\xfe b")), replaced)

    def test_chunks(self):
        long = ["generate", "--exact", "--json", "-n", "12", "-p",
                "Once upon a time, there was a little fox who lived near the river."]
        whole = self.json_lines(*long)
        for n in (1, 3, 7):
            cut = self.json_lines(*long, "--prefill-step-size", n)
            self.assertEqual([t["token"] for t in cut[:-1]], [t["token"] for t in whole[:-1]])

    def test_context_fills(self):
        *tokens, last = self.json_lines("generate", "--json", "-n", "5000", "-p", "-",
                                        input="the cat and " * 335)
        self.assertLessEqual(last["prompt_tokens"] + last["generation_tokens"], 1025)
        self.assertGreater(last["prompt_tokens"], 1000)
        self.assertEqual(len(tokens), last["generation_tokens"])
        self.assertEqual(last["finish_reason"],
                         "length" if last["prompt_tokens"] + len(tokens) == 1025 else "stop")


class Template(Generate):
    """By default the prompt is what the user says in a conversation."""

    TEXT = ("<|begin_of_text|><|im_start|>user\nTell me a story.<|im_end|>\n"
            "<|im_start|>assistant\n")
    STORY = ["-n", "12", "-p", "Tell me a story."]

    def ids(self, *args, **options):
        *tokens, last = self.json_lines("generate", "--exact", "--json", *args, **options)
        return [t["token"] for t in tokens], last["prompt_tokens"]

    def written(self, text):
        """What a conversation written out gives, without tokens added around it."""
        folder = self.folder / "no-post-processor"
        if not folder.exists():
            self.model("no-post-processor", skip=["tokenizer.json"])
            parts = json.loads((MODEL / "tokenizer.json").read_text())
            parts["post_processor"] = None
            (folder / "tokenizer.json").write_text(json.dumps(parts))
        return self.ids("-m", folder, PLAIN, "-n", "12", "-p", "-", input=text)

    def test_is_used(self):
        self.assertEqual(self.ids(*self.STORY), self.written(self.TEXT))
        self.assertNotEqual(self.ids(*self.STORY), self.ids(PLAIN, *self.STORY))

    def test_system_prompt(self):
        self.assertEqual(
            self.ids(*self.STORY, "--system-prompt", "Be\\nkind."),
            self.written(self.TEXT.replace(
                "<|im_start|>user", "<|im_start|>system\nBe\\nkind.<|im_end|>\n<|im_start|>user")))

    def test_prefill(self):
        self.assertEqual(self.ids(*self.STORY, "--prefill-response", "Once upon a day"),
                         self.written(self.TEXT + "Once upon a day"))

    def test_variables(self):
        folder = self.model("thinking", skip=["tokenizer_config.json"])
        (folder / "chat_template.jinja").write_text(
            "{{ messages[0].content }}{% if enable_thinking %} Think.{% endif %}{{ more }}")
        for config, text in ((None, "Tell me a story."),
                             ('{"enable_thinking": true}', "Tell me a story. Think."),
                             ('{"enable_thinking": false, "more": 7}', "Tell me a story.7")):
            option = ["--chat-template-config", config] if config else []
            self.assertEqual(self.ids("-m", folder, *self.STORY, *option), self.written(text))

    def test_own_template(self):
        file = self.folder / "own.jinja"
        file.write_text("{{ bos_token }}Q: {{ messages[0].content }}\nA:")
        option = ["-n", "12", "--chat-template-file", file]
        bare = self.model("bare", skip=["tokenizer_config.json"])
        self.assertEqual(self.ids("-p", "Why?", *option), self.written("<|begin_of_text|>Q: Why?\nA:"))
        self.assertEqual(self.ids("-m", bare, "-p", "Why?", *option), self.written("Q: Why?\nA:"))
        self.fails(1, "no-such-file", "generate", "--chat-template-file", "no-such-file")
        file.write_text("{{")
        self.fails(1, "own.jinja:1", "generate", *option)
        self.fails(1, "own.jinja:1", "chat", *option)

    def test_refused(self):
        for config, words in (("{", "--chat-template-config"), ("3", "JSON object"),
                              ('{"messages": []}', "cannot set messages")):
            self.fails(2, words, "generate", "--chat-template-config", config)
        folder = self.model("raises", skip=["tokenizer_config.json"])
        (folder / "chat_template.jinja").write_text("{{ raise_exception('no system prompt here') }}")
        self.fails(1, "no system prompt here", "generate", "-m", folder)

    def test_model_without(self):
        folder = self.model("plain", skip=["tokenizer_config.json"])
        self.assertEqual(self.ids("-m", folder, *self.STORY), self.ids(PLAIN, *self.STORY))
        result = command.run("generate", "-m", folder, "-n", "1", "--system-prompt", "Be kind.")
        self.assertEqual(result.returncode, 0)
        self.one_line(result.stderr.decode(), ["warning", "--system-prompt"])

    def test_story(self):
        text = self.plain("-p", "Tell me a story about a cat and a ball.", "-n", "400",
                          "--temp", "0.7", "--seed", "7").decode()
        for word in ("cat", "ball"):
            self.assertIn(word, text)
        self.assertGreater(len(text.split()), 60)


class Sampling(Generate):
    def test_seed(self):
        drawn = ["--temp", "1.2", "--top-p", "0.95", "-n", "30", "--seed"]
        first = self.plain(*drawn, "7")
        self.assertEqual(self.plain(*drawn, "7"), first)
        self.assertNotEqual(self.plain(*drawn, "8"), first)

    def test_seed_is_told(self):
        drawn = ["generate", "--json", "--temp", "1.2", "-n", "12"]
        first = self.json_lines(*drawn)
        again = self.json_lines(*drawn, "--seed", first[-1]["seed"])
        self.assertEqual(again[:-1], first[:-1])

    def test_narrow_filters_are_greedy(self):
        greedy = self.plain("--exact", *PROMPT)
        for narrow in (["--top-k", "1"], ["--top-p", "0.000001"], ["--min-p", "1"]):
            self.assertEqual(self.plain("--exact", *PROMPT, "--temp", "1.5", *narrow), greedy)

    def test_penalty(self):
        """With so high a penalty nothing of the last 20 tokens comes again."""
        ids = [t["token"] for t in self.json_lines(
            "generate", PLAIN, "--json", "-n", "20", "--presence-penalty", "1000")[:-1]]
        self.assertEqual(len(set(ids)), len(ids))

    def test_dry(self):
        """With so high a penalty no three tokens come twice, but for those with a line end."""
        ids = [t["token"] for t in self.json_lines(
            "generate", PLAIN, "--json", "-n", "120", "--dry-multiplier", "1000", "--dry-base", "1",
            "--dry-sequence-breaker", "none")[:-1]]
        threes = list(zip(ids, ids[1:], ids[2:]))
        self.assertEqual(len(set(threes)), len(threes))
        free = [t["token"] for t in self.json_lines(
            "generate", PLAIN, "--json", "-n", "120", "--dry-multiplier", "1000",
            "--dry-sequence-breaker", " ", "e", "a", "o", "i", "u")[:-1]]
        self.assertEqual(free, [t["token"] for t in self.json_lines(
            "generate", PLAIN, "--json", "-n", "120")[:-1]])

    def test_llama_cpp_samplers(self):
        drawn = ["--exact", *PROMPT, "--seed", "3", "--temp"]
        greedy = self.plain("--exact", *PROMPT)
        for narrow in (["1.5", "--typical", "1", "--top-nsigma", "0.001"],
                       ["1.5", "--mirostat", "2", "--mirostat-ent", "0"],
                       ["0", "--dynatemp-range", "0.001"]):
            self.assertEqual(self.plain(*drawn, *narrow), greedy)
        for wide in (["1.5"], ["1.5", "--typical", "0.5"], ["0.5", "--dynatemp-range", "0.5"],
                     ["1", "--mirostat", "2", "--mirostat-lr", "0.3"], ["1.5", "--top-nsigma", "3"]):
            self.assertEqual(self.plain(*drawn, *wide), self.plain(*drawn, *wide))

    def test_logprobs(self):
        for draw in ([], ["--temp", "1.5"]):
            for line in self.json_lines("generate", "--json", "-n", "12", "--logprobs", "4",
                                        *draw)[:-1]:
                top = line["top_logprobs"]
                self.assertEqual(len(top), 4)
                told = [t["logprob"] for t in top]
                self.assertEqual(told, sorted(told, reverse=True))
                for t in top:
                    if t["token"] == line["token"]:
                        self.assertEqual(t["logprob"], line["logprob"])
                        break
                else:
                    self.assertTrue(draw)
                    self.assertLessEqual(line["logprob"], told[-1])

    def test_every_option_is_taken(self):
        self.plain("-n", "3", "--temp=0.9", "--top-p=0.9", "--min-p=0.01", "--min-tokens-to-keep=2",
                   "--top-k=50", "--xtc-probability=0.5", "--xtc-threshold=0.2",
                   "--repetition-penalty=1.1", "--repetition-context-size=5",
                   "--frequency-penalty=0.1", "--threads=1", "--cache-type=f32",
                   "--stop=no such text", "--system-prompt=Be kind.", "--prefill-response=Once",
                   "--chat-template-config={}")

    def test_cache_kinds(self):
        plain = self.plain(*PROMPT)
        # Text is quantised behind 5000 tokens, and nothing is let go of in so short a text.
        self.assertEqual(self.plain("--kv-bits", "4", *PROMPT), plain)
        self.assertEqual(self.plain("--max-kv-size", "1000", *PROMPT), plain)
        for options in (["--kv-bits=4", "--quantized-kv-start=0"], ["--max-kv-size=5"],
                        ["--kv-bits=8", "--kv-group-size=32", "--quantized-kv-start=1", "--max-kv-size=40"]):
            self.assertGreater(len(self.plain(*options, *PROMPT)), 20, options)
        self.assertNotEqual(self.plain("--max-kv-size=5", *PROMPT), plain)

    def test_cache_types(self):
        exact = self.plain("--exact", *PROMPT)
        self.assertEqual(self.plain("--exact", "--cache-type", "f32", *PROMPT), exact)
        for kind in ("f16", "bf16"):
            self.assertGreater(len(self.plain("--cache-type", kind, *PROMPT)), 20)


class Ends(Case):
    def test_extra_end_token(self):
        tokens = self.json_lines("generate", "--json", *PROMPT)[:-1]
        third = tokens[2]["token"]
        seen = [t["token"] for t in tokens].index(third) + 1
        spelling = json.loads((MODEL / "tokenizer.json").read_text())["model"]["vocab"]
        spelling = next(text for text, token in spelling.items() if token == third)
        for name in (str(third), spelling):
            for more in ([], ["4000"]):
                out = self.json_lines("generate", "--json", *PROMPT, "--extra-eos-token", name, *more)
                self.assertEqual((out[-1]["finish_reason"], out[-1]["generation_tokens"]),
                                 ("stop", seen))
                self.assertEqual(out[-2]["token"], third)

    def test_no_end(self):
        """The text goes on behind the model's end token, and what was there before it is the same."""
        hello = ["generate", "--exact", "--json", "-p", "Hello!", "-n", "40"]
        ended = [t["token"] for t in self.json_lines(*hello)[:-1]]
        on = self.json_lines(*hello, "--ignore-eos")
        self.assertLess(len(ended), 40)
        self.assertEqual(([t["token"] for t in on[:len(ended)]], len(on) - 1), (ended, 40))
        self.assertEqual(on[-1]["finish_reason"], "length")
        again = self.json_lines(*hello, "--ignore-eos", "--extra-eos-token", str(ended[-1]))
        self.assertEqual([t["token"] for t in again[:-1]], ended)

    def test_stop(self):
        """The text up to the first stop, whether it lies within a token or over several."""
        whole = "".join(t["text"] for t in self.json_lines("generate", "--json", *PROMPT)[:-1])
        for stop in (whole[9:10], whole[20:31], whole[-3:]):
            args = ["generate", *PROMPT, "--stop", stop, "--stop", "no such text"]
            *tokens, last = self.json_lines(*args, "--json")
            text = whole[:whole.index(stop)]
            self.assertEqual("".join(t["text"] for t in tokens), text)
            self.assertEqual(last["finish_reason"], "stop")
            self.assertEqual(self.done(*args, "--verbose", "false").decode(), text + "\n")

    def test_unfinished_stop(self):
        """What could have become a stop comes with the last token."""
        whole = self.json_lines("generate", "--json", *PROMPT)
        text = "".join(t["text"] for t in whole[:-1])
        *tokens, last = self.json_lines("generate", "--json", *PROMPT, "--stop", text[-5:] + "\1")
        self.assertEqual("".join(t["text"] for t in tokens), text)
        self.assertEqual((len(tokens), last["finish_reason"]), (24, "length"))

    def test_closed_pipe(self):
        with subprocess.Popen([command.CLM, "generate", "--json", "-m", self.endless(), "-n", "900"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=environment()) as process:
            command.narrow(process.stdout)
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.returncode, -signal.SIGPIPE)

    def test_full_disk(self):
        story = ["generate", "-n", "3"]
        lines = ["tokenize"]
        for args in (story, lines, ["inspect"], ["models"], ["help"], ["help", "generate"],
                     ["--version"], ["--help"]):
            with open("/dev/full", "wb") as full:
                result = command.run(*args, input='{"text": "a"}\n', stdout=full)
            self.assertEqual(result.returncode, 1, args)
            self.one_line(result.stderr.decode(), "No space left")

    def test_no_standard_output(self):
        result = command.run("generate", "-n", "3", stdout=None, preexec_fn=lambda: os.close(1))
        self.assertEqual(result.returncode, 1)
        self.one_line(result.stderr.decode(), "standard output")


class Parse(Case):
    """Content, reasoning and calls of tools, an event a line."""

    TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]
    STORY = ["-p", "Tell me a story about a cat and a ball."]
    CALL = '{"name":"get_weather","arguments":{"city":"Oslo"}}'

    def setUp(self):
        super().setUp()
        self.tools = self.folder / "tools.json"
        self.tools.write_text(json.dumps(self.TOOLS))

    def events(self, *args, **options):
        """Runs of text in one piece each, calls as they ended, and the last line."""
        *lines, last = self.json_lines("generate", "--exact", "--parse", *args, **options)
        self.assertEqual(last.pop("type"), "end")
        runs, pieces = [], ""
        for line in lines:
            kind = line.pop("type")
            if kind == "tool_call_start":
                pieces = ""
            elif kind == "tool_call_delta":
                pieces += line["arguments"]
            elif kind == "tool_call":
                self.assertEqual(line["arguments"], pieces)
                runs.append((kind, line))
            elif kind == "tool_call_error":
                runs.append((kind, line))
            elif runs and runs[-1][0] == kind:
                runs[-1] = kind, runs[-1][1] + line["text"]
            else:
                runs.append((kind, line["text"]))
        return runs, last

    def test_text(self):
        runs, last = self.events(*self.STORY, "-n", "30")
        text = self.done("generate", "--exact", "--verbose", "false", *self.STORY, "-n", "30")
        self.assertEqual(runs, [("content", text.decode()[:-1])])
        self.assertEqual((last["finish_reason"], last["generation_tokens"]), ("length", 30))

    def test_reasoning_that_the_template_opens(self):
        template = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
        template = template.replace("assistant\n' }}{% endif",
                                    "assistant\n<think>' }}{# up to </think> #}{% endif")
        folder = self.renamed("Ġtogether", "</think>", template)
        (first, thought), (second, text) = self.events("-m", folder, *self.STORY, "-n", "40")[0]
        self.assertEqual((first, second), ("reasoning", "content"))
        self.assertEqual("<think>" in thought + text or "</think>" in thought + text, False)
        plain = self.done("generate", "--exact", "--verbose", "false", "-m", folder, *self.STORY,
                          "-n", "40").decode()
        self.assertEqual(plain, thought + "</think>" + text + "\n")

    def test_tag_in_a_message(self):
        """Where no end token ends a turn, and a reply begins with or without thinking."""
        folder = self.model("turns", skip=["tokenizer_config.json"])
        (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end_of_text|>"}')
        (folder / "chat_template.jinja").write_text(
            "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.role == 'tool' %} (a result){% endif %}"
            "\n{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{{ '<think>' if thinks }}{% endif %}{# </think> #}")
        said = {"role": "user", "content": "What is <think>?"}
        tool = {"role": "tool", "content": "It is said in <think>", "tool_call_id": "call00001"}
        for thinks, kind in ((False, "content"), (True, "reasoning")):
            variables = json.dumps({"thinks": thinks})
            for text in ("Hello", "What is <think>?", "What is </think>?", "<think>"):
                runs, last = self.events("-m", folder, "-n", "8", "-p", text, "--chat-template-config", variables)
                self.assertEqual([run[0] for run in runs], [kind], text)
            for messages in ([said], [said, tool]):
                line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
                        "body": {"messages": messages, "max_tokens": 8}}
                answer = self.json_lines("generate", "-m", folder, "--batch", "-", "--chat-template-config", variables,
                                         input=json.dumps(line))[0]["response"]["body"]["choices"][0]["message"]
                self.assertEqual("reasoning_content" in answer, thinks, answer)
        begun = [said, {"role": "assistant", "content": "<think>It is"}]
        line["body"]["messages"] = begun
        answer = self.json_lines("generate", "-m", folder, "--batch", "-", input=json.dumps(line))[0]
        self.assertIn("reasoning_content", answer["response"]["body"]["choices"][0]["message"])

    def test_call_that_the_model_makes(self):
        """As the model's files name the syntax, or the command line does."""
        written = "<tool_call>" + self.CALL + "</tool_call>"
        folder = self.renamed("Ġtime", written, tool_parser_type="json_tools")
        args = ["-m", folder, *self.STORY, "-n", "400"]
        runs, last = self.events(*args, "--tools", self.tools)
        calls = [run for kind, run in runs if kind == "tool_call"]
        self.assertEqual(calls[0], {"index": 0, "name": "get_weather", "arguments": '{"city":"Oslo"}'})
        self.assertEqual([call["index"] for call in calls], list(range(len(calls))))
        self.assertEqual(last["finish_reason"], "tool_calls")
        for options in (["--tool-parser", "none"], ["--tool-parser", "mistral"]):
            runs, last = self.events(*args, *options)
            self.assertEqual([kind for kind, run in runs], ["content"])
            self.assertIn(written, runs[0][1])
            self.assertEqual(last["finish_reason"], "stop")

    def test_given_beginning(self):
        """What --prefill-response gives is a part of the reply."""
        def runs(parser, text, *options):
            return self.events(*self.STORY, "-n", "1", "--tool-parser", parser,
                               "--prefill-response", text, *options)[0]

        tools = ["--tools", self.tools]
        self.assertEqual(runs("json_tools", "Look.<tool_call>" + self.CALL + "</tool_call>")[:2],
                         [("content", "Look."),
                          ("tool_call", {"index": 0, "name": "get_weather",
                                         "arguments": '{"city":"Oslo"}'})])
        qwen = ("<tool_call>\n<function=get_weather>\n<parameter=city>\n7\n</parameter>\n"
                "<parameter=days>\n7\n</parameter>\n</function>\n</tool_call>")
        arguments = runs("qwen3_coder", qwen, *tools)[0][1]["arguments"]
        self.assertEqual(json.loads(arguments), {"city": "7", "days": 7})
        kind, failed = runs("json_tools", '<tool_call>{"name": 5}</tool_call>')[0]
        self.assertEqual((kind, failed["text"]), ("tool_call_error", '{"name": 5}'))
        self.assertIn("name", failed["error"])
        # Without a marker it is a call only of a tool that there is.
        bare = '{"name": "get_weather", "parameters": {}};'
        self.assertEqual(runs("llama3", bare, *tools)[0][0], "tool_call")
        self.assertEqual(runs("llama3", bare)[0][0], "content")
        harmony = ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final"
                   "<|message|>hi")
        (first, thought), (second, text) = runs("harmony", harmony)
        self.assertEqual((first, thought, second, text[:2]), ("reasoning", "hm", "content", "hi"))

    def test_stop(self):
        whole = self.events(*self.STORY, "-n", "30")[0][0][1]
        runs, last = self.events(*self.STORY, "-n", "30", "--stop", whole[12:20])
        self.assertEqual((runs, last["finish_reason"]),
                         ([("content", whole[:whole.index(whole[12:20])])], "stop"))
        # What is given of the reply is not looked at.
        runs, last = self.events("-n", "3", "--stop", "bq", "--prefill-response", "abq")
        self.assertEqual((runs[0][1][:3], last["finish_reason"]), ("abq", "length"))

    def test_template_is_given_tools(self):
        folder = self.model("shows", skip=["tokenizer_config.json"])
        (folder / "chat_template.jinja").write_text(
            "{% for tool in tools or [] %}{{ tool.function.name }} {% endfor %}now")
        def size(*args):
            return self.json_lines("generate", "--json", "-m", folder, "-n", "1",
                                   *args)[-1]["prompt_tokens"]
        self.assertGreater(size("--tools", self.tools), size())
        self.assertEqual(size("--tools", self.tools),
                         size("--chat-template-config", json.dumps({"tools": self.TOOLS})))

    def test_refused(self):
        self.fails(2, ["--tool-parser nonsense", "json_tools", "harmony"], "generate", "--parse",
                   "--tool-parser", "nonsense")
        self.fails(2, ["--json", "--parse"], "generate", "--json", "--parse")
        self.fails(1, "nothing.json", "generate", "--tools", self.folder / "nothing.json")
        self.tools.write_text("{}")
        self.fails(1, "list of tools", "generate", "--tools", self.tools)
        self.fails(2, "both", "generate", "--tools", self.tools, "--chat-template-config",
                   '{"tools": []}')


class Where(Case):
    def test_environment(self):
        folder = self.model()
        self.done("generate", "-n", "1", env=environment(CLM_MODEL=folder))

    def test_hub_cache(self):
        revision = self.folder / "hub/models--some--story/snapshots/0123abcd"
        revision.parent.mkdir(parents=True)
        self.model().rename(revision)
        refs = self.folder / "hub/models--some--story/refs"
        refs.mkdir()
        (refs / "main").write_text("0123abcd")
        (refs / "v2").write_text("0123abcd")
        address = "https://huggingface.co/some/story/tree/"
        for env in (dict(HF_HUB_CACHE=self.folder / "hub"), dict(HF_HOME=self.folder)):
            for name in ("some/story", "some/story@v2", "some/story@0123abcd", address + "main"):
                self.done("generate", "-n", "1", "-m", name, env=environment(**env))
        for name in ("some/story@v3", address + "v3"):
            self.fails(1, ["some/story@v3: ", "another revision", "hf download some/story --revision v3"], "inspect",
                       "-m", name, env=environment(**env))
        for name in ("model.safetensors", "model.safetensors.index.json"):
            (revision / name).unlink()  # as a download that was stopped
        self.fails(1, "repeat hf download", "generate", "-m", "some/story", env=environment(**env))

    def test_home_behind_an_option(self):
        """Where a shell leaves the tilde as it is."""
        self.model("here")
        env = environment(HOME=self.folder)
        self.done("inspect", "--model=~/here", env=env)
        self.done("bench", "-m~/here", "-p", "1", "-n", "0", "-r", "1", "--no-limits", env=env)
        self.done("inspect", "-m", "~/here", env=env)
        self.fails(1, "~here: no such folder", "inspect", "-m", "~here", env=env)
        self.assertEqual(self.done("tokenize", "-p~/x", env=env), self.done("tokenize", "-p", "~/x", env=env))

    def test_a_number_is_no_model(self):
        """Unless there is one of that name: -m limits tokens in mlx-lm."""
        for name in ("generate", "chat"):
            self.fails(1, ["20: no such folder", "-m is the model here, to limit tokens: -n 20"], name, "-m", "20")
        self.fails(1, "2o: no such folder, and no model of that name in the hub cache", "generate", "-m", "2o")
        self.model("20")
        self.done("generate", "-m", "20", "-n", "1", cwd=self.folder)

    def test_a_folder_goes_before_the_hub(self):
        os.makedirs(self.folder / "some")
        self.model().rename(self.folder / "some/story")
        self.done("generate", "-n", "1", "-m", "some/story", cwd=self.folder)


command.main()
