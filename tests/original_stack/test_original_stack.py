import os
import subprocess
import sys
import tempfile
from pathlib import Path

from original_stack import ROOT, machine
from original_stack.cache import cache_directory
from original_stack.errors import UserError
from original_stack.lock import LOCK, locked_versions, unsatisfied

import pytest


def python(*arguments, **environment):
    """Runs the environment's Python as `./reproduce python` does, every warning an error."""
    settled = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    settled += ("THEANO_FLAGS", "OPENBLAS_CORETYPE")
    env = {k: v for k, v in os.environ.items() if k not in settled}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**env, "PYTHONPATH": f"{ROOT}:{ROOT}/original_stack/site", **environment},
        capture_output=True,
        text=True,
    )


def test_old_names():
    import fuel.datasets
    import lasagne
    import theano
    from theano.tensor.signal import downsample

    assert theano.__version__ == "1.0.5"
    assert lasagne.__version__ == "0.1"
    assert fuel.__version__ == "0.2.0"
    x = theano.tensor.tensor4()
    assert downsample.max_pool_2d(x, (2, 2), ignore_border=True).ndim == 4


def test_names_that_pylearn2_needs(tmp_path):
    package = tmp_path / "pylearn2"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from theano.compat.six.moves import zip as izip, input\n"
        "from theano.compat import six\n"
        "from theano.sandbox.cuda import cuda_available\n"
        "from collections import Iterable\n"
    )
    done = python(
        "-c", "import pylearn2", PYTHONPATH=f"{ROOT}:{ROOT}/original_stack/site:{tmp_path}"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_script_of_2015_runs_unchanged_and_without_a_warning():
    done = python(ROOT / "tests" / "script_of_2015.py")
    assert (done.returncode, done.stderr) == (0, "")
    errors = [
        float(line.split()[-1][:-1])
        for line in done.stdout.splitlines()
        if line.startswith("  validation error rate:")
    ]
    assert len(errors) == 10
    assert errors[-1] < 25 < errors[0]


FULL = """
import shutil, sys, original_stack
usage = shutil.disk_usage
full = shutil._ntuple_diskusage(100, 100, 0)
shutil.disk_usage = lambda path: full if str(path) == sys.argv[1] else usage(path)
import theano
"""


@pytest.mark.parametrize("full", ["cache", "temporary"])
def test_full_disk_is_said_where_theano_would_wait_for_its_lock(tmp_path, full):
    folders = {name: str(tmp_path / name) for name in ("cache", "temporary")}
    (tmp_path / "temporary").mkdir()
    (tmp_path / "program.py").write_text(FULL)
    done = python(
        tmp_path / "program.py",
        folders[full],
        BINARYCONNECT_CACHE=folders["cache"],
        TMPDIR=folders["temporary"],
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"program.py: cannot compile into {tmp_path}/cache/theano: the disk is full, there or "
        "where temporary files go; free some space, or name other directories: "
        "BINARYCONNECT_CACHE=DIR TMPDIR=DIR\n",
    )


SETTINGS = """
import theano, os, original_stack
from original_stack import machine
print(theano.config.floatX, theano.config.gcc.cxxflags, os.environ["OMP_NUM_THREADS"])
print(machine.blas().split()[-1], machine.threads(), theano.config.base_compiledir)
print(os.environ["GOMP_SPINCOUNT"])
"""


def test_settings(tmp_path):
    done = python("-c", SETTINGS, BINARYCONNECT_CACHE=str(tmp_path))
    assert done.stderr == ""
    (floatX, flags, threads), (_, again, directory), (spins,) = (
        line.split() for line in done.stdout.splitlines()
    )
    assert spins == "10000"
    assert (floatX, flags) == ("float32", "-ffp-contract=off")
    assert threads == again == str(len(os.sched_getaffinity(0)))
    assert directory == str(tmp_path / "theano")


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


NOEXEC = """
import os, types, original_stack
os.statvfs = lambda path: types.SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID)
import theano
"""


def test_a_cache_that_runs_no_programs(tmp_path):
    (tmp_path / "program.py").write_text(NOEXEC)
    done = python(tmp_path / "program.py", BINARYCONNECT_CACHE=str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        f"program.py: cannot compile into {tmp_path}/theano: its file system is mounted noexec; "
        "name another directory: BINARYCONNECT_CACHE=DIR\n",
    )


def test_a_directory_of_the_user_s_own_flags_is_not_checked(tmp_path):
    (tmp_path / "program.py").write_text(NOEXEC)
    flags = f"base_compiledir={tmp_path}/own"
    done = python(tmp_path / "program.py", BINARYCONNECT_CACHE=str(tmp_path), THEANO_FLAGS=flags)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads(monkeypatch):
    for chosen, expected in (("3", 3), ("2,1", 2), (" 4 ", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
        assert machine.threads() == expected
    for chosen in ("auto", "0", "-1", "1.5"):
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
        with pytest.raises(UserError) as caught:
            machine.threads()
        message = f"OMP_NUM_THREADS is '{chosen}'; expected a number of threads"
        assert str(caught.value) == message


def test_threads_that_are_no_number_end_a_program_in_one_line(tmp_path):
    (tmp_path / "program.py").write_text("import original_stack, theano")
    done = python(tmp_path / "program.py", OMP_NUM_THREADS="auto")
    message = "program.py: OMP_NUM_THREADS is 'auto'; expected a number of threads\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_threads_named_by_an_empty_word_are_those_of_the_processor():
    code = "from original_stack import machine; print(machine.threads())"
    assert python("-c", code, OMP_NUM_THREADS="").stdout == f"{len(os.sched_getaffinity(0))}\n"


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "kernels"),
    [
        ("AuthenticAMD", "25", "avx2 avx512f avx512bw avx512dq avx512vl", "ZEN"),
        ("AuthenticAMD", "26", "avx2 avx512f avx512bw avx512dq avx512vl", "SKYLAKEX"),
        ("AuthenticAMD", "25", "avx2 fma", None),
        ("GenuineIntel", "6", "avx2 avx512f avx512bw avx512dq avx512vl", None),
    ],
)
def test_blas_kernels(vendor, family, flags, kernels):
    processor = {"vendor_id": vendor, "cpu family": family, "flags": flags}
    assert machine.blas_kernels(processor) == kernels


def test_blas_kernels_of_a_processor_without_a_vendor():
    assert machine.blas_kernels({"CPU implementer": "0x41", "Features": "asimd"}) is None
    assert machine.blas_kernels({}) is None


def test_processor(monkeypatch):
    text = "processor\t: 0\nmodel name\t: A: 1\nflags\t\t: fpu vme\n\nprocessor\t: 1\n\n"
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert machine.processor() == {
        "processor": "0",
        "model name": "A: 1",
        "flags": "fpu vme",
    }


def test_a_wait_policy_of_the_user_wins():
    code = "import os, original_stack; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert python("-c", code, OMP_WAIT_POLICY="active").stdout == "None\n"


def test_cache_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path / "chosen"))
    assert cache_directory() == tmp_path / "chosen"
    monkeypatch.delenv("BINARYCONNECT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "binaryconnect"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    own = cache_directory()
    assert own == tmp_path / f"binaryconnect-{os.getuid()}"
    assert own.stat().st_mode & 0o777 == 0o700


def test_unsatisfied(tmp_path):
    assert unsatisfied() == []
    lock = tmp_path / "lock"
    lock.write_text(
        "numpy==1.23.4 \\\n    --hash=sha256:00\nno-such-package==1 \\\nsix==1.17.0 \\\n"
    )
    assert unsatisfied(lock) == ["numpy==1.23.4", "no-such-package==1"]


def test_every_package_of_the_lock_has_a_hash():
    lock = LOCK.read_text()
    blocks = lock.split("\n    --hash=")[0:1]
    names = locked_versions()
    assert {"theano", "lasagne", "fuel", "pip", "setuptools", "wheel"} <= set(names)
    blocks = [block for block in lock.replace("\\\n", "").splitlines() if "==" in block]
    assert len(blocks) == len(names)
    assert all("--hash=sha256:" in block for block in blocks)
