"""Make Ctrl-C end a command of this project in one line while the command is still importing.

`command_line.run` ends this with `give_back`. Other programs that import this package keep Python's
behavior.
"""

import os
import signal
import sys


def _interrupted(signum, frame):
    name = os.path.basename(sys.orig_argv[_program]).removesuffix(".py").rpartition(".")[2]
    os.write(2, f"{name}: interrupted\n".encode(errors="surrogateescape"))
    os._exit(128 + signum)


def give_back():
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _program_of(arguments):
    """The index of the program among Python's arguments, or None if it is not a command of this
    project."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for i, word in enumerate(arguments[1:], 1):
        if word == "-m":
            ours = arguments[i + 1 :] and arguments[i + 1].startswith("reproduction.")
            return i + 1 if ours else None
        if not word.startswith("-"):
            first = os.path.relpath(os.path.realpath(word), root).split(os.sep)[0]
            return i if first in ("mnist.py", "cifar10.py", "svhn.py", "benchmarks") else None
    return None


_program = _program_of(sys.orig_argv)
if _program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupted)
