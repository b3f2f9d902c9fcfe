"""How official files are found, downloaded and checked."""

import functools
import gzip
import os
import subprocess
import sys
from pathlib import Path

import formats
import pytest
from checks import refusal, same

from reproduction import datasets
from reproduction.datasets import files as data_files

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


@pytest.mark.parametrize("below", ["", "mnist"])
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_mnist_is_found_below_the_directory_and_unzipped(tmp_path, below, pack):
    formats.mnist(tmp_path / "plain")
    formats.mnist(tmp_path / "data" / below, pack=pack)
    plain = datasets.load("mnist", tmp_path / "plain", allow_unofficial=True)
    assert same(plain, datasets.load("mnist", tmp_path / "data", allow_unofficial=True))


def test_the_data_directory_comes_from_the_environment(tmp_path, monkeypatch):
    for name, seed in (("fuel", 1), ("own", 2), ("named", 3)):
        formats.mnist(tmp_path / name, seed=seed)
    by_path = {
        name: datasets.load("mnist", tmp_path / name, allow_unofficial=True)
        for name in ("fuel", "own", "named")
    }
    fuel_path = f"{tmp_path / 'nothing'}{os.pathsep}{tmp_path / 'fuel'}"
    monkeypatch.setenv("FUEL_DATA_PATH", fuel_path)
    assert same(datasets.load("mnist", allow_unofficial=True), by_path["fuel"])
    monkeypatch.setenv("BINARYCONNECT_DATA", str(tmp_path / "own"))
    assert same(datasets.load("mnist", allow_unofficial=True), by_path["own"])
    named = datasets.load("mnist", tmp_path / "named", allow_unofficial=True)
    assert same(named, by_path["named"])


def test_an_unofficial_file_is_refused_with_both_checksums(tmp_path):
    formats.mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    assert error("mnist", tmp_path) == (
        f"{path} is not the official file: its md5 is {formats.md5(path.read_bytes())}, expected "
        "f68b3c2dcbeaaa9fbdd348bbdeb94873; delete it to have it downloaded, or take it as it is "
        "with --allow-unofficial-data"
    )


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Four small files that count as the official ones."""
    formats.mnist(tmp_path / "server")
    for path in (tmp_path / "server").iterdir():
        monkeypatch.setitem(data_files.CHECKSUMS, path.name, formats.md5(path.read_bytes()))
    return tmp_path / "server"


def test_missing_files_are_downloaded_once(tmp_path, official, monkeypatch):
    data = tmp_path / "data"
    with formats.server(official) as (address, asked):
        monkeypatch.setitem(data_files.MIRRORS, "mnist", [address])
        mnist = datasets.load("mnist", data)
        assert asked == [f"/{name}" for name in data_files.WANTED["mnist"]]
    assert mnist.official
    assert sorted(os.listdir(data)) == sorted([*data_files.WANTED["mnist"], "binaryconnect"])
    assert same(mnist, datasets.load("mnist", data))  # no server any more


def test_after_a_broken_mirror_the_next_one_is_tried(tmp_path, official, monkeypatch):
    formats.mnist(tmp_path / "wrong", seed=1)
    with (
        formats.server(official) as (good, asked),
        formats.server(official, cut=10) as (truncating, _),
        formats.server(tmp_path / "wrong") as (wrong, _),
        formats.server(tmp_path / "nothing") as (empty, _),
    ):
        mirrors = ["http://127.0.0.1:9/", truncating, wrong, empty]
        monkeypatch.setitem(data_files.MIRRORS, "mnist", mirrors)
        data = tmp_path / "data"
        assert error("mnist", data) == (
            f"train-images-idx3-ubyte.gz is not in {data} and cannot be downloaded "
            f"(http://127.0.0.1:9/ ConnectionError; {truncating} ChunkedEncodingError; "
            f"{wrong} wrong checksum; {empty} HTTPError): put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz "
            "there, or train on embedded digits with --data digits"
        )
        assert os.listdir(data) == []
        monkeypatch.setitem(data_files.MIRRORS, "mnist", [*mirrors, good])
        assert datasets.load("mnist", data).official
        assert len(asked) == 4


def test_two_processes_at_once(tmp_path, official, monkeypatch):
    code = (
        "import sys\n"
        "from reproduction import datasets\n"
        "from reproduction.datasets import files as data_files\n"
        "data_files.MIRRORS['mnist'] = [sys.argv[1]]\n"
        "data_files.CHECKSUMS.update(zip(data_files.WANTED['mnist'], sys.argv[3:]))\n"
        "print(datasets.load('mnist', sys.argv[2]).train.X[:].sum())\n"
    )
    checksums = [data_files.CHECKSUMS[name] for name in data_files.WANTED["mnist"]]
    with formats.server(official) as (address, _):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, address, str(tmp_path / "data"), *checksums],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        results = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert results[0] == results[1]


def test_a_directory_that_cannot_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", denied)  # root may read anything
    assert error("mnist", tmp_path) == (
        f"cannot read {tmp_path}/train-images-idx3-ubyte.gz: Permission denied; make it readable"
    )


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    formats.mnist(tmp_path)

    def denied(path, flags):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    assert error("mnist", tmp_path, allow_unofficial=True) == (
        f"cannot read {tmp_path}/train-images-idx3-ubyte.gz: Permission denied; make it readable"
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "t10k-labels-idx1-ubyte"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "data_batch_3"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_fifos_are_not_waited_for(tmp_path, name, file):
    for other in data_files.CHECKSUMS:
        alike = {"mnist": "ubyte", "cifar10": "batch", "svhn": ".mat"}[name] in other
        if alike and "batch" in file or other in data_files.WANTED[name]:
            (tmp_path / other).write_bytes(b"")
    if "batch" in file:
        (tmp_path / "cifar-10-python.tar.gz").unlink()
    (tmp_path / file).unlink(missing_ok=True)
    (tmp_path / f"{file}.gz").unlink(missing_ok=True)
    os.mkfifo(tmp_path / file)
    assert error(name, tmp_path, allow_unofficial=True) == (
        f"{tmp_path / file} is not a regular file; give the name of a file"
    )


def test_a_directory_of_a_name_that_python_cannot_decode(tmp_path):
    folder = tmp_path / os.fsdecode(b"donn\xe9es")
    formats.mnist(folder)
    assert len(datasets.load("mnist", folder, allow_unofficial=True).train.y) == 50
    assert len(datasets.load("mnist", folder, allow_unofficial=True).train.y) == 50


def test_a_path_that_is_not_a_directory(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    for name in ("file", "fifo"):
        assert error("mnist", tmp_path / name) == (
            f"{tmp_path / name} is not a directory; name the directory with the data files"
        )
    assert error("mnist", "") == "--data is empty; name a directory or leave it out"
    expected = "the data directory is '~nosuchuser/x', but there is no such home; give a full path"
    assert error("mnist", "~nosuchuser/x") == expected
    monkeypatch.setenv("BINARYCONNECT_DATA", "~nosuchuser/x")
    assert error("mnist") == expected


def test_the_search_path(tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "data"
    assert data_files.data_directories() == [cache]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYLEARN2_DATA_PATH", "~/pylearn2")
    monkeypatch.setenv("FUEL_DATA_PATH", "/a:~/b")
    rest = [cache, tmp_path / "pylearn2"]
    assert data_files.data_directories() == [Path("/a"), tmp_path / "b", *rest]
    monkeypatch.setenv("BINARYCONNECT_DATA", "~/c")
    assert data_files.data_directories() == [tmp_path / "c", *rest]
    assert data_files.data_directories("d") == [Path("d"), *rest]


def test_mnist_is_found_where_pylearn2_has_it(tmp_path, monkeypatch):
    formats.mnist(tmp_path / "pylearn2" / "mnist", pack=bytes)
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(tmp_path / "pylearn2"))
    assert len(datasets.load("mnist", allow_unofficial=True).test.y) == 20
