import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import original_stack
from original_stack.errors import UserError
from original_stack.lock import LOCK

import numpy as np
import pytest

from reproduction.commands import archive
from reproduction.datasets import files as data_files
from reproduction.deploy import predict

COMMIT = "0123abc"


def git(*arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, "-C", original_stack.ROOT, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch, no_other_data):
    """A checkout of a few files, without a source of packages and without Docker."""
    if shutil.which("git") is None:
        pytest.skip("no git here")
    root = tmp_path / "checkout"
    (root / archive.DEPLOYED).parent.mkdir(parents=True)
    (root / "program.py").write_text("pass\n")
    shutil.copy(LOCK, root)
    shutil.copy(original_stack.ROOT / "CITATION.cff", root)
    shutil.copy(original_stack.ROOT / archive.DEPLOYED, root / archive.DEPLOYED)
    monkeypatch.setattr(original_stack, "ROOT", root)
    monkeypatch.setattr(archive, "_packages", lambda folder: folder.mkdir())
    monkeypatch.setattr(archive, "_image", lambda *_: None)
    monkeypatch.setenv("BINARYCONNECT_DATA", str(tmp_path / "data"))
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "m")
    return root


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A function that writes an official data file."""

    def write(name, content):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        md5 = hashlib.md5(content).hexdigest()
        monkeypatch.setitem(data_files.CHECKSUMS, path.name, md5)
        return path

    return write


def refused(folder, message):
    with pytest.raises(UserError) as error:
        archive.archive(folder)
    assert str(error.value) == message


def test_contents(tmp_path, checkout, data, capsys):
    for name in ("mnist/t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte", "extra_32x32.mat"):
        data(name, name.encode())
    (tmp_path / "data" / "other.txt").touch()
    folder = tmp_path / "archive"
    archive.archive(folder)
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True
    )
    summed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert summed == {
        "README",
        "binaryconnect.tar.gz",
        "ro-crate-metadata.json",
        "verify",
        "data/extra_32x32.mat",
        "data/mnist/t10k-images-idx3-ubyte.gz",
        "data/t10k-labels-idx1-ubyte",
    }
    subprocess.run(["tar", "-xf", "binaryconnect.tar.gz"], cwd=folder, check=True)
    program = folder / "binaryconnect"
    assert {path.name for path in program.iterdir()} == {
        "CITATION.cff",
        "program.py",
        "requirements.lock",
        "results",
        "commit",
    }
    assert (program / "commit").read_text() == git("rev-parse", "HEAD")
    assert capsys.readouterr().err == ""


def test_directions(tmp_path, checkout, data):
    data("mnist/t10k-images-idx3-ubyte.gz", b"i")
    data("t10k-labels-idx1-ubyte", b"l")
    archive.archive(tmp_path / "archive")
    text = (tmp_path / "archive" / "README").read_text()
    assert f"commit\n{git('rev-parse', 'HEAD')} without a network." in text
    assert "Image: none was there" in text
    assert "Data files: t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte\n" in text
    assert f'run predict {archive.DEPLOYED} "$data/mnist/t10k-images-idx3-ubyte.gz" >' in text
    assert "\n    mnist: Copyright Yann LeCun and Corinna Cortes, derived" in text
    assert "    svhn: " not in text
    assert "images and labels there (they are there), a network" in text
    assert "errs in 119 of 10,000 test images." in text
    assert "\n         0.0 MB  data\n" in text


def verify(folder, *arguments, **variables):
    return subprocess.run(
        [folder / "verify", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, **variables},
    )


def test_verify(tmp_path, checkout, data):
    for package in ("original_stack", "reproduction"):
        shutil.copytree(
            Path(archive.__file__).parents[2] / package,
            checkout / package,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    git("add", ".")
    git("commit", "--quiet", "--message", "m")
    images = np.random.RandomState(0).randint(256, size=(200, 28, 28)).astype(np.uint8)
    deployed = predict.load(checkout / archive.DEPLOYED)
    labels = deployed.predict(images.reshape(200, 1, 28, 28)).astype(np.uint8)
    labels[:119] += 1  # other than predicted
    idx = struct.pack(">4I", 2051, 200, 28, 28) + images.tobytes()
    data("mnist/t10k-images-idx3-ubyte.gz", gzip.compress(idx))
    data("t10k-labels-idx1-ubyte", struct.pack(">2I", 2049, 200) + labels.tobytes())
    folder = tmp_path / "archive"
    archive.archive(folder)
    done = verify(folder)
    right = "the network errs in 119 test images, as stated\n"
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"6 files are as archived\n{right}",
        "weights: 11,640,832 bytes as float32, 363,776 here, 32.0 times less\n",
    )
    classes = tmp_path / "classes"
    labels[:119] -= 1
    classes.write_text("".join(f"{label}\n" for label in labels))
    assert verify(folder, os.path.relpath(classes)).stdout == right
    labels[119] += 1
    classes.write_text("".join(f"{label}\n" for label in labels))
    done = verify(folder, classes)
    message = "verify: the network errs in 120 test images; 119 are stated\n"
    assert (done.returncode, done.stderr) == (1, message)
    done = verify(folder, PYTHON="", PATH=without(tmp_path, "python3.11", "python3"))
    assert done.returncode == 2
    assert done.stderr == (
        "verify: no Python 3.11 found, which runs the network; name it: "
        "PYTHON=/path/to/python3.11\n"
    )


def without(tmp_path, *programs):
    """The PATH without some programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for directory in reversed(os.environ["PATH"].split(":")):
        for path in Path(directory).glob("*"):
            if path.name not in programs:
                (folder / path.name).unlink(missing_ok=True)
                (folder / path.name).symlink_to(path)
    return str(folder)


def test_verify_names_a_file_that_changed(tmp_path, checkout):
    folder = tmp_path / "archive"
    archive.archive(folder)
    done = verify(folder)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "4 files are as archived",
            "MNIST's test set is not here: the error of the network is not checked",
        ],
    )
    with open(folder / "README", "a") as f:
        f.write("\n")
    done = verify(folder)
    assert (done.returncode, done.stdout) == (1, "README: FAILED\n")
    assert done.stderr.splitlines()[-1] == (
        "verify: the files above are not as archived; get the archive again"
    )


def test_without_data(tmp_path, checkout, capsys):
    archive.archive(tmp_path / "archive")
    assert capsys.readouterr().err == (
        f"archive: without data: no official file is in {tmp_path}/data or {tmp_path}/cache/data; "
        "the archive will train on the embedded digits only\n"
    )
    text = (tmp_path / "archive" / "README").read_text()
    assert "Data files: none were there\n" in text
    assert "images and labels there (they are not there now), a network" in text


def test_a_damaged_data_file_is_refused(tmp_path, checkout, data):
    path = data("extra_32x32.mat", b"right")
    path.write_bytes(b"wrong")
    refused(
        tmp_path / "archive",
        f"{path} is not the official file: its md5 is 2bda2998d9b0ee197da142a0447f6725, expected "
        "7c4f29407893c334a6cb7a87bf045c0d; replace or remove it, then start again with an empty "
        "folder",
    )


def test_data_that_is_not_a_file_is_refused(tmp_path, checkout, data):
    path = data("extra_32x32.mat", b"")
    path.unlink()
    os.mkfifo(path)
    refused(tmp_path / "archive", f"{path} is not a regular file; give the name of a file")


def test_only_a_commit_is_archived(tmp_path, checkout):
    (checkout / "new.py").touch()
    refused(
        tmp_path / "a", f"{checkout} has changes, an archive is of a commit; commit or discard them"
    )
    shutil.rmtree(checkout / ".git")
    refused(
        tmp_path / "a",
        f"{checkout} is not a git checkout, and an archive is of a commit; use one",
    )


def test_folder_with_files_is_left_alone(tmp_path, checkout):
    refused(checkout, f"{checkout} has files in it; name a new folder")


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A stand-in for Docker, with an image of COMMIT that has two layers."""
    facts = {"Id": "sha256:1", "Os": "linux", "Architecture": "amd64", "Size": 2_000_000}
    facts["Config"] = {"Env": ["A=b", "C=d e"]}
    (tmp_path / "inspect").write_text(json.dumps(facts))
    (tmp_path / "manifest.json").write_text(
        json.dumps([{"Layers": ["1/layer.tar", "2/layer.tar"]}])
    )
    with tarfile.open(tmp_path / "save", "w") as saved:
        saved.add(tmp_path / "manifest.json", "manifest.json")
    program = tmp_path / "docker"
    program.write_text(
        f"""#!/bin/sh
        case "$1 $*" in
            image*) cat {tmp_path}/inspect ;;
            save*) cat {tmp_path}/save ;;
            run*provenance*) echo {{}} ;;
            run*) echo {COMMIT} ;;
        esac
        """
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_image(tmp_path, docker):
    folder = tmp_path / "archive"
    folder.mkdir()
    assert archive._image(folder, "binaryconnect", COMMIT) == {
        "description": "sha256:1, linux/amd64, 2 MB unpacked; sbom.json lists its packages",
        "environment": ["A=b", "C=d e"],
        "layers": ["1/layer.tar", "2/layer.tar"],
    }
    assert {path.name for path in folder.iterdir()} == {"image.tar.gz", "sbom.json"}


def test_image_of_another_commit(tmp_path, docker):
    with pytest.raises(UserError) as error:
        archive._image(tmp_path, "binaryconnect", "4567")
    assert (
        str(error.value) == f"image binaryconnect is of commit {COMMIT}, not 4567; build it again"
    )


def test_failed_command_is_named():
    with pytest.raises(UserError) as error:
        archive._call(["false", "a"])
    assert str(error.value) == (
        "false a ... failed (see above); fix that, then start again with an empty folder"
    )
