#!/usr/bin/env python3
"""Random small tokenizer.json files of every kind, read by clm and by Hugging Face's tokenizers.

    pip install tokenizers==0.23.3
    python tests/tokenizer/differ.py CLM [--seed N] [--count N] [--drop] [--keep DIR]

Each file has a random model, normalizer, pre-tokenizer, post-processor, decoder and added tokens;
random texts are encoded and random ids decoded by both, and what streams is held to what is decoded
at once. A difference is shown with its seed, which makes the same file again. What clm refuses, with
an error, is counted by its message. --drop leaves a key out of each file, --keep writes files that
differ.

Two things differ for no fault: of added tokens that are the same text once normalized the library
finds now this one, now that one; and where the ids of a vocabulary have gaps, it may give an added
token the id of another, which is then not found any more.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

SPACES = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "\u200b"]
LETTERS = list("abcABC") + ["é", "e\u0301", "ß", "İ", "ﬁ", "ж", "Σ", "ς", "ñ", "Ǆ"]
MARKS = ["▁", "Ġ", "Ċ", "#", "##", "</w>", "<", ">", "|", "'s", "'t", "n't", "do not", ".", ",", "!",
         "?", "-", "_", "'", "’", "«", "$", "+", "^", "`", "~", "0", "7", "12", "½", "²", "٣"]
WIDE = ["中", "文", "日本", "ひ", "カ", "ー", "한", "ไ", "ท", "क", "ि", "😀", "👩\u200d👩", "🇩🇪", "\u0300",
        "\u0000", "\ufffd", "\ufeff", "\u202e", "\U00020000", "ａ", "１", "㌀", "ℌ", "\x7f", "\x01"]
TOKENS = ["<s>", "</s>", "<unk>", "<pad>", "[CLS]", "[SEP]", "ab", "a", " b", "c ", "<x y>", "中",
          "é", "ﬁ", "\n", "▁a", "aa", "<0x41>"]
ALPHABET = ["a", "b", "c", "A", "é", " ", "▁", "Ġ", "Ċ", "中", "1", ".", "'", "\n", "Ã", "©", "#"]


class Maker:
    """All of it from one source of random numbers."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def flag(self):
        return self.r.random() < 0.5

    def maybe(self, make, p=0.5):
        return make() if self.r.random() < p else None

    def text(self, most=14):
        sets = [LETTERS, LETTERS, SPACES, MARKS, WIDE, TOKENS]
        return "".join(self.r.choice(self.r.choice(sets)) for _ in range(self.r.randrange(most)))

    def word(self, least=1):
        return "".join(self.r.choice(ALPHABET) for _ in range(self.r.randint(least, 3)))

    # Models.

    def bytes(self):
        return ["<0x%02X>" % i for i in range(256)]

    def bpe(self):
        r = self.r
        prefix = r.choice([None, None, None, "", "##", "▁"])
        suffix = r.choice([None, None, None, "", "</w>"])
        pieces = [c for c in ALPHABET if r.random() < 0.8]
        if prefix:
            pieces += [prefix + c for c in pieces]
        if suffix:
            pieces += [p + suffix for p in pieces]
        vocab, merges = list(dict.fromkeys(pieces)), []
        for _ in range(r.randrange(40)):
            left, right = r.choice(vocab), r.choice(vocab)
            made = left + (right[len(prefix):] if prefix else right)
            if prefix and not right.startswith(prefix):
                continue
            if (left, right) not in merges:
                merges.append((left, right))
                if made not in vocab:
                    vocab.append(made)
        fallback = self.flag()
        if fallback and self.r.random() < 0.8:
            vocab = self.bytes() + vocab
        unk = r.choice([None, "<unk>", "a"])
        if unk and unk not in vocab:
            vocab.append(unk)
        ids = {piece: i for i, piece in enumerate(vocab)}
        if r.random() < 0.3:
            ids = {piece: i * 2 + (i % 3 == 0) for piece, i in ids.items()}
        pairs = [" ".join(m) for m in merges] if r.random() < 0.5 and not any(
            " " in p for m in merges for p in m) else [list(m) for m in merges]
        return {"type": "BPE", "dropout": None, "unk_token": unk, "vocab": ids, "merges": pairs,
                "continuing_subword_prefix": prefix, "end_of_word_suffix": suffix,
                "fuse_unk": self.flag(), "byte_fallback": fallback, "ignore_merges": self.flag()}

    def unigram(self):
        r = self.r
        pieces = list(dict.fromkeys([self.word() for _ in range(r.randrange(1, 60))]
                                    + [c for c in ALPHABET if r.random() < 0.7]))
        fallback = self.flag()
        if fallback and r.random() < 0.8:
            pieces = self.bytes() + pieces
        unk = r.choice([0, 0, len(pieces) - 1, None])
        pieces[0:0] = ["<unk>"] if r.random() < 0.7 else []
        return {"type": "Unigram", "unk_id": unk, "byte_fallback": fallback,
                "vocab": [[p, r.choice([0.0, -1.0, -2.5, -r.random() * 10, -12.0])]
                          for p in pieces]}

    def wordpiece(self):
        r = self.r
        prefix = r.choice(["##", "##", "", "▁"])
        pieces = [c for c in ALPHABET if r.random() < 0.9]
        pieces += [prefix + p for p in pieces] + [self.word() for _ in range(20)]
        pieces += [prefix + self.word() for _ in range(20)]
        vocab = list(dict.fromkeys(pieces + ["[UNK]"]))
        return {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": prefix,
                "max_input_chars_per_word": r.choice([100, 100, 5]),
                "vocab": {p: i for i, p in enumerate(vocab)}}

    def wordlevel(self):
        vocab = list(dict.fromkeys(["<unk>"] + [self.word() for _ in range(60)] + ALPHABET))
        return {"type": "WordLevel", "unk_token": "<unk>",
                "vocab": {p: i for i, p in enumerate(vocab)}}

    # Stages.

    def regex(self):
        return self.r.choice([r"\s", r"\s+", r"\s*", "a*", "b?", "", "x*|a", "(?=b)", r"\b", "a|",
                              "^", "$", r"\d+", r"\d{1,3}", r"\p{L}+", r"[^\s\p{L}]+", " ?[a-c]+",
                              r"(?<=a)", r"(?i:A)", r"\A", r"\z", r"\Z", ".", ".+", r"\w", r"\W+",
                              r"[[:punct:]]", r"\p{Han}", r"\n|\r\n", r"\X", r"\R", "a{0}", "(a)\\1",
                              r"[a-c&&[^b]]", r"\h", r"(?m:.)", r" {2,}", r"'(?:s|t)", r"\G.", r"\K",
                              r"[\s\S]", "é", "\u0301", r"\x{4e2d}", r"\u00e9"])

    def pattern(self):
        return self.r.choice([{"String": self.r.choice(["a", " ", "▁", "ab", "aa", "", ".", "é",
                                                        "\n", "##"])},
                              {"Regex": self.regex()}])

    def content(self):
        return self.r.choice(["", "a", "▁", " ", "é", "xy", "\u0301", "b"])

    def normalizer(self, depth=0):
        r = self.r
        kind = r.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel",
                         "Strip", "Replace", "Replace", "Replace", "Prepend", "BertNormalizer",
                         "Sequence", "Sequence"])
        v = {"type": kind}
        if kind == "Strip":
            v.update(strip_left=self.flag(), strip_right=self.flag())
        elif kind == "Replace":
            v.update(pattern=self.pattern(), content=self.content())
        elif kind == "Prepend":
            v.update(prepend=r.choice(["▁", "a", " ", ""]))
        elif kind == "BertNormalizer":
            v.update(clean_text=self.flag(), handle_chinese_chars=self.flag(),
                     strip_accents=r.choice([None, True, False]), lowercase=self.flag())
        elif kind == "Sequence":
            v.update(normalizers=[] if depth > 1 else
                     [self.normalizer(depth + 1) for _ in range(r.randrange(4))])
        return v

    def pretokenizer(self, depth=0):
        r = self.r
        kind = r.choice(["Split", "Split", "Split", "ByteLevel", "Metaspace", "Digits", "Punctuation",
                         "BertPreTokenizer", "CharDelimiterSplit", "FixedLength", "WhitespaceSplit",
                         "Whitespace", "UnicodeScripts", "Sequence", "Sequence"])
        v = {"type": kind}
        behavior = r.choice(["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                             "Contiguous"])
        if kind == "Split":
            v.update(pattern=self.pattern(), behavior=behavior, invert=self.flag())
        elif kind == "ByteLevel":
            v.update(add_prefix_space=self.flag(), trim_offsets=self.flag(), use_regex=self.flag())
        elif kind == "Metaspace":
            v.update(replacement=r.choice(["▁", "▁", "_", "é"]), split=self.flag(),
                     prepend_scheme=r.choice(["always", "first", "never"]))
        elif kind == "Digits":
            v.update(individual_digits=self.flag())
        elif kind == "Punctuation":
            v.update(behavior=behavior)
        elif kind == "CharDelimiterSplit":
            v.update(delimiter=r.choice(["a", "-", " ", "é", "中"]))
        elif kind == "FixedLength":
            v.update(length=r.choice([1, 2, 3, 5]))
        elif kind == "Sequence":
            v.update(pretokenizers=[] if depth > 1 else
                     [self.pretokenizer(depth + 1) for _ in range(r.randrange(4))])
        return v

    def decoder(self, depth=0):
        r = self.r
        kind = r.choice(["ByteLevel", "ByteFallback", "Fuse", "Replace", "Replace", "Strip",
                         "Metaspace", "WordPiece", "BPEDecoder", "CTC", "Sequence", "Sequence",
                         "Sequence"])
        v = {"type": kind}
        if kind == "ByteLevel":
            v.update(add_prefix_space=True, trim_offsets=True, use_regex=True)
        elif kind == "Replace":
            v.update(pattern=self.pattern(), content=self.content())
        elif kind == "Strip":
            v.update(content=r.choice([" ", "a", "▁", "é"]), start=r.randrange(3), stop=r.randrange(3))
        elif kind == "Metaspace":
            v.update(replacement=r.choice(["▁", "▁", "_", "a"]), split=self.flag(),
                     prepend_scheme=r.choice(["always", "first", "never"]))
        elif kind == "WordPiece":
            v.update(prefix=r.choice(["##", "", "▁"]), cleanup=self.flag())
        elif kind == "BPEDecoder":
            v.update(suffix=r.choice(["</w>", "a", "é", ""]))
        elif kind == "CTC":
            v.update(pad_token=r.choice(["<pad>", "a", ""]), cleanup=self.flag(),
                     word_delimiter_token=r.choice(["|", " ", "b", ""]))
        elif kind == "Sequence":
            v.update(decoders=[] if depth > 1 else
                     [self.decoder(depth + 1) for _ in range(r.randrange(4))])
        return v

    def postprocessor(self, ids, depth=0):
        r = self.r
        kind = r.choice(["TemplateProcessing", "TemplateProcessing", "BertProcessing",
                         "RobertaProcessing", "ByteLevel", "Sequence"])
        v = {"type": kind}

        def pick():
            token = r.choice(list(ids))
            return [token, ids[token]]

        if kind == "TemplateProcessing":
            special = {}
            single = []
            for _ in range(r.randrange(3)):
                token, i = pick()
                n = r.choice([1, 1, 2])
                special[token] = {"id": token, "ids": [i] * n, "tokens": [token] * n}
                single.append({"SpecialToken": {"id": token, "type_id": 0}})
            single.insert(r.randrange(len(single) + 1), {"Sequence": {"id": "A", "type_id": 0}})
            v.update(single=single, pair=[{"Sequence": {"id": "A", "type_id": 0}},
                                          {"Sequence": {"id": "B", "type_id": 1}}],
                     special_tokens=special)
        elif kind == "BertProcessing":
            v.update(sep=pick(), cls=pick())
        elif kind == "RobertaProcessing":
            v.update(sep=pick(), cls=pick(), trim_offsets=self.flag(), add_prefix_space=self.flag())
        elif kind == "ByteLevel":
            v.update(add_prefix_space=True, trim_offsets=self.flag(), use_regex=True)
        else:
            v.update(processors=[] if depth > 1 else
                     [self.postprocessor(ids, depth + 1) for _ in range(r.randrange(3))])
        return v

    def added(self, ids):
        """Tokens of the vocabulary and others, each with any flags."""
        r, out, following = self.r, [], max(ids.values(), default=-1) + 1
        for content in r.sample(TOKENS, r.randrange(7)):
            known = ids.get(content)
            out.append({"id": following if known is None else known, "content": content,
                        "single_word": r.random() < 0.3, "lstrip": r.random() < 0.3,
                        "rstrip": r.random() < 0.3, "normalized": self.flag(),
                        "special": self.flag()})
            following += known is None
        out.sort(key=lambda t: t["id"])
        return out

    def drop_key(self, spec):
        """One key less, somewhere: older files lack some, and for most there is a default."""
        places = []

        def walk(v, inside):
            if isinstance(v, dict):
                places.extend((v, key) for key in v if inside != "vocab")
                for key, item in v.items():
                    if key not in ("vocab", "special_tokens"):
                        walk(item, key)
            elif isinstance(v, list) and inside not in ("vocab", "merges"):
                for item in v:
                    walk(item, inside)

        walk(spec, None)
        where, key = self.r.choice(places)
        return where.pop(key) and key

    def tokenizer(self):
        r = self.r
        model = r.choice([self.bpe, self.bpe, self.unigram, self.wordpiece, self.wordlevel])()
        vocab = model["vocab"]
        ids = dict(vocab) if isinstance(vocab, dict) else {p: i for i, (p, _) in enumerate(vocab)}
        added = self.added(ids)
        every = {**ids, **{t["content"]: t["id"] for t in added}}
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                "normalizer": self.maybe(self.normalizer), "pre_tokenizer": self.maybe(self.pretokenizer),
                "post_processor": self.maybe(lambda: self.postprocessor(every)),
                "decoder": self.maybe(self.decoder, 0.7), "model": model}, every


class Refused(Exception):
    pass


def ask(clm, command, folder, rows, *options):
    """What clm says to each row."""
    done = subprocess.run([clm, command, "-m", str(folder), *options], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120,
                          input="".join(json.dumps(row) + "\n" for row in rows).encode())
    if done.returncode not in (0, 1):
        raise SystemExit("clm %s ended with %d: %s" % (command, done.returncode, done.stderr))
    if done.returncode or done.stderr:
        raise Refused(done.stderr.decode().strip())
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


def quietly(call, *args, **options):
    """A panic of the library is no answer."""
    try:
        return call(*args, **options)
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        return None


def texts_of(maker, every):
    texts = ["", " ", "a", "  a  b ", "hello a ab abc", "\n"] + [maker.text() for _ in range(24)]
    tokens = list(every)
    return texts + ["".join(maker.r.choice(tokens) for _ in range(5)) for _ in range(6)]


def compare(clm, folder, spec, every, maker):
    """Yields (what, input, got, wanted) for each difference."""
    reference = quietly(Tokenizer.from_str, json.dumps(spec))
    if reference is None:
        return
    texts = texts_of(maker, every)
    lists = []
    for special in (True, False):
        wanted = [(text, quietly(reference.encode, text, add_special_tokens=special))
                  for text in texts]
        wanted = [(text, want.ids) for text, want in wanted if want is not None]
        got = ask(clm, "tokenize", folder, [{"text": text} for text, _ in wanted],
                  *([] if special else ["--no-special"]))
        for row, (text, want) in zip(got, wanted):
            if row["ids"] != want:
                yield "encode" + " --no-special" * (not special), text, row["ids"], want
            lists.append(want)
    ids = list(every.values())
    lists = lists[::3] + [[maker.r.choice(ids) for _ in range(maker.r.randrange(8))]
                          for _ in range(20)]
    for skip in (True, False):
        got = ask(clm, "detokenize", folder, [{"ids": i} for i in lists],
                  *(["--skip-special"] if skip else []))
        for row, these in zip(got, lists):
            want = quietly(reference.decode, these, skip_special_tokens=skip)
            if want is not None and row["text"] != want:
                yield "decode" + " --skip-special" * skip, these, row["text"], want
            if "".join(row["segments"]) != row["text"]:
                yield "stream", these, row["segments"], row["text"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clm", metavar="CLM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--keep")
    parser.add_argument("--drop", action="store_true", help="leave a key out of each file")
    parser.add_argument("--show", type=int, default=1, help="how many differences of a file")
    args = parser.parse_args()
    refused, differ, fine = collections.Counter(), 0, 0
    with tempfile.TemporaryDirectory() as root:
        folder = pathlib.Path(root)
        for seed in range(args.seed, args.seed + args.count):
            maker = Maker(seed)
            spec, every = maker.tokenizer()
            if args.drop:
                maker.drop_key(spec)
            (folder / "tokenizer.json").write_text(json.dumps(spec))
            try:
                found = list(compare(os.path.abspath(args.clm), folder, spec, every, maker))
            except Refused as error:
                refused[re.sub(r"^.*tokenizer.json: |line \d+|\d+", "", str(error))[:150]] += 1
                continue
            fine += not found
            if not found:
                continue
            differ += 1
            if args.keep:
                (pathlib.Path(args.keep) / ("%d.json" % seed)).write_text(
                    json.dumps(spec, ensure_ascii=False, indent=1))
            short = {k: v if k != "model" else {n: m for n, m in v.items()
                                                if n not in ("vocab", "merges")}
                     for k, v in spec.items() if k not in ("version", "truncation", "padding")}
            print("seed %d: %d differences; %s" % (seed, len(found),
                                                   json.dumps(short, ensure_ascii=False)))
            for what, given, got, want in found[:args.show]:
                print("  %s %r\n    %r, not\n    %r" % (what, given, got, want))
    print("%d equal, %d differ, %d refused" % (fine, differ, sum(refused.values())))
    for message, n in refused.most_common():
        print("%5d  %s" % (n, message))
    return differ > 0


if __name__ == "__main__":
    sys.exit(main())
