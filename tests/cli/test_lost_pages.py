#!/usr/bin/env python3
"""A model's file that is cut off while it is mapped."""
import json
import os
import shutil
import signal
import subprocess
import sys

import command
from command import MODEL, Case, environment

LINE = json.dumps({"custom_id": "a", "body": {"prompt": "Once upon a time", "max_tokens": 2}}).encode() + b"\n"


class LostPages(Case):
    def start(self, *args):
        """A command that has answered once, and its weights."""
        folder = self.model("a model", skip=["model.safetensors"])
        weights = folder / "model.safetensors"
        shutil.copyfile(MODEL / "model.safetensors", weights)
        process = subprocess.Popen([command.CLM, "generate", "--batch", "-", "-m", folder, *args],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment())
        process.stdin.write(LINE)
        process.stdin.flush()
        self.assertEqual(json.loads(process.stdout.readline())["custom_id"], "a")
        return process, weights

    def test_is_told(self):
        for threads in ("1", "4"):
            process, weights = self.start("-t", threads)
            os.truncate(weights, 4096)
            out, said = process.communicate(LINE, timeout=command.PATIENCE)
            self.assertEqual((process.returncode, out), (1, b""))
            self.one_line(said.decode(), [str(weights.resolve()), "cut off"])
            shutil.rmtree(weights.parent)

    def test_other_bus_errors_are_deadly(self):
        process, _ = self.start()
        process.send_signal(signal.SIGBUS)
        out, said = process.communicate(timeout=command.PATIENCE)
        self.assertEqual((process.returncode, out, said), (-signal.SIGBUS, b"", b""))


if not os.path.exists("/proc/self/maps"):
    print("what is mapped cannot be told here")
    sys.exit(77)
command.main()
