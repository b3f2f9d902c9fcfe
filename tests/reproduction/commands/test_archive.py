import shutil
import subprocess

import original_stack
from original_stack import lock
from original_stack.errors import UserError

import pytest

from reproduction.commands import archive


def git(*arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, "-C", original_stack.ROOT, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of one file and a lock; packages come from nowhere, and there is no Docker."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "program.py").write_text("pass\n")
    shutil.copy(lock.LOCK, root)
    monkeypatch.setattr(original_stack, "ROOT", root)
    monkeypatch.setattr(archive, "_packages", lambda folder: folder.mkdir())
    monkeypatch.setattr(archive, "_image", lambda *_: False)
    monkeypatch.setenv("BINARYCONNECT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path / "cache"))
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "m")
    return root


def refused(folder, message):
    with pytest.raises(UserError) as error:
        archive.archive(folder)
    assert str(error.value) == message


def test_contents(tmp_path, checkout):
    for name in ("mnist/t10k-labels-idx1-ubyte.gz", "extra_32x32.mat", "other.txt"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    folder = tmp_path / "archive"
    archive.archive(folder)
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True
    )
    summed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert summed == {
        "README",
        "binaryconnect.tar.gz",
        "data/extra_32x32.mat",
        "data/mnist/t10k-labels-idx1-ubyte.gz",
    }
    text = (folder / "README").read_text()
    assert "The data files that were there: extra_32x32.mat, t10k-labels-idx1-ubyte.gz." in text
    assert "With Docker (there was no image when this was made):" in text
    subprocess.run(["tar", "-xf", "binaryconnect.tar.gz"], cwd=folder, check=True)
    program = folder / "binaryconnect"
    assert {path.name for path in program.iterdir()} == {
        "program.py",
        "requirements.lock",
        "commit",
    }
    assert (program / "commit").read_text() == git("rev-parse", "HEAD")


def test_only_a_commit_is_archived(tmp_path, checkout):
    (checkout / "new.py").touch()
    refused(
        tmp_path / "a", f"{checkout} has changes, an archive is of a commit; commit or discard them"
    )
    shutil.rmtree(checkout / ".git")
    refused(
        tmp_path / "a",
        f"{checkout} is no git checkout, which an archive is made of; make it in one",
    )


def test_folder_with_files_is_left_alone(tmp_path, checkout):
    refused(checkout, f"{checkout} has files in it; name a new folder")


def test_image_of_another_commit(tmp_path, monkeypatch):
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = image ] || echo 0123\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UserError) as error:
        archive._image(tmp_path / "image.tar.gz", "binaryconnect", "4567")
    assert str(error.value) == ("image binaryconnect is of commit 0123, not 4567; build it anew")


def test_failed_command_is_named():
    with pytest.raises(UserError) as error:
        archive._call(["false", "a"])
    assert str(error.value) == (
        "false a ... failed (see above); mend that, then start again with an empty folder"
    )
