#!/bin/sh
# Builds the device layer and its tests for 64-bit ARM and runs them under qemu's emulation of one.
# Usage: scripts/test-neon.sh [BUILD_FOLDER]; exits 77 where a tool is missing.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-$root/build/neon}
compiler=aarch64-linux-gnu-gcc
emulator=qemu-aarch64

for tool in $compiler $emulator cmake; do
    if ! command -v $tool >/dev/null; then
        echo "skipped: $tool is not installed (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user)"
        exit 77
    fi
done

cmake -S "$root/tests/neon" -B "$build" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=$compiler \
    -DCMAKE_CROSSCOMPILING_EMULATOR=$emulator -DCMAKE_EXE_LINKER_FLAGS=-static \
    -DCMAKE_C_FLAGS=-DTEST_IS_SLOW=1 >/dev/null
cmake --build "$build"
ctest --test-dir "$build" --output-on-failure
