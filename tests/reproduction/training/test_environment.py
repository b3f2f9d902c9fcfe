import hashlib
import os
import subprocess
import sys

import original_stack
from original_stack import lock

from reproduction.training import environment


def test_environment():
    facts = environment.environment()
    assert facts["versions"]["blas"].startswith("OpenBLAS 0.3.")
    assert facts["threads"] == int(os.environ["OMP_NUM_THREADS"])
    assert facts["cpu"]
    assert set(facts) == {
        "versions",
        "lock_sha256",
        "image",
        "cpu",
        "threads",
        "git_commit",
        "git_dirty",
    }


def test_versions_are_those_of_what_is_imported(monkeypatch):
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


def test_commit_where_variables_name_another_repository(tmp_path, monkeypatch):
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
