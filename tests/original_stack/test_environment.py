"""What `import original_stack` settles."""

import os
import pwd
import subprocess
import sys

from original_stack import ROOT, machine

import pytest
from checks import python

SETTINGS = """
import theano, os, original_stack
from original_stack import machine
print(theano.config.floatX, theano.config.gcc.cxxflags, os.environ["OMP_NUM_THREADS"])
print(machine.blas().split()[-1], machine.threads(), theano.config.base_compiledir)
print(os.environ["GOMP_SPINCOUNT"])
"""


def test_settings(tmp_path):
    done = python("-c", SETTINGS, BINARYCONNECT_CACHE=str(tmp_path))
    assert done.stderr == "-c: compiling, about a minute, once\n"
    (floatX, *flags, threads), (_, again, directory), (spins,) = (
        line.split() for line in done.stdout.splitlines()
    )
    assert spins == "10000"
    assert (floatX, flags) == ("float32", ["-ffp-contract=off", "-g0"])
    assert threads == again == str(machine.processors())
    assert directory == str(tmp_path / f"theano-{os.geteuid()}")


def test_settings_of_the_user_win(tmp_path):
    done = python(
        "-c",
        SETTINGS,
        THEANO_FLAGS=f"floatX=float64,gcc.cxxflags=-O1,base_compiledir={tmp_path}",
        OMP_NUM_THREADS="1",
        GOMP_SPINCOUNT="0",
        OPENBLAS_CORETYPE="Sandybridge",
    )
    assert done.stdout == f"float64 -O1 1\nSandybridge 1 {tmp_path}\n0\n"


LOADED = """
import sys
before = set(sys.modules)
import original_stack.cache, original_stack.command_line, original_stack.errors, original_stack.lock
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(names - sys.stdlib_module_names))
"""


def test_only_the_standard_library_is_loaded():
    done = python("-c", LOADED, PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("['original_stack']\n", "")


def test_a_wait_policy_of_the_user_wins():
    code = "import os, original_stack; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert python("-c", code, OMP_WAIT_POLICY="active").stdout == "None\n"


def test_an_empty_home_is_none():
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # in a container
        home = os.devnull
    code = "import os, original_stack; print(os.path.expanduser('~'))"
    assert python("-c", code, HOME="").stdout == f"{home}\n"


def test_results_in_a_home(tmp_path):
    code = "import original_stack; print(original_stack.RESULTS)"
    done = python("-c", code, BINARYCONNECT_RESULTS="~/results", HOME=str(tmp_path))
    assert done.stdout == f"{tmp_path}/results\n"


STREAMS = """
import os, sys, original_stack
print("to nobody")
print("to nobody", file=sys.stderr, flush=True)
sys.stdin.read()
with open(sys.argv[1], "w") as f:
    print(f.fileno() > 2, os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev, file=f)
"""


@pytest.mark.parametrize("closed", ["1>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_opened(tmp_path, closed):
    command = f'"$0" -c "$1" "$2" {closed}'
    arguments = [sys.executable, STREAMS, tmp_path / "file"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command, *arguments], env=environment, input=b"")
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "True True\n"
