"""What the commands share: argument types, errors in one line, and exit statuses."""

import argparse
import contextlib
import math
import os
import signal
import sys
import traceback

from original_stack import ctrl_c
from original_stack.cache import full_disk
from original_stack.errors import UserError, expanded, no_room


class Parser(argparse.ArgumentParser):
    """argparse.ArgumentParser with errors in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; --help lists the options\n")


def integer_between(minimum, maximum=2**32 - 1):
    """Argument type for argparse: an integer from `minimum` to `maximum`."""

    def parse(text):
        short = len(text) < 100  # int() refuses thousands of digits
        if not (text.isdecimal() and short and minimum <= int(text) <= maximum):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not an integer from {minimum} to {maximum}"
            )
        return int(text)

    return parse


def number_between(minimum, maximum):
    """Argument type for argparse: a number from `minimum` to `maximum`."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number from {minimum} to {maximum}"
            )
        return value

    return parse


def folder(text):
    """Argument type for argparse: the name of a folder."""
    if not text:  # for example an unset variable of the shell
        raise argparse.ArgumentTypeError("'' is not the name of a folder")
    return str(expanded(text, "the folder"))


def file(text):
    """Argument type for argparse: the name of a file."""
    if not text:
        raise argparse.ArgumentTypeError("'' is not the name of a file")
    return str(expanded(text, "the file"))


class Stopped(Exception):
    """A signal ended the command.

    Parameters
    ----------
    message : str
        What is saved, in one line.
    signum : int
        The number of the signal.
    """

    def __init__(self, message, signum):
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def noted_signals():
    """A list that receives the numbers of SIGTERMs and SIGINTs, so that a command can end at a
    point where nothing is lost."""
    received = []
    old = {
        signum: signal.signal(signum, lambda signum, frame: received.append(signum))
        for signum in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def run(parser, command, argv=None):
    """Parse `argv` and call `command(options)`.

    Returns
    -------
    int
        The exit status: 0; 2 after a UserError or if a disk is full; 128 + signal after Stopped or
        Ctrl-C; 128 + SIGPIPE if the reader of the output is gone (`| head`). In all cases but the
        first and the last, the reason is printed in one line.
    """
    ctrl_c.give_back()
    try:
        options = parser.parse_args(argv)
        command(options)
        sys.stdout.flush()
    except UserError as error:
        return _ended(parser, error, 2)
    except Stopped as stop:
        return _ended(parser, stop, 128 + stop.signum)
    except KeyboardInterrupt:
        return _ended(parser, "interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        _drop(sys.stdout)
        return 128 + signal.SIGPIPE
    except Exception as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        in_theano = any(f.f_globals.get("__name__", "").startswith("theano.") for f in frames)
        if in_theano and no_room(error):
            return _ended(parser, full_disk(), 2)
        # Code that writes files raises a UserError if it cannot. What remains is printed output and
        # the output of benchmarks.
        if in_theano or not isinstance(error, OSError) or error.filename is not None:
            raise
        _drop(sys.stdout)
        reason = "the disk is full; free some space" if no_room(error) else error.strerror
        return _ended(parser, f"cannot write the output: {reason}", 2)
    return 0


def _ended(parser, reason, status):
    """Print why the command ends, if anyone reads it, and return its exit status."""
    try:
        print(f"{parser.prog}: {reason}", file=sys.stderr)
    except OSError:
        _drop(sys.stderr)
    return status


def _drop(stream):
    # What is left in the buffer would be flushed, and fail again, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
