import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys

import original_stack
from original_stack import lock, machine

import numpy as np
import pytest

from reproduction.training import environment, records


def test_environment():
    facts = environment.environment()
    assert facts["versions"]["blas"].startswith("OpenBLAS 0.3.")
    assert facts["threads"] == int(os.environ["OMP_NUM_THREADS"])
    assert facts["cpu"]
    assert set(facts) == set(records.Environment.__annotations__) - {"kernels"}
    records.check(facts, records.Environment)
    assert facts["system"].endswith(f", Linux {platform.release()}")
    assert re.search(r" [0-9]+\.[0-9]+\.[0-9]+", facts["compiler"])


def test_instructions_of_vectors(monkeypatch):
    flags = "fpu sse sse2 sse4_1 avx fma avx512f avx512_vpopcntdq f16c amx_tile fsrm ssse3"
    monkeypatch.setattr(machine, "processor", lambda: {"flags": flags})
    expected = ["amx_tile", "avx", "avx512_vpopcntdq", "avx512f", "f16c", "fma", "sse4_1"]
    assert environment.environment()["instructions"] == expected


def test_job_of_slurm(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert environment.environment()["job"] is None
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "node-3\n")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert environment.environment()["job"] == {"id": "17", "node": "node-3?", "restarts": 0}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert environment.environment()["job"]["restarts"] == 2


def test_compiler_that_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delitem(sys.modules, "theano", raising=False)
    assert environment.environment()["compiler"] is None


def test_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/a/folder/mnist.py", "--results", "a b\n\udcff"])
    facts = environment.process()
    assert facts["command"] == "mnist.py --results 'a b??'"
    block = np.ones(2**25)  # 256 MiB
    grown = environment.process()["peak_memory"]
    assert block.nbytes <= grown < 2**36
    del block
    assert environment.process()["peak_memory"] >= grown


def test_versions_of_imported_packages(monkeypatch):
    monkeypatch.setattr("numpy.__version__", "1.24.0")
    monkeypatch.delitem(sys.modules, "fuel", raising=False)
    versions = environment.environment()["versions"]
    assert (versions["numpy"], versions["fuel"]) == ("1.24.0", "0.2.0")


def test_commit_of_a_copy_without_git(tmp_path, monkeypatch):
    monkeypatch.setattr(original_stack, "ROOT", tmp_path)
    assert environment.commit() == {"git_commit": None, "git_dirty": None}
    (tmp_path / "commit").write_text("")
    assert environment.commit() == {"git_commit": None, "git_dirty": None}
    (tmp_path / "commit").write_text("0123abc\n")
    assert environment.commit() == {"git_commit": "0123abc", "git_dirty": None}


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_commit_if_variables_name_another_repository(tmp_path, monkeypatch):
    for name in ("ours", "other"):
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", tmp_path / name]
        (tmp_path / name).mkdir()
        subprocess.run([*git, "init", "--quiet"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", name], check=True)
    head = subprocess.check_output(["git", "-C", tmp_path / "ours", "rev-parse", "HEAD"], text=True)
    monkeypatch.setattr(original_stack, "ROOT", tmp_path / "ours")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "ours"))
    assert environment.commit() == {"git_commit": head.strip(), "git_dirty": False}


def test_provenance(monkeypatch):
    monkeypatch.delenv("BINARYCONNECT_IMAGE", raising=False)
    facts = environment.provenance()
    assert (facts["packages"]["Theano"], facts["debian"]) == ("1.0.5", {})
    assert facts["image"] is None
    assert facts["lock_sha256"] == hashlib.sha256(lock.LOCK.read_bytes()).hexdigest()
