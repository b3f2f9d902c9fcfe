import os
import signal
import subprocess
import sys

from original_stack import ROOT, ctrl_c

import pytest

# A package that waits while it is imported, instead of Lasagne.
WAITS = "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"


def interrupted(tmp_path, *arguments):
    """The status and stderr of a program that Ctrl-C interrupts while it imports Lasagne."""
    (tmp_path / "lasagne.py").write_text(WAITS)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # A shell's & ignores Ctrl-C, and what it starts would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    return process.returncode, error


def test_a_command_ends_in_one_line(tmp_path):
    module = ("-P", "-m", "reproduction.commands.evaluate")
    assert interrupted(tmp_path, *module) == (130, "evaluate: interrupted\n")


def test_other_programs_raise_keyboard_interrupt(tmp_path):
    (tmp_path / "mine.py").write_text("import original_stack, lasagne")
    status, error = interrupted(tmp_path, "mine.py")
    assert status == -signal.SIGINT
    assert error.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize(
    ("arguments", "index"),
    [
        (["python", str(ROOT / "mnist.py"), "--seed", "1"], 1),
        (["python", "-P", "-m", "reproduction.commands.report"], 3),
        (["python", str(ROOT / "benchmarks" / "xnor.py")], 1),
        (["python", "-m", "pytest"], None),
        (["python", "-m"], None),
        (["python", str(ROOT / "tests" / "script_of_2015.py")], None),
        (["python", "/elsewhere/mnist.py"], None),
        (["python", "-c", "pass"], None),
        (["python"], None),
    ],
)
def test_commands_of_this_project(arguments, index):
    assert ctrl_c._program_of(arguments) == index


def test_run_gives_ctrl_c_back(monkeypatch):
    now = signal.signal(signal.SIGINT, ctrl_c._interrupted)
    try:
        ctrl_c.give_back()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, now)
