import hashlib
import os
import re
import shutil
import subprocess
import sys

from original_stack import ROOT

import pytest

TOOLS = (
    "sh",
    "dirname",
    "readlink",
    "sha256sum",
    "cut",
    "flock",
    "mkdir",
    "rm",
    "awk",
    "touch",
    "cat",
)


def reproduce(*arguments, root=ROOT, **environment):
    return subprocess.run(
        [root / "reproduce", *arguments], env=environment, capture_output=True, text=True
    )


@pytest.fixture
def machine(tmp_path):
    """A copy of `reproduce`, and a PATH that has only its tools: no Python, no compiler."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for tool in TOOLS:
        (binaries / tool).symlink_to(shutil.which(tool))
    for name in ("reproduce", *(path.name for path in ROOT.glob("requirements*.lock"))):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "original_stack", tmp_path / "original_stack")
    return tmp_path


def add(machine, name, text):
    tool = machine / "bin" / name
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(0o755)


def refused(machine, message):
    done = reproduce("check", root=machine, PATH=str(machine / "bin"))
    assert (done.returncode, done.stderr) == (2, f"reproduce: {message}\n")
    assert not list(machine.glob(".venv/*/complete"))


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-sweep.lock", "requirements-onnx.lock"]
)
def test_an_environment_has_what_builds_its_packages(lock):
    """venv's own setuptools cannot build a package without wheel."""
    names = re.findall(r"^([a-z][\w.-]*)==", (ROOT / lock).read_text(), re.MULTILINE)
    assert {"pip", "setuptools", "wheel"} <= set(names)


def test_no_python(machine):
    refused(
        machine,
        "no Python 3.11 found; install it (Debian, Ubuntu: apt-get install python3.11 "
        "python3.11-venv python3.11-dev) or name it: PYTHON=/path/to/python3.11",
    )


def test_no_compiler(machine):
    (machine / "bin" / "python3.11").symlink_to(sys.executable)
    refused(
        machine,
        "no g++ found, which Theano compiles with; install it (Debian, Ubuntu: apt-get install "
        "g++)",
    )


def test_no_headers(machine):
    add(machine, "g++", "")
    add(machine, "python3.11", "case $2 in *Python.h*) exit 1 ;; *) exit 0 ;; esac")
    refused(
        machine,
        "no Python.h found for Python 3.11, which Theano compiles against; install the headers "
        "(Debian, Ubuntu: apt-get install python3.11-dev)",
    )


def test_no_venv_module(machine):
    add(machine, "g++", "")
    add(machine, "python3.11", "case $2 in *ensurepip*) exit 1 ;; *) exit 0 ;; esac")
    refused(
        machine,
        "Python 3.11 lacks its venv module; install it (Debian, Ubuntu: apt-get install "
        "python3.11-venv)",
    )


def test_a_link_leads_to_the_project(machine):
    """The folder of the link is not taken for the project."""
    elsewhere = machine / "elsewhere"
    (elsewhere / ".venv").mkdir(parents=True)
    (elsewhere / "reproduce").symlink_to(machine / "reproduce")
    add(machine, "g++", "")
    add(machine, "python3.11", "case $2 in *ensurepip*) exit 1 ;; *) exit 0 ;; esac")
    done = reproduce("check", root=elsewhere, PATH=str(machine / "bin"))
    assert "Python 3.11 lacks its venv module" in done.stderr
    assert (machine / ".venv").exists()
    assert not list((elsewhere / ".venv").iterdir())


def test_a_part_of_the_project(machine):
    (machine / "requirements.lock").unlink()
    refused(
        machine,
        f"{machine}/requirements.lock is missing; run the reproduce of a whole copy of the project",
    )


def test_interrupted_installation_is_not_used(machine):
    """Neither a failed nor an incomplete installation is used as an environment."""
    add(machine, "g++", "")
    add(machine, "python3.11", 'case "$1 $2" in "-m venv") mkdir -p "$3/bin"; exit 1 ;; esac')
    for _ in range(2):
        done = reproduce("check", root=machine, PATH=str(machine / "bin"))
        assert done.returncode != 0
        assert "making the pinned environment" in done.stderr
        assert not list(machine.glob(".venv/*/complete"))


# A stand-in for Python, whose environments print the arguments that pip gets.
TELLS = """case "$1 $2" in
    "-m venv")
        mkdir -p "$3/bin"
        printf '%s\\n' '#!/bin/sh' 'env >>"$LOG"; echo "$@" >>"$LOG"' >"$3/bin/python"
        chmod +x "$3/bin/python" ;;
esac"""


@pytest.fixture
def installs(machine):
    """Run `reproduce` before anything is installed; return its output and the arguments of pip."""
    add(machine, "g++", "")
    add(machine, "python3.11", TELLS)
    for tool in ("chmod", "env"):
        (machine / "bin" / tool).symlink_to(shutil.which(tool))

    def run(**environment):
        log = machine / "log"
        environment |= {"PATH": str(machine / "bin"), "LOG": str(log)}
        done = reproduce("python", "-c", "", root=machine, **environment)
        assert done.returncode == 0
        return done.stderr, log.read_text().split("\n")

    return run


def test_settings_of_pip_decide_only_where_packages_come_from(machine, installs):
    others = {"PIP_CONSTRAINT": "c", "PIP_DRY_RUN": "1", "PIP_PYTHON": "p", "PYTHONPATH": "/x"}
    _, log = installs(PIP_USER="1", PIP_INDEX_URL="https://mirror", PYTHONHOME="/x", **others)
    installation = log[: log.index(next(line for line in log if line.endswith("lock"))) + 1]
    assert "PIP_INDEX_URL=https://mirror" in installation
    names = {line.partition("=")[0] for line in installation}
    assert not names & {*others, "PYTHONHOME"}
    # Options win over variables and over pip.conf.
    for option in ("--no-user", "--target=", "--root=/", "--only-binary=:none:"):
        assert option in installation[-1].split()
    assert "PYTHONUTF8=1" in installation
    (environment,) = (machine / ".venv").glob("[0-9a-f]*")
    assert f"--prefix={environment}" in installation[-1].split()


def test_opencl_is_added_beside_the_environment(machine, installs):
    """A separate folder holds what the environment lacks; other commands do not find it."""
    installs()
    (environment,) = (machine / ".venv").glob("[0-9a-f]*")
    python = environment / "bin/python"
    lacking = 'case "$2" in "import pyopencl") exit 1 ;; esac'
    python.write_text(python.read_text().replace("\n", f"\n{lacking}\n", 1))
    log = machine / "log"
    for command in (["devices"], ["predict", "f", "i", "--device", "opencl:1"]):
        log.write_text("")
        done = reproduce(*command, root=machine, PATH=str(machine / "bin"), LOG=str(log))
        assert done.returncode == 0
        (folder,) = set((machine / ".venv").glob("[0-9a-f]*")) - {environment}
        path = f"{machine}:{machine}/original_stack/site:{folder}/lib/python3.11/site-packages"
        assert f"PYTHONPATH={path}" in log.read_text().split("\n")
        if command == ["devices"]:
            assert done.stderr == (
                f"reproduce: adding the packages of requirements-opencl.lock in {folder} (once, "
                "about half a minute)\n"
            )
            (pip,) = (line.split() for line in log.read_text().split("\n") if "-m pip" in line)
            assert {"--require-hashes", "--no-deps", f"--prefix={folder}"} <= set(pip)
    log.write_text("")
    reproduce("predict", "f", "i", root=machine, PATH=str(machine / "bin"), LOG=str(log))
    assert str(folder) not in log.read_text()


def test_onnx_has_an_environment_of_its_own(machine, installs):
    installs()
    (environment,) = (machine / ".venv").glob("[0-9a-f]*")
    log = machine / "log"
    for options in (["--onnx=f"], ["--qonnx", "f"]):
        log.write_text("")
        done = reproduce("export", "run", *options, root=machine, PATH=f"{machine}/bin", LOG=log)
        assert done.returncode == 0
        (folder,) = set((machine / ".venv").glob("[0-9a-f]*")) - {environment}
        assert f"BINARYCONNECT_ONNX={folder}/bin/python" in log.read_text().split("\n")
    reproduce("export", "run", "--data", "f", root=machine, PATH=f"{machine}/bin", LOG=log)
    assert set((machine / ".venv").glob("[0-9a-f]*")) == {environment, folder}


def test_a_file_system_without_locks(machine, installs):
    (machine / "bin" / "flock").unlink()
    add(machine, "flock", "echo 'flock: 9: No locks available' >&2; exit 65")
    said, _ = installs()
    assert said == (
        f"reproduce: {machine}/.venv cannot be locked here; do not start a second first run before "
        "this one has made its environment\n"
        f"reproduce: making the pinned environment in {machine}/.venv/"
        f"{hashlib.sha256((ROOT / 'requirements.lock').read_bytes()).hexdigest()[:12]} "
        "(once, about a minute)\n"
    )


def test_a_folder_with_a_colon(machine):
    folder = machine / "a:b"
    folder.mkdir()
    shutil.copy(ROOT / "reproduce", folder)
    done = reproduce("check", root=folder, PATH=str(machine / "bin"))
    assert (done.returncode, done.stderr) == (
        2,
        f"reproduce: {folder} has a colon in its name, which Python's search path does not allow; "
        "rename the folder\n",
    )


def test_unknown_command():
    done = reproduce("minst", **os.environ)
    assert done.returncode == 2
    assert done.stderr.endswith("reproduce: unknown command 'minst'; expected one of those above\n")


def test_active_environment_that_satisfies_the_lock_is_used(machine):
    """Nothing is installed then."""
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    environment["PATH"] = f"{sys.prefix}/bin:{environment['PATH']}"
    done = reproduce("python", "-c", "import sys; print(sys.prefix)", root=machine, **environment)
    assert (done.stdout, done.stderr) == (f"{sys.prefix}\n", "")
    assert not (machine / ".venv").exists()


def test_benchmark_xnor_is_a_program_of_its_own():
    done = reproduce("benchmark", "xnor", "--help", **os.environ)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: benchmark xnor [-h] [--torch-python")


@pytest.mark.parametrize("command", ["sweep", "benchmark scale"])
def test_help_installs_nothing(machine, command):
    for path in (ROOT / "reproduction", ROOT / "benchmarks", ROOT / "fused", *ROOT.glob("*.py")):
        (machine / path.name).symlink_to(path)
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    environment["PATH"] = f"{sys.prefix}/bin:{environment['PATH']}"
    done = reproduce(*command.split(), "--help", root=machine, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {command} [-h]")
    assert not (machine / ".venv").exists()
