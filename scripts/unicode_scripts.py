#!/usr/bin/env python3
"""Print src/tokenizer/scripts_table.h: the scripts that the UnicodeScripts pre-tokenizer knows.

    pip install tokenizers==0.23.3
    python3 scripts/unicode_scripts.py > src/tokenizer/scripts_table.h

Asked of the pre-tokenizer itself: two characters are of one script if it does not cut between them.
Scripts have numbers, in the order of their first character; 0 is a character that never cuts.
"""
from tokenizers import pre_tokenizers

scripts = pre_tokenizers.UnicodeScripts()


def cuts(text):
    """Whether each neighbouring pair of text is cut; spaces and the like must not come first."""
    ends = {end for _, (_, end) in scripts.pre_tokenize_str(text)}
    return [i + 1 in ends for i in range(len(text) - 1)]


def is_any(c):
    return not cuts("a" + chr(c))[0] and not cuts("\u0627" + chr(c))[0]


def main():
    everything = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    runs, representatives = [], []
    for c in everything:
        if is_any(c):
            continue
        if runs and runs[-1][1] == c - 1 and not cuts(chr(c - 1) + chr(c))[0]:
            runs[-1][1] = c
            continue
        for number, other in enumerate(representatives):
            if not cuts(chr(other) + chr(c))[0]:
                break
        else:
            number = len(representatives)
            representatives.append(c)
        runs.append([c, c, number + 1])
    print("/* tokenizer/scripts_table.h: runs of characters of one script. Made by scripts/unicode_scripts.py. */")
    print("#ifndef TOKENIZER_SCRIPTS_TABLE_H\n#define TOKENIZER_SCRIPTS_TABLE_H\n\n#include <stdint.h>\n")
    print("static const struct {\n    int32_t first;\n    int32_t last;\n    uint8_t script;\n} script_runs[] = {")
    line = "   "
    for first, last, number in runs:
        item = f" {{0x{first:X}, 0x{last:X}, {number}}},"
        if len(line + item) > 100:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\n\n#endif")


main()
