"""CIFAR-10, from files to the arrays of a run."""

import contextlib
import functools
import gzip
import os
import pickle
import re
import tarfile

from original_stack.errors import UserError

import formats
import numpy as np
import pytest
from checks import refusal, same
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction import datasets
from reproduction.datasets import cifar10, preprocessing

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
    assert "whitening the images" in capfd.readouterr().err
    normalized = [
        preprocessing.global_contrast_normalize(images, 55.0) for images, _ in batches.values()
    ]
    # Directions in which no training image differs from the mean are divided by sqrt(filter bias)
    # only.
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
        assert [file.name for file in extracted.files] == cifar10.BATCHES


def test_cifar10_is_found_where_pylearn2_has_it(tmp_path, batches, monkeypatch):
    formats.cifar10(tmp_path, batches)
    plain = load_cifar10(tmp_path)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz") as content:
        content.extractall(tmp_path / "pylearn2" / "cifar10")
    monkeypatch.setenv("PYLEARN2_DATA_PATH", str(tmp_path / "pylearn2"))
    assert same(plain, load_cifar10(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "data_batch_2) is damaged (pickle exhausted before seeing STOP)"),
        (
            b"cposix\nsystem\n.",
            "data_batch_2) is damaged (it asks for posix.system, which data do not need)",
        ),
        (None, None),
    ],
)
def test_a_batch_of_another_format(tmp_path, batches, content, reason):
    formats.cifar10(tmp_path, batches, data_batch_2=content)
    archive = tmp_path / "cifar-10-python.tar.gz"
    place = f"{archive} ({reason}"
    if content is None:
        place = f"{archive} is damaged ('cifar-10-batches-py/data_batch_2')"
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"{place}; delete it to have it downloaded"
    )
    assert os.listdir(tmp_path / "binaryconnect") == ["cifar10.lock"]


def test_an_extracted_batch_of_another_format(tmp_path, batches):
    for name, (images, labels) in batches.items():
        (tmp_path / name).write_bytes(pickle.dumps({"data": images, "labels": labels}))
    (tmp_path / "data_batch_4").write_bytes(b"")
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"{tmp_path}/data_batch_4 is damaged (pickle exhausted before seeing STOP); delete it to "
        "have it downloaded"
    )


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
        f"{archive} is damaged (Compressed file ended before the end-of-stream marker was "
        "reached); delete it to have it downloaded"
    )


def member(name="cifar-10-batches-py/data_batch_1", **fields):
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def negative_size():
    """A header with a size of -512 bytes, so that the next header is this header again."""
    header = bytearray(member("a").tobuf())
    header[124:136] = b"\xff" * 10 + (2**16 - 512).to_bytes(2, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


SPARSE = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            member(type=tarfile.SYMTYPE, linkname="data_batch_1").tobuf(),
            "cifar-10-batches-py/data_batch_1 is not a regular file",
        ),
        (
            member(pax_headers={**SPARSE, "GNU.sparse.size": str(2**40)}, size=512).tobuf(
                tarfile.PAX_FORMAT
            )
            + bytes(512),
            "cifar-10-batches-py/data_batch_1 is not a regular file",
        ),
        (
            member(size=2**40).tobuf(),
            "unexpected end of data",
        ),
        # 3.11.7 skips such a member, 3.11.2 says what is wrong with it.
        (negative_size(), "('cifar-10-batches-py/data_batch_1'|invalid offset)"),
        (b"", "'cifar-10-batches-py/data_batch_1'"),
        (b"no archive" * 100, "invalid header"),
    ],
)
def test_members_that_are_not_files(tmp_path, content, reason):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(gzip.compress(content + bytes(1024)))
    message = error("cifar10", tmp_path, allow_unofficial=True)
    pattern = rf"\({reason}\); delete it to have it downloaded"
    assert message.startswith(f"{archive} is damaged (")
    assert re.fullmatch(pattern, message.removeprefix(f"{archive} is damaged "))


def test_a_bomb_is_not_unzipped(tmp_path, monkeypatch):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(gzip.compress(bytes(3 * 2**20)))
    monkeypatch.setattr(cifar10, "LARGEST", 2 * 2**20)
    assert error("cifar10", tmp_path, allow_unofficial=True) == (
        f"{archive} is damaged (more than 2097152 bytes); delete it to have it downloaded"
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_archive_raises_a_user_error_at_most(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damage")
    formats.cifar10(folder, formats.cifar10_batches(2))
    (path,) = folder.iterdir()
    content = data.draw(formats.damaged(gzip.decompress(path.read_bytes())))
    path.write_bytes(gzip.compress(content, 1))
    with contextlib.suppress(UserError):
        cifar10._repack({path.name: path}, folder)


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
