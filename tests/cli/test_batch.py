#!/usr/bin/env python3
"""clm generate --batch: JSON lines in, JSON lines out."""
import json
import signal
import subprocess
import time

import command
from command import Case, environment

STORY = "Once upon a time"


def line(custom_id, **body):
    return json.dumps({"custom_id": custom_id, "body": body}) + "\n"


class Batch(Case):
    def answers(self, text, *args, file="-"):
        """custom_id -> what came of it, and their order."""
        lines = self.json_lines("generate", "--batch", file, "--exact", *args, input=text)
        for answer in lines:
            self.assertEqual(sorted(answer), ["custom_id", "error", "id", "response"])
            self.assertEqual((answer["error"] is None), (answer["response"] is not None))
        return {a["custom_id"]: a for a in lines}, [a["custom_id"] for a in lines]

    def choice(self, answer):
        self.assertIsNone(answer["error"])
        self.assertEqual(answer["response"]["status_code"], 200)
        return answer["response"]["body"]["choices"][0]

    def error(self, answer):
        self.assertIsNone(answer["response"])
        return answer["error"]["code"], answer["error"]["message"]

    def alone(self, *args):
        return self.done("generate", "--verbose", "false", "--exact", *args).decode()[:-1]


class Answers(Batch):
    def test_equal_to_single_runs(self):
        chat = [{"role": "user", "content": "Tell me a story"}]
        begun = chat + [{"role": "assistant", "content": "Once there"}]
        got, _ = self.answers(
            line("plain", prompt=STORY, max_tokens=20)
            + line("drawn", prompt="The fox", max_tokens=20, temperature=0.9, top_p=0.9, seed=7)
            + line("penalty", prompt=STORY, max_tokens=20, repetition_penalty=1.5,
                   repetition_context_size=8)
            + line("stop", prompt=STORY, max_tokens=40, stop=[" girl", "never"])
            + line("chat", messages=chat, max_tokens=20)
            + line("begun", messages=begun, max_tokens=10))
        plain = "--ignore-chat-template"
        want = {
            "plain": self.alone(plain, "-p", STORY, "-n", 20),
            "drawn": self.alone(plain, "-p", "The fox", "-n", 20, "--temp", 0.9, "--top-p", 0.9,
                                "--seed", 7),
            "penalty": self.alone(plain, "-p", STORY, "-n", 20, "--repetition-penalty", 1.5,
                                  "--repetition-context-size", 8),
            "stop": self.alone(plain, "-p", STORY, "-n", 40, "--stop", " girl", "never"),
        }
        for name, text in want.items():
            self.assertEqual(self.choice(got[name])["text"], text, name)
        self.assertEqual(self.choice(got["stop"])["finish_reason"], "stop")
        self.assertEqual(self.choice(got["plain"])["finish_reason"], "length")
        self.assertEqual(self.choice(got["chat"])["message"],
                         {"role": "assistant",
                          "content": self.alone("-p", "Tell me a story", "-n", 20)})
        self.assertEqual(self.choice(got["begun"])["message"]["content"],
                         self.alone("-p", "Tell me a story", "--prefill-response", "Once there",
                                    "-n", 10))
        body = got["chat"]["response"]["body"]
        self.assertEqual(body["object"], "chat.completion")
        self.assertEqual(body["usage"]["completion_tokens"], 20)
        self.assertEqual(body["usage"]["total_tokens"], body["usage"]["prompt_tokens"] + 20)
        self.assertEqual(body["usage"]["prompt_tokens_details"], {"cached_tokens": 0})

    def cached(self, answer):
        usage = answer["response"]["body"]["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    def test_what_is_shared_is_read_once(self):
        """At a time, one after another, and by a run that comes later."""
        begin = STORY + " and a brown cat with a red hat" * 5
        text = "".join(line(str(i), prompt="%s %d" % (begin, i), max_tokens=3) for i in range(4))
        folder = self.folder / "kept"
        first, _ = self.answers(text, "--prompt-cache-dir", folder)
        again, _ = self.answers(text, "--prompt-cache-dir", folder, "--batch-size", "1")
        for name, answer in first.items():
            self.assertEqual(self.choice(answer), self.choice(again[name]))
            if name != "0":
                self.assertGreater(self.cached(answer), 40, name)
            self.assertEqual(self.cached(again[name]),
                             again[name]["response"]["body"]["usage"]["prompt_tokens"] - 1)
        alone = [json.loads(self.done(
            "generate", "--exact", "--ignore-chat-template", "-p", begin + " 5", "-n", "3",
            "--json", *args).splitlines()[-1]) for args in ((), ("--prompt-cache-dir", folder))]
        self.assertEqual(alone[0]["cached_tokens"], 0)
        self.assertGreater(alone[1]["cached_tokens"], 40)

    def test_logprobs(self):
        got, _ = self.answers(line("a", prompt=STORY, max_tokens=3, logprobs=2)
                              + line("b", prompt=STORY, max_tokens=3, logprobs=True)
                              + line("c", prompt=STORY, max_tokens=3))
        tokens = self.choice(got["a"])["logprobs"]["content"]
        text = "".join(t["token"] for t in tokens)
        self.assertEqual(text, self.choice(got["a"])["text"])
        for t in tokens:
            self.assertEqual([t["id"], t["logprob"]],
                             [t["top_logprobs"][0]["id"], t["top_logprobs"][0]["logprob"]])
            self.assertEqual(len(t["top_logprobs"]), 2)
        self.assertEqual([t["top_logprobs"] for t in self.choice(got["b"])["logprobs"]["content"]],
                         [[], [], []])
        self.assertIsNone(self.choice(got["c"])["logprobs"])

    def test_defaults_of_the_command_line(self):
        got, _ = self.answers(line("a", prompt=STORY) + line("b", prompt=STORY, max_tokens=2),
                              "-n", 6, "--temp", 1, "--seed", 5)
        self.assertEqual(self.choice(got["a"])["text"],
                         self.alone("--ignore-chat-template", "-p", STORY, "-n", 6, "--temp", 1,
                                    "--seed", 5))
        self.assertEqual(got["b"]["response"]["body"]["usage"]["completion_tokens"], 2)

    def test_end_tokens(self):
        chat = [{"role": "user", "content": "Hi"}]
        text = "".join(line(str(name), messages=chat, max_tokens=60, **body)
                       for name, body in enumerate(({}, {"ignore_eos": True}, {"ignore_eos": False})))
        got, _ = self.answers(text)
        self.assertEqual([self.choice(got[str(i)])["finish_reason"] for i in range(3)], ["stop", "length", "stop"])
        self.assertEqual([got[str(i)]["response"]["body"]["usage"]["completion_tokens"] == 60 for i in range(3)],
                         [False, True, False])
        self.assertIn("ignore_eos", self.error(self.answers(line("a", prompt=STORY, ignore_eos=1))[0]["a"])[1])

    def test_own_end_tokens(self):
        """A line that ignores the model's end tokens ends with those of the command line, as --ignore-eos has it."""
        comma = self.json_lines("generate", "--json", "--ignore-chat-template", "-p", STORY, "-n", 1)[0]["token"]
        text = line("a", prompt=STORY, max_tokens=9, ignore_eos=True)
        got, _ = self.answers(text, "--extra-eos-token", comma)
        self.assertEqual(self.choice(got["a"])["finish_reason"], "stop")

    def test_tokens_as_prompt(self):
        got, _ = self.answers(line("a", prompt=[0, 465, 483], max_tokens=2)
                              + line("b", prompt=[1 << 30], max_tokens=2))
        self.assertEqual(got["a"]["response"]["body"]["usage"]["prompt_tokens"], 3)
        self.assertEqual(self.error(got["b"])[0], "invalid_request")

    def test_order(self):
        text = "".join(line(str(i), prompt=STORY, max_tokens=n)
                       for i, n in enumerate([30, 3, 20, 1, 10]))
        file = self.folder / "batch.jsonl"
        file.write_text(text)
        _, order = self.answers("", file=file)
        self.assertEqual(order, ["3", "1", "4", "2", "0"])
        _, order = self.answers("", "--in-order", file=file)
        self.assertEqual(order, ["0", "1", "2", "3", "4"])

    def test_small_cache(self):
        """Texts wait for one another; what does not fit alone fails alone."""
        text = "".join(line(str(i), prompt=STORY, max_tokens=40) for i in range(5))
        text += line("long", prompt=STORY * 60, max_tokens=4)
        got, _ = self.answers(text, "--cache-bytes", "600K")
        self.assertEqual(len({self.choice(got[str(i)])["text"] for i in range(5)}), 1)
        code, message = self.error(got["long"])
        self.assertEqual(code, "too_long")
        self.assertIn("raise its bound", message)


class Lines(Batch):
    def test_bad_lines_get_errors(self):
        good = {"prompt": STORY, "max_tokens": 2}
        bad = {
            "unknown": ({**good, "frobnicate": 1}, "frobnicate"),
            "type": ({**good, "temperature": "hot"}, "temperature"),
            "range": ({**good, "top_p": 7}, "top_p"),
            "tokens": ({**good, "max_tokens": 0}, "max_tokens"),
            "both": ({**good, "messages": []}, "either"),
            "neither": ({"max_tokens": 2}, "either"),
            "n": ({**good, "n": 2}, "\"n\""),
            "stream": ({**good, "stream": True}, "stream"),
            "bias": ({**good, "logit_bias": {"x": 1}}, "logit_bias"),
            "twice": ({**good, "logit_bias": {"1": 1, "01": 2}}, "twice"),
            "many": ({**good, "logit_bias": {str(i): 1 for i in range(200000)}}, "4096"), # in no time
            "empty": ({"messages": []}, "messages"),
            "format": ({**good, "response_format": {"type": "json_object"}}, "response_format"),
            "long": ({"prompt": [5] * 5000}, "context"),
            "stop": ({**good, "stop": [""]}, "stop"),
            "no such token": ({**good, "logit_bias": {"99999": 1}}, "99999"),
        }
        text = "".join(line(name, **body) for name, (body, _) in bad.items())
        text += "\n  \n" + line("good", **good) + "[1]\n{\n" + '{"custom_id": "bare"}\n'
        text += json.dumps({"custom_id": "url", "url": "/v1/embeddings", "body": good})
        got, order = self.answers(text, "--in-order")
        self.assertEqual(len(order), len(bad) + 5)
        for name, (_, word) in bad.items():
            self.assertIn(word, self.error(got[name])[1], name)
        self.choice(got["good"])
        self.assertRegex(self.error(got["bare"])[1], r'no "body"; .*{"custom_id": "a", "body": {"prompt": .*docs/')
        self.assertIn("/v1/completions", self.error(got["url"])[1])

    def test_messages_of_clients(self):
        """Content in parts or null, arguments of calls as text: as mlx_lm.server gives them to templates."""
        template = ("{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content }}"
                    "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}"
                    "{% endfor %} {% endfor %}")
        model = self.renamed("ing", "gni", template=template)

        def user(content):
            return {"role": "user", "content": content}

        def call(arguments, **more):
            function = {"name": "f", "arguments": arguments}
            return {"role": "assistant", "tool_calls": [{"id": "1", "function": function}], **more}

        parts = [{"type": "text", "text": t} for t in ("Tell me", " a story")]
        image = {"type": "image_url", "image_url": {"url": "x"}}
        numbers = {"x": 1.0, "y": [2]}
        same = {
            "user: Tell me a story ": [[user("Tell me a story")], [user(parts)]],
            'assistant: {"x": 1.0, "y": [2]} user: x ': [
                [call(arguments, **more), user("x")] for arguments in (numbers, json.dumps(numbers))
                for more in ({}, {"content": None}, {"content": ""})],
            'assistant: "{x" user: x ': [[call("{x"), user("x")]],
            "user:  ": [[user([])], [{"role": "user"}]],
        }
        bad = {
            "image": ([user("x"), user([image])], ["message 2", "image_url"]),
            "part": ([user([{"type": "text"}])], ["part 1", "message 1"]),
            "text": (["x"], ["message 1", "object"]),
        }
        text = "".join(line(name, messages=m) for name, (m, _) in bad.items())
        for prompt, conversations in same.items():
            text += line(prompt, prompt=prompt, max_tokens=8)
            for i, messages in enumerate(conversations):
                text += line("%s%d" % (prompt, i), messages=messages, max_tokens=8)
        got, _ = self.answers(text, "-m", model)
        for name, (_, words) in bad.items():
            for word in words:
                self.assertIn(word, self.error(got[name])[1], name)
        for prompt, conversations in same.items():
            for i in range(len(conversations)):
                answer = got["%s%d" % (prompt, i)]
                self.assertEqual(self.choice(answer)["message"]["content"],
                                 self.choice(got[prompt])["text"], answer["custom_id"])
                self.assertEqual(answer["response"]["body"]["usage"]["prompt_tokens"],
                                 got[prompt]["response"]["body"]["usage"]["prompt_tokens"])

    def test_tool_choice(self):
        """With none there are no tools, whoever gives them."""
        tools = self.folder / "tools.json"
        tools.write_text(json.dumps([{"type": "function", "function": {"name": "now"}}]))
        template = self.folder / "template"
        template.write_text("{{ tools | tojson if tools }}{{ messages[0].content }}")
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        own = {"tools": json.loads(tools.read_text())}
        text = (line("plain", **body) + line("auto", **body, tool_choice="auto")
                + line("none", **body, tool_choice="none") + line("both", **body, **own, tool_choice="none"))
        got, _ = self.answers(text, "--chat-template-file", template, "--tools", tools)
        sizes = {name: a["response"]["body"]["usage"]["prompt_tokens"] for name, a in got.items()}
        self.assertEqual(sizes, {"plain": sizes["auto"], "auto": sizes["auto"], "none": 1, "both": 1})
        self.assertGreater(sizes["auto"], 9)

    def test_without_template(self):
        got, _ = self.answers(line("a", messages=[{"role": "user", "content": "x"}])
                              + line("b", prompt=STORY, max_tokens=2), "--ignore-chat-template")
        self.assertIn("chat template", self.error(got["a"])[1])
        self.choice(got["b"])

    def test_nothing(self):
        self.assertEqual(self.done("generate", "--batch", "-", input=""), b"")
        self.fails(1, ["cannot open", "nowhere"], "generate", "--batch", "nowhere")
        self.fails(2, "exclude", "generate", "--batch", "-", "--json")
        self.fails(2, "--cache-bytes", "generate", "--cache-bytes", "many")

    def test_streams(self):
        """An answer is there before the next line is."""
        with subprocess.Popen([command.CLM, "generate", "--batch", "-"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env=environment()) as process:
            for name in ("a", "b"):
                process.stdin.write(line(name, prompt=STORY, max_tokens=2).encode())
                process.stdin.flush()
                self.assertEqual(json.loads(process.stdout.readline())["custom_id"], name)
            process.stdin.close()
            self.assertEqual(process.stdout.read(), b"")
        self.assertEqual(process.returncode, 0)

    def test_interrupted(self):
        """What is done is written, also what waited for its order; the rest is not."""
        model = self.endless()
        text = "".join(line("long %d" % i, prompt=STORY, max_tokens=19000)
                       for i in range(30))
        text += line("short", prompt=STORY, max_tokens=1)
        def interrupted(wait, *args):
            """Exit status and answers; without a time to wait, when there is one."""
            with subprocess.Popen([command.CLM, "generate", "-m", model, "--batch", "-", *args],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  env=environment()) as process:
                process.stdin.write(text.encode())
                process.stdin.flush()
                first = time.sleep(wait) if wait else process.stdout.readline()
                process.send_signal(signal.SIGINT)
                rest = process.stdout.read()
                process.stdin.close()
            answers = [json.loads(a) for a in ((first or b"") + rest).splitlines()]
            return process.returncode, [a["custom_id"] for a in answers]
        self.assertEqual(interrupted(None), (130, ["short"]))
        for wait in (1, 4, 16, 64):  # a busy machine may not have come to it before
            result = interrupted(wait, "--in-order")
            if result == (130, ["short"]):
                break
            self.assertIn(result, [(130, []), (-signal.SIGINT, [])])
        self.assertEqual(result, (130, ["short"]))

    def test_ignored_interrupt(self):
        """Started where Ctrl-C is ignored, as in the background of a shell, it goes on."""
        ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
        with subprocess.Popen([command.CLM, "generate", "--batch", "-"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env=environment(),
                              preexec_fn=ignore) as process:
            for name in ("a", "b"):
                process.stdin.write(line(name, prompt=STORY, max_tokens=2).encode())
                process.stdin.flush()
                self.assertEqual(json.loads(process.stdout.readline())["custom_id"], name)
                process.send_signal(signal.SIGINT)
            process.stdin.close()
            self.assertEqual(process.stdout.read(), b"")
        self.assertEqual(process.returncode, 0)

    def test_options_without_batch(self):
        for option in (["--batch-size", "2"], ["--in-order"]):
            self.fails(2, option[0] + " is for the requests of --batch", "generate", *option)

    def test_closed_pipe(self):
        with subprocess.Popen([command.CLM, "generate", "--batch", "-"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=environment()) as process:
            process.stdout.close()
            process.stdin.write(line("a", prompt=STORY, max_tokens=1).encode())
            process.stdin.close()
            self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.returncode, -signal.SIGPIPE)


if __name__ == "__main__":
    command.main()
