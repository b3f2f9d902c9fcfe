"""What the commands share: errors in one line, exit statuses, an output that nobody reads."""

import argparse
import os
import signal
import sys

from original_stack import UserError, full_disk


class Parser(argparse.ArgumentParser):
    """argparse's, with errors in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; --help lists the options\n")


class Stopped(Exception):
    """A signal ended the command: what is saved, in one line.

    Parameters
    ----------
    message : str
    signum : int
    """

    def __init__(self, message, signum):
        super().__init__(message)
        self.signum = signum


def run(parser, command, argv=None):
    """Parse `argv` and call `command(options)`.

    Returns
    -------
    int
        Exit status: 0; 2 after a UserError, or where a full disk keeps Theano from compiling, and
        128 + signal after Stopped, which are printed in one line; 128 + SIGPIPE where the reader of
        the output is gone (`| head`).
    """
    options = parser.parse_args(argv)
    try:
        command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print(f"{parser.prog}: {stop}", file=sys.stderr)
        return 128 + stop.signum
    except BrokenPipeError:
        # What is left in the buffer would be flushed, and fail again, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        # Of Theano's compiler; the others say what they could not write.
        if "No space left on device" not in str(error):
            raise
        print(f"{parser.prog}: {full_disk()}", file=sys.stderr)
        return 2
    return 0
