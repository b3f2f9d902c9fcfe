"""Prepared files are kept, and made again if their inputs or their content change."""

import contextlib
import errno
import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from original_stack.errors import Lock, UserError

import formats
import h5py
import numpy as np
import pytest
from checks import refusal, same
from fuel.datasets import H5PYDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction import datasets
from reproduction.datasets import files as data_files
from reproduction.datasets import mnist, prepared

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


def load(folder):
    return datasets.load("mnist", folder, allow_unofficial=True)


def again(path):
    return f"{path} is damaged, or was made of other files or by another version: making it again\n"


def test_a_file_is_kept_until_its_inputs_or_its_version_change(tmp_path, monkeypatch, capfd):
    formats.mnist(tmp_path)
    first = load(tmp_path)
    path = tmp_path / "binaryconnect" / "mnist.hdf5"
    made = path.stat().st_mtime_ns
    assert same(first, load(tmp_path))
    assert path.stat().st_mtime_ns == made
    assert capfd.readouterr().err == ""

    monkeypatch.setattr(prepared, "VERSION", prepared.VERSION + 1)
    assert same(first, load(tmp_path))
    assert capfd.readouterr().err == again(path)

    formats.mnist(tmp_path, seed=1)
    assert not same(first, load(tmp_path))
    assert capfd.readouterr().err == again(path)


def reverse_labels(path):
    with h5py.File(path, "r+") as file:
        file["targets"][:] = 9 - file["targets"][:]


def large_label(path):
    with h5py.File(path, "r+") as file:
        file["targets"][3] = 200


def no_features(path):
    with h5py.File(path, "r+") as file:
        del file["features"]


def no_split(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["split"]


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def no_note(path):
    path.with_suffix(".json").unlink()


def damaged_note(path):
    path.with_suffix(".json").write_text("[" * 10**5)


def another_note(path):
    path.with_suffix(".json").write_text('{"made of": 1}')


def fifo_for_note(path):
    fifo(path.with_suffix(".json"))


@pytest.mark.parametrize(
    "change",
    [reverse_labels, large_label, no_features, no_split, cut, fifo]
    + [no_note, damaged_note, another_note, fifo_for_note],
)
def test_a_changed_file_is_made_again(tmp_path, capfd, change):
    formats.mnist(tmp_path)
    first = load(tmp_path)
    path = tmp_path / "binaryconnect" / "mnist.hdf5"
    change(path)
    assert same(first, load(tmp_path))
    assert capfd.readouterr().err == again(path)
    assert same(first, load(tmp_path))
    assert capfd.readouterr().err == ""


def test_the_checksum_is_compared_once_for_each_time_stamp(tmp_path, monkeypatch, capfd):
    formats.mnist(tmp_path)
    load(tmp_path)
    path = tmp_path / "binaryconnect" / "mnist.hdf5"
    compared = []
    digest = prepared.hashlib.file_digest

    def spy(file, kind):
        compared.append(os.fstat(file.fileno()).st_ino)
        return digest(file, kind)

    monkeypatch.setattr(prepared.hashlib, "file_digest", spy)
    inode = path.stat().st_ino
    load(tmp_path)
    assert inode not in compared
    os.utime(path)
    load(tmp_path)
    assert compared.count(inode) == 1
    load(tmp_path)
    assert compared.count(inode) == 1
    assert capfd.readouterr().err == ""


def test_a_file_with_a_right_checksum_and_wrong_labels_is_refused(tmp_path):
    formats.mnist(tmp_path)
    load(tmp_path)
    path = tmp_path / "binaryconnect" / "mnist.hdf5"
    large_label(path)
    note = path.with_suffix(".json")
    md5 = formats.md5(path.read_bytes())
    note.write_text(json.dumps({**json.loads(note.read_text()), "md5": md5}))
    assert error("mnist", tmp_path, allow_unofficial=True) == (
        f"{path} is damaged (labels of shape (60, 1) up to 200); delete it to have it made again"
    )


def test_arrays_of_another_type_are_refused(tmp_path):
    def make(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("features", (20,), h5py.string_dtype())  # numpy's type: object
            file["targets"] = np.full((20, 1), -1, np.int8)
            with prepared.quiet():
                file.attrs["split"] = H5PYDataset.create_split_array(
                    {"train": {"features": (0, 20), "targets": (0, 20)}}
                )

    files = [data_files.File("a", "1", False)]
    path = tmp_path / "binaryconnect" / "a.hdf5"
    again = "expected uint8); delete it to have it made again"
    with prepared.prepare("a.hdf5", files, [tmp_path], make) as file:
        for read in (
            functools.partial(file.memory_map, "features", np.uint8),
            functools.partial(file.images, "train"),
        ):
            assert refusal(read) == f"{path} is damaged (an array of type object; {again}"
        message = refusal(file.labels, "train")
    assert message == f"{path} is damaged (an array of type int8; {again}"


def test_files_of_the_users_beside_it_stay(tmp_path):
    formats.mnist(tmp_path)
    load(tmp_path)
    folder = tmp_path / "binaryconnect"
    copy = folder / "mnist.hdf5.bak"
    copy.write_bytes(b"a copy of the user's")
    partial = folder / f"mnist.hdf5.{'0' * 32}.partial"
    partial.write_bytes(b"of a killed run")
    (folder / "mnist.json").unlink()
    load(tmp_path)
    assert copy.read_bytes() == b"a copy of the user's"
    assert not partial.exists()


def test_an_open_file_stays_readable_when_it_is_replaced(tmp_path):
    def make(value):
        def write(path):
            with h5py.File(path, "w") as file:
                file["features"] = np.full((2, 3), value, np.uint8)

        return write

    def prepare(md5, value):
        files = [data_files.File("a", md5, False)]
        return prepared.prepare("a.hdf5", files, [tmp_path], make(value))

    with prepare("1", 1) as first, prepare("2", 2) as second:
        mapped = first.memory_map("features", np.uint8)
        assert second.memory_map("features", np.uint8).tolist() == [[2] * 3] * 2
        assert mapped.tolist() == [[1] * 3] * 2
    assert mapped.tolist() == [[1] * 3] * 2


def test_two_runs_on_different_data_with_one_cache(tmp_path):
    """If both load at the same time, each gets the data of its own files."""
    expected = {}
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        formats.mnist(folder, seed=seed)
        expected[seed] = load(folder)
        (folder / "binaryconnect").rename(tmp_path / f"made{seed}")
        (folder / "binaryconnect").symlink_to(tmp_path / "made0")
    code = (
        "import sys\n"
        "from reproduction import datasets\n"
        "for _ in range(5):\n"
        "    mnist = datasets.load('mnist', sys.argv[1], allow_unofficial=True)\n"
        "    print(mnist.train.X.tobytes().hex()[:999], mnist.train.y.tolist())\n"
    )
    processes = [start(code, tmp_path / str(seed)) for seed in (0, 1)]
    for seed, process in enumerate(processes):
        lines = process.communicate()[0].splitlines()
        assert process.returncode == 0
        train = expected[seed].train
        assert lines == [f"{train.X.tobytes().hex()[:999]} {train.y.tolist()}"] * 5


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_a_wait_is_announced(tmp_path, capfd):
    formats.mnist(tmp_path)
    folder = tmp_path / "binaryconnect"
    folder.mkdir()
    holder = Lock(folder / "mnist.lock")
    waiter = threading.Thread(target=load, args=[tmp_path])
    waiter.start()
    said, deadline = "", time.monotonic() + 30
    while not said and time.monotonic() < deadline:
        said += capfd.readouterr().err
        time.sleep(0.01)
    assert said.endswith(f": waiting for another process, which prepares {folder}/mnist.hdf5\n")
    holder.release()
    waiter.join()
    assert (folder / "mnist.hdf5").exists()


def test_hdf5_takes_no_locks_of_its_own(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        h5py.File(tmp_path / "a", "w").close()


def test_a_file_system_without_locks(tmp_path, monkeypatch, capfd):
    formats.mnist(tmp_path)

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(Lock, "_said", False)
    assert len(load(tmp_path).train.y) == 50
    assert "this file system has no locks" in capfd.readouterr().err


def test_a_read_only_directory_is_left_alone(tmp_path):
    data = tmp_path / "data"
    formats.mnist(data)
    data.chmod(0o555)
    load(data)
    data.chmod(0o755)
    assert not (data / "binaryconnect").exists()
    assert (tmp_path / "cache" / "data" / "binaryconnect" / "mnist.hdf5").exists()


FULL = [
    OSError("Can't write data (file write failed: errno = 28, 'No space left on device')"),
    OSError("Can't write data (file write failed: errno = 122, 'Disk quota exceeded')"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
]


@pytest.mark.parametrize("problem", FULL)
def test_a_full_disk(tmp_path, monkeypatch, problem):
    formats.mnist(tmp_path)

    def full(*arguments):
        Path(arguments[1], arguments[2]).write_bytes(b"half")
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(mnist, "convert_mnist", full)
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


def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    formats.mnist(tmp_path)

    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "replace", denied)
    assert error("mnist", tmp_path, allow_unofficial=True).startswith(
        f"cannot prepare mnist in {tmp_path}: [Errno 13] Permission denied: '{tmp_path}/binary"
    )


def test_ctrl_c_while_it_is_made(tmp_path, monkeypatch):
    formats.mnist(tmp_path)

    def interrupted(*arguments):
        Path(arguments[1], arguments[2]).write_bytes(b"half")
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(mnist, "convert_mnist", interrupted)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path)
        signal.signal(signal.SIGINT, before)
    assert len(load(tmp_path).train.y) == 50
    names = ["mnist.hdf5", "mnist.json", "mnist.lock"]
    assert sorted(os.listdir(tmp_path / "binaryconnect")) == names


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_is_found_before_hdf5_reads_it(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    files = [data_files.File("a", "1", False)]

    def make(path):
        with h5py.File(path, "w") as file:
            file["features"] = np.arange(6, dtype=np.uint8)

    with prepared.prepare("a.hdf5", files, [folder], make):
        path = folder / "binaryconnect" / data.draw(st.sampled_from(["a.hdf5", "a.json"]))
    path.write_bytes(data.draw(formats.damaged(path.read_bytes())))
    with (
        contextlib.suppress(UserError),
        prepared.prepare("a.hdf5", files, [folder], make) as opened,
    ):
        assert opened.memory_map("features", np.uint8).tolist() == list(range(6))
