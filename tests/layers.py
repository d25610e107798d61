#!/usr/bin/env python3
"""Refuse an #include that goes up the layers.

    tests/layers.py SOURCE_DIR    check src/ and include/
    tests/layers.py --self-test   check that each kind of mistake is found

Every folder of src/ is a layer and may include itself, the layers that its clm_layer(...) line in
CMakeLists.txt names, and the public header. An include is written from src/: "layer/file.h".
"""
import pathlib
import re
import sys
import tempfile

PUBLIC = "clm/clm.h"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]*)"|<([^>\n]*)>)', re.M)


def read_layers(root):
    """Layer -> the layers it may use besides itself, from CMakeLists.txt; the command may use all."""
    text = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    allowed = {}
    for match in re.finditer(r"^clm_layer\((\w+)([\w ]*)\)", text, re.M):
        lower = match.group(2).split()
        if not set(lower) <= set(allowed):
            sys.exit("CMakeLists.txt: %s uses a layer that comes after it" % match.group(1))
        allowed[match.group(1)] = set(lower)
    allowed["cli"] = set(allowed)
    return allowed


def mistake(layer, path, root, allowed):
    """What is wrong with #include "path" in a file of the layer, or None."""
    if path == PUBLIC:
        return None
    target, slash, _ = path.partition("/")
    if not slash:
        return 'write the path from src/: "%s/%s"' % (layer, path)
    if target not in allowed:
        return "%s is no layer" % target
    if target != layer and target not in allowed[layer]:
        return "%s may use %s" % (layer, ", ".join(sorted(allowed[layer])) or "no other layer")
    if not (root / "src" / path).is_file():
        return "there is no such file"
    return None


def check_file(file, layer, root, allowed):
    text = file.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        quoted, system = match.groups()
        if quoted is not None:
            problem = mistake(layer, quoted, root, allowed)
        else:
            problem = 'write it in quotes' if (root / "src" / system).is_file() else None
        if problem:
            line = text.count("\n", 0, match.start()) + 1
            yield "%s:%d: #include %s: %s" % (file.relative_to(root), line,
                                              quoted or system, problem)


def check_public(root):
    for file in sorted((root / "include").rglob("*.h")):
        for match in INCLUDE.finditer(file.read_text(encoding="utf-8")):
            if match.group(1) is not None:
                yield "%s: #include \"%s\": a public header stands alone" % (
                    file.relative_to(root), match.group(1))


def check(root):
    allowed = read_layers(root)
    problems = list(check_public(root))
    for entry in sorted((root / "src").iterdir()):
        if not entry.is_dir() or entry.name not in allowed:
            problems.append("src/%s: no layer of that name" % entry.name)
            continue
        for file in sorted(entry.rglob("*")):
            if file.suffix in (".c", ".h", ".cu", ".cuh", ".inc"):
                problems += check_file(file, entry.name, root, allowed)
    return problems


SELF_TEST_LAYERS = """
clm_layer(base)
clm_layer(format    base)
clm_layer(device    base)
clm_layer(tokenizer base format)
clm_layer(nn        base device)
clm_layer(engine    base format device nn)
clm_layer(generate  base format device tokenizer nn engine)
"""

# What a file says, and a word of the complaint; None: it is fine.
SELF_TEST = [
    ("nn/a.c", '#include "base/b.h"\n', None),
    ("nn/a.c", '#include "clm/clm.h"\n#include <stdio.h>\n', None),
    ("tokenizer/a.c", '#include "format/b.h"\n', None),
    ("cli/a.c", '#include "generate/b.h"\n', None),
    ("base/a.h", '#include "nn/b.h"\n', "no other layer"),
    ("base/a.c", '#  include\t"device/b.h"\n', "no other layer"),
    ("device/cpu/a.c", '#include "format/b.h"\n', "device may use base"),
    ("format/a.c", '#include "tokenizer/b.h"\n', "format may use base"),
    ("format/a.c", '#include "device/b.h"\n', "format may use base"),
    ("engine/a.cu", '#include "generate/b.h"\n', "engine may use"),
    ("generate/a.c", '#include "cli/b.h"\n', "generate may use"),
    ("nn/a.c", '#include "b.h"\n', "from src/"),
    ("nn/a.c", '#include "vendor/b.h"\n', "no layer"),
    ("nn/a.c", '#include "base/absent.h"\n', "no such file"),
    ("nn/a.c", '#include <engine/b.h>\n', "quotes"),
    ("vendor/a.c", "\n", "no layer of that name"),
    ("../include/clm/a.h", '#include "base/b.h"\n', "stands alone"),
]


def self_test():
    for name, text, complaint in SELF_TEST:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "CMakeLists.txt").write_text(SELF_TEST_LAYERS)
            for layer in read_layers(root):
                (root / "src" / layer).mkdir(parents=True)
                (root / "src" / layer / "b.h").touch()
            (root / "include" / "clm").mkdir(parents=True)
            file = root / "src" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            problems = check(root)
            good = not problems if complaint is None else (len(problems) == 1
                                                           and complaint in problems[0])
            if not good:
                return "%s with %r gives %r" % (name, text, problems)
    return None


def main():
    if sys.argv[1:] == ["--self-test"]:
        problem = self_test()
        if problem:
            sys.exit("self test: " + problem)
        return
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    problems = check(pathlib.Path(sys.argv[1]))
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


main()
