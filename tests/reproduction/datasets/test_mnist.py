"""MNIST and the embedded digits, from files to the arrays of a run."""

import contextlib
import dataclasses
import functools
import gzip
import os
import struct

from original_stack.errors import UserError

import formats
import fuel
import fuel.datasets
import numpy as np
import pytest
from checks import refusal, same
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction import datasets
from reproduction.datasets import files as data_files
from reproduction.datasets import mnist

pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


def test_mnist_is_split_and_centred(tmp_path):
    images, labels, test_images, test_labels = formats.mnist(tmp_path / "data")
    mnist = datasets.load("mnist", tmp_path / "data", allow_unofficial=True)
    assert (mnist.name, mnist.official) == ("mnist", False)
    assert [file.name for file in mnist.files] == data_files.WANTED["mnist"]
    assert [file.md5 for file in mnist.files] == [
        formats.md5((tmp_path / "data" / file.name).read_bytes()) for file in mnist.files
    ]
    mean = (images / 255.0).mean(axis=0)
    for part, expected, targets in (
        (mnist.train, images[:50] / 255.0 - mean, labels[:50]),
        (mnist.valid, images[50:] / 255.0 - mean, labels[50:]),
        (mnist.test, test_images / 255.0 - (test_images / 255.0).mean(axis=0), test_labels),
    ):
        assert part.X.dtype == np.float32
        assert part.X.shape == (len(expected), 1, 28, 28)
        np.testing.assert_allclose(part.X[:, 0], expected, atol=1e-6)
        assert np.array_equal(part.y, targets)
        assert np.issubdtype(part.y.dtype, np.integer)


def test_mnist_signed_has_integers_from_minus_255_to_255(tmp_path):
    images = formats.mnist(tmp_path)[0]
    mnist = datasets.load("mnist", tmp_path, allow_unofficial=True, inputs="signed")
    assert np.array_equal(mnist.train.X[:, 0], 2.0 * images[:50] - 255)
    assert mnist.preprocessing == "2 pixel - 255, divided by 255 after the first layer's sum"


def test_train_size_takes_the_first_training_images_only(tmp_path):
    formats.mnist(tmp_path)
    whole = datasets.load("mnist", tmp_path, allow_unofficial=True)
    some = datasets.load("mnist", tmp_path, allow_unofficial=True, train_size=7)
    assert same(some, dataclasses.replace(whole, train=some.train))
    assert np.array_equal(some.train.X, whole.train.X[:7])
    assert np.array_equal(some.train.y, whole.train.y[:7])
    for size in (0, 51):
        assert error("mnist", tmp_path, allow_unofficial=True, train_size=size) == (
            f"--train-size {size} is not possible; the training set has 50 images"
        )


def test_fuel_reads_the_converted_file(tmp_path, monkeypatch):
    images = formats.mnist(tmp_path)[0]
    datasets.load("mnist", tmp_path, allow_unofficial=True)
    monkeypatch.setitem(fuel.config.config["data_path"], "value", [str(tmp_path / "binaryconnect")])
    mnist = fuel.datasets.MNIST(("train",))
    assert np.array_equal(mnist.data_sources[0][:, 0], images)


def idx(*header, data=b""):
    return struct.pack(f">{len(header)}I", *header) + data


def packed(data):
    """The same bytes in each process that collects tests."""
    return gzip.compress(data, mtime=0)


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (IMAGES, b"no gzip", "is damaged (Not a gzipped file (b'no'))"),
        (IMAGES, packed(b"abc"), "is damaged (unpack requires a buffer of 16 bytes)"),
        (IMAGES, packed(bytes(99)), "is damaged (magic number 0; expected 2051)"),
        (
            IMAGES,
            packed(bytes(10**4))[:-8],
            "is damaged (Compressed file ended before the end-of-stream marker was reached)",
        ),
        (
            IMAGES,
            packed(idx(2051, 2**32 - 1, 28, 28, data=bytes(784))),
            "is damaged (784 bytes for 4294967295 entries of shape (28, 28))",
        ),
        (
            IMAGES,
            packed(idx(2051, 1, 28, 28, data=bytes(785))),
            "is damaged (785 bytes for 1 entries of shape (28, 28))",
        ),
        (
            IMAGES,
            packed(idx(2051, 3, 20, 20, data=bytes(1200))),
            "has images of shape (20, 20); expected (28, 28)",
        ),
        (IMAGES, packed(idx(2051, 0, 28, 28)), "has no entries"),
        (LABELS, packed(idx(2051, 0)), "is damaged (magic number 2051; expected 2049)"),
        (LABELS, packed(idx(2049, 0)), "has no entries"),
        (
            LABELS,
            packed(idx(2049, 2, data=bytes([3, 10]))),
            "has labels up to 10; expected 0 to 9",
        ),
    ],
)
def test_mnist_files_of_another_format(tmp_path, name, content, reason):
    formats.mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert error("mnist", tmp_path, allow_unofficial=True) == (
        f"{tmp_path / name} {reason}; delete it to have it downloaded"
    )
    assert os.listdir(tmp_path / "binaryconnect") == ["mnist.lock"]


def test_mnist_has_a_label_for_each_image(tmp_path):
    formats.mnist(tmp_path)
    (tmp_path / LABELS).write_bytes(gzip.compress(idx(2049, 59, data=bytes(59))))
    assert error("mnist", tmp_path, allow_unofficial=True) == (
        f"{tmp_path / IMAGES} has 60 images, but {tmp_path / LABELS} has 59 labels; delete both to "
        "have them downloaded"
    )


def test_a_bomb_is_not_unzipped(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "LARGEST", 100)
    formats.mnist(tmp_path, train=101)
    assert error("mnist", tmp_path, allow_unofficial=True) == (
        f"{tmp_path / IMAGES} is damaged (more than 78416 bytes); delete it to have it downloaded"
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_mnist_files_raise_a_user_error_at_most(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    zipped = data.draw(st.booleans())
    formats.mnist(folder, 4, 2, pack=gzip.compress if zipped else bytes)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = data.draw(formats.damaged(path.read_bytes()))
    if zipped and data.draw(st.booleans()):  # damage below the compression
        content = gzip.compress(data.draw(formats.damaged(gzip.decompress(path.read_bytes()))))
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        mnist._count(path, plain(path, folder / "plain"))


def plain(path, output):
    data_files.unpack(path, output, 10**6)
    return output


def test_digits():
    digits = datasets.load("mnist", "digits")
    assert (digits.name, digits.official) == ("digits", False)
    assert [file.name for file in digits.files] == ["scikit-learn digits"]
    assert [len(part.y) for part in (digits.train, digits.valid, digits.test)] == [1200, 297, 300]
    assert digits.train.X.shape == (1200, 1, 28, 28)
    assert np.array_equal(digits.train.y[:12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    both = np.concatenate([digits.train.X, digits.valid.X])
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(digits.test.X.mean(axis=0), 0, atol=1e-6)
    signed = datasets.load("digits", inputs="signed").train.X
    assert (signed.min(), signed.max()) == (-255, 255)
    assert np.array_equal(signed, np.rint(signed))
