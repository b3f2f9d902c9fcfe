"""What a run runs on."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys

import original_stack
from original_stack import lock, machine


def environment():
    """What a run runs on: versions, image (its base, if in one), processor, threads, commit."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("theano", "lasagne", "fuel", "numpy")},
            "blas": machine.blas(),
        },
        "lock_sha256": hashlib.sha256(lock.LOCK.read_bytes()).hexdigest(),
        "image": os.environ.get("BINARYCONNECT_IMAGE"),
        "cpu": machine.processor().get("model name", platform.machine()),
        "threads": machine.threads(),
        **commit(),
    }


def provenance():
    """The environment, and {package: version} of what is installed: Python's packages, and in the
    image Debian's."""
    debian = {}
    if os.environ.get("BINARYCONNECT_IMAGE"):
        shown = subprocess.run(["dpkg-query", "--show"], capture_output=True, text=True, check=True)
        debian = dict(line.split("\t") for line in shown.stdout.splitlines())
    packages = {package.name: package.version for package in importlib.metadata.distributions()}
    return {**environment(), "packages": dict(sorted(packages.items())), "debian": debian}


def _version(name):
    """The version of a package: what is imported, which need not be what is installed."""
    imported = getattr(sys.modules.get(name), "__version__", None)
    return imported or importlib.metadata.version(name)


def commit():
    """{"git_commit": the checked out commit, "git_dirty": whether files differ from it}; None where
    that is not known."""

    # GIT_DIR and its like may name another repository, as they do in a hook.
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
    # The image and the archive have their commit in a file instead.
    path = original_stack.ROOT / "commit"
    text = path.read_text().strip() if path.exists() else None
    return {"git_commit": text or None, "git_dirty": None}
