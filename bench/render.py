#!/usr/bin/env python3
"""Times Jinja2, as transformers uses it, and bench_render on the same conversation.

    pip install transformers==5.23.0 jinja2==3.1.6
    python bench/render.py build/bench/bench_render CONVERSATION.json TEMPLATE.jinja ...

Shown are the least and (the median) of many renderings, of: Jinja2 with the template compiled and the
messages prepared; transformers' render_jinja_template, which prepares them; clm's chat_render, which
does what the latter does. All begin with the conversation parsed: Python's objects, clm's document. The
factors are those of the least times; the last one is that of parsing the conversation's JSON and
rendering it, Python's json.loads and Jinja2 to clm's.
"""
import json
import subprocess
import sys
import time

import transformers.utils.chat_template_utils as ctu


def time_calls(call, times):
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1e6)
    taken.sort()
    return taken[0], taken[len(taken) // 2]


def measure(template, chat):
    """Jinja2 alone, with everything prepared, and transformers' function around it."""
    compiled = ctu._compile_jinja_template(template)
    context = dict(chat, messages=ctu._alias_reasoning_fields(chat["messages"]))
    context.setdefault("tools", None)
    context.setdefault("documents", None)
    rest = {k: v for k, v in chat.items() if k not in ("messages", "tools")}
    jinja = time_calls(lambda: compiled.render(**context), 300)
    whole = time_calls(lambda: ctu.render_jinja_template(
        [chat["messages"]], tools=chat.get("tools"), chat_template=template, **rest), 300)
    return jinja, whole, len(compiled.render(**context).encode())


def main():
    program, conversation, *templates = sys.argv[1:]
    with open(conversation, encoding="utf-8") as f:
        text = f.read()
    chat = json.loads(text)
    loading = time_calls(lambda: json.loads(text), 300)[0]
    print("| template | bytes | Jinja2 alone, us | transformers, us | clm, us | factors |")
    print("| --- | --: | --: | --: | --: | --: |")
    for path in templates:
        with open(path, encoding="utf-8", newline="") as f:
            source = f.read()
        try:
            jinja, whole, size = measure(source, chat)
        except Exception as e:  # a template that cannot render this conversation
            print("%s: %s" % (path, e), file=sys.stderr)
            continue
        made = subprocess.run([program, path, conversation, "3000"], capture_output=True, text=True)
        if made.returncode:
            print(made.stderr, file=sys.stderr)
            continue
        ours = json.loads(made.stdout)
        same = "" if ours["bytes"] == size else " (sizes differ!)"
        print("| %s | %d%s | %.0f (%.0f) | %.0f (%.0f) | %.1f (%.1f) | %.0f, %.0f, %.0f |" % (
            path.rsplit("/", 1)[-1].removesuffix(".jinja"), size, same, *jinja, *whole,
            ours["least_us"], ours["median_us"], jinja[0] / ours["least_us"],
            whole[0] / ours["least_us"],
            (loading + jinja[0]) / (ours["document_us"] + ours["least_us"])), flush=True)
    print("json.loads: %.0f us; clm's parser: %.1f us" % (loading, ours["document_us"]))


main()
