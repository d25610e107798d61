#!/usr/bin/env python3
"""The shared library shows what clm.h declares, all of it and no more, under its version."""
import argparse
import re
import subprocess
import sys


def said(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("library", "header", "nm", "readelf", "soname"):
        parser.add_argument("--" + name, required=True)
    options = parser.parse_args()
    with open(options.header, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    declared = set(re.findall(r"CLM_API [^;(]*?(clm_\w+)\(", text))
    lines = said(options.nm, "-D", "--defined-only", options.library).splitlines()
    shown = {line.split()[-1].split("@")[0] for line in lines}
    # Sanitizers and the linker have names of their own.
    shown = {name for name in shown if not name.startswith("_")}
    if len(declared) < 40 or shown != declared:
        sys.exit("%d functions declared; not shown: %s; shown beside them: %s" %
                 (len(declared), sorted(declared - shown), sorted(shown - declared)))
    if "soname: [%s]" % options.soname not in said(options.readelf, "-d", options.library):
        sys.exit("%s is not named %s" % (options.library, options.soname))


main()
