"""A command on a terminal of its own. Standard library only."""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import unittest

import command
from command import PATIENCE, environment

COLUMNS = 40


class Terminal:
    """It stands for those of the command's streams that are not given."""

    def __init__(self, *args, env=None, columns=COLUMNS, **streams):
        try:
            self.master, slave = pty.openpty()
        except OSError as e:
            raise unittest.SkipTest("no terminals here: %s" % e)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

        def take_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        for name in ("stdin", "stdout", "stderr"):
            streams.setdefault(name, slave)
        self.process = subprocess.Popen([command.CLM, *args], env=env or environment(),
                                        preexec_fn=take_terminal, **streams)
        os.close(slave)
        self.text = b""

    def read(self, until=None, after=0, timeout=PATIENCE):
        """Read until a text has come, or to the end; what stands before `after` does not count."""
        deadline = time.monotonic() + timeout
        while until is None or until not in self.text[after:]:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(self.text)
            try:
                more = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                more = b""
            if not more:
                break
            self.text += more
        return self.text

    def press(self, key):
        os.write(self.master, key)

    def wait(self):
        self.read()
        os.close(self.master)
        return self.process.wait(PATIENCE)


CONTROL = re.compile(r"\x1b\[([?0-9;]*)([@A-Za-z])|\x1b.|[\r\n\b\t\x07]|[^\x1b\r\n\b\t\x07]", re.S)


def screen(text, columns=COLUMNS):
    """The lines that a terminal of this width would show, from the first to the last."""
    lines, y, x = [[]], 0, 0
    for m in CONTROL.finditer(text):
        c, number, letter = m.group(), m.group(1), m.group(2)
        n = int(number) if number and number.isdigit() else 1
        line = lines[y]
        if letter == "K":
            del line[x:]
        elif letter == "J":
            del line[x:]
            del lines[y + 1:]
        elif letter == "A":
            y = max(0, y - n)
        elif letter == "G":
            x = min(columns, n) - 1
        elif letter == "C":
            x = min(columns - 1, x + n)
        elif letter == "D":
            x = max(0, x - n)
        elif letter == "P":
            del line[x:x + n]
        elif letter == "@":
            line[x:x] = [" "] * n
        elif letter in ("m", "h", "l"):
            pass
        elif letter or c[0] == "\x1b":
            raise ValueError("unknown control sequence %r" % c)
        elif c == "\r":
            x = 0
        elif c == "\n":
            y += 1
        elif c == "\b":
            x = max(0, x - 1)
        elif c == "\x07":
            pass
        else:
            if x == columns:  # the cursor waits behind the last column until something comes
                x, y = 0, y + 1
                lines += [[]] * (y == len(lines))
                line = lines[y]
            line += [" "] * (x - len(line))
            line[x:x + 1] = [c]
            x += 1
        while y >= len(lines):
            lines.append([])
    return ["".join(line).rstrip() for line in lines]
