"""What the commands share: options and errors in one line, exit status 2."""

import argparse
import sys

from original_stack import UserError


class Parser(argparse.ArgumentParser):
    """argparse's, with errors in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; --help lists the options\n")


def run(parser, command, argv=None):
    """Parse `argv` and call `command(options)`.

    Returns
    -------
    int
        Exit status: 0, or 2 after a UserError, which is printed in one line.
    """
    options = parser.parse_args(argv)
    try:
        command(options)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0
