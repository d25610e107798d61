#!/usr/bin/env python3
"""What happens on a terminal: Ctrl-C and the progress line."""
import pathlib
import re
import signal
import subprocess
import time

import command
from command import PATIENCE, Case, environment
from terminal import COLUMNS, Terminal

LONG = "the cat and the dog and " * 150  # some 900 tokens


def wait_for_handler(process):
    """Until the process catches Ctrl-C or is at its end, as Linux tells; elsewhere a while."""
    status = pathlib.Path("/proc/%d/status" % process.pid)
    if not status.exists():
        return time.sleep(2)
    while process.poll() is None and not int(re.search(r"SigCgt:\s*(\w+)", status.read_text()).group(1), 16) >> 1 & 1:
        time.sleep(0.01)


class Interrupt(Case):
    def slowly(self):
        """Options with which a text takes a minute, whatever the machine is busy with."""
        return "-m", str(self.endless()), "-n", "all", "--temp", "1", "--exact", "-t", "1"

    def test_ends_cleanly(self):
        t = Terminal("generate", *self.slowly(), "--ignore-chat-template", "-p", "Once upon a time")
        t.read(until=b"==========\r\n")
        t.read(until=b" ")
        t.press(b"\x03")
        self.assertEqual(t.wait(), 130)
        said = t.text.decode().replace("\r\n", "\n").replace("^C", "")
        match = re.search(r"\n==========\nPrompt: 5 tokens, .*\nGeneration: (\d+) tokens, .*\n"
                          r"Peak memory: .* GB\n\Z", said)
        self.assertTrue(match, said)
        self.assertLess(int(match.group(1)), 19000)

    def test_json(self):
        process = subprocess.Popen([command.CLM, "generate", "--json", *self.slowly()],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, said), (130, b""))
        self.assertIn(b'"finish_reason": "cancelled"', out.splitlines()[-1])

    def test_in_the_prompt(self):
        t = Terminal("generate", *self.slowly(), "-p", LONG * 20, "--prefill-step-size", "1", stdout=subprocess.PIPE)
        t.read(until=b"Prompt: ")
        t.press(b"\x03")
        self.assertEqual(t.wait(), 130)
        with t.process.stdout as out:
            self.assertIn(b"No text generated", out.read())

    def test_bench_and_perplexity(self):
        text = self.folder / "text"
        text.write_text(LONG * 400)
        for args in (["bench", "--shape", "storyteller", "-r", "10000"], ["perplexity", str(text)]):
            process = subprocess.Popen([command.CLM, *args], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, env=environment())
            wait_for_handler(process)
            process.send_signal(signal.SIGINT)
            with process.stdout as out, process.stderr as said:
                self.assertEqual((out.read(), said.read()), (b"", b""))
            self.assertEqual(process.wait(PATIENCE), 130)


class Progress(Case):
    def columns(self, shown):
        """The lines that stood on the terminal, one after another, without control sequences."""
        return [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line) for line in re.split("[\r\n]", shown)]

    def test_on_a_terminal(self):
        t = Terminal("generate", "-p", LONG, "-n", "3", "--prefill-step-size", "64",
                     stdout=subprocess.PIPE)
        with t.process.stdout as out:
            self.assertEqual(t.wait(), 0)
            self.assertNotIn(b"Prompt: 0/", out.read())
        shown = t.text.decode()
        counts = [int(n) for n in re.findall(r"Prompt: (\d+)/\d+ tokens", shown)]
        self.assertGreater(len(counts), 5)
        self.assertEqual(counts, sorted(counts))
        self.assertLessEqual(max(map(len, self.columns(shown))), COLUMNS)
        self.assertTrue(shown.endswith("\r\x1b[K"), repr(shown[-20:]))

    def test_erased_before_the_text(self):
        t = Terminal("generate", "-p", LONG, "-n", "3", "--prefill-step-size", "64")
        self.assertEqual(t.wait(), 0)
        last = t.text.rindex(b"tokens, ", 0, t.text.index(b"=========="))
        self.assertIn(b"\r\x1b[K", t.text[last:t.text.index(b"==========")])

    def test_narrow(self):
        """A line that had no room in the terminal would stay there in part."""
        for columns, first in ((20, r"\d+%"), (4, r"\d%|\d\d%|"), (COLUMNS, r"Prompt: .*%")):
            t = Terminal("generate", "-p", LONG, "-n", "3", "--prefill-step-size", "64", columns=columns)
            self.assertEqual(t.wait(), 0)
            shown = self.columns(t.text[:t.text.index(b"==========")].decode())
            self.assertRegex(shown[1], "^(%s)$" % first)
            self.assertLess(max(map(len, shown)), columns)

    def test_bench(self):
        t = Terminal("bench", "--shape", "storyteller", "-p", "8,16", "-n", "0", "-r", "2", stdout=subprocess.PIPE)
        with t.process.stdout as out:
            self.assertIn(b"prompt ", out.read())
        self.assertEqual(t.wait(), 0)
        shown = self.columns(t.text.decode())
        for line in ("Test 1 of 2: 0/2 runs, 0%", "Test 1 of 2: 1/2 runs, 50%", "Test 2 of 2: 1/2 runs, 50%"):
            self.assertIn(line, shown)
        self.assertLessEqual(max(map(len, shown)), COLUMNS)
        self.assertTrue(t.text.endswith(b"\r\x1b[K"), t.text[-20:])

    def test_not_elsewhere(self):
        result = command.run("generate", "-p", LONG, "-n", "3", "--prefill-step-size", "64")
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_not_for_a_short_prompt(self):
        t = Terminal("generate", "-p", "Once upon a time", "-n", "3", "--prefill-step-size", "1",
                     stdout=subprocess.PIPE)
        t.process.stdout.read()
        t.process.stdout.close()
        self.assertEqual((t.wait(), t.text), (0, b""))


class Reading(Case):
    def test_is_told(self):
        """Who types a command that reads standard input is not left to guess what it waits for."""
        said = b"clm: reading standard input; Ctrl-D ends it"
        line = b'{"text": "a"}\n'
        for args, typed in ((["tokenize"], line), (["score"], line), (["generate", "-n", "1", "-p", "-"], b"Hello\n"),
                            (["generate", "--batch", "-"], line)):
            t = Terminal(*args)
            t.read(said)
            t.press(typed + b"\x04")
            self.assertEqual(t.wait(), 0, t.text)
            self.assertEqual(t.text.count(said), 1)
            self.assertEqual(command.run(*args, input=typed).stderr, b"")


class Text(Case):
    def test_controls(self):
        """A model's text does not command the terminal; elsewhere it is as the model has it."""
        folder = self.renamed(",", "\u011b[2J\u0107,")  # ESC and BEL, in byte-level spelling
        args = ("generate", "-m", str(folder), "--ignore-chat-template", "-n", "24")
        t = Terminal(*args)
        self.assertEqual(t.wait(), 0)
        self.assertIn(b"?[2J?", t.text)
        self.assertNotIn(b"\x1b", t.text)
        self.assertIn(b"\x1b[2J\x07", self.done(*args))


class Help(Case):
    def test_narrow(self):
        """Lines fit into the terminal, and say what they say elsewhere; a pipe has the usual ones."""
        for args in (["help"], ["help", "generate"], ["bench", "--help"]):
            usual = command.run(*args).stdout.decode()
            self.assertIn(max(map(len, usual.split("\n"))), range(60, 80))
            for columns in (40, 60, 300):
                t = Terminal(*args, columns=columns)
                self.assertEqual(t.wait(), 0)
                text = t.text.decode().replace("\r\n", "\n")
                self.assertEqual(text.split(), usual.split())
                self.assertLess(max(map(len, text.split("\n"))), min(columns, 80))


command.main()
