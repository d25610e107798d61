#!/usr/bin/env python3
"""clm chat, driven through a terminal and through a pipe.

    tests/cli/test_chat.py CLM                  the tests
    tests/cli/test_chat.py CLM --transcript     write the transcript in docs/chat.md anew
"""
import fcntl
import json
import os
import resource
import re
import signal
import stat
import struct
import sys
import tempfile
import termios

import command
from command import MODEL, ROOT, Case, environment
from terminal import COLUMNS, Terminal, screen

HELLO = "Hello!"
WIDE = 400
STORY = "Tell me a story about a cat and a ball."
BRIEF = 40  # tokens
LONG = "the cat and the dog and " * 170  # more than the model's context


class Talk(Terminal):
    """A chat up to its first prompt."""

    def __init__(self, home, *args, columns=COLUMNS, **changes):
        env = environment(HOME=home, TERM="xterm", LC_ALL="C.UTF-8", XDG_STATE_HOME=None,
                          NO_COLOR=None)
        for name, value in changes.items():
            env.pop(name, None)
            if value is not None:
                env[name] = value
        super().__init__("chat", *map(str, args), env=env, columns=columns)
        self.greeting = self.until(b"\r\n> ", 0)

    def until(self, text, after):
        """What comes up to a text, which must come."""
        self.read(until=text, after=after)
        if text not in self.text[after:]:
            raise EOFError(self.text)
        return self.text[after:self.text.index(text, after)].decode().replace("\r\n", "\n")

    def say(self, line, prompt="> "):
        """Type a line; what stands between it and the next prompt."""
        after = len(self.text)
        self.press(line.encode() + b"\r")
        return self.until(b"\r\n" + prompt.encode(), after).partition("\n")[2].rstrip("\n")

    def leave(self):
        self.press(b"\x04")
        return self.wait()


class ChatCase(Case):
    def chat(self, *args, **changes):
        talk = Talk(self.folder, "--exact", *args, **changes)
        self.addCleanup(talk.process.wait)
        self.addCleanup(talk.process.kill)
        return talk

    def edited(self, *args, **changes):
        """A chat that edits lines."""
        talk = self.chat(*args, **changes)
        if "without libedit" in talk.greeting:
            self.skipTest("clm was built without libedit")
        return talk

    def brief(self, *args, **changes):
        """A chat whose answers are cut off, for what does not take a whole story."""
        return self.chat("-n", BRIEF, *args, **changes)

    def prompt_size(self, talk):
        """Tokens of the last prompt, and how many of them were kept."""
        found = re.search(r"Prompt: (\d+) tokens, (\d+) of them kept", talk.say("/stats"))
        return tuple(map(int, found.groups()))

    def piped(self, lines, *args, status=0, env=None):
        result = command.run("chat", "--exact", *args, input=lines, env=env)
        self.assertEqual(result.returncode, status, result.stderr)
        return result.stdout.decode(), result.stderr.decode()

    def generated(self, text, *args):
        return self.done("generate", "--exact", "--verbose", "false", "-n", "256", "-p", "-", *args,
                         input=text).decode().rstrip("\n")

    def cut(self, text, *args):
        """What a brief chat answers where it is cut off."""
        return self.generated(text, "-n", BRIEF, *args) + "\n\n(cut off: --max-tokens is %d)" % BRIEF


class Conversation(ChatCase):
    def test_greeting_and_story(self):
        talk = self.chat()
        self.assertIn("storyteller-4bit", talk.greeting)
        self.assertRegex(talk.say(HELLO), r"^Hello")
        story = talk.say(STORY)
        self.assertGreater(len(story.split()), 60)
        self.assertIn("cat", story)
        self.assertEqual(talk.leave(), 0)

    def test_as_the_whole_conversation_gives_it(self):
        """What was kept of earlier turns changes nothing."""
        talk = self.chat()
        text = "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n%s"
        said = ""
        for line in (HELLO, STORY, "Thank you."):
            answer = talk.say(line)
            whole = said + text % (line, "")
            self.assertEqual(answer, self.generated(whole, "--ignore-chat-template"))
            said += text % (line, answer + "<|im_end|>\n")

    def test_only_what_is_new_is_evaluated(self):
        talk = self.brief()
        talk.say(HELLO)
        context = int(re.search(r"Context: (\d+) of 1024", talk.say("/stats")).group(1))
        talk.say(STORY)
        total, kept = self.prompt_size(talk)
        self.assertEqual(kept, context)
        self.assertGreater(total, kept)

    def test_other_conversations_are_kept(self):
        """One that begins like an earlier one goes on from it, though there were others."""
        talk = self.brief("--system-prompt", "You are a kind and patient teller of stories.")
        first = talk.say(HELLO)
        whole = self.prompt_size(talk)[0]
        talk.say("/clear")
        talk.say(STORY)
        kept = self.prompt_size(talk)[1]
        self.assertGreater(kept, 10)  # the system prompt
        self.assertLess(kept, whole)
        talk.say("/clear")
        self.assertEqual(talk.say(HELLO), first)
        self.assertEqual(self.prompt_size(talk), (whole, whole - 1))
        talk.say("/system You are grim.")
        talk.say(HELLO)
        self.assertLess(self.prompt_size(talk)[1], kept)

    def test_kept_in_a_folder(self):
        """A later run goes on from what an earlier one has left, within the folder's bytes."""
        folder = self.folder / "kept"
        args = ("--prompt-cache-dir", folder, "--system-prompt", "You are kind. " * 20)
        talk = self.chat(*args)
        answer = talk.say(HELLO)
        size = self.prompt_size(talk)[0]
        self.assertEqual(talk.leave(), 0)
        self.assertEqual([f.name[:4] for f in folder.iterdir()], ["clm-"])
        again = self.chat(*args)
        self.assertEqual(again.say(HELLO), answer)
        self.assertEqual(self.prompt_size(again), (size, size - 1))
        other = self.chat(*args, "--cache-type", "f16", "--prompt-cache-dir-bytes", "1K")
        other.say(HELLO)
        self.assertEqual(self.prompt_size(other)[1], 0)  # numbers of another type
        self.assertEqual(other.leave(), 0)
        self.assertEqual(len(list(folder.iterdir())), 1)  # and too large to be written

    def test_little_is_kept(self):
        talk = self.chat("--prompt-cache-size", "1")
        talk.say(HELLO)
        talk.say("/clear")
        talk.say("Who are you?")
        talk.say("/clear")
        talk.say(HELLO)
        self.assertLess(self.prompt_size(talk)[1], 10)

    def test_saved(self):
        """A conversation goes on where it was saved, with the cache and without."""
        file = self.folder / "talk.json"
        for args in ([], ["--cache-files"]):
            talk = self.brief("--system-prompt", "You are kind.", *args)
            talk.say(HELLO)
            self.assertIn("saved", talk.say("/save %s" % file))
            context = int(re.search(r"Context: (\d+) of 1024", talk.say("/stats")).group(1))
            story = talk.say(STORY)
            again = self.brief(*args)
            self.assertIn("goes on", again.say("/load %s" % file))
            self.assertEqual(again.say(STORY), story)
            self.assertEqual(self.prompt_size(again)[1], context if args else 0)
        said = json.loads(file.read_text())
        self.assertEqual((said["system"], [m["role"] for m in said["messages"]]),
                         ("You are kind.", ["user", "assistant"]))
        self.assertTrue((self.folder / "talk.json.safetensors").exists())

    def test_not_saved(self):
        """What was said before /clear and /load is in no file that is written after."""
        file = self.folder / "talk.json"
        lines = "%s\n/clear\n/stats\n/save %s\n" % (HELLO, file)
        said = self.piped(lines, "--cache-files")[1]
        self.assertIn("Context: 0 of 1024", said)
        self.assertEqual(json.loads(file.read_text()), {"messages": []})
        self.assertFalse((self.folder / "talk.json.safetensors").exists())
        said = self.piped("%s\n/load %s\n/stats\n" % (HELLO, file), "--cache-files")[1]
        self.assertIn("Context: 0 of 1024", said)

    def test_names_of_files(self):
        """As they are typed, with ~/ and blanks at the end."""
        said = self.piped("/save ~/a b.json \t\n/load ~/a b.json\n/load %s/a b.json  \n" % self.folder,
                          env=environment(HOME=self.folder))[1]
        self.assertEqual(said, "The conversation is saved.\n" + 2 * "The conversation goes on.\n")
        self.assertTrue((self.folder / "a b.json").exists())
        self.assertIn("too long", self.piped("/save %s\n" % ("x" * 9000), status=1)[1])

    def test_not_loaded(self):
        """What cannot be loaded changes nothing; a bad cache is told, and done without."""
        file = self.folder / "talk.json"
        _, said = self.piped("/load\n/save\n/load %s\n" % file, status=1)
        self.assertEqual(len(said.splitlines()), 3, said)
        for text in ("{", "[]", '{"messages": 1}', '{"messages": [1]}'):
            file.write_text(text)
            self.assertIn("talk.json", self.piped("/load %s\n" % file, status=1)[1])
        file.write_text('{"messages": []}')
        self.assertIn("goes on", self.piped("/load %s\n" % file)[1])
        (self.folder / "talk.json.safetensors").write_text("x")
        self.assertIn("talk.json.safetensors",
                      self.piped("/load %s\n" % file, "--cache-files", status=1)[1])

    def test_system(self):
        talk, told = self.brief(), self.brief("--system-prompt", "Tell stories of a dog named Max.")
        plain = talk.say(STORY)
        self.assertIn("set", talk.say("/system Tell stories of a dog named Max."))
        talk.say("/clear")
        other = talk.say(STORY)
        self.assertNotEqual(other, plain)
        self.assertEqual(other, self.cut(STORY, "--system-prompt", "Tell stories of a dog named Max."))
        self.assertEqual(told.say(STORY), other)
        self.assertIn("no system prompt", talk.say("/system"))
        talk.say("/clear")
        self.assertEqual(talk.say(STORY), plain)

    def test_clear(self):
        talk = self.brief()
        first = talk.say(STORY)
        total, _ = self.prompt_size(talk)
        talk.say(STORY)
        self.assertGreater(self.prompt_size(talk)[0], 2 * total)
        talk.say("/clear")
        self.assertEqual(talk.say(STORY), first)
        self.assertEqual(self.prompt_size(talk), (total, total - 1))

    def test_read(self):
        """A file's text goes before what is said next, once; two files, one after another."""
        one, two = self.folder / "one", self.folder / "two"
        one.write_text("It is a cat.")
        two.write_text("It is red.\n")
        said = self.generated("It is a cat.\nIt is red.\nTell me.", "-n", BRIEF) + "\n"
        lines = "/read %s\n/read %s\nTell me.\n" % (one, two)
        self.assertEqual(self.piped(lines, "-n", BRIEF)[0], said)
        file = self.folder / "talk.json"
        self.piped(lines + "%s\n/read %s\n/clear\n%s\n/save %s\n" % (HELLO, one, HELLO, file), "-n", BRIEF)
        self.assertEqual(json.loads(file.read_text())["messages"][0]["content"], HELLO)
        self.assertIn("no-such", self.piped("/read no-such\n%s\n" % HELLO, status=1)[1])
        self.assertIn("/read wants", self.piped("/read\n", status=1)[1])
        one.write_text(LONG)
        out, said = self.piped("/read %s\nTell me.\n%s\n" % (one, HELLO), status=1)
        self.assertIn("shorten it", said)
        self.assertEqual(out, self.generated(HELLO) + "\n")

    def test_again(self):
        """The answer is made anew, and the conversation goes on from the new one."""
        talk = self.chat("--temp", "1", "--seed", "3", "-n", "20")
        first = talk.say(STORY)
        context = self.prompt_size(talk)[0]
        answers = {first} | {talk.say(name) for name in ("/again", "/regen", "/retry")}
        self.assertGreater(len(answers), 2)
        self.assertEqual(self.prompt_size(talk), (context, context - 1))
        greedy = self.chat("-n", "20")
        whole = [greedy.say(STORY), greedy.say(HELLO)]
        greedy.say("/clear")
        self.assertEqual([greedy.say(STORY), greedy.say("/again"), greedy.say(HELLO)],
                         [whole[0], whole[0] + "\n(the same as before, as --temp is 0)", whole[1]])

    def test_again_of_a_loaded_one(self):
        file = self.folder / "talk.json"
        said = [{"role": "user", "content": HELLO}, {"role": "assistant", "content": "No."}]
        file.write_text(json.dumps({"messages": said}))
        self.assertEqual(self.piped("/load %s\n/again\n/save %s\n" % (file, file))[0], self.generated(HELLO) + "\n")
        self.assertNotEqual(json.loads(file.read_text())["messages"][1], said[1])
        file.write_text(json.dumps({"messages": said[:1]}))
        self.assertIn("no answer", self.piped("/load %s\n/again\n" % file, status=1)[1])
        self.assertIn("no answer", self.piped("%s\n/clear\n/again\n" % HELLO, status=1)[1])

    def test_again_fails(self):
        """The answer that was there stays."""
        file = self.folder / "talk.json"
        lines = "%s\n/system %s\n/again\n/system\n/save %s\n" % (HELLO, LONG, file)
        self.assertIn("conversation", self.piped(lines, status=1)[1])
        self.assertEqual(json.loads(file.read_text())["messages"][1]["content"], self.generated(HELLO))

    def test_cut_off(self):
        talk = self.chat("--max-tokens", "5")
        self.assertIn("(cut off: --max-tokens is 5)", talk.say(STORY))
        self.assertIn("Answer: 5 tokens", talk.say("/stats"))

    def test_stop(self):
        talk = self.chat("--stop", " a ")
        self.assertEqual(talk.say(STORY), "Once upon")

    def test_context(self):
        talk = self.chat("-n", "5000", "--system-prompt", "the cat and the dog and " * 150)
        self.assertIn("shorten it", talk.say(STORY * 20))
        answer = talk.say("go on")
        talk.say("/system")
        self.assertTrue(talk.say(HELLO))
        self.assertEqual(talk.leave(), 0)
        self.assertTrue(answer)

    def test_context_fills(self):
        out, said = self.piped("%s\n%s\n" % (LONG, HELLO), status=1)
        self.assertRegex(said, r"\Aclm: this makes the conversation \d+ tokens .*; shorten it\n\Z")
        self.assertTrue(out.startswith("Hello"))
        said = self.piped("%s\n%s\n" % (HELLO, LONG), status=1)[1]
        self.assertRegex(said, r"\Aclm: this makes the conversation \d+ tokens .*/clear.*\n\Z")

    def test_beyond_the_context(self):
        talk = self.brief("--max-kv-size", "64", "--system-prompt", "the cat and the dog and " * 160)
        self.assertNotIn("made for", talk.say(HELLO))
        self.assertIn("(The model was made for 1024 tokens:\n/clear starts anew.)", talk.say(STORY * 5))
        self.assertRegex(talk.say("/stats"), r"Context: 64 of 1\d\d\d tokens kept")
        self.assertNotIn("made for", talk.say(HELLO))
        talk.say("/clear")
        self.assertIn("made for", talk.say(STORY * 9))


class Keys(ChatCase):
    def test_interrupt_stops_the_answer(self):
        talk = self.chat("-m", self.endless(), "-n", "15000", "-t", "1")
        for _ in range(3):
            after = len(talk.text)
            talk.press(STORY.encode() + b"\r")
            talk.until(b" upon", after)
            talk.press(b"\x03")
            self.assertIn("(stopped)", talk.until(b"\r\n> ", after))
        self.assertEqual(talk.leave(), 0)

    def test_interrupt_in_a_long_prompt(self):
        talk = self.chat("-m", self.model(max_position_embeddings=20000), "-t", "1", "--prefill-step-size", "1",
                         "--system-prompt", LONG * 15)
        after = len(talk.text)
        talk.press(STORY.encode() + b"\r")
        talk.until(b"Prompt: ", after)
        talk.press(b"\x03")
        self.assertIn("(stopped)", talk.until(b"\r\n> ", after))
        talk.say("/system")
        self.assertEqual(talk.say(HELLO), self.generated(HELLO))

    def test_interrupt_at_the_prompt(self):
        talk = self.chat()
        after = len(talk.text)
        talk.press(b"half a li")
        talk.until(b"half a li", after)
        talk.press(b"\x03")
        talk.until(b"\r\n> ", after)
        after = len(talk.text)
        talk.press(b"\x03")
        self.assertIn("/quit leaves", talk.until(b"\r\n> ", after))
        self.assertEqual(talk.say(HELLO), self.generated(HELLO))

    def test_end(self):
        self.assertEqual(self.chat().leave(), 0)
        talk = self.chat()
        talk.press(b"/quit\r")
        self.assertEqual(talk.wait(), 0)

    def test_words_that_might_leave(self):
        """They are said to the model; who meant to leave is told how."""
        talk = self.chat("-n", "5")
        for word in ("exit", "quit", "q"):
            self.assertIn("(/quit leaves)", talk.say(word))
        self.assertNotIn("leaves", talk.say("exit now"))

    def test_names_elsewhere(self):
        """What other programs call these commands."""
        for name in ("exit", "bye", "q"):
            self.assertEqual(self.piped("/%s\n%s\n" % (name, HELLO)), ("", ""))
        self.assertIn("/again", self.piped("/?\n")[1])
        self.assertIn("anew", self.piped("/reset\n")[1])
        self.assertIn("no command /", self.piped("/exi\n", status=1)[1])
        self.assertIn("no command /:", self.piped("/\n", status=1)[1])

    def test_several_lines(self):
        for lines, meant in ((["one\\", "two\\", "three"], "one\ntwo\nthree"),
                             (['"""one', "", 'two"""'], "one\n\ntwo"),
                             (['"""', "/help \\", '"""'], "/help \\"),
                             (["//help"], "/help"), (['"""one"""'], "one")):
            talk = self.chat("-n", "20")
            for line in lines[:-1]:
                talk.say(line, prompt=". ")
            answer = talk.say(lines[-1]).replace("\n\n(cut off: --max-tokens is 20)", "")
            self.assertEqual(answer, self.generated(meant, "-n", "20"), lines)

    def test_editing(self):
        """Characters of several bytes, going back, deleting."""
        talk = self.edited("-n", "20")
        answer = talk.say("Bäx\x7fr\x1b[D\x1b[D\x1b[D€\x05!\x02\x02\x02\x02")
        self.assertEqual(answer.partition("\n\n(")[0], self.generated("€Bär!", "-n", "20"))

    def test_window_changes(self):
        talk = self.edited()
        talk.press(b"Hel")
        fcntl.ioctl(talk.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        talk.process.send_signal(signal.SIGWINCH)
        self.assertEqual(talk.say("lo!").splitlines()[-1], self.generated(HELLO))

    def test_history(self):
        talk = self.edited()
        talk.say("/stats")
        answer = talk.say(HELLO)
        self.assertEqual(talk.leave(), 0)
        file = self.folder / ".local/state/clm/history"
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(talk.process.returncode, 0)
        again = self.chat()
        self.assertEqual(again.say("\x1b[A").splitlines()[-1], answer)
        elsewhere = self.chat(XDG_STATE_HOME=str(self.folder / "state"))
        elsewhere.say("/stats")
        elsewhere.leave()
        self.assertIn("/stats", (self.folder / "state/clm/history").read_text())

    def test_history_that_cannot_be_written(self):
        """What was kept stays, and a link stays one."""
        file, kept = self.folder / ".local/state/clm/history", self.folder / "kept"
        file.parent.mkdir(parents=True)
        kept.touch()
        file.symlink_to(kept)
        talk = self.chat()
        talk.say("/stats")
        self.assertEqual(talk.leave(), 0)
        self.assertTrue(file.is_symlink())
        lines = kept.read_text()
        self.assertIn("/stats", lines)
        full = Terminal("chat", restore_signals=False,
                        env=environment(HOME=self.folder, TERM="xterm", XDG_STATE_HOME=None))
        full.read(until=b"\r\n> ")
        resource.prlimit(full.process.pid, resource.RLIMIT_FSIZE, (4, 4))
        full.press(b"/help\r\x04")
        self.assertEqual(full.wait(), 0)
        self.assertIn(b"cannot write", full.text)
        self.assertEqual(kept.read_text(), lines)
        self.assertEqual(sorted(f.name for f in self.folder.iterdir()), [".local", "kept"])


    def test_pasted_lines(self):
        """They are one message, whatever stands in them, to be gone on with."""
        text = "/clear\nTell me\ta \u732b story.\n\nPlease"
        talk = self.edited("-n", "20")
        after = len(talk.text)
        talk.press(b"\x1b[200~" + text.replace("\n", "\r").replace("P", "\x01P").encode() +
                   b"\x1b[201~")
        talk.until(b"Please", after)
        self.assertEqual(talk.say(".").replace("\n\n(cut off: --max-tokens is 20)", ""),
                         self.generated(text + ".", "-n", "20"))
        talk.say("/clear")
        after = len(talk.text)
        talk.press(b'\x1b[200~"""\r' + HELLO.encode() + b'\r"""\x1b[201~')
        talk.until(b'"""\r\nHello!\r\n"""', after)
        self.assertEqual(talk.say(""), self.generated(HELLO, "-n", "20"))
        self.assertEqual(talk.leave(), 0)
        self.assertTrue(talk.text.endswith(b"\x1b[?2004l"))

    def test_killed_while_editing(self):
        """The terminal shows again what is typed."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            talk = self.edited()
            talk.press(b"half a li")
            talk.read(until=b"half a li")
            self.assertFalse(termios.tcgetattr(talk.master)[3] & termios.ECHO)
            talk.process.send_signal(number)
            self.assertEqual(talk.process.wait(command.PATIENCE), -number)
            self.assertTrue(termios.tcgetattr(talk.master)[3] & termios.ECHO)


class Narrow(ChatCase):
    def test_forty_columns(self):
        talk = self.chat("-n", "30")
        talk.say("/help")
        talk.say(STORY)
        talk.say("/stats")
        talk.say("/system x")
        talk.say("/nonsense")
        for line in talk.text.decode().split("\r\n"):
            if not line.startswith(("> ", "Once")):
                self.assertLessEqual(len(line), COLUMNS, line)
        self.assertIn("> " + STORY[:38], screen(talk.text.decode()))

    def test_commands(self):
        talk = self.chat()
        for name in ("help", "clear", "again", "read", "system", "stats", "save", "load", "result", "quit"):
            self.assertIn("/" + name, talk.say("/help"))
        self.assertIn("no command /nonsense", talk.say("/nonsense"))
        self.assertIn("All answers: 0, 0 tokens", talk.say("/stats"))
        self.assertEqual(talk.leave(), 0)


class Thinking(ChatCase):
    TEMPLATE = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"].replace(
        "assistant\n' }}{% endif", "assistant\n<think>' }}{# up to </think> #}{% endif")

    def thinker(self, word="Ġtogether"):
        """A model whose template opens a section of thinking, and which ends it by this word."""
        return self.renamed(word, "</think>", self.TEMPLATE)

    def test_dimmed(self):
        folder = self.thinker()
        talk = self.chat("-m", folder)
        answer = talk.say(STORY)
        self.assertRegex(answer, r"\A\x1b\[2m[^\x1b<]+\x1b\[0m\n\n[^\x1b<(]+")
        colourless = self.chat("-m", folder, NO_COLOR="1").say(STORY)
        self.assertEqual(colourless, re.sub(r"\x1b\[\dm", "", answer))

    def test_not_elsewhere(self):
        out, _ = self.piped(STORY + "\n", "-m", self.thinker())
        self.assertRegex(out, r"\A[^\x1b<]+ play\n\n[^\x1b<]+\n\Z")

    def test_interrupted(self):
        """The terminal is left as it was."""
        talk = self.chat("-m", self.thinker(word="Ġzebra"))
        after = len(talk.text)
        talk.press(STORY.encode() + b"\r")
        talk.until(b"\x1b[2m", after)
        talk.press(b"\x03")
        said = talk.until(b"\r\n> ", after)
        self.assertEqual(re.findall(r"\x1b\[(\d)m", said), ["2", "0"])

    def test_control_characters(self):
        """A model cannot send the terminal what it likes."""
        folder = self.renamed("Ġtime", "\u011b]0;x\u0107")  # ESC and BEL, in byte-level spelling
        self.assertIn("a?]0;x?,", self.brief("-m", folder).say(STORY))
        self.assertIn("a\x1b]0;x\x07,", self.piped(STORY, "-n", BRIEF, "-m", folder)[0])


class Tools(ChatCase):
    """A model that calls a tool where it would say "time"."""

    CALL = '<tool_call>{"name":"%s","arguments":{"city":"Oslo"}}</tool_call>'
    TEMPLATE = ("{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
                "{% for c in m.tool_calls or [] %}{{ c.id }} {{ c.function.name }} "
                "{{ c.function.arguments.city }}{% endfor %}{{ m.tool_call_id }}<|im_end|>\n"
                "{% endfor %}{{ '<|im_start|>assistant\n' }}")

    def setUp(self):
        super().setUp()
        self.tools = self.folder / "tools.json"
        self.tools.write_text('[{"type": "function", "function": {"name": "get_weather"}}]')

    def caller(self, calls=CALL % "get_weather"):
        return self.renamed("Ġtime", calls, self.TEMPLATE, tool_parser_type="json_tools")

    def test_shown(self):
        folder = self.caller()
        talk = self.chat("-m", folder, "--tools", self.tools, "-n", "5")
        said = talk.say(STORY)
        self.assertRegex(said, r'\AOnce upon a\n\ncall: get_weather \{"city":"Oslo"\}\n')
        self.assertIn("/result TEXT", said)
        self.assertIn("(cut off", talk.say("/result It is raining."))
        self.assertIn("no call waits", talk.say("/result twice"))

    def test_history(self):
        """The call and its result, as the template writes them."""
        folder = self.caller()
        talk = self.chat("-m", folder, "--tools", self.tools, "-n", "5")
        self.assertIn("call: ", talk.say(STORY))
        events = self.json_lines("generate", "--exact", "--parse", "-m", folder, "--tools",
                                 self.tools, "-n", "5", "-p", STORY)
        text = "".join(e["text"] for e in events if e["type"] == "content")
        answer = talk.say("/result It is raining.").partition("\n\n(")[0]
        whole = ("<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n%scall00001 get_weather Oslo"
                 "<|im_end|>\n<|im_start|>tool\nIt is raining.call00001<|im_end|>\n"
                 "<|im_start|>assistant\n" % (STORY, text))
        self.assertEqual(answer, self.generated(whole, "--ignore-chat-template", "-m", folder,
                                                "-n", "5"))

    def test_several(self):
        folder = self.caller(self.CALL % "one" + self.CALL % "two")
        talk = self.chat("-m", folder, "--tools", self.tools, "-n", "5")
        self.assertIn('call: one {"city":"Oslo"}\ncall: two {"city":"Oslo"}\n', talk.say(STORY))
        self.assertIn("the result of two", talk.say("/result 1"))
        self.assertIn("(cut off", talk.say("/result 2"))

    def test_no_tools(self):
        """What is not called is text."""
        out, _ = self.piped(STORY + "\n", "-m", self.caller(), "-n", "5")
        self.assertIn("<tool_call>", out)
        out, _ = self.piped(STORY + "\n", "-m", self.folder / "renamed", "-n", "5",
                            "--tool-parser", "json_tools")
        self.assertIn("call: get_weather", out)

    def test_failed(self):
        out, _ = self.piped(STORY + "\n", "-m", self.caller("<tool_call>{</tool_call>"), "-n", "5",
                            "--tools", self.tools)
        self.assertRegex(out, r"\AOnce upon a\n\n\(not a call: [^\n]+\)\n")


class Pipe(ChatCase):
    def test_answers(self):
        out, said = self.piped("%s\n\n  \n/system\n%s" % (HELLO, STORY))
        self.assertEqual(said, "There is no system prompt now.\n")
        answer, _, story = out.partition("\n")
        self.assertEqual(answer, self.generated(HELLO))
        self.assertGreater(len(story.split()), 60)

    def test_carriage_returns(self):
        out, said = self.piped("%s\r\n/stats\r\n/quit\r\nmore\r\n" % HELLO)
        self.assertEqual(out, self.generated(HELLO) + "\n")
        self.assertIn("All answers: 1", said)

    def test_failures(self):
        out, said = self.piped("/nonsense\n%s\n" % HELLO, status=1)
        self.one_line(said, "/nonsense")
        self.assertEqual(out.rstrip("\n"), self.generated(HELLO))

    def test_no_home(self):
        self.assertEqual(self.chat(HOME=None).leave(), 0)

    def test_dumb_terminal(self):
        talk = self.chat(TERM="dumb")
        self.assertEqual(talk.say(HELLO), self.generated(HELLO))
        self.assertEqual(talk.leave(), 0)

    def test_model_without_template(self):
        self.fails(1, ["no chat template", "--chat-template-file", "clm generate"], "chat", "-m",
                   self.model(skip=["tokenizer_config.json"]))

    def test_bad_options(self):
        self.fails(2, "--max-tokens", "chat", "--max-tokens", "0")
        self.fails(2, "--chat-template-config", "chat", "--chat-template-config", "[]")


def write_transcript():
    """A conversation on a wide terminal, into docs/chat.md."""
    lines = [HELLO, STORY, "/stats", "/system You are a sleepy cat.", '"""Tell me', 'a story."""',
             "/clear"]
    with tempfile.TemporaryDirectory() as home:
        talk = Talk(home, "--temp", "0.7", "--seed", "7", columns=WIDE)
        for line in lines:
            talk.say(line, prompt=". " if line == '"""Tell me' else "> ")
        talk.leave()
    shown = "$ clm chat --temp 0.7 --seed 7\n" + "\n".join(screen(talk.text.decode(), WIDE)).rstrip()
    page = ROOT / "docs" / "chat.md"
    head, _, rest = page.read_text().partition("```text\n")
    page.write_text(head + "```text\n" + shown + "\n```\n" + rest.partition("```\n")[2])


if sys.argv[2:] == ["--transcript"]:
    command.CLM = os.path.abspath(sys.argv[1])
    write_transcript()
else:
    command.main()
