#!/usr/bin/env python3
"""The manual page and the completions know the options that `clm help COMMAND` shows, no others.

    tests/options.py CLM SOURCE_DIR
"""
import pathlib
import re
import subprocess
import sys

COMMANDS = "generate bench tokenize detokenize logits inspect models perplexity".split()
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")


def options(text):
    return set(OPTION.findall(text)) - {"help"}


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def manual(source, command):
    text = (source / "docs/clm.1").read_text().replace("\\-", "-")
    section = re.search(r"^\.SS %s$(.*?)^\.S[SH] " % command, text, re.M | re.S)
    return options(section.group(1)) if section else None


def bash(source, command):
    script = '. "$1"; _clm_options "$2"'
    return options(output("bash", "-c", script, "bash", str(source / "completions/clm.bash"), command))


def fish(source, command):
    found = set()
    for line in (source / "completions/clm.fish").read_text().splitlines():
        condition = re.search(r"-n '__clm_in ([^']*)'", line)
        option = re.search(r" -l ([a-z0-9-]+)", line)
        if condition and option and command in condition.group(1).split():
            found.add(option.group(1))
    return found


def zsh(source, command):
    text = (source / "completions/_clm").read_text()
    section = re.search(r"^ {8}%s\)(.*?);;" % command, text, re.M | re.S).group(1)
    for array in re.findall(r"\$(\w+)", section):
        section += re.search(r"^ {4}%s=\((.*?)^ {4}\)" % array, text, re.M | re.S).group(1)
    return options(section)


def main():
    clm, source = sys.argv[1], pathlib.Path(sys.argv[2])
    problems = []
    for command in COMMANDS:
        want = options(output(clm, "help", command))
        for where in (manual, bash, fish, zsh):
            got = where(source, command)
            if got is None or got != want:
                problems.append("%s, %s: has %s, not %s" % (
                    where.__name__, command, sorted((got or set()) - want) or "nothing more",
                    sorted(want - (got or set())) or "nothing less"))
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


main()
