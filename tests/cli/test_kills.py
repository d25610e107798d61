#!/usr/bin/env python3
"""Killed while it writes a prompt cache or a conversation, 200 times: each file is the one before or
the one after, and the next writer removes what is left of the killed."""
import random
import shutil
import subprocess
import tempfile
import time

import command
from command import Case, environment

KILLS = 100
CHAT = "--exact", "--cache-files", "--max-tokens", "1"
SHORT, LONG = "Tell me a story.", "Tell me a story about a cat and a dog. " * 4


class Kills(Case):
    def setUp(self):
        super().setUp()
        random.seed(1)

    def start(self, *args, stdin=subprocess.DEVNULL):
        return subprocess.Popen([command.CLM, *map(str, args)], env=environment(), stdin=stdin,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def chat(self, lines):
        result = command.run("chat", *CHAT, input=lines)
        self.assertEqual(result.returncode, 0, result.stderr)

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def keep(self, prompt, file):
        self.done("cache-prompt", "--exact", "-p", prompt, "--prompt-cache-file", file)
        return file.read_bytes()

    def test_cache_prompt(self):
        """Each writes the other of two caches; the moment is sought at which it is nearly done."""
        file = self.folder / "cache"
        whole = {prompt: self.keep(prompt, file) for prompt in (LONG, SHORT)}
        delay, n_done, seen = 0.05, 0, set()
        for i in range(KILLS):
            prompt = LONG if file.read_bytes() == whole[SHORT] else SHORT
            process = self.start("cache-prompt", "--exact", "-p", prompt, "--prompt-cache-file", file)
            time.sleep(delay * random.uniform(0.8, 1.1))
            process.kill()
            done = process.wait() == 0
            n_done += done
            delay *= 0.9 if done else 1.1
            data = file.read_bytes()
            self.assertIn(data, whole.values())
            seen.add(data)
            if done:
                self.assertEqual(data, whole[prompt])
        self.assertEqual(len(seen), 2, "none has been written")
        self.assertLess(n_done, KILLS, "none has been killed")
        for prompt in (LONG, SHORT):
            self.assertEqual(self.keep(prompt, file), whole[prompt])
            self.done("generate", "-n", "1", "-p", " Now.", "--prompt-cache-file", file)
        self.assertEqual(self.names(), ["cache"])

    def test_saved_conversations(self):
        """One after another is saved in a chat, with its cache, until it is killed."""
        one, two, file = (self.folder / name for name in ("one", "two", "file"))
        for path, text in ((one, SHORT), (two, LONG)):
            self.chat("%s\n/save %s\n" % (text.strip(), path))
        wanted = {end: [path.with_name(path.name + end).read_bytes() for path in (one, two)]
                  for end in ("", ".safetensors")}
        for end in wanted:
            shutil.copy(self.folder / ("one" + end), self.folder / ("file" + end))
        lines = tempfile.TemporaryFile()
        self.addCleanup(lines.close)
        lines.write("".join("/load %s\n/save %s\n" % (path, file) for path in (two, one)).encode() * 50000)
        seen, delay, at = set(), 0.1, 0
        for i in range(KILLS):
            lines.seek(0)
            process = self.start("chat", *CHAT, stdin=lines)
            time.sleep(delay * random.uniform(0.3, 2))
            process.kill()
            self.assertLess(process.wait(), 0, "it has come to its end")
            for end in wanted:
                data = (self.folder / ("file" + end)).read_bytes()
                self.assertIn(data, wanted[end])
                seen.add(data)
            # As long as most need to save something, whatever the machine is busy with.
            before, at = at, file.stat().st_mtime_ns
            delay *= 1.2 if at == before else 0.9
        self.assertEqual(len(seen), 4, "not all has been written")
        self.chat("/load %s\n/save %s\n" % (file, file))
        self.assertEqual(self.names(),
                         sorted(path.name + end for path in (one, two, file) for end in wanted))


if __name__ == "__main__":
    command.main()
