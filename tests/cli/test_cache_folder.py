#!/usr/bin/env python3
"""Where the tables of a large tokenizer are kept, and that it is no matter whether they are."""
import json
import os
import stat

import command
from command import MODEL, Case, environment

TEXTS = b"".join(json.dumps({"text": t}).encode() + b"\n" for t in ("Once upon a time", "caf\u00e9 \u4e16\u754c", ""))


class Kept(Case):
    def large(self):
        """The bundled model with a tokenizer.json of more than a megabyte, for what stands between its values."""
        folder = self.model("large", skip=["tokenizer.json"])
        (folder / "tokenizer.json").write_text((MODEL / "tokenizer.json").read_text() + " " * (1 << 20))
        return folder

    def ids(self, folder, **changes):
        env = environment(**{"CLM_CACHE_DIR": None, "XDG_CACHE_HOME": None, "HOME": None, **changes})
        return self.done("tokenize", "-m", folder, input=TEXTS, env=env)

    def kept(self, folder):
        return [entry for entry in folder.iterdir()] if folder.exists() else []

    def test_places(self):
        folder, plain = self.large(), self.ids(MODEL)
        home, xdg, own = (self.folder / name for name in ("home", "xdg", "own"))
        home.mkdir()
        for changes, place in (({"HOME": home}, home / ".cache" / "clm"),
                               ({"HOME": home, "XDG_CACHE_HOME": xdg}, xdg / "clm"),
                               ({"HOME": home, "XDG_CACHE_HOME": xdg, "CLM_CACHE_DIR": own}, own)):
            for _ in range(2):
                self.assertEqual(self.ids(folder, **changes), plain)
                file, = self.kept(place / "tokenizers")
            mode = stat.S_IMODE(os.stat(place / "tokenizers").st_mode)
            self.assertEqual((mode, stat.S_IMODE(file.stat().st_mode)), (0o700, 0o600))
            before = file.stat().st_ino
            self.assertEqual(self.ids(folder, **changes), plain)
            self.assertEqual(file.stat().st_ino, before, "it is written once")
            file.write_bytes(file.read_bytes()[:-1])
            self.assertEqual(self.ids(folder, **changes), plain)
            self.assertNotEqual(file.stat().st_ino, before, "damaged, it is written anew")

    def test_no_place(self):
        folder, plain = self.large(), self.ids(MODEL)
        home = self.folder / "home"
        home.mkdir()
        (self.folder / "file").touch()
        for own in ("", "none", self.folder / "file"):
            self.assertEqual(self.ids(folder, HOME=home, CLM_CACHE_DIR=own), plain)
        self.assertEqual(self.ids(folder), plain)
        self.assertEqual(self.ids(MODEL, HOME=home), plain, "a small one is not worth it")
        self.assertEqual(self.kept(home), [])


if __name__ == "__main__":
    command.main()
