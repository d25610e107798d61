#!/usr/bin/env python3
"""Install to a temporary prefix and use what lies there, as a stranger would.

The command runs from there and finds the installed model, pkg-config and CMake find the library,
every program of examples/ compiles against it and runs.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

FILES = [
    "bin/clm",
    "include/clm/clm.h",
    "share/man/man1/clm.1",
    "share/bash-completion/completions/clm",
    "share/zsh/site-functions/_clm",
    "share/fish/vendor_completions.d/clm.fish",
    "share/clm/storyteller-4bit/config.json",
    "share/clm/storyteller-4bit/model.safetensors",
    "share/clm/storyteller-4bit/tokenizer.json",
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cmake", "build", "source", "cc", "flags", "version"):
        parser.add_argument("--" + name, required=True)
    return parser.parse_args()


def run(*command, **options):
    """The output of a command that must succeed."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=300, **options)
    if done.returncode:
        sys.exit("%s: exit status %d\n%s%s" % (" ".join(command), done.returncode, done.stdout,
                                               done.stderr))
    return done.stdout


def check(condition, message):
    if not condition:
        sys.exit(message)


def check_command(prefix, version):
    said = run(prefix / "bin/clm", "--version")
    check(version in said, "clm --version says %r, not %s" % (said, version))
    story = run(prefix / "bin/clm", "generate", "-m", prefix / "share/clm/storyteller-4bit",
                "--prompt", "Tell me a story.", "--max-tokens", "8", "--seed", "1")
    check(len(story.split()) >= 3, "the installed clm tells %r" % story)


def check_library(prefix, options):
    found = [p.parent for p in prefix.rglob("clm.pc")]
    check(len(found) == 1, "clm.pc is in %s" % found)
    environment = dict(os.environ, PKG_CONFIG_PATH=str(found[0]),
                       LD_LIBRARY_PATH=str(found[0].parent))

    def ask(*question):
        return run("pkg-config", *question, "clm", env=environment).split()

    check(ask("--modversion") == [options.version], "clm.pc has another version")
    check(pathlib.Path(ask("--variable=modeldir")[0]).resolve() ==
          (prefix / "share/clm/storyteller-4bit").resolve(), "clm.pc names another model")
    # Names of the library that are not in its header are no one's concern.
    own = prefix / "own.c"
    own.write_text("#include <clm/clm.h>\n"
                   "int fail(void);\nint fail(void) { return 0; }\n"
                   "int arena_open = 7;\n"
                   "int main(void) { return clm_version() ? fail() : arena_open; }\n")
    run(options.cc, *options.flags.split(), *ask("--cflags"), own, "-o", prefix / "own",
        *ask("--libs"))
    run(prefix / "own", env=environment)
    examples = sorted(pathlib.Path(options.source, "examples").glob("*.c"))
    check(examples, "there are no examples")
    for example in examples:
        program = prefix / ("example_" + example.stem)
        run(options.cc, "-std=c17", "-Wall", "-Wextra", "-Werror", *options.flags.split(),
            *ask("--cflags"), example, "-o", program, *ask("--libs"))
        said = run(program, prefix / "share/clm/storyteller-4bit", "Tell me a story.",
                   env=environment)
        check(len(said.split()) >= 3, "%s says %r" % (example.name, said))


def check_cmake(prefix, options, folder):
    """A project of C, and one of C++ without C, find the library by CMake's own means."""
    # Flags are those of the C compiler, which may be of another make.
    for language in ["C"] + ["CXX"] * (shutil.which("c++") is not None and not options.flags):
        project = folder / language
        project.mkdir()
        (project / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.22)\nproject(story LANGUAGES %s)\n"
            "find_package(clm %s REQUIRED)\nadd_executable(story main.%s)\n"
            "target_link_libraries(story PRIVATE clm::clm)\n"
            "file(WRITE ${CMAKE_BINARY_DIR}/model \"${clm_MODEL_DIR}\")\n"
            % (language, options.version, "c" if language == "C" else "cc"))
        (project / ("main.c" if language == "C" else "main.cc")).write_text(
            "#include <clm/clm.h>\n"
            "int main(int argc, char **argv) {\n"
            "    clm_error err = {0, {0}};\n"
            "    clm_model *m = argc > 1 ? clm_model_open(argv[1], 0, &err) : 0;\n"
            "    clm_model_close(m);\n"
            "    return m ? 0 : 1;\n}\n")
        compiler = [] if language == "CXX" else ["-DCMAKE_C_COMPILER=" + options.cc]
        run(options.cmake, "-S", project, "-B", project / "b", "-DCMAKE_PREFIX_PATH=%s" % prefix,
            "-DCMAKE_%s_FLAGS=%s" % (language, options.flags), *compiler)
        run(options.cmake, "--build", project / "b")
        run(project / "b/story", (project / "b/model").read_text())


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        prefix = pathlib.Path(folder, "prefix")
        run(options.cmake, "--install", options.build, "--prefix", prefix)
        for name in FILES:
            check((prefix / name).is_file(), "%s was not installed" % name)
        check_command(prefix, options.version)
        check_library(prefix, options)
        check_cmake(prefix, options, pathlib.Path(folder))

        # A package is made with DESTDIR: the tree goes below it, for the prefix that was chosen.
        staged = pathlib.Path(folder, "staged")
        run(options.cmake, "--install", options.build, "--prefix", "/opt/clm",
            env=dict(os.environ, DESTDIR=str(staged)))
        for name in FILES:
            check((staged / "opt/clm" / name).is_file(), "%s is not below DESTDIR" % name)


main()
