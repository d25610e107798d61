#!/bin/sh
# The whole test suite twice: as users build it, then under AddressSanitizer and UBSan.
set -eu
cd "$(dirname "$0")/.."

scripts/install-packages.sh --tests
jobs=${JOBS:-$(nproc 2>/dev/null || sysctl -n hw.ncpu)}

# CUDA kernels for one architecture, that of the GPU if there is one: all of them take minutes.
cuda=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .) || cuda=
[ "$cuda" != 90 ] || cuda=90a

for preset in ${PRESETS:-release asan}; do
    echo "== $preset"
    cmake --preset "$preset" -DBUILD_TESTING=ON -DCLM_CUDA_ARCHS="${CLM_CUDA_ARCHS:-${cuda:-80}}"
    cmake --build --preset "$preset" -j "$jobs"
    ctest --preset "$preset" -j "$jobs"
done
