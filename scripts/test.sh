#!/bin/sh
# The whole test suite twice: as users build it, then under AddressSanitizer and UBSan.
set -eu
cd "$(dirname "$0")/.."

scripts/install-packages.sh --tests
jobs=${JOBS:-$(nproc 2>/dev/null || sysctl -n hw.ncpu)}

for preset in ${PRESETS:-release asan}; do
    echo "== $preset"
    cmake --preset "$preset" -DBUILD_TESTING=ON -DCLM_CUDA_ARCHS="${CLM_CUDA_ARCHS:-native}"
    cmake --build --preset "$preset" -j "$jobs"
    ctest --preset "$preset" -j "$jobs"
done
