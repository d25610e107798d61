#!/bin/sh
# Runs every fuzz target, or those named, for FUZZ_SECONDS (60) each, from the corpus in
# tests/fuzz/corpus. New inputs stay in build-fuzz/corpus, a crashing one is left in build-fuzz/findings.
set -eu
cd "$(dirname "$0")/.."

scripts/install-packages.sh --fuzz
cmake --preset fuzz
cmake --build --preset fuzz -j "${JOBS:-$(nproc 2>/dev/null || sysctl -n hw.ncpu)}"
mkdir -p build-fuzz/findings

if [ $# = 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        [ -e "$source" ] || continue
        set -- "$@" "$(basename "$source" .c)"
    done
fi
[ $# -gt 0 ] || { echo "no fuzz targets in tests/fuzz" >&2; exit 1; }

failed=
for name in "$@"; do
    echo "== $name"
    mkdir -p "build-fuzz/corpus/$name"
    "build-fuzz/tests/$name" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=2048 \
        -max_len="${FUZZ_MAX_LEN:-65536}" -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="build-fuzz/findings/$name-" \
        "build-fuzz/corpus/$name" "tests/fuzz/corpus/$name" || failed="$failed $name"
done
[ -z "$failed" ] || { echo "findings in build-fuzz/findings:$failed" >&2; exit 1; }
