#!/usr/bin/env python3
"""Times clm's tokenizers and templates beside Hugging Face tokenizers, tiktoken and Jinja2.

    ninja -C build bench_text bench_render
    python3 bench/text.py build/bench NAME=DIR ... [-- TEMPLATE.jinja ...]

DIR holds a tokenizer.json. Every figure is the least processor time of several rounds; in each
round all libraries run one after another, so that what else the machine does strikes all alike,
and the table shows how many times faster clm was. All run on one thread. The ids must be equal.

The peers are installed from PyPI into a virtual environment outside the project where they are
missing: $CLM_BENCH_VENV, or ~/.cache/clm/bench-text.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import venv

PEERS = ["tokenizers==0.23.3", "tiktoken==0.14.0", "transformers==5.23.0", "jinja2==3.1.6",
         "jieba==0.42.1", "setuptools<81"]
ROUNDS = 7
SIZE = 200_000  # bytes of a text


def in_venv():
    """Start again under the environment that has the peers."""
    home = os.environ.get("CLM_BENCH_VENV") or os.path.expanduser("~/.cache/clm/bench-text")
    python = os.path.join(home, "bin", "python")
    if os.environ.get("CLM_BENCH_INSIDE"):
        return
    if not os.path.exists(python):
        venv.create(home, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], check=True)
    os.environ.update(CLM_BENCH_INSIDE="1", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1",
                      TRANSFORMERS_VERBOSITY="error")
    os.execv(python, [python, *sys.argv])


def cut(text):
    return text.encode()[:SIZE].decode("utf-8", "ignore")


def english():
    """The manual of Python's language, which comes with it."""
    import pydoc_data.topics
    return cut("\n\n".join(pydoc_data.topics.topics.values()))


def code():
    import argparse
    import inspect
    import typing
    return cut("".join(inspect.getsource(m) for m in (typing, argparse, inspect)))


def chinese():
    """Words as often as a dictionary says they are used, between commas and full stops."""
    import jieba
    words, weights = [], []
    with open(os.path.join(os.path.dirname(jieba.__file__), "dict.txt"), encoding="utf-8") as f:
        for line in f:
            word, weight, _ = line.split(" ")
            words.append(word)
            weights.append(int(weight))
    rng = random.Random(1)
    out = []
    drawn = iter(rng.choices(words, weights, k=SIZE // 3))
    for _ in range(SIZE // 30):
        out += [next(drawn) for _ in range(rng.randint(3, 9))]
        out.append(rng.choice("，，，。、？"))
        if rng.random() < 0.05:
            out.append("\n")
    return cut("".join(out))


def texts():
    return {"English": english(), "Chinese": chinese(), "code": code(),
            "one letter, 100,000 times": "a" * 100_000}


class Ours:
    def __init__(self, program, directory):
        self.child = subprocess.Popen([program, directory], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.child.stdin.write(command + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline()
        if not answer:
            sys.exit("bench_text ended at: " + command)
        return answer.split()

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def taken(call):
    begin = time.process_time()
    result = call()
    return (time.process_time() - begin) * 1e6, result


def tiktoken_of(file):
    """The same vocabulary as tiktoken has it: bytes, ranked. None where it is not byte-level."""
    import tiktoken
    pre = file.get("pre_tokenizer") or {}
    splits = [p["pattern"]["Regex"] for p in pre.get("pretokenizers", [])
              if p["type"] == "Split" and "Regex" in p["pattern"]]
    if len(splits) != 1:
        return None
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in order}
    letters.update((chr(256 + i), b)
                   for i, b in enumerate(b for b in range(256) if b not in order))
    ranks = {}
    for token, i in file["model"]["vocab"].items():
        if all(c in letters for c in token):
            ranks[bytes(letters[c] for c in token)] = i
    for b in range(256):
        if bytes([b]) not in ranks:
            return None
    return tiktoken.Encoding("bench", pat_str=splits[0], mergeable_ranks=ranks, special_tokens={})


def row(name, what, ours, peers, amount=""):
    line = "| %s | %s | %s | %.2f |" % (name, what, amount, min(ours) / 1e3)
    for times in peers:
        line += " %.1f |" % (min(times) / min(ours)) if times else " |"
    print(line, flush=True)


def measure_text(name, what, path, text, ours, hf, tik):
    times = {k: [] for k in "oe he te od hd td".split()}
    for i in range(ROUNDS):
        t, encoded = taken(lambda: hf.encode(text, add_special_tokens=False))
        times["he"].append(t)
        times["oe"].append(float(ours.ask("encode " + path)[0]))
        if tik:
            t, ids = taken(lambda: tik.encode_ordinary(text))
            times["te"].append(t)
            times["td"].append(taken(lambda: tik.decode(ids))[0])
        times["od"].append(float(ours.ask("decode " + path)[0]))
        times["hd"].append(taken(lambda: hf.decode(encoded.ids, skip_special_tokens=False))[0])
        if not i and [str(x) for x in encoded.ids] != ours.ask("ids " + path):
            print("%s, %s: the ids differ!" % (name, what), file=sys.stderr)
    row(name, what, times["oe"], [times["he"], times["te"]],
        "encode, %.1f MB/s" % (len(text.encode()) / min(times["oe"])))
    row(name, what, times["od"], [times["hd"], times["td"]],
        "decode, %.1f MB/s" % (len(text.encode()) / min(times["od"])))


def measure_tokenizer(name, directory, program, folder):
    import tokenizers
    path = os.path.join(directory, "tokenizer.json")
    with open(path, encoding="utf-8") as f:
        file = json.load(f)
    hf, tik = tokenizers.Tokenizer.from_file(path), tiktoken_of(file)
    ours = Ours(program, directory)
    loads = [[], []]
    for _ in range(ROUNDS):
        loads[1].append(taken(lambda: tokenizers.Tokenizer.from_file(path))[0])
        loads[0].append(float(ours.ask("load")[0]))
    row(name, "tokenizer.json", loads[0], [loads[1], []], "load")
    for what, text in texts().items():
        text_path = os.path.join(folder, what.split()[0].strip(","))
        with open(text_path, "w", encoding="utf-8", newline="") as f:
            f.write(text)
        measure_text(name, what, text_path, text, ours, hf, tik)
    ours.close()


def conversation():
    """50 messages, every third of them with a call of a tool and its result, and three tools."""
    tools = [{"type": "function", "function": {
        "name": n, "description": "Look up the %s of a place, by its name and date." % n,
        "parameters": {"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "city, country"},
            "date": {"type": "string", "description": "as in 2025-03-09"},
            "unit": {"type": "string", "enum": ["metric", "imperial"]}}}}}
        for n in ("weather", "traffic", "population")]
    words = english().split()
    rng = random.Random(2)
    say = lambda: " ".join(words[(i := rng.randrange(len(words) - 80)):i + rng.randint(10, 80)])
    messages = [{"role": "system", "content": say()}]
    while len(messages) < 49:
        messages.append({"role": "user", "content": say()})
        if len(messages) % 3 == 0:
            messages.append({"role": "assistant", "content": "", "tool_calls": [
                {"id": "call%05d" % len(messages), "type": "function", "function": {
                    "name": "weather", "arguments": {"place": "Oslo", "date": "2025-03-09"}}}]})
            messages.append({"role": "tool", "name": "weather", "content": '{"celsius": 4}',
                             "tool_call_id": "call%05d" % (len(messages) - 1)})
        messages.append({"role": "assistant", "content": say()})
    messages = messages[:49] + [{"role": "user", "content": say()}]
    if messages[48]["role"] == "user":
        messages[48] = {"role": "assistant", "content": say()}
    return {"messages": messages, "tools": tools, "add_generation_prompt": True}


def main():
    in_venv()
    arguments = sys.argv[2:]
    cut_at = arguments.index("--") if "--" in arguments else len(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if cut_at:
            print("| vocabulary | text | what | clm, ms | x tokenizers | x tiktoken |")
            print("| --- | --- | --- | --: | --: | --: |")
        for argument in arguments[:cut_at]:
            name, directory = argument.split("=", 1)
            measure_tokenizer(name, directory, os.path.join(sys.argv[1], "bench_text"), folder)
        chat = os.path.join(folder, "conversation.json")
        with open(chat, "w", encoding="utf-8") as f:
            json.dump(conversation(), f)
        if arguments[cut_at + 1:]:
            here = os.path.dirname(os.path.abspath(__file__))
            subprocess.run([sys.executable, os.path.join(here, "render.py"),
                            os.path.join(sys.argv[1], "bench_render"), chat,
                            *arguments[cut_at + 1:]], check=True)


main()
