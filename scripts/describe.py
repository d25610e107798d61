#!/usr/bin/env python3
"""Write the manual page and the completions from what `clm help` says.

    scripts/describe.py CLM            write docs/clm.1 and completions/
    scripts/describe.py --check CLM    say which of them are out of date, exit status 1
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What may follow an option, where help says so only in prose; every word must be in its text.
VALUES = {
    "shape": "llama-3.2-1b llama-3.1-8b qwen3-0.6b qwen3-30b-a3b gemma-3-4b tinyllama-1.1b deepseek-v2-lite mamba2-1.3b falcon-h1-1.5b qwen3-next-80b-a3b storyteller",
    "bits": "2 3 4 5 6 8 16",
    "group-size": "32 64 128",
    "mode": "affine mxfp4 nvfp4 mxfp8",
    "cache-type": "auto f32 f16 bf16",
    "kv-bits": "none 4 8",
    "kv-group-size": "32 64 128",
}
FILES = ("MODEL", "FILE", "DIR")


class Option:
    """One line of a table: -l, --name value, and its text."""

    def __init__(self, letter, name, value, text):
        self.letter, self.name, self.value, self.text = letter, name, value or "", text
        self.repeats = self.value.endswith(" ...")
        self.value = self.value.replace(" ...", "")
        self.values = [v for v in self.value.split("|") if v != "N"] if "|" in self.value else []
        if name in VALUES:
            self.values = VALUES[name].split()
            for word in self.values:
                if not re.search(r"(?<![\w.-])%s(?![\w-])" % re.escape(word), text):
                    sys.exit("--%s does not say that it takes %s: %s" % (name, word, text))
        before = text.partition(": ")[0]
        self.brief = re.split(r"[;(]", before if " " in before else text)[0].strip()


class Command:
    def __init__(self, name, summary, text):
        head, _, table = text.partition("\noptions:\n")
        usage, said, *details = re.split(r"\n\n+", head.strip())
        if said.split() != summary.split():
            sys.exit("clm help %s is not about: %s" % (name, summary))
        self.name, self.summary = name, summary
        self.usage = usage.replace("usage: ", "", 1)
        self.operand = self.usage.split("[options]")[1].strip("[] ")
        self.details = [" ".join(p.split()) for p in details]
        self.options = [Option(*found) for found in options(table)]


def options(table):
    """The lines of a table: what hangs in column 30 belongs to the line above it."""
    for letter, name, value, text in re.findall(
            r"^  (?:-(\w), |    )--([\w-]+)(?: (\S.*?))??(?:  +|\n {30})(\S.*(?:\n {30}.*)*)$",
            table, re.M):
        yield letter, name, value, " ".join(text.split())


def ask(clm, *question):
    return subprocess.run([clm, "help", *question], stdout=subprocess.PIPE, check=True, text=True,
                          timeout=60).stdout


def read(clm):
    found = re.findall(r"^  (\w[\w-]*) +(\S.*)$", ask(clm).split("\ncommands:\n")[1], re.M)
    return [Command(name, summary, ask(clm, name)) for name, summary in found]


def quoted(text):
    """For the shells: in single quotes."""
    return "'%s'" % text.replace("'", "'\\''")


# The manual page.

MANUAL_HEAD = r""".\" Made by scripts/describe.py from what clm help says.
.TH CLM 1 "" "clm" "User commands"
.SH NAME
clm \- run language models
.SH SYNOPSIS
%s
.br
.B clm \-\-version
.SH DESCRIPTION
.B clm
runs causal language models: it maps the weights of a checkpoint, in safetensors files as Hugging
Face or MLX write them, and computes with them as they are stored.
Names of options are those of mlx\-lm.
.PP
Without
.B \-m
every command uses the small model that comes with
.BR clm ,
which tells stories for children.
.SH COMMANDS
"""

MANUAL_TAIL = r""".SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Failed; one line on standard error says what, where, and what to do.
.TP
.B 2
Wrong usage.
.TP
.B 130
Interrupted by Ctrl\-C; what there was until then has been written.
.SH ENVIRONMENT
.TP
.BR HF_HUB_CACHE ", " HF_HOME
Where the Hugging Face cache lies, in place of
.IR ~/.cache/huggingface .
.TP
.B CLM_MODEL
The model that is used without
.BR \-m .
.TP
.B CLM_DEVICE
Where to compute without
.BR \-\-device .
.TP
.B CLM_CPU
The best instruction set that may be used: scalar, avx2, avx512, amx or neon.
.TP
.B CLM_CACHE_DIR
The folder of what clm can make again, in place of
.I ~/.cache/clm
or
.IR $XDG_CACHE_HOME/clm ;
none: nothing is kept.
.TP
.B XDG_STATE_HOME
Where clm chat keeps the lines that were typed, in place of
.IR ~/.local/state .
.TP
.B NO_COLOR
When it is set, clm chat does not dim what the model thinks.
.SH FILES
.TP
.I share/clm/storyteller\-4bit
The model that is used without
.B \-m
and CLM_MODEL.
.TP
.I ~/.cache/clm/tokenizers
The tables of at most 16 large tokenizers, which are slow to make: some three times the size of a tokenizer.json each. They may be removed at any time.
.SH EXAMPLES
A story:
.PP
.RS
.nf
clm generate \-p "Tell me a story about a cat and a ball." \-\-temp 0.7
.fi
.RE
.PP
How fast a model of a given shape would run here:
.PP
.RS
.nf
clm bench \-\-shape llama\-3.2\-1b \-\-bits 4
.fi
.RE
"""


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return "\\&" + text if text[:1] in (".", "'") else text


def sentence(text):
    """A summary or an option's text, which help writes without."""
    return roff(text[0].upper() + text[1:] + ("" if text.endswith(".") else "."))


def manual_option(o):
    letter = '\\-%s ", " ' % o.letter if o.letter else ""
    value = ' " " \\fI%s\\fR' % roff(o.value).replace(" ", "\\ ") if o.value else ""
    repeats = '" ..."' if o.repeats else ""
    return ".TP\n.BR %s\\-\\-%s%s%s\n%s\n" % (letter, roff(o.name), value, repeats,
                                            sentence(o.text))


def manual(commands):
    synopsis = "\n.br\n".join(".B clm %s\n.RI %s" % (
        roff(c.name), roff(c.usage.split(" ", 2)[2]).replace(" ", "\\ ")) for c in commands)
    text = MANUAL_HEAD % synopsis
    for c in commands:
        text += ".SS %s\n%s\n" % (roff(c.name), sentence(c.summary))
        text += "".join(".PP\n%s\n" % roff(p) for p in c.details)
        text += "".join(map(manual_option, c.options))
    return text + MANUAL_TAIL


# bash.

BASH = r"""# bash completion for clm, made by scripts/describe.py from what clm help says

_clm_options() {
    case $1 in
%s
    *) echo "--version --help" ;;
    esac
}

# What may follow an option; fails where nothing can be guessed.
_clm_value() {
    case $1 in
%s
    *) return 1 ;;
    esac
}

_clm() {
    local commands="%s"
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=""

    COMPREPLY=()
    [ "$COMP_CWORD" -gt 1 ] && command=${COMP_WORDS[1]}
    if [ -z "$command" ] || [ "$command" = help ]; then
        COMPREPLY=($(compgen -W "$commands" -- "$word"))
    fi
    case $word in
    -*) COMPREPLY=($(compgen -W "$(_clm_options "$command")" -- "$word")) ;;
    *) _clm_value "$before" "$word" || _clm_operand "$command" "$word" ;;
    esac
}

_clm_files() {
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$1"))
}

_clm_operand() {
    case $1 in
    %s) _clm_files "$2" ;;
    esac
}

complete -F _clm clm
"""


def spelled(o):
    return (["-" + o.letter] if o.letter else []) + ["--" + o.name]


def taking_files(commands):
    return [c.name for c in commands if c.operand in FILES]


def bash(commands):
    tables, values, files = [], {}, set()
    for c in commands:
        words = [w for o in c.options for w in spelled(o)]
        tables.append('    %s) echo "%s" ;;' % (c.name, " ".join(words)))
        for o in c.options:
            if o.values:
                values["--" + o.name] = o.values
            elif o.value in FILES:
                files.update(spelled(o))
    cases = ["    %s) _clm_files \"$2\" ;;" % " | ".join(sorted(files))]
    cases += ["    %s) COMPREPLY=($(compgen -W \"%s\" -- \"$2\")) ;;" % (name, " ".join(v))
              for name, v in sorted(values.items())]
    return BASH % ("\n".join(tables), "\n".join(cases), " ".join(c.name for c in commands),
                   " | ".join(taking_files(commands)) or "-")


# zsh.

ZSH = r"""#compdef clm
# zsh completion for clm, made by scripts/describe.py from what clm help says

_clm() {
    local -a commands
    local context state line curcontext=$curcontext

    commands=(
%s
    )
    _arguments -C '--version[show the version]' '--help[show help]' '1:command:->command' \
        '*::argument:->argument'
    case $state in
    command) _describe command commands ;;
    argument)
        curcontext="${curcontext%%:*:*}:clm-$words[1]:"
        case $words[1] in
%s
        esac
        ;;
    esac
}

_clm "$@"
"""


def zsh_option(o):
    text = "[%s]" % o.brief.replace("[", "\\[").replace("]", "\\]")
    if o.values:
        text += ":%s:(%s)" % (o.name, " ".join(o.values))
    elif o.value:
        text += ":%s:%s" % (o.value, "_files" if o.value in FILES else "")
    if o.repeats:
        return quoted("*--" + o.name + text)
    if o.letter:
        return "'(-%s --%s)'{-%s,--%s}%s" % (o.letter, o.name, o.letter, o.name, quoted(text))
    return quoted("--" + o.name + text)


def zsh(commands):
    names = "\n".join("        %s" % quoted("%s:%s" % (c.name, c.summary)) for c in commands)
    cases = []
    for c in commands:
        specs = [zsh_option(o) for o in c.options]
        if c.operand in FILES:
            specs.append(quoted("*:%s:_files" % c.operand.lower()))
        if c.operand == "COMMAND":
            cases.append("        %s) _describe command commands ;;" % c.name)
        else:
            cases.append("        %s)\n            _arguments \\\n                %s\n            ;;"
                         % (c.name, " \\\n                ".join(specs)))
    return ZSH % (names, "\n".join(cases))


# fish.

def fish(commands):
    lines = ["# fish completion for clm, made by scripts/describe.py from what clm help says", "",
             "complete -c clm -f",
             "complete -c clm -n __fish_use_subcommand -l version -d 'show the version'",
             "complete -c clm -n __fish_use_subcommand -l help -d 'show help'"]
    lines += ["complete -c clm -n __fish_use_subcommand -a %s -d %s" % (c.name, fish_quoted(c.summary))
              for c in commands]
    for c in commands:
        inside = "complete -c clm -n '__fish_seen_subcommand_from %s'" % c.name
        lines.append("")
        if c.operand == "COMMAND":
            lines.append("%s -a '%s'" % (inside, " ".join(d.name for d in commands)))
        elif c.operand in FILES:
            lines.append(inside + " -F")
        for o in c.options:
            letter = " -s " + o.letter if o.letter else ""
            takes = ""
            if o.values:
                takes = " -x -a '%s'" % " ".join(o.values)
            elif o.value:
                takes = " -r -F" if o.value in FILES else " -x"
            lines.append("%s%s -l %s%s -d %s" % (inside, letter, o.name, takes,
                                                fish_quoted(o.brief)))
    return "\n".join(lines) + "\n"


def fish_quoted(text):
    return "'%s'" % text.replace("\\", "\\\\").replace("'", "\\'")


OUTPUTS = {
    "docs/clm.1": manual,
    "completions/clm.bash": bash,
    "completions/_clm": zsh,
    "completions/clm.fish": fish,
}


def main():
    words = sys.argv[1:]
    check = words[:1] == ["--check"]
    if len(words) != 1 + check:
        sys.exit(__doc__)
    commands = read(words[-1])
    stale = []
    for name, write in OUTPUTS.items():
        path, text = ROOT / name, write(commands)
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit("out of date, run scripts/describe.py CLM: " + " ".join(stale))


main()
