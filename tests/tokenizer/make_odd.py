#!/usr/bin/env python3
"""Makes tests/data/tokenizer/odd.json: legal forms of tokenizer.json that no released model has.

    pip install tokenizers==0.23.3
    python tests/tokenizer/make_odd.py

Each case is what a tokenizer has beside the model, and what the library makes of texts: ids with special tokens and without,
and the text that the ids without give. differ.py found the differences that these cases keep away.
"""
import json
import pathlib

from tokenizers import Tokenizer

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "tokenizer" / "odd.json"
ALPHABET = ["a", "b", "c", "é", "-", " ", "\n", "中", "e", "\u0301", "x", "y", "z", "1", "."]
TEXTS = ["", "a", "abc", "aab b", "éa é", "a\nb", "aaa", " ", "中a中", "b\n", "e\u0301ab", "xyz 1."]
EMPTY = ["a*", "b?", "", "x*|a", "(?=b)", "\\b", "a|", "^", "$", "\\s*", "a{0}", "(?<=a)", "\\d*",
         "(?:ab)?", "[ab]*", "\\A", "\\z"]
A, B = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
SPECIAL = {"SpecialToken": {"id": "y", "type_id": 0}}
BERT = {"type": "BertProcessing", "sep": ["z", 13], "cls": ["x", 11]}
ROBERTA = dict(BERT, type="RobertaProcessing", trim_offsets=False, add_prefix_space=True)
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def template(single, pair=(A, B)):
    return {"type": "TemplateProcessing", "single": single, "pair": list(pair),
            "special_tokens": {"y": {"id": "y", "ids": [12], "tokens": ["y"]}}}


def sequence(*processors):
    return {"type": "Sequence", "processors": list(processors)}


POST = [sequence(), sequence(BYTES), template([]), sequence(template([SPECIAL, A]), BERT),
        sequence(template([SPECIAL, A]), ROBERTA), sequence(template([A, A]), BERT, BYTES),
        sequence(template([SPECIAL, A], [B, A, SPECIAL]), template([A], [B, A, SPECIAL])),
        sequence(BERT, template([SPECIAL, A])), sequence(BERT, ROBERTA), sequence(template([]), BERT),
        sequence(sequence(template([A, SPECIAL])), template([SPECIAL, A])),
        sequence(template([A, A], [A, B, SPECIAL, SPECIAL]), template([A]))]


def cases():
    for post in POST:
        yield {"post_processor": post}
    for expression in EMPTY:
        pattern = {"Regex": expression}
        yield {"normalizer": {"type": "Replace", "pattern": pattern, "content": "-"}}
        yield {"decoder": {"type": "Replace", "pattern": pattern, "content": "-"}}
        yield {"decoder": {"type": "Sequence", "decoders": [
            {"type": "Fuse"}, {"type": "Replace", "pattern": pattern, "content": ""}]}}
        for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
            yield {"pre_tokenizer": {"type": "Split", "pattern": pattern, "behavior": behavior,
                                     "invert": behavior == "Contiguous"}}


VOCAB = [[piece, -1.0 - 0.01 * i]
         for i, piece in enumerate(["<unk>"] + ALPHABET + ["aa", "aab", "ab", "bc"])]
MODEL = {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": VOCAB}


def describe(parts):
    spec = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None, "model": MODEL}
    spec.update(parts)
    t = Tokenizer.from_str(json.dumps(spec))
    rows = []
    for text in TEXTS:
        plain = t.encode(text, add_special_tokens=False).ids
        rows.append([text, t.encode(text).ids, plain, t.decode(plain)])
    return {"parts": json.dumps(parts), "rows": rows}


made = [json.dumps(describe(parts), separators=(",", ":")) for parts in cases()]
OUT.write_text('{"model":%s,"cases":[\n%s\n]}\n' % (json.dumps(json.dumps(MODEL)), ",\n".join(made)))
