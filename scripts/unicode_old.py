#!/usr/bin/env python3
"""Print src/tokenizer/punctuation_table.h: where parts of tokenizers go by older Unicode versions.

    pip install tokenizers==0.23.3
    python3 scripts/unicode_old.py > src/tokenizer/punctuation_table.h

Each list holds the characters of which the component says the opposite of their category in
Unicode 16, which the regular expression engine knows; the last one those of which the forms of
normalization do not know the combining class. Run it with a Python that has Unicode 14.
"""
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

everything = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def removed_by(split):
    out = set(everything)
    for i in range(0, len(everything), 4096):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, everything[i:i + 4096]))):
            out -= set(map(ord, piece))
    return out


def category(*names):
    return set().union(*(removed_by(pre_tokenizers.Split(Regex(r"\p{%s}" % n), "removed"))
                         for n in names))


def dropped_by(normalizer):
    return {c for c in everything if normalizer.normalize_str("a" + chr(c) + "b") == "ab"}


def bert(**options):
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**off, **options})


def unordered():
    """Marks that the normalization forms do not sort; those of Unicode 15 and 16 among them."""
    nfd, out = normalizers.NFD(), set()
    for c in everything:
        order = unicodedata.combining(chr(c))
        text = "a" + chr(c) + "\u0334" if order > 1 else "a\u0323" + chr(c)
        if order and nfd.normalize_str(text) == text:
            out.add(c)
    return out | {c for c in category("M") if unicodedata.category(chr(c)) == "Cn"}


def main():
    ascii_symbols = set(map(ord, "$+<=>^`|~"))
    lists = {
        "punctuation": (removed_by(pre_tokenizers.Punctuation("removed")),
                        category("P") | ascii_symbols),
        "nonspacing": (dropped_by(bert(strip_accents=True)), category("Mn")),
        "combining": (dropped_by(normalizers.StripAccents()), category("M")),
        "other": (dropped_by(bert(clean_text=True)) - {0, 0xFFFD},
                  category("Cc", "Cf", "Co") - {0, 9, 10, 13}),
    }
    lists = {name + "_changes": said ^ now for name, (said, now) in lists.items()}
    lists["unordered"] = unordered()
    print("/* tokenizer/punctuation_table.h: characters whose category has changed since the version that a\n"
          " * component of tokenizers knows. Made by scripts/unicode_old.py. */")
    print("#ifndef TOKENIZER_PUNCTUATION_TABLE_H\n#define TOKENIZER_PUNCTUATION_TABLE_H\n\n#include <stdint.h>\n")
    print("struct change_range {\n    int32_t first;\n    int32_t last;\n};")
    for name, characters in lists.items():
        runs = []
        for c in sorted(characters):
            if runs and runs[-1][1] == c - 1:
                runs[-1][1] = c
            else:
                runs.append([c, c])
        print(f"\nstatic const struct change_range {name}[] = {{")
        line = "   "
        for first, last in runs:
            item = f" {{0x{first:X}, 0x{last:X}}},"
            if len(line + item) > 100:
                print(line)
                line = "   "
            line += item
        print(line + "\n};")
    print("\n#endif")


main()
