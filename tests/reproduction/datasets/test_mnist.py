"""MNIST and the embedded digits, from files to the arrays of a run."""

import dataclasses
import functools
import gzip
import os

import formats
import fuel
import fuel.datasets
import numpy as np
import pytest
from checks import refusal, same

from reproduction import datasets
from reproduction.datasets import files as data_files

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


def test_mnist_signed_has_whole_numbers_from_minus_255_to_255(tmp_path):
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


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train-images-idx3-ubyte.gz", b"no gzip", "Not a gzipped file (b'no')"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"abc"), "unpack requires a buffer of 16"),
        ("t10k-images-idx3-ubyte.gz", gzip.compress(bytes(99)), "Wrong magic number"),
        ("train-images-idx3-ubyte.gz", None, "Compressed file ended"),
    ],
)
def test_mnist_files_of_another_format(tmp_path, name, content, reason):
    formats.mnist(tmp_path)
    content = (tmp_path / name).read_bytes()[:1000] if content is None else content
    (tmp_path / name).write_bytes(content)
    message = error("mnist", tmp_path, allow_unofficial=True)
    assert message.startswith(
        f"the MNIST files in {tmp_path} are not of the official format ({reason}"
    )
    assert os.listdir(tmp_path / "binaryconnect") == ["mnist.lock"]


def test_mnist_labels_beyond_nine(tmp_path):
    formats.mnist(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-1] + b"\x0a"))
    assert error("mnist", tmp_path, allow_unofficial=True) == (
        "the MNIST files have images of shape (1, 28, 28) and labels up to 10; expected shape "
        "(1, 28, 28) and labels up to 9"
    )


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
