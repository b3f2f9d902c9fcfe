"""SVHN's .mat files are converted as Fuel does, also after an interruption."""

import functools
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

from original_stack.errors import UserError

import fuel
import fuel.datasets
import h5py
import numpy as np
import pytest
import scipy.io
from checks import refusal

from reproduction import datasets
from reproduction.datasets import svhn_format_2

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


def test_fuel_reads_the_converted_svhn(svhn, monkeypatch):
    folder, sets = svhn
    datasets.load("svhn", folder, allow_unofficial=True)
    monkeypatch.setitem(fuel.config.config["data_path"], "value", [str(folder / "binaryconnect")])
    for name, (images, labels) in sets.items():
        dataset = fuel.datasets.SVHN(2, (name,), load_in_memory=True)
        assert dataset.axis_labels["features"] == ("batch", "channel", "height", "width")
        assert np.array_equal(dataset.data_sources[0], images)
        assert np.array_equal(dataset.data_sources[1][:, 0], labels % 10)


def test_a_killed_conversion_is_resumed(svhn, svhn_copy, monkeypatch):
    """SIGKILL comes in the middle of the second block, which holds training images."""
    code = (
        "import os, signal, sys\n"
        "from reproduction import datasets\n"
        "from reproduction.datasets import svhn_format_2\n"
        "class Bar(svhn_format_2.tqdm):\n"
        "    def update(self, n=1):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "svhn_format_2.tqdm = Bar\n"
        "datasets.load('svhn', sys.argv[1], allow_unofficial=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(svhn_copy)]
    killed = subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (svhn_copy / "binaryconnect").glob("*.partial")

    bars = []

    class Bar(svhn_format_2.tqdm):
        def __init__(self, **options):
            bars.append(options)
            super().__init__(**options)

    monkeypatch.setattr(svhn_format_2, "tqdm", Bar)
    resumed = datasets.load("svhn", svhn_copy, allow_unofficial=True)
    assert [(bar["initial"], bar["total"]) for bar in bars] == [(4096, 6230)]
    assert not left.exists()
    whole = datasets.load("svhn", svhn[0], allow_unofficial=True)
    for part in ("train", "valid", "test"):
        one, other = getattr(resumed, part), getattr(whole, part)
        assert np.array_equal(one.X[:], other.X[:])
        assert np.array_equal(one.y, other.y)


def test_an_unfinished_conversion_is_not_used_for_other_files(svhn, svhn_copy):
    folder = svhn_copy / "binaryconnect"
    folder.mkdir()
    for kind in ("partial", "new"):
        left = folder / f"svhn_format_2.hdf5.{'0' * 32}.{kind}"
        left.write_bytes(b"of other files")
    datasets.load("svhn", svhn_copy, allow_unofficial=True)
    assert sorted(os.listdir(folder)) == [
        "svhn_format_2.hdf5",
        "svhn_format_2.json",
        "svhn_format_2.lock",
    ]


def test_a_truncated_mat_file(svhn_copy):
    path = svhn_copy / "extra_32x32.mat"
    content = path.read_bytes()
    path.unlink()
    for size, reason in (
        (1_000_000, "y is missing"),
        (140, "unpack requires a buffer of 8 bytes"),
        (100, "it is not of MATLAB's format 5"),
        (0, "it is not of MATLAB's format 5"),
    ):
        path.write_bytes(content[:size])
        message = error("svhn", svhn_copy, allow_unofficial=True)
        assert message.startswith(f"{path} is damaged ({reason}")
        assert message.endswith("); delete it to have it downloaded")
    assert os.listdir(svhn_copy / "binaryconnect") == ["svhn_format_2.lock"]


@pytest.mark.parametrize(
    ("shape", "kind", "labels", "message"),
    [
        (
            (32, 32, 3, 5),
            np.uint8,
            [1, 2, 10, 0, 1],
            "has labels from 0 to 10; expected 1 to 10 as in SVHN's format 2",
        ),
        (
            (32, 32, 3, 5),
            np.uint8,
            [1, 2, 11, 3, 1],
            "has labels from 1 to 11; expected 1 to 10 as in SVHN's format 2",
        ),
        (
            (28, 28, 3, 2),
            np.uint8,
            [1, 2],
            "has X of shape and type ((28, 28, 3, 2), 'uint8') and y of ((2, 1), 'uint8'); "
            "expected (32, 32, 3, n), uint8 and (n, 1), numbers, as in SVHN's format 2",
        ),
        (
            (32, 32, 3, 2),
            np.float64,
            [1, 2],
            "has X of shape and type ((32, 32, 3, 2), 'double') and y of ((2, 1), 'uint8'); "
            "expected (32, 32, 3, n), uint8 and (n, 1), numbers, as in SVHN's format 2",
        ),
        (
            (32, 32, 3, 3),
            np.uint8,
            [1, 2],
            "has X of shape and type ((32, 32, 3, 3), 'uint8') and y of ((2, 1), 'uint8'); "
            "expected (32, 32, 3, n), uint8 and (n, 1), numbers, as in SVHN's format 2",
        ),
    ],
)
def test_a_mat_file_of_another_shape_or_label_range(svhn_copy, shape, kind, labels, message):
    path = svhn_copy / "test_32x32.mat"
    path.unlink()
    y = np.array(labels, np.uint8)[:, np.newaxis]
    scipy.io.savemat(path, {"X": np.zeros(shape, kind), "y": y})
    assert error("svhn", svhn_copy, allow_unofficial=True) == f"{path} {message}"


def test_a_disk_too_full_for_svhn(svhn_copy, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert error("svhn", svhn_copy, allow_unofficial=True) == (
            f"cannot prepare svhn in {svhn_copy}: the disk is full; free some space, or choose "
            "another directory with --data"
        )
    assert os.listdir(svhn_copy / "binaryconnect") == ["svhn_format_2.lock"]
    datasets.load("svhn", svhn_copy, allow_unofficial=True)


def test_images_are_on_the_disk_before_their_labels_say_so(svhn_copy, monkeypatch):
    done = []  # the number of images with a label at each synchronization

    def fdatasync(descriptor):
        with h5py.File(f"/proc/self/fd/{descriptor}", "r") as file:
            done.append(int(np.count_nonzero(file["targets"][:] != 255)))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    datasets.load("svhn", svhn_copy, allow_unofficial=True)
    assert done == [0, 4096, 4096, 4100, 4100, 4130, 4130, 6230]


@pytest.mark.parametrize("damage", [b"", b"no HDF5", None])
def test_a_damaged_rest_of_a_conversion_is_not_resumed(svhn, svhn_copy, monkeypatch, damage):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(svhn_format_2.tqdm, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            datasets.load("svhn", svhn_copy, allow_unofficial=True)
    (left,) = (svhn_copy / "binaryconnect").glob("*.partial")
    if damage is None:  # other numbers of images
        left.unlink()
        svhn_format_2._allocate(left, np.array([0, 1, 2, 3]))
    else:
        left.write_bytes(damage)
    again = datasets.load("svhn", svhn_copy, allow_unofficial=True)
    assert np.array_equal(again.test.y, svhn[1]["test"][1] - 1)


def test_fifos_are_not_waited_for(svhn_copy):
    path = svhn_copy / "test_32x32.mat"
    path.unlink()
    os.mkfifo(path)
    assert refusal(svhn_format_2._labels, path) == (
        f"{path} is not a regular file; give the name of a file"
    )


@pytest.mark.parametrize("shape", [(32, 32, 3, 0), (32, 32, 3, 5)])
def test_numbers_of_images(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(svhn_format_2, "LARGEST", 4)
    path = tmp_path / "test_32x32.mat"
    y = np.ones((shape[-1], 1), np.uint8)
    scipy.io.savemat(path, {"X": np.zeros(shape, np.uint8), "y": y})
    assert refusal(svhn_format_2._labels, path) == (
        f"{path} has {shape[-1]} images; expected 1 to 4"
    )


def test_images_that_are_stored_as_other_numbers(tmp_path):
    """MATLAB may store a class in a smaller type; doubles would need more room."""
    path = tmp_path / "test_32x32.mat"
    scipy.io.savemat(path, {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1))})
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<II", 6, 0), struct.pack("<II", 9, 0), 1))
    assert refusal(svhn_format_2._images, path, 2) == (
        f"{path} is damaged (X is stored as float64); delete it to have it downloaded"
    )
