#!/usr/bin/env python3
"""Make tests/data/tokenizer/patterns.json: how the reference cuts texts at expressions.

    pip install tokenizers==0.23.3
    python3 tests/tokenizer/make_patterns.py > tests/data/tokenizer/patterns.json
"""
import json

from tokenizers import Regex, pre_tokenizers

EXPRESSIONS = [
    r"\s", r"\S+", r"\w+", r"\W+", r"[\w]+", r"[^\W\d]+", r"\d+", r"\D+", r"\h+", r"\H+", r"\b", r"\B",
    r"\bfoo\b", r"[a-z&&[^aeiou]]+", r"[[a-c][x-z]]+", r"[^[a-c][x-z]]+", r"[\p{L}&&[^\p{Latin}]]+",
    r"[\p{L}&&\p{Lu}&&[^A]]", r"[^a-z&&[^b]]", r"a{2}+", r"a{2,3}+", r"a{,2}b", r"a{1,2}?", r"a++b", r"a?+a", r"a*+b",
    r"(?i:foo)", r"(?i)foo|BAR", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"(?m:a.b)", r"a.b", r"^.", r".$", r"\Aa", r"o\z",
    r"o\Z", r"(?<=a)b", r"(?<!a)b", r"a(?=b)", r"a(?!b)", r"(?>a+)b", r"(a|b)(c|d)", r"(?<name>a)b", r"x*", r"",
    r"\p{Han}+", r"\p{Hiragana}", r"\p{^L}+", r"\P{L}+", r"[\P{L}]+", r"[^\P{L}]+", r"\p{Lu}\p{Ll}*", r"\p{Letter}+",
    r"\p{N}{1,3}", r"\d{1,3}(?=(?:\d{3})*\b)", r"[[:space:]]+", r"[[:digit:][:space:]]+", r"\x41|\x{e9}|\u00f1",
    r"[\x41-\x43]", r"[]a]+", r"[a\]b]+", r"[a-]+", r"[\b]", r"\t|\n|\r", r"[\n-\r]+", r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]",
    r" ?[^(\s|[.,!?…。，、।۔،])]+", r"\.", r"{", r"a{", r"a{x}", r"\p{P}|\p{S}", r"[一-龥぀-ゟ゠-ヿ]+", r"\p{M}+", r"\p{sc}",
    r"[[:punct:]]", r"[^[:punct:]\s]+", r"[[:blank:]]+", r"[[:punct:]a-c&&[^!]]+",
]
TEXTS = [
    "foo Foo FOO bar foobar foo_bar 123 4567890 x12y",
    "aaaaa aab aaab ab b ba abab axb a\nb ac ad bc bd cab",
    "caf\u00e9 e\u0301 \u00f1 \u00df \u0130stanbul \u01c5 \u02b0 \u00aa \u24d0 \u2167 \u00bd \u00b2 \u2460 \U00010400",
    "\u4f60\u597d\u4e16\u754c \u65e5\u672c\u8a9e \u3072\u3089\u304c\u306a \u30ab\u30bf\u30ab\u30ca \u30fc \ud55c\uad6d\uc5b4 \U0002ebf0\U00031350",
    "it's IT'S we'll WE'LL '\u017f x'\u017ft I'm y'all'd've",
    "a\tb\nc\r\nd\u0085e\u00a0f\u1680g\u180eh\u2028i\u200bj\u3000k\ufeffl\x1cm\x0bn\x0co",
    "ends with newline\n", "\n\nstarts\n\nand ends\n\n", "o", "",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \u2026\u3002\uff0c\u3001\u0964\u06d4\u060c a{ a{x} [x] {2}",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \U0001f642\u200d\U0001f469 \u1c89\u1c8a\u0897\U00010d40",
]


def main():
    rows = []
    for expression in EXPRESSIONS:
        try:
            split = pre_tokenizers.Split(Regex(expression), "isolated")
            removed = pre_tokenizers.Split(Regex(expression), "removed")
        except Exception:
            continue
        for text in TEXTS:
            rows.append({"regex": expression, "text": text,
                         "isolated": [piece for piece, _ in split.pre_tokenize_str(text)],
                         "removed": [piece for piece, _ in removed.pre_tokenize_str(text)]})
    print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")


main()
