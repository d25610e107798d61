#!/usr/bin/env python3
"""Renders the templates in cases.json anew, with transformers, and writes what they give.

    pip install transformers==5.23.0 jinja2==3.1.6
    python make_cases.py cases.json

To add cases, add {"template": "..."} lines and run it. The clock stands at 2025-03-09 08:05:07.
"""
import datetime
import json
import sys

import transformers.utils.chat_template_utils as ctu


class FixedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 3, 9, 8, 5, 7)


ctu.datetime = FixedDatetime


def render(template, context):
    try:
        return {"expected": ctu._compile_jinja_template(template).render(**context)}
    except Exception as e:
        return {"error": type(e).__name__, "message": str(e)}


def main(path):
    with open(path, encoding="utf-8") as f:
        data = json.load(f)
    with open(path, "w", encoding="utf-8") as f:
        f.write('{"context": %s,\n"cases": [\n' % json.dumps(data["context"], ensure_ascii=False))
        lines = []
        for case in data["cases"]:
            context = json.loads(json.dumps(data["context"]))
            made = dict({"template": case["template"]}, **render(case["template"], context))
            lines.append(json.dumps(made, ensure_ascii=False))
        f.write(",\n".join(lines) + "\n]}\n")


main(sys.argv[1])
