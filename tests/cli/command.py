"""What the tests of the command have in common. Standard library only."""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "models" / "storyteller-4bit"
CLM = None
# For what ends by itself; one that hangs is to be told from one on a machine that is busy or stands still.
PATIENCE = 900


def main():
    """Run the tests of the calling script; its first argument is the command."""
    global CLM
    if len(sys.argv) < 2:
        sys.exit("usage: %s CLM [unittest arguments]" % sys.argv[0])
    CLM = os.path.abspath(sys.argv.pop(1))
    # In the background of a shell, and under nohup, they are ignored, and what is started ignores them too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    unittest.main(verbosity=1)


def environment(**changes):
    """The environment without what would lead clm elsewhere, on the CPU if it names no other device; a value of
    None removes a variable."""
    env = {k: v for k, v in os.environ.items() if k not in ("CLM_MODEL", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE",
                                                          "HF_HOME")}
    env.setdefault("CLM_DEVICE", "cpu")
    env["CLM_CACHE_DIR"] = "none"
    for name, value in changes.items():
        env.pop(name, None)
        if value is not None:
            env[name] = str(value)
    return env


def run(*args, input=b"", env=None, **options):
    """Standard output and error are bytes."""
    if isinstance(input, str):
        input = input.encode()
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run([CLM, *map(str, args)], input=input, env=env or environment(),
                          timeout=PATIENCE, **options)


def narrow(pipe):
    """Let no more than a page wait in a pipe, so that who writes much cannot come to an end before it is read."""
    fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), 4096)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="clm-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def done(self, *args, **options):
        """What a command that must succeed writes."""
        result = run(*args, **options)
        self.assertEqual((result.returncode, result.stderr), (0, b""), args)
        return result.stdout

    def fails(self, status, words, *args, **options):
        """A command that must fail: with this status, nothing on standard output, and one line on
        standard error that holds every word."""
        result = run(*args, **options)
        said = result.stderr.decode()
        self.assertEqual(result.returncode, status, said)
        self.assertEqual(result.stdout or b"", b"", args)
        self.one_line(said, words)

    def one_line(self, said, words):
        self.assertRegex(said, r"\Aclm: [^\n]+\n\Z")
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, said)

    def json_lines(self, *args, **options):
        return [json.loads(line) for line in self.done(*args, **options).decode().split("\n")[:-1]]

    def model(self, name="model", skip=(), **changes):
        """A copy of the bundled model, without some files, its config changed."""
        folder = self.folder / name
        folder.mkdir()
        for file in MODEL.iterdir():
            if file.name not in skip:
                os.symlink(file, folder / file.name)
        if changes:
            config = json.loads((MODEL / "config.json").read_text())
            config.update(changes)
            (folder / "config.json").unlink()
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    def endless(self):
        """A copy of the model whose text goes on to the end of its context, which is a minute's or more, for what
        must come in time."""
        parts = ["generation_config.json", "tokenizer_config.json"]
        folder = self.model("endless", skip=parts, eos_token_id=4, max_position_embeddings=20000)
        config = json.loads((MODEL / "tokenizer_config.json").read_text())
        config["eos_token"] = config["pad_token"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return folder

    def renamed(self, token, text, template=None, **settings):
        """A copy of the model in which a token stands for another text."""
        folder = self.model("renamed", skip=["tokenizer.json", "tokenizer_config.json"])
        parts = json.loads((MODEL / "tokenizer.json").read_text())
        vocab, merges = parts["model"]["vocab"], parts["model"]["merges"]
        vocab[text] = vocab.pop(token)
        pairs = [m if isinstance(m, list) else m.split(" ") for m in merges]
        parts["model"]["merges"] = [m for m, pair in zip(merges, pairs)
                                    if token not in pair and "".join(pair) != token]
        (folder / "tokenizer.json").write_text(json.dumps(parts))
        config = json.loads((MODEL / "tokenizer_config.json").read_text())
        config["chat_template"] = template or config["chat_template"]
        config.update(settings)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return folder


def read_safetensors(path):
    """Name -> (shape, list of floats), for float32 tensors."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, t in header.items():
        assert t["dtype"] == "F32"
        begin, end = (8 + size + offset for offset in t["data_offsets"])
        tensors[name] = (t["shape"], struct.unpack("<%df" % ((end - begin) // 4), data[begin:end]))
    return tensors
