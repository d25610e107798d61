#!/usr/bin/env python3
"""Run a test on a processor that no other such test has.

    tests/on_one_cpu.py FOLDER COMMAND [ARGUMENT...]

A file of FOLDER is locked for each processor that is taken, as long as the test, or what it leaves
behind, runs. Where all are taken, or a process cannot say where it runs, the test runs anywhere.
"""
import fcntl
import os
import sys


def take(folder, processor):
    """Whether it is free; then it is taken until this process, and those that it starts, have ended."""
    lock = os.open(os.path.join(folder, "processor-%d.lock" % processor), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    os.set_inheritable(lock, True)
    return True


def main():
    folder, command = sys.argv[1], sys.argv[2:]
    if hasattr(os, "sched_setaffinity"):
        for processor in sorted(os.sched_getaffinity(0)):
            if take(folder, processor):
                os.sched_setaffinity(0, {processor})
                break
    os.execvp(command[0], command)


main()
