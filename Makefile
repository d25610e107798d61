# What people type. The build itself is CMake's; see CMakePresets.json.
PREFIX ?= /usr/local
PROMPT ?= Tell me a story about a cat and a ball.
# Kernels for all GPUs take minutes: these are for the one at hand.
CLM_CUDA_ARCHS ?= native
BENCH ?= --shape llama-3.2-1b --bits 4
export FUZZ_SECONDS ?= 60

.PHONY: all packages run test bench install fuzz clean help
.DEFAULT_GOAL := all

all: packages
	@cmake --preset release -DBUILD_TESTING=OFF -DCLM_CUDA_ARCHS="$(CLM_CUDA_ARCHS)" -DCMAKE_INSTALL_PREFIX="$(PREFIX)" --log-level=WARNING
	@cmake --build --preset release

packages:
	@scripts/install-packages.sh

run: all
	@build/clm generate --prompt "$(PROMPT)" --max-tokens 400 --temp 0.7 --seed 7

test:
	@scripts/test.sh

bench: all
	@build/clm bench $(BENCH)

install: all
	@cmake --install build

fuzz:
	@scripts/fuzz.sh $(FUZZ_TARGETS)

clean:
	rm -rf build build-debug build-asan build-tsan build-fuzz

help:
	@echo "make           build build/clm; installs missing packages first"
	@echo "make run       tell a story with the bundled model (PROMPT=\"...\")"
	@echo "make test      all tests, then again under the address and undefined behaviour sanitizers"
	@echo "make bench     speed at a model's shape (BENCH=\"--shape llama-3.2-1b --bits 4\")"
	@echo "make install   install to PREFIX (/usr/local); DESTDIR is respected"
	@echo "make fuzz      fuzz every parser for FUZZ_SECONDS (60) each; needs clang"
	@echo "make clean     remove what was built"
