#!/usr/bin/env python3
"""Refuse an #include that goes up the layers.

    tests/layers.py SOURCE_DIR    check src/ and include/
    tests/layers.py --self-test   check that each kind of mistake is found

Every folder of src/ is a layer and may include itself, what ALLOWED gives it, and the public
header. An include is written from src/: "layer/file.h".
"""
import pathlib
import re
import sys
import tempfile

# A layer, and the layers it may use besides itself. Lowest first, as in CMakeLists.txt.
ALLOWED = {"base": set()}
ALLOWED["format"] = {"base"}
ALLOWED["device"] = {"base"}
ALLOWED["tokenizer"] = {"base", "format"}
ALLOWED["template"] = {"base", "format"}
for above in ("cache", "nn", "models", "engine", "generate", "cli"):
    ALLOWED[above] = set(ALLOWED)

PUBLIC = "clm/clm.h"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]*)"|<([^>\n]*)>)', re.M)


def mistake(layer, path, root):
    """What is wrong with #include "path" in a file of the layer, or None."""
    if path == PUBLIC:
        return None
    target, slash, _ = path.partition("/")
    if not slash:
        return 'write the path from src/: "%s/%s"' % (layer, path)
    if target not in ALLOWED:
        return "%s is no layer" % target
    if target != layer and target not in ALLOWED[layer]:
        return "%s may use %s" % (layer, ", ".join(sorted(ALLOWED[layer])) or "no other layer")
    if not (root / "src" / path).is_file():
        return "there is no such file"
    return None


def check_file(file, layer, root):
    text = file.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        quoted, system = match.groups()
        if quoted is not None:
            problem = mistake(layer, quoted, root)
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


def check_order(root):
    """CMakeLists.txt links the layers in the same order as they are checked here."""
    text = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    layers = re.search(r"set\(CLM_LAYERS ([^)]*)\)", text)
    if not layers or layers.group(1).split() + ["cli"] != list(ALLOWED):
        yield "CMakeLists.txt: CLM_LAYERS is not %s" % " ".join(list(ALLOWED)[:-1])


def check(root):
    problems = list(check_order(root)) + list(check_public(root))
    for entry in sorted((root / "src").iterdir()):
        if not entry.is_dir() or entry.name not in ALLOWED:
            problems.append("src/%s: no layer of that name" % entry.name)
            continue
        for file in sorted(entry.rglob("*")):
            if file.suffix in (".c", ".h", ".cu", ".cuh", ".inc"):
                problems += check_file(file, entry.name, root)
    return problems


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
            for layer in ALLOWED:
                (root / "src" / layer).mkdir(parents=True)
                (root / "src" / layer / "b.h").touch()
            (root / "include" / "clm").mkdir(parents=True)
            (root / "CMakeLists.txt").write_text(
                "set(CLM_LAYERS %s)\n" % " ".join(list(ALLOWED)[:-1]))
            file = root / "src" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            problems = check(root)
            good = not problems if complaint is None else (len(problems) == 1
                                                           and complaint in problems[0])
            if not good:
                return "%s with %r gives %r" % (name, text, problems)
            (root / "CMakeLists.txt").write_text("set(CLM_LAYERS base nn)\n")
            if len(check(root)) != len(problems) + 1:
                return "another order in CMakeLists.txt is not found"
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
