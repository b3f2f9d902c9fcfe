"""CIFAR-10, from files to the arrays of a run."""

import functools
import io
import os
import pickle
import tarfile

import formats
import numpy as np
import pytest
from checks import refusal, same

from reproduction import datasets
from reproduction.datasets import files as data_files
from reproduction.datasets import preprocessing

pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


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
        assert [file.name for file in extracted.files] == datasets.cifar10.BATCHES


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
    monkeypatch.setattr(datasets.cifar10, "_Unpickler", None)
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
    result = datasets.cifar10._Unpickler(io.BytesIO(content), encoding="latin1").load()
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
