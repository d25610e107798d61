#!/usr/bin/env python3
"""Writes src/template/characters_tables.c: what Python's str says of characters and utf8proc does not.

    python3 scripts/template_characters.py > src/template/characters_tables.c
"""
import sys
import unicodedata

CHARS = [chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c <= 0xDFFF]


def ranges(name, test):
    out = []
    for c in map(ord, filter(test, CHARS)):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    print("\nconst struct character_range %s[] = {" % name)
    line = "   "
    for first, last in out:
        item = " {0x%X, 0x%X}," % (first, last)
        if len(line + item) > 98:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\nconst size_t n_%s = sizeof %s / sizeof %s[0];" % (name, name, name))


def specials(name, convert, plain=None):
    print("\nconst struct character_special %s[] = {" % name)
    line = "   "
    for c in CHARS:
        to = convert(c)
        if len(to) == 1 and (plain is None or to == plain(c)):
            continue
        item = " {0x%X, {%s}}," % (ord(c), ", ".join("0x%X" % ord(x) for x in to))
        if len(line + item) > 98:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\nconst size_t n_%s = sizeof %s / sizeof %s[0];" % (name, name, name))


print("/* Made by scripts/template_characters.py from Unicode %s. */" % unicodedata.unidata_version)
print("/* clang-format off */")
print('#include "template/characters.h"')
category = unicodedata.category
ranges("character_digits", lambda c: c.isdigit() and not c.isdecimal())
ranges("character_numerics", lambda c: c.isnumeric() and not c.isdigit())
ranges("character_other_lower", lambda c: c.islower() and category(c) != "Ll")
ranges("character_other_upper", lambda c: c.isupper() and category(c) != "Lu")
specials("character_special_upper", str.upper)
specials("character_special_title", str.title)
specials("character_special_fold", str.casefold, str.lower)
