"""Official files: found, downloaded, checked; what is made of them, kept."""

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
from reproduction.datasets import prepared

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
    """Four small files that pass for the official ones."""
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


def test_a_broken_mirror_gives_way_to_the_next(tmp_path, official, monkeypatch):
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


def test_the_converted_file_is_kept_until_its_inputs_or_its_version_change(
    tmp_path, monkeypatch, capfd
):
    formats.mnist(tmp_path)
    first = datasets.load("mnist", tmp_path, allow_unofficial=True)
    path = tmp_path / "binaryconnect" / "mnist.hdf5"
    made = path.stat().st_mtime_ns
    assert same(first, datasets.load("mnist", tmp_path, allow_unofficial=True))
    assert path.stat().st_mtime_ns == made
    again = f"{path} is of other files or another version: making it again\n"

    monkeypatch.setattr(prepared, "VERSION", prepared.VERSION + 1)
    assert same(first, datasets.load("mnist", tmp_path, allow_unofficial=True))
    assert capfd.readouterr().err == again

    formats.mnist(tmp_path, seed=1)
    assert not same(first, datasets.load("mnist", tmp_path, allow_unofficial=True))
    assert capfd.readouterr().err == again

    path.write_bytes(path.read_bytes()[:5000])
    datasets.load("mnist", tmp_path, allow_unofficial=True)
    assert capfd.readouterr().err == again


def test_a_read_only_directory_is_left_alone(tmp_path):
    data = tmp_path / "data"
    formats.mnist(data)
    data.chmod(0o555)
    datasets.load("mnist", data, allow_unofficial=True)
    data.chmod(0o755)
    assert not (data / "binaryconnect").exists()
    assert (tmp_path / "cache" / "data" / "binaryconnect" / "mnist.hdf5").exists()


def test_a_full_disk(tmp_path, monkeypatch):
    formats.mnist(tmp_path)

    def full(*arguments):
        Path(arguments[1], arguments[2]).write_bytes(b"half")
        raise OSError("Can't write data (file write failed: errno = 28, 'No space left on device')")

    with monkeypatch.context() as patch:
        patch.setattr(datasets.mnist, "convert_mnist", full)
        assert error("mnist", tmp_path, allow_unofficial=True) == (
            f"cannot prepare mnist in {tmp_path}: the disk is full; free some space, or choose "
            "another directory with --data"
        )
        data = tmp_path / "read-only"
        data.mkdir()
        formats.mnist(data)
        data.chmod(0o555)
        cache = tmp_path / "cache"
        patch.setenv("BINARYCONNECT_CACHE", str(cache))
        assert error("mnist", data, allow_unofficial=True) == (
            f"cannot prepare mnist in {cache}/data: the disk is full; free some space, or choose "
            "another directory with --data"
        )
        data.chmod(0o755)
    assert os.listdir(tmp_path / "binaryconnect") == ["mnist.lock"]
    datasets.load("mnist", tmp_path, allow_unofficial=True)


def test_a_directory_that_cannot_be_read(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", denied)  # root may read anything
    path = tmp_path / "train-images-idx3-ubyte.gz"
    assert error("mnist", tmp_path) == (
        f"cannot prepare mnist in {tmp_path}: [Errno 13] Permission denied: '{path}'; make it "
        "readable, or choose another directory with --data"
    )
