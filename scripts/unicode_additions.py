#!/usr/bin/env python3
"""Print src/tokenizer/unicode_additions.h: what Unicode 16 has and older tables do not.

    pip install tokenizers==0.23.3
    python3 scripts/unicode_additions.py > src/tokenizer/unicode_additions.h

The categories and scripts are asked of the regular expression engine inside `tokenizers`, which
is what a tokenizer.json means by \\p{..}; the baseline is Python's own unicodedata, so run it with
a Python whose unicodedata.unidata_version is 14 or older.
"""
import unicodedata

from tokenizers import Regex, pre_tokenizers

CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co"
              .split())
SCRIPTS = ("Arabic Armenian Balinese Batak Bengali Brahmi Cyrillic Devanagari Egyptian_Hieroglyphs "
           "Ethiopic Georgian Glagolitic Greek Gujarati Gurmukhi Han Hangul Hebrew Hiragana Kannada "
           "Katakana Kawi Khmer Lao Latin Malayalam Mongolian Myanmar Oriya Sinhala Tamil Telugu "
           "Thai Tibetan Common Inherited Kaithi Khojki Nko Nandinagari Sharada Vithkuqi").split()


def members(pattern, characters):
    out = set(characters)
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    for i in range(0, len(characters), 4096):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, characters[i:i + 4096]))):
            out -= set(map(ord, piece))
    return out


def ranges(values):
    """(first, last, value) of runs of neighbouring code points with one value."""
    out = []
    for c in sorted(values):
        if out and out[-1][1] == c - 1 and out[-1][2] == values[c]:
            out[-1][1] = c
        else:
            out.append([c, c, values[c]])
    return out


def main():
    everything = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    category = {}
    for name in CATEGORIES:
        for c in members(r"\p{%s}" % name, everything):
            if unicodedata.category(chr(c)) != name:
                category[c] = name
    script = {}
    for name in SCRIPTS:
        try:
            for c in members(r"\p{%s}" % name, sorted(category)):
                script[c] = name
        except Exception:
            continue
    print("/* tokenizer/unicode_additions.h: characters of Unicode 15 and 16, or whose category changed since\n"
          " * Unicode 14. Made by scripts/unicode_additions.py. */")
    print("#ifndef TOKENIZER_UNICODE_ADDITIONS_H\n#define TOKENIZER_UNICODE_ADDITIONS_H\n")
    print('#include "tokenizer/unicode.h"\n')
    print("static const struct unicode_range category_additions[] = {")
    for first, last, name in ranges(category):
        print(f'    {{0x{first:04X}, 0x{last:04X}, "{name}"}},')
    print("};\n\nstatic const struct unicode_range script_additions[] = {")
    for first, last, name in ranges(script):
        print(f'    {{0x{first:04X}, 0x{last:04X}, "{name}"}},')
    print("};\n\n#endif")


main()
