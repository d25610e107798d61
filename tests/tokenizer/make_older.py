#!/usr/bin/env python3
"""Makes the small checkpoints of tests/tokenizer/older, and what the libraries say of them.

    pip install sentencepiece==0.2.3 tiktoken==0.14.0 tokenizers==0.23.3 transformers==5.23.0
    python tests/tokenizer/make_older.py

Each folder holds the file or files of a checkpoint without tokenizer.json, and expected.json: a
list of [text, ids, decoded text]; the last is null where the library shows unknown tokens in a way of
its own. sentencepiece says it for tokenizer.model, tiktoken for ranks, tokenizers for vocab and
merges, transformers for what the files around these say.
"""
import base64
import io
import json
import os
import shutil

import unicodedata

import sentencepiece
import tiktoken
import tokenizers
import transformers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "older")
LINES = ["the quick brown fox jumps over the lazy dog", "she sells sea shells by the sea shore",
         "a tokenizer turns a text into numbers, and numbers into a text again",
         "日本語のテキストと中文文本", "Größe, naïve café, Ελληνικά", "x = f(x) + 1; // code 12345",
         "the cat sat on the mat and the rat sat on the cat", "１２３ ﬁne ﬂow ½ ㌀"]
TEXTS = LINES + ["", "a", "hello world", "  two  spaces  ", "tab\tand\nline", "emoji 😀 here",
                 "the" * 20, "ｆｕｌｌ　ｗｉｄｔｈ", "unseen: ж ñ 한국어", "it's they'll WE'VE 1234",
                 "<sep>the<sep> cat<sep>", "a\u0301 e\u0301", "\u2581 mark"]
SPM = {"spm-bpe": dict(model_type="bpe", byte_fallback=True, vocab_size=420,
                       normalization_rule_name="identity", remove_extra_whitespaces=False),
       "spm-bpe-nfkc": dict(model_type="bpe", vocab_size=200, character_coverage=0.98,
                            normalization_rule_name="nmt_nfkc"),
       "spm-unigram": dict(model_type="unigram", vocab_size=160,
                           normalization_rule_name="nmt_nfkc", hard_vocab_limit=False),
       "spm-unigram-plain": dict(model_type="unigram", vocab_size=420, byte_fallback=True,
                                 normalization_rule_name="identity", add_dummy_prefix=False,
                                 remove_extra_whitespaces=False, hard_vocab_limit=False),
       "spm-bpe-symbols": dict(model_type="bpe", byte_fallback=True, vocab_size=430,
                               normalization_rule_name="identity", add_dummy_prefix=False,
                               remove_extra_whitespaces=False,
                               user_defined_symbols=["<sep>"])}
MARKED = TEXTS + ["<s>the</s> a", "<|endoftext|>the", "the <extra> cat<extra>x", " <extra>",
                  "it 's . she do n't , ?"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_NAMED = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id",
                9: "eot_id"}
# Files around those of another folder: tokenizer_config.json and others. transformers 5 adds no <s>
# where nobody says so, though LlamaTokenizer is documented to.
AROUND = {
    "spm-not-legacy": ("spm-bpe", {"tokenizer_class": "LlamaTokenizer", "legacy": False,
                                   "add_bos_token": True, "add_eos_token": True},
                       {"added_tokens": {"<two>": 421, "<extra>": 420}}),
    "spm-no-prefix": ("spm-bpe", {"tokenizer_class": "LlamaTokenizer", "legacy": False,
                                  "add_bos_token": False, "add_prefix_space": False}, {}),
    "gpt2-defaults": ("vocab-merges", {"tokenizer_class": "GPT2Tokenizer"}, {}),
    "gpt2-wrapped": ("vocab-merges", {"tokenizer_class": "GPT2Tokenizer", "bos_token": "a",
                                      "eos_token": "<e>", "add_bos_token": True,
                                      "add_eos_token": True}, {}),
    "gpt2-map": ("vocab-merges", {"tokenizer_class": "GPT2Tokenizer"},
                 {"added_tokens": {"<extra>": 361, "<s>": 360, "</s>": 362},
                  "special_tokens_map": {
                      "bos_token": {"content": "<s>", "lstrip": False, "rstrip": True,
                                    "single_word": False, "normalized": True},
                      "eos_token": "</s>"}}),
    "qwen2-added": ("vocab-merges", {"tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
                                     "clean_up_tokenization_spaces": True},
                    {"added_tokens": {"<|endoftext|>": 360, "<extra>": 361},
                     "special_tokens_map": {"additional_special_tokens": ["<extra>"]}}),
}
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+")


def folder(name, config=None):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    if config is not None:
        write(path, "tokenizer_config.json", json.dumps(config))
    return path


def write(path, name, text):
    with open(os.path.join(path, name), "w", encoding="utf-8", newline="") as f:
        f.write(text)


def write_expected(path, encode, decode, texts=TEXTS):
    rows = []
    for text in texts:
        ids = encode(text)
        rows.append([text, ids, decode(ids)])
    write(path, "expected.json", json.dumps(rows, ensure_ascii=False, indent=0) + "\n")


def make_spm(name, options):
    path = folder(name, {"add_bos_token": False})
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES * 20),
                                             model_writer=model, minloglevel=2, **options)
    with open(os.path.join(path, "tokenizer.model"), "wb") as f:
        f.write(model.getvalue())
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    write_expected(path, sp.encode,
                   lambda ids: None if sp.unk_id() in ids else sp.decode(ids))


def trained():
    t = tokenizers.Tokenizer(tokenizers.models.BPE())
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(LINES * 20, tokenizers.trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=alphabet, show_progress=False))
    return t


def make_merges():
    path = folder("vocab-merges")
    t = trained()
    t.model.save(path)
    write_expected(path, lambda text: t.encode(text).ids, t.decode)


def rank_lines():
    """The ranks of the trained vocabulary, and as tiktoken's file."""
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(b): b for b in order}
    letters.update((chr(256 + i), b)
                   for i, b in enumerate(b for b in range(256) if b not in order))
    ranks = {bytes(letters[c] for c in token): i for token, i in trained().get_vocab().items()}
    return ranks, "".join("%s %d\n" % (base64.b64encode(token).decode(), rank)
                          for token, rank in sorted(ranks.items(), key=lambda x: x[1]))


def make_qwen():
    path = folder("qwen-tiktoken")
    ranks, text = rank_lines()
    write(path, "qwen.tiktoken", text)
    encoding = tiktoken.Encoding("q", pat_str=QWEN, mergeable_ranks=ranks, special_tokens={})
    write_expected(path, lambda text: encoding.encode_ordinary(
        unicodedata.normalize("NFC", text)), encoding.decode)


def make_llama3():
    path = folder("llama3-ranks")
    ranks, text = rank_lines()
    write(path, "tokenizer.model", text)
    reserved = iter(range(256))
    names = ["<|%s|>" % (LLAMA3_NAMED.get(i) or "reserved_special_token_%d" % next(reserved))
             for i in range(256)]
    special = {name: len(ranks) + i for i, name in enumerate(names)}
    encoding = tiktoken.Encoding("l", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens=special)
    write_expected(path, lambda text: [len(ranks)] + encoding.encode(text, allowed_special="all"),
                   encoding.decode, TEXTS + ["a<|eot_id|> b<|reserved_special_token_4|>1234567"])


def make_around(name, base, config, files):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(os.path.join(HERE, base), path)
    os.remove(os.path.join(path, "expected.json"))
    for file, content in {"tokenizer_config": config, **files}.items():
        write(path, file + ".json", json.dumps(content))
    t = transformers.AutoTokenizer.from_pretrained(path)
    write_expected(path, lambda text: t(text)["input_ids"], t.decode, MARKED)


for spm_name, spm_options in SPM.items():
    make_spm(spm_name, spm_options)
make_merges()
make_qwen()
make_llama3()
for around, (based, settings, others) in AROUND.items():
    make_around(around, based, settings, others)
