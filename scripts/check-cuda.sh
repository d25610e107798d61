#!/bin/sh
# The tests of kernels under compute-sanitizer, a line for each test and tool; needs a GPU.
# Usage: scripts/check-cuda.sh [BUILD_FOLDER [TOOL...]]; tools are memcheck and racecheck, or others
# that compute-sanitizer has. LIMIT: seconds that a test is given. Exits 1 if anything is found, 77
# where there is no compute-sanitizer.
#
# Tests do as little as launches every kernel, and those of many cases share these among processes.
# Launches wait for each other: racecheck (2025.3) fails in clusters that begin early in a graph.
set -eu

build=${1:-$(dirname "$0")/../build}
[ $# -eq 0 ] || shift
limit=${LIMIT:-300}
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
port=50000
logs=$(mktemp -d)
export CLM_DEVICE=cuda CLM_TEST_SLOW=1

if [ ! -x "$sanitizer" ]; then
    echo "skipped: there is no compute-sanitizer (it comes with CUDA)"
    exit 77
fi

# Into how many parts a test's cases are shared.
parts_of() {
    case $1 in
    device_cuda_waiting) echo 6 ;;
    device_cuda_experts) echo 1 ;;
    generate_settle) echo 3 ;;
    *) echo 2 ;;
    esac
}

# check TOOL PROGRAM PART/PARTS
check() {
    name=$1.${2##*/}.${3%/*}
    options=
    case $1 in
    memcheck) options="--report-api-errors no" ;; # a test wants a petabyte, to be refused
    racecheck) options=--force-blocking-launches ;;
    esac
    begin=$(date +%s)
    rc=0
    [ "${3#*/}" = 1 ] || export CLM_TEST_PART="$3"
    timeout -k 5 "$limit" "$sanitizer" --port $port --tool "$1" $options "$2" \
        >"$logs/$name" 2>&1 || rc=$?
    echo "$rc $(($(date +%s) - begin))" >"$logs/$name.end"
}

bad=0
for tool in ${*:-memcheck racecheck}; do
    for program in "$build"/tests/device_cuda* "$build"/tests/generate_settle; do
        [ -f "$program" ] && [ -x "$program" ] || continue
        # Kernels there wait for each other, on one GPU, which has them one at a time here.
        [ "${program##*/}" != device_cuda_group ] || continue
        parts=$(parts_of "${program##*/}")
        part=0
        while [ $part -lt "$parts" ]; do
            check "$tool" "$program" $part/"$parts" &
            part=$((part + 1))
            port=$((port + 12)) # ten are looked at
        done
    done
    wait
    for program in "$build"/tests/device_cuda* "$build"/tests/generate_settle; do
        [ -f "$program" ] && [ -x "$program" ] || continue
        name=$tool.${program##*/}
        clean=$(grep -l -E '(ERROR|RACECHECK) SUMMARY: 0 (errors|hazards)' "$logs/$name".[0-9] | wc -l)
        passed=$(grep -l '^0 ' "$logs/$name".*.end | wc -l)
        time=$(cut -d' ' -f2 "$logs/$name".*.end | sort -n | tail -1)
        if grep -q SKIPPED "$logs/$name".[0-9]; then
            state=skipped
        elif [ "$clean" -eq "$(parts_of "${program##*/}")" ] && [ "$clean" -eq "$passed" ]; then
            state=clean
        elif grep -q '^124 ' "$logs/$name".*.end; then
            state="no end within $limit s"
        else
            state="FAILED: $(grep -h -E 'SUMMARY|FAILED' "$logs/$name".[0-9] | sort | uniq -c | tr '\n' ' ')"
        fi
        [ "$state" = clean ] || bad=1
        echo "$tool ${program##*/}: $state, $time s"
    done
done
if [ $bad = 0 ]; then
    rm -r "$logs"
else
    echo "What the tools said is in $logs"
fi
exit $bad
