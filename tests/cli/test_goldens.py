#!/usr/bin/env python3
"""Greedy text of the storyteller models, plain and as a chat, token for token as recorded.

Needs the shared goldens (the folder in CLM_SHARED, else ../shared beside the source)."""
import json
import os
import pathlib
import sys

import command
from command import ROOT, Case

SHARED = pathlib.Path(os.environ.get("CLM_SHARED", ROOT.parent / "shared")) / "models"
# Where the two largest logits are closer than this, rounding may choose (the reference computes in
# float32, clm without --exact rounds activations to 8 bits and its cache to 16).
MARGIN = {True: 2e-3, False: 0.1}


class Greedy(Case):
    def compare(self, name, exact):
        for record in json.loads((SHARED / "goldens.json").read_text())["models"][name]["greedy"]:
            args = ["--exact"] if exact else []
            if record["kind"] == "plain":
                args.append("--ignore-chat-template")
            out = self.json_lines("generate", "--json", "-m", SHARED / name, "-p", record["prompt"],
                                  "-n", len(record["ids"]), *args)
            self.assertEqual(out[-1]["prompt_tokens"], len(record["prompt_ids"]))
            for step, (token, margin) in enumerate(zip(record["ids"], record["margin"])):
                if out[step].get("token") == token:
                    continue
                self.assertLess(margin, MARGIN[exact], "%s, %r: step %d" % (name, record["prompt"], step))
                break

    def test_storyteller(self):
        self.compare("storyteller", True)
        self.compare("storyteller", False)

    def test_storyteller_4bit(self):
        self.compare("storyteller-4bit", True)
        self.compare("storyteller-4bit", False)

    def test_storyteller_draft(self):
        self.compare("storyteller-draft", True)
        self.compare("storyteller-draft", False)


if not (SHARED / "goldens.json").exists():
    print("no models/goldens.json: set CLM_SHARED to the folder of the shared goldens")
    sys.exit(77)
command.main()
