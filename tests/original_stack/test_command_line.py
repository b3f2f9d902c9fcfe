"""How every command ends: its exit status, and what it prints."""

import argparse
import errno
import os
import signal
import subprocess
import sys

from original_stack import ROOT
from original_stack.command_line import (
    Parser,
    Stopped,
    file,
    folder,
    integer_between,
    number_between,
    run,
)
from original_stack.errors import UserError

import pytest


def end(capsys, error=None, argv=()):
    """The status, stdout and stderr of a command that prints a line and then raises `error`."""

    def command(options):
        print("output")
        if error:
            raise error

    try:
        status = run(Parser(prog="program"), command, argv)
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, (0, "output\n", "")),
        (UserError("fix it"), (2, "output\n", "program: fix it\n")),
        (Stopped("saved", signal.SIGTERM), (143, "output\n", "program: saved\n")),
        (KeyboardInterrupt(), (130, "output\n", "program: interrupted\n")),
    ],
)
def test_ends(capsys, error, expected):
    assert end(capsys, error) == expected


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_under_the_compiler(capsys, monkeypatch, tmp_path, number):
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path))
    reason = os.strerror(number)
    message = (
        f"program: cannot compile into {tmp_path}/theano-{os.geteuid()}: the disk is full, there "
        "or where temporary files go; free some space, or name other directories: "
        "BINARYCONNECT_CACHE=DIR TMPDIR=DIR\n"
    )
    for error in (Exception("compiling", f"ld failed: {reason}"), OSError(number, reason)):
        compiler = {"__name__": "theano.gof.cmodule", "error": error}
        exec("def compile(options): raise error", compiler)
        assert run(Parser(prog="program"), compiler["compile"], []) == 2
        assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk is full; free some space"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_an_output_that_fails(capfd, monkeypatch, number, reason):
    class Output:
        def write(self, text):
            raise OSError(number, os.strerror(number))

        def fileno(self):
            return descriptor

    descriptor = os.dup(1)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Output())
        assert run(Parser(prog="program"), lambda options: print("output"), []) == 2
    assert capfd.readouterr() == ("", f"program: cannot write the output: {reason}\n")


def test_an_os_error_about_a_file_is_an_error_of_the_program():
    with pytest.raises(FileNotFoundError):
        run(Parser(prog="program"), lambda options: os.listdir("/proc/none"), [])


def test_nobody_reads_the_errors():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", FAILS], stdout=subprocess.PIPE, stderr=full, cwd=ROOT
        )
    assert (done.returncode, done.stdout) == (2, b"")


FAILS = """
import sys
from original_stack.command_line import Parser, run
from original_stack.errors import UserError
def fail(options): raise UserError("fix it")
sys.exit(run(Parser(), fail, []))
"""


def test_errors_of_the_program_are_not_hidden(capsys):
    with pytest.raises(ZeroDivisionError):
        end(capsys, ZeroDivisionError())


def test_wrong_option(capsys):
    assert end(capsys, argv=["--x"]) == (
        (2, "", "program: unrecognized arguments: --x; --help lists the options\n")
    )


def test_a_home_that_does_not_exist(capsys):
    parser = Parser(prog="program")
    parser.add_argument("--results", type=folder)
    assert run(parser, print, ["--results", "~nosuchuser/x"]) == 2
    assert capsys.readouterr().err == (
        "program: the folder is '~nosuchuser/x', but there is no such home; give a full path\n"
    )


LINES = """
import sys
from original_stack.command_line import Parser, run
sys.exit(run(Parser(), lambda options: print("line\\n" * int(sys.argv.pop())), []))
"""


@pytest.mark.parametrize("lines", [1, 100000])  # that fail when flushed, and when printed
def test_reader_of_the_output_is_gone(lines):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", LINES, str(lines)],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100000])
def test_the_disk_of_the_output_is_full(lines, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", LINES, str(lines)],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
        )
    message = "-c: cannot write the output: the disk is full; free some space\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.mark.parametrize("command", ["provenance", "multiplications"])
def test_commands_share_it(command):
    done = subprocess.run([ROOT / "reproduce", command, "--x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"{command}: unrecognized arguments: --x; --help lists the options\n"


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (number_between(0.5, 8), "1e308", "'1e308' is not a number from 0.5 to 8"),
        (number_between(0.5, 8), "nan", "'nan' is not a number from 0.5 to 8"),
        (number_between(0.5, 8), "x", "'x' is not a number from 0.5 to 8"),
        (integer_between(1, 9), "1.0", "'1.0' is not an integer from 1 to 9"),
        (integer_between(1, 9), "1" * 5000, f"'{'1' * 5000}' is not an integer from 1 to 9"),
        (folder, "", "'' is not the name of a folder"),
        (file, "", "'' is not the name of a file"),
    ],
)
def test_types_of_arguments(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert str(caught.value) == message


def test_values_of_arguments():
    assert number_between(0.5, 8)("8") == 8
    assert integer_between(1, 9)("009") == 9
    assert folder(" ") == " "
    assert folder("~/x") == os.path.expanduser("~/x")
