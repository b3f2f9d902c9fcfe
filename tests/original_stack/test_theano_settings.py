import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from original_stack import ROOT, theano_settings

import pytest
import theano
from checks import python, refusal

NO_GPU = "this stack has no GPU back-end; continuing on the CPU"


@pytest.fixture
def no_theanorc(monkeypatch):
    monkeypatch.setenv("THEANORC", "")


def test_flags_that_a_script_sets_before_it_imports_theano(tmp_path):
    """The flags of this project are merged with them; the variable keeps the script's flags."""
    code = (
        "import original_stack, os\n"
        "os.environ['THEANO_FLAGS'] = 'floatX=float64,optimizer=fast_compile'\n"
        "import theano\n"
        "print(theano.config.floatX, theano.config.optimizer, theano.config.gcc.cxxflags)\n"
        "print(theano.config.base_compiledir)\n"
        "print(os.environ['THEANO_FLAGS'])\n"
    )
    done = python("-c", code, BINARYCONNECT_CACHE=str(tmp_path))
    assert done.stdout == (
        "float64 fast_compile -ffp-contract=off -g0\n"
        f"{tmp_path}/theano-{os.geteuid()}\n"
        "floatX=float64,optimizer=fast_compile\n"
    )


def test_started_programs_do_not_see_the_flags_of_this_project():
    code = "import original_stack, os, theano; print(os.environ.get('THEANO_FLAGS'))"
    assert python("-c", code).stdout == "None\n"


@pytest.mark.parametrize("name", ["with space", 'a"b', "a,b", "a'b", "a\\b", "a#b", "a\nb", "a%b"])
def test_any_name_of_a_cache(tmp_path, monkeypatch, no_theanorc, name):
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path / name))
    flags = theano_settings.merged_flags("")
    given = theano.configparser.parse_config_string(flags)
    assert given["base_compiledir"] == f"{tmp_path}/{name}/theano-{os.geteuid()}"
    assert given["blas.ldflags"].startswith("-lm -Dsgemm_=scipy_sgemm_ ")


@pytest.mark.parametrize("device", ["gpu", "gpu0", "cuda", "cuda0", "opencl0:0"])
def test_a_gpu_in_the_flags(capsys, no_theanorc, device):
    flags = theano_settings.merged_flags(f"mode=FAST_RUN,device={device},floatX=float32")
    assert theano.configparser.parse_config_string(flags)["device"] == "cpu"
    program = Path(sys.argv[0]).stem
    line = f"{program}: device={device} in THEANO_FLAGS: {NO_GPU}\n"
    assert capsys.readouterr() == ("", line)


def test_a_gpu_in_the_file(tmp_path, monkeypatch, capsys):
    (tmp_path / ".theanorc").write_text("[global]\ndevice = gpu\nfloatX = float32\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("THEANORC", raising=False)
    theano_settings.merged_flags("")
    assert capsys.readouterr().err.endswith(f": device=gpu in ~/.theanorc: {NO_GPU}\n")
    theano_settings.merged_flags("device=cpu")
    assert capsys.readouterr().err == ""


def test_flags_that_cannot_be_read(no_theanorc):
    assert refusal(theano_settings.merged_flags, 'floatX="float32') == (
        "THEANO_FLAGS is 'floatX=\"float32' (No closing quotation); expected name=value,name=value"
    )


@pytest.mark.parametrize("content", [b"floatX = float32\n", b"[global]\ndevice = \xff\n"])
def test_a_file_of_settings_that_cannot_be_read(tmp_path, monkeypatch, content):
    (tmp_path / "rc").write_bytes(content)
    monkeypatch.setenv("THEANORC", str(tmp_path / "rc"))
    message = refusal(theano_settings.merged_flags, "")
    assert message.startswith("cannot read Theano's settings (")
    assert message.endswith("); correct them, or ignore them: THEANORC=")


def test_a_wrong_value_ends_a_program_in_one_line(tmp_path):
    (tmp_path / "program.py").write_text("import original_stack, theano")
    done = python(tmp_path / "program.py", THEANO_FLAGS="floatX=float33")
    assert done.returncode == 2
    assert done.stderr.startswith('program: Invalid value ("float33") for configuration ')
    assert done.stderr.endswith("; change it in THEANO_FLAGS or ~/.theanorc\n")
    assert done.stderr.count("\n") == 1


def test_theano_needs_docstrings(tmp_path):
    (tmp_path / "program.py").write_text("import original_stack, theano")
    done = python("-OO", tmp_path / "program.py")
    message = "program: Theano needs docstrings; leave out -OO or PYTHONOPTIMIZE=2\n"
    assert (done.returncode, done.stderr) == (2, message)


COMPILES = """
import sys, time, original_stack, theano
from theano.gof import compilelock
with compilelock.lock_ctx(), compilelock.lock_ctx():
    print("locked", flush=True)
    time.sleep(float(sys.argv[1]))
print("released", flush=True)
"""


def compiling(tmp_path, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", COMPILES, str(seconds)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "BINARYCONNECT_CACHE": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_compile_lock_ends_with_its_holder(tmp_path):
    first = compiling(tmp_path, 60)
    assert first.stdout.readline() == "locked\n"
    (lock,) = tmp_path.glob("theano-*/compiledir_*/lock")
    second = compiling(tmp_path, 0)
    time.sleep(0.5)
    with open(lock) as held, pytest.raises(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=60) == ("locked\nreleased\n", "")
    # The line came before the first compiled anything.


def test_a_wait_for_the_compile_lock_is_announced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(theano_settings, "_PATIENCE", 0.2)
    (tmp_path / "lock").touch()
    holder = subprocess.Popen(
        ["flock", tmp_path / "lock", "sh", "-c", "echo locked; sleep 2"], stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    theano_settings._locked(tmp_path).release()
    holder.communicate()
    program = Path(sys.argv[0]).stem
    assert capsys.readouterr().err == f"{program}: waiting for another process, which compiles\n"


def test_the_first_compilation_is_announced(tmp_path, capsys):
    program = Path(sys.argv[0]).stem
    theano_settings._locked(tmp_path / "new").release()
    assert capsys.readouterr().err == f"{program}: compiling, about a minute, once\n"
    theano_settings._locked(tmp_path / "new").release()
    assert capsys.readouterr().err == ""


def test_theano_compiles_again_what_a_power_cut_damaged(tmp_path):
    code = (
        "import original_stack, theano, theano.tensor as T\n"
        "x = T.scalar()\n"
        "print(theano.function([x], x + 41)(1))\n"
    )
    done = python("-c", code, BINARYCONNECT_CACHE=str(tmp_path))
    assert done.stdout == "42.0\n"
    (compiled,) = tmp_path.glob("theano-*/compiledir_*")
    (compiled / "lazylinker_ext" / "lazylinker_ext.so").write_bytes(b"")
    (compiled / "cutils_ext" / "cutils_ext.so").unlink()
    for module in compiled.glob("tmp*/*.so"):
        module.write_bytes(module.read_bytes()[:1000])
    done = python("-c", code, BINARYCONNECT_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "42.0\n", "")
