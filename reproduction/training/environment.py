"""The environment of a run, and records of its process."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import original_stack
from original_stack import lock, machine


def environment():
    """The environment of a run, see `records.Environment`: versions, the base of the image (in a
    container), system, compiler, processor, threads, commit, and the job (under Slurm)."""
    processor = machine.processor()
    vectors = re.findall(r"\b(?:sse4|avx|fma|f16c|amx)\w*", processor.get("flags", ""))
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("theano", "lasagne", "fuel", "numpy")},
            "blas": machine.blas(),
        },
        "lock_sha256": hashlib.sha256(lock.LOCK.read_bytes()).hexdigest(),
        "image": os.environ.get("BINARYCONNECT_IMAGE"),
        "system": _system(),
        "compiler": _compiler(),
        "cpu": processor.get("model name", platform.machine()),
        "instructions": sorted(vectors),
        "threads": machine.threads(),
        "job": _job(os.environ),
        **commit(),
    }


def provenance():
    """The environment, and {package: version} of the installed packages of Python and, in the
    image, of Debian."""
    debian = {}
    if os.environ.get("BINARYCONNECT_IMAGE"):
        shown = subprocess.run(["dpkg-query", "--show"], capture_output=True, text=True, check=True)
        debian = dict(line.split("\t") for line in shown.stdout.splitlines())
    packages = {package.name: package.version for package in importlib.metadata.distributions()}
    return {**environment(), "packages": dict(sorted(packages.items())), "debian": debian}


def process():
    """Facts about the process of a run: its command, and its peak memory so far in bytes."""
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"command": _printable(command), "peak_memory": peak}


def now():
    """The date and time in the format of records."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _printable(text):
    """`text` with "?" for unprintable characters, which records must not have."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _system():
    """The distribution and the kernel: "Debian GNU/Linux 12 (bookworm), Linux 6.1.0"."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = "unknown"
    return _printable(f"{name}, {platform.system()} {platform.release()}")


def _compiler():
    """The first line about the version of Theano's compiler, or None without a compiler."""
    theano = sys.modules.get("theano")
    compiler = theano.config.cxx if theano else "g++"
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return _printable(done.stdout.partition("\n")[0])


def _job(variables):
    """The job of Slurm that environment variables describe, or None."""
    if not variables.get("SLURM_JOB_ID"):
        return None
    restarts = variables.get("SLURM_RESTART_COUNT", "")
    return {
        "id": _printable(variables["SLURM_JOB_ID"]),
        "node": _printable(variables.get("SLURMD_NODENAME") or platform.node()),
        "restarts": int(restarts) if re.fullmatch("[0-9]{1,9}", restarts) else 0,
    }


def _version(name):
    """The version of a package that is imported, otherwise of the installed package."""
    imported = getattr(sys.modules.get(name), "__version__", None)
    return imported or importlib.metadata.version(name)


def commit():
    """{"git_commit": the checked-out commit, "git_dirty": whether files differ from it}. None means
    that it is not known."""

    # GIT_DIR and similar variables may name another repository, for example in a hook.
    variables = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}

    def git(*args):
        command = ["git", "-C", original_stack.ROOT, *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
        return done.stdout.strip()

    try:
        if os.path.samefile(git("rev-parse", "--show-toplevel"), original_stack.ROOT):
            dirty = git("status", "--porcelain", "--", ".", ":!results")
            return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(dirty)}
    except (OSError, subprocess.CalledProcessError):
        pass
    # In the image and in the archive, a file names the commit.
    path = original_stack.ROOT / "commit"
    text = path.read_text().strip() if path.exists() else None
    return {"git_commit": text or None, "git_dirty": None}
