"""Each data set from files of its official format to the arrays of a run."""

import dataclasses
import functools
import gzip
import io
import os
import pickle
import tarfile

import formats
import fuel
import fuel.datasets
import numpy as np
import pytest
from checks import refusal, same

from reproduction import datasets
from reproduction.datasets import files as data_files
from reproduction.datasets import preprocessing

pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


# MNIST


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


# Downloads


# scikit-learn's digits


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


# CIFAR-10


@pytest.fixture
def batches():
    return formats.cifar10_batches()


def load_cifar10(folder, **options):
    return datasets.load("cifar10", folder, allow_unofficial=True, inputs="signed", **options)


def test_cifar10_is_split(tmp_path, batches):
    formats.cifar10(tmp_path, batches)
    cifar10 = load_cifar10(tmp_path)
    assert (cifar10.name, cifar10.official) == ("cifar10", False)
    assert [file.name for file in cifar10.files] == ["cifar-10-python.tar.gz"]
    images = np.concatenate([batches[f"data_batch_{i}"][0] for i in range(1, 6)])
    labels = np.concatenate([batches[f"data_batch_{i}"][1] for i in range(1, 6)])
    for part, expected, targets in (
        (cifar10.train, images[:90], labels[:90]),
        (cifar10.valid, images[90:], labels[90:]),
        (cifar10.test, *batches["test_batch"]),
    ):
        assert part.X.shape == (len(expected), 3, 32, 32)
        assert part.X.dtype == np.float32
        assert np.array_equal(part.X.reshape(-1, 3072), 2.0 * expected - 255)
        assert np.array_equal(part.y, targets)


@pytest.mark.slow
def test_cifar10_is_normalized_and_whitened(tmp_path, batches, capfd):
    formats.cifar10(tmp_path, batches)
    cifar10 = datasets.load("cifar10", tmp_path, allow_unofficial=True)
    assert "GCN (scale 55), ZCA (filter bias 0.1)" in cifar10.preprocessing
    assert "whitening CIFAR-10" in capfd.readouterr().err
    normalized = [
        preprocessing.global_contrast_normalize(images, 55.0) for images, _ in batches.values()
    ]
    # As defined: of the 3,072 directions, those in which no training image differs from the mean
    # are divided by sqrt(filter bias) only.
    training = np.concatenate(normalized[:-1]).astype(np.float64)
    mean = training.mean(axis=0)
    _, values, directions = np.linalg.svd(training - mean, full_matrices=False)
    scales = 1 / np.sqrt(values**2 / 100 + 0.1) - 1 / np.sqrt(0.1)
    for part, images in ((cifar10.train, training[:90]), (cifar10.test, normalized[-1])):
        centered = images - mean
        expected = (centered @ directions.T * scales) @ directions + centered / np.sqrt(0.1)
        white = part.X[:].reshape(-1, 3072)
        np.testing.assert_allclose(white, expected, rtol=0, atol=1e-4 * abs(expected).max())
    index = np.array([5, 3])
    assert np.array_equal(cifar10.valid.X[index], cifar10.valid.X[:][index])
    again = datasets.load("cifar10", tmp_path, allow_unofficial=True, train_size=3)
    assert capfd.readouterr().err == ""
    assert np.array_equal(again.train.X, cifar10.train.X[:3])


@pytest.mark.parametrize("below", ["", "cifar10"])
def test_cifar10_is_found_below_the_directory_and_extracted(tmp_path, batches, below):
    formats.cifar10(tmp_path / "plain", batches)
    plain = load_cifar10(tmp_path / "plain")
    formats.cifar10(tmp_path / "data" / below, batches)
    assert same(plain, load_cifar10(tmp_path / "data"))
    archive = tmp_path / "data" / below / "cifar-10-python.tar.gz"
    with tarfile.open(archive) as content:
        content.extractall(archive.parent)
    archive.unlink()
    for folder in (tmp_path / "data", archive.parent / "cifar-10-batches-py"):
        extracted = load_cifar10(folder)
        assert same(plain, extracted)
        assert [file.name for file in extracted.files] == datasets.CIFAR10_BATCHES


def test_cifar10_is_found_where_pylearn2_has_it(tmp_path, batches, monkeypatch):
    formats.cifar10(tmp_path, batches)
    plain = load_cifar10(tmp_path)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz") as content:
        content.extractall(tmp_path / "pylearn2" / "cifar10")
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(tmp_path / "pylearn2"))
    assert same(plain, load_cifar10(tmp_path / "nothing"))


def test_an_official_archive_goes_to_fuel_as_it_is(tmp_path, batches, monkeypatch):
    formats.cifar10(tmp_path, batches)
    archive = tmp_path / "cifar-10-python.tar.gz"
    monkeypatch.setitem(data_files.CHECKSUMS, archive.name, formats.md5(archive.read_bytes()))
    monkeypatch.setattr(datasets, "_Unpickler", None)
    assert datasets.load("cifar10", tmp_path, inputs="signed").official


class Hostile:
    """Pickles as a call of `os.mkdir`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_but_data_is_unpickled(tmp_path, batches):
    trap = tmp_path / "trap"
    images, labels = batches["data_batch_3"]
    hostile = {"data": images, "labels": labels, "more": Hostile(trap)}
    formats.cifar10(tmp_path, batches, data_batch_3=pickle.dumps(hostile, protocol=2))
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"the CIFAR-10 files in {tmp_path} are not of the official format (data_batch_3: it asks "
        "for posix.mkdir, which no data need); delete them to have them downloaded"
    )
    assert not trap.exists()
    assert pickle.loads(pickle.dumps(hostile))["more"] is None  # the trap works
    assert trap.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_numbers_strings_and_containers_are_unpickled(protocol):
    data = {
        "array": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "numbers": [1, 2.5, True, None, np.float32(0.5), np.int64(3)],
        "strings": ("a", "b\xe9"),
        "bytes": b"\x00\xff",
    }
    content = pickle.dumps(data, protocol)
    result = datasets._Unpickler(io.BytesIO(content), encoding="latin1").load()
    assert np.array_equal(result.pop("array"), data.pop("array"))
    assert result == data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "data_batch_2: Ran out of input"),
        (b"cposix\nsystem\n.", "data_batch_2: it asks for posix.system, which no data need"),
        (pickle.dumps({"labels": []}), "data_batch_2: 'data'"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}),
            "data_batch_2: expected uint8 data of shape (n, 3072) and n integer labels",
        ),
        (
            pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}),
            "data_batch_2: expected uint8 data of shape (n, 3072) and n integer labels",
        ),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 259]}),
            "data_batch_2: labels from 1 to 259; expected 0 to 9",
        ),
        (None, "\"filename 'cifar-10-batches-py/data_batch_2' not found\""),
    ],
)
def test_a_batch_of_another_format(tmp_path, batches, content, reason):
    formats.cifar10(tmp_path, batches, data_batch_2=content)
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"the CIFAR-10 files in {tmp_path} are not of the official format ({reason}); delete them "
        "to have them downloaded"
    )
    assert os.listdir(tmp_path / "binaryconnect") == ["cifar10.lock"]


def test_a_truncated_archive(tmp_path, batches):
    formats.cifar10(tmp_path, batches)
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:100_000])
    assert error("cifar10", tmp_path) == (
        f"{archive} is not the official file: its md5 is {formats.md5(archive.read_bytes())}, "
        "expected c58f30108f718f92721af3b95e74349a; delete it to have it downloaded, or take it "
        "as it is with --allow-unofficial-data"
    )
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"the CIFAR-10 files in {tmp_path} are not of the official format (Compressed file ended "
        "before the end-of-stream marker was reached); delete them to have them downloaded"
    )


def test_links_in_an_archive_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "data_batch_1"
        archive.addfile(link)
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"the CIFAR-10 files in {tmp_path} are not of the official format "
        "(cifar-10-batches-py/data_batch_1 is not a regular file); delete them to have them "
        "downloaded"
    )


def test_a_folder_that_lacks_a_batch(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"")
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"{tmp_path} lacks data_batch_2, data_batch_3, data_batch_4, data_batch_5, test_batch; "
        "extract the whole archive there"
    )


def test_no_cifar10(tmp_path):
    assert error("cifar10", tmp_path) == (
        f"cifar-10-python.tar.gz is not in {tmp_path} and cannot be downloaded "
        "(http://127.0.0.1:9/ ConnectionError): put cifar-10-python.tar.gz there"
    )


# SVHN


def test_svhn_is_split_and_normalized(svhn):
    folder, sets = svhn
    released = datasets.load("svhn", folder, allow_unofficial=True)
    assert [file.name for file in released.files] == data_files.WANTED["svhn"]
    assert [len(part.y) for part in (released.train, released.valid, released.test)] == [
        200,
        6000,
        30,
    ]
    assert np.array_equal(np.bincount(released.valid.y), [600] * 10)

    random = np.random.RandomState(322)
    chosen = {}
    for name, number in (("train", 400), ("extra", 200)):
        chosen[name] = []
        for label in range(1, 11):
            index = np.nonzero(sets[name][1] == label)[0]
            random.shuffle(index)
            chosen[name] += index[:number].tolist()
    parts = {"test": sets["test"]}
    for part in ("train", "valid"):
        images, labels = [], []
        for name in ("train", "extra"):
            taken = np.isin(np.arange(len(sets[name][1])), chosen[name]) == (part == "valid")
            images.append(sets[name][0][taken])
            labels.append(sets[name][1][taken])
        parts[part] = np.concatenate(images), np.concatenate(labels)

    every = datasets.load("svhn", folder, allow_unofficial=True, lcn="all-channels")
    signed = datasets.load("svhn", folder, allow_unofficial=True, inputs="signed")
    for name, (images, labels) in parts.items():
        normalized = preprocessing.global_contrast_normalize(images)
        for svhn, expected in (
            (released, preprocessing.local_contrast_normalize(normalized, [0])),
            (every, preprocessing.local_contrast_normalize(normalized)),
            (signed, 2.0 * images - 255),
        ):
            part = getattr(svhn, name)
            assert part.X.shape == (len(labels), 3, 32, 32)
            assert part.X[:].dtype == part.X.dtype == np.float32
            np.testing.assert_allclose(part.X[:], expected, atol=1e-5)
            index = np.array([7, 3, 3])
            np.testing.assert_allclose(part.X[index], expected[index], atol=1e-5)
            np.testing.assert_allclose(part.X[5:9], expected[5:9], atol=1e-5)
            assert np.array_equal(part.y, labels - 1)
    assert released.preprocessing == "GCN (scale 1), LeCun LCN of channel 0 only, as released"
    assert every.preprocessing == "GCN (scale 1), LeCun LCN of all channels"
    assert (
        error("svhn", folder, allow_unofficial=True, inputs="signed", lcn="all-channels")
        == "method bnn takes SVHN without local contrast normalization; leave --lcn out"
    )


def test_train_size_of_svhn(svhn):
    whole = datasets.load("svhn", svhn[0], allow_unofficial=True)
    some = datasets.load("svhn", svhn[0], allow_unofficial=True, train_size=9)
    assert some.train.X.shape == (9, 3, 32, 32)
    np.testing.assert_allclose(some.train.X[:], whole.train.X[:9], atol=1e-6)
    assert np.array_equal(some.train.y, whole.train.y[:9])


def test_one_of_three_files_is_missing(svhn_copy):
    (svhn_copy / "extra_32x32.mat").unlink()
    assert error("svhn", svhn_copy, allow_unofficial=True) == (
        f"extra_32x32.mat is not in {svhn_copy} and cannot be downloaded (http://127.0.0.1:9/ "
        "ConnectionError): put train_32x32.mat, test_32x32.mat, extra_32x32.mat there"
    )


def test_too_few_images_for_the_validation_set(tmp_path):
    formats.svhn(tmp_path, train=4100, extra=1990)
    assert error("svhn", tmp_path, allow_unofficial=True) == (
        "extra_32x32.mat has 199 images of class 1; the validation set takes 200 of each, so give "
        "it more"
    )


# Every data set


def test_an_unknown_name():
    assert (
        error("imagenet") == "unknown data set 'imagenet'; expected mnist, digits, cifar10 or svhn"
    )
