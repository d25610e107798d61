#!/bin/sh
# Installs what clm is built from, and with --tests what its tests need, with --fuzz what fuzzing
# needs. Looks first and does nothing when nothing is missing. Debian and Ubuntu: installs, as root
# or through sudo; elsewhere, or without the right to: prints the one command to run and exits 1.
set -eu

usage() {
    echo "usage: scripts/install-packages.sh [--tests] [--fuzz]" >&2
    exit 2
}

groups="build"
for option in "$@"; do
    case $option in
    --tests) groups="$groups tests" ;;
    --fuzz) groups="$groups fuzz" ;;
    *) usage ;;
    esac
done

# group  what to look for      Debian, Ubuntu    Fedora               Homebrew
packages='
build    command:cc            gcc               gcc                  gcc
build    header:stdio.h        libc6-dev         glibc-devel          -
build    command:make          make              make                 make
build    command:cmake         cmake             cmake                cmake
build    command:ninja         ninja-build       ninja-build          ninja
build    command:pkg-config    pkg-config        pkgconf-pkg-config   pkgconf
build    library:libpcre2-8    libpcre2-dev      pcre2-devel          pcre2
build    library:libutf8proc   libutf8proc-dev   utf8proc-devel       utf8proc
build    library:libedit       libedit-dev       libedit-devel        -
tests    library:cmocka        libcmocka-dev     libcmocka-devel      cmocka
tests    command:python3       python3           python3              python3
tests    python:numpy          python3-numpy     python3-numpy        numpy
tests    sanitizer:cc          gcc               libasan%libubsan     gcc
fuzz     fuzzer:clang          clang             clang%compiler-rt    llvm
'
# Homebrew: macOS itself has libedit.
# Used by tests where they are there, never installed here: qemu-user and gcc-aarch64-linux-gnu
# (the NEON kernels on another processor).

compiles() { # compiler, flags
    "$@" -x c - -o /dev/null
}

present() { # kind:name
    name=${1#*:}
    case $1 in
    command:*) command -v "$name" ;;
    header:*) echo "#include <$name>" | cc -E - ;;
    library:*) pkg-config --exists "$name" ;;
    # The first python3 may be another one than the system's; tests look for it in both places too.
    python:*) python3 -c "import $name" || /usr/bin/python3 -c "import $name" ;;
    sanitizer:*) echo 'int main(void) { return 0; }' | compiles "$name" -fsanitize=address,undefined ;;
    fuzzer:*)
        echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n > 9; }' |
            compiles "$name" -fsanitize=fuzzer,address,undefined
        ;;
    esac >/dev/null 2>&1
}

# The packages that are missing, by the names of one system: the column of that number.
missing() {
    echo "$packages" | while read -r group what debian fedora homebrew; do
        case " $groups " in *" $group "*) ;; *) continue ;; esac
        present "$what" && continue
        case $1 in
        debian) name=$debian ;;
        fedora) name=$fedora ;;
        homebrew) name=$homebrew ;;
        esac
        [ "$name" = - ] || echo "$name" | tr '%' '\n'
    done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

stop() {
    echo "clm needs packages that are not installed. Run this, then try again:" >&2
    echo "    $1" >&2
    exit 1
}

install_debian() {
    names=$(missing debian)
    [ -n "$names" ] || return 0
    command="apt-get update && apt-get install -y $names"
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif ! command -v sudo >/dev/null; then
        stop "su -c '$command'"
    elif [ -t 0 ] || sudo -n true 2>/dev/null; then
        as_root=sudo
    else # it would ask for a password, and there is no one to answer
        stop "sudo sh -c '$command'"
    fi
    # clang's libFuzzer and sanitizers come in a recommended package, whose name has the version in it.
    case $names in *clang*) lean= ;; *) lean=--no-install-recommends ;; esac
    echo "Installing $names"
    $as_root apt-get -q update || echo "The package lists may be old: apt-get update failed." >&2
    # shellcheck disable=SC2086 # the names are words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y $lean $names ||
        stop "${as_root:+sudo }apt-get install -y $names"
    left=$(missing debian)
    [ -z "$left" ] || stop "${as_root:+sudo }apt-get install --reinstall $left"
}

if command -v apt-get >/dev/null; then
    install_debian
elif command -v dnf >/dev/null; then
    names=$(missing fedora)
    [ -z "$names" ] || stop "sudo dnf install $names"
elif command -v brew >/dev/null; then
    names=$(missing homebrew)
    [ -z "$names" ] || stop "brew install $names"
else
    names=$(missing debian)
    [ -z "$names" ] || stop "(your system's package manager) install the like of: $names"
fi
