"""Each data set from files of its official format to the arrays of a run."""

import dataclasses
import gzip
import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import formats
import fuel
import fuel.datasets
import numpy as np
import pytest
import scipy.io

import datasets
import preprocessing
from original_stack import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """A cache of the test's own, no data of the user's, no network."""
    monkeypatch.setenv("BINARYCONNECT_CACHE", str(tmp_path / "cache"))
    for variable in ("BINARYCONNECT_DATA", "FUEL_DATA_PATH", "PYLEARN2_DATA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in datasets.MIRRORS:
        monkeypatch.setitem(datasets.MIRRORS, name, ["http://127.0.0.1:9/"])


def error(*arguments, **options):
    """The message of the UserError that `load` raises: one line."""
    with pytest.raises(UserError) as raised:
        datasets.load(*arguments, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


def same(one, other):
    return all(
        np.array_equal(getattr(one, part).X, getattr(other, part).X)
        and np.array_equal(getattr(one, part).y, getattr(other, part).y)
        for part in ("train", "valid", "test")
    )


# MNIST


def test_mnist_is_split_and_centred(tmp_path):
    images, labels, test_images, test_labels = formats.mnist(tmp_path / "data")
    mnist = datasets.load("mnist", tmp_path / "data", allow_unofficial=True)
    assert (mnist.name, mnist.official) == ("mnist", False)
    assert [file.name for file in mnist.files] == datasets.WANTED["mnist"]
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


def test_fuel_reads_the_converted_file(tmp_path, monkeypatch):
    images = formats.mnist(tmp_path)[0]
    datasets.load("mnist", tmp_path, allow_unofficial=True)
    monkeypatch.setitem(fuel.config.config["data_path"], "value", [str(tmp_path / "binaryconnect")])
    mnist = fuel.datasets.MNIST(("train",))
    assert np.array_equal(mnist.data_sources[0][:, 0], images)


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

    monkeypatch.setattr(datasets, "VERSION", datasets.VERSION + 1)
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


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Four small files that pass for the official ones."""
    formats.mnist(tmp_path / "server")
    for path in (tmp_path / "server").iterdir():
        monkeypatch.setitem(datasets.CHECKSUMS, path.name, formats.md5(path.read_bytes()))
    return tmp_path / "server"


def test_missing_files_are_downloaded_once(tmp_path, official, monkeypatch):
    data = tmp_path / "data"
    with formats.server(official) as (address, asked):
        monkeypatch.setitem(datasets.MIRRORS, "mnist", [address])
        mnist = datasets.load("mnist", data)
        assert asked == [f"/{name}" for name in datasets.WANTED["mnist"]]
    assert mnist.official
    assert sorted(os.listdir(data)) == sorted([*datasets.WANTED["mnist"], "binaryconnect"])
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
        monkeypatch.setitem(datasets.MIRRORS, "mnist", mirrors)
        data = tmp_path / "data"
        assert error("mnist", data) == (
            f"train-images-idx3-ubyte.gz is not in {data} and cannot be downloaded "
            f"(http://127.0.0.1:9/ ConnectionError; {truncating} ChunkedEncodingError; "
            f"{wrong} wrong checksum; {empty} HTTPError): put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz "
            "there, or train on embedded digits with --data digits"
        )
        assert os.listdir(data) == []
        monkeypatch.setitem(datasets.MIRRORS, "mnist", [*mirrors, good])
        assert datasets.load("mnist", data).official
        assert len(asked) == 4


def test_two_processes_at_once(tmp_path, official, monkeypatch):
    code = (
        "import sys, datasets\n"
        "datasets.MIRRORS['mnist'] = [sys.argv[1]]\n"
        "datasets.CHECKSUMS.update(zip(datasets.WANTED['mnist'], sys.argv[3:]))\n"
        "print(datasets.load('mnist', sys.argv[2]).train.X[:].sum())\n"
    )
    checksums = [datasets.CHECKSUMS[name] for name in datasets.WANTED["mnist"]]
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
    monkeypatch.setitem(datasets.CHECKSUMS, archive.name, formats.md5(archive.read_bytes()))
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


@pytest.fixture(scope="module")
def svhn(tmp_path_factory):
    """A folder with small files of SVHN, and what they hold."""
    folder = tmp_path_factory.mktemp("svhn")
    return folder, formats.svhn(folder)


@pytest.fixture
def svhn_copy(svhn, tmp_path):
    """A folder of links to these files: what is made of them is made anew for each test."""
    for path in svhn[0].glob("*.mat"):
        os.link(path, tmp_path / path.name)
    return tmp_path


def test_svhn_is_split_and_normalized(svhn):
    folder, sets = svhn
    released = datasets.load("svhn", folder, allow_unofficial=True)
    assert [file.name for file in released.files] == datasets.WANTED["svhn"]
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


def test_fuel_reads_the_converted_svhn(svhn, monkeypatch):
    folder, sets = svhn
    datasets.load("svhn", folder, allow_unofficial=True)
    monkeypatch.setitem(fuel.config.config["data_path"], "value", [str(folder / "binaryconnect")])
    for name, (images, labels) in sets.items():
        found = fuel.datasets.SVHN(2, (name,), load_in_memory=True)
        assert found.axis_labels["features"] == ("batch", "channel", "height", "width")
        assert np.array_equal(found.data_sources[0], images)
        assert np.array_equal(found.data_sources[1][:, 0], labels % 10)


def test_a_killed_conversion_goes_on_where_it_was(svhn, svhn_copy, monkeypatch):
    """Killed by SIGKILL in the middle of the second block, that is in the training images."""
    code = (
        "import os, signal, sys, datasets\n"
        "class Bar(datasets.tqdm):\n"
        "    def update(self, n=1):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "datasets.tqdm = Bar\n"
        "datasets.load('svhn', sys.argv[1], allow_unofficial=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(svhn_copy)]
    killed = subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (svhn_copy / "binaryconnect").glob("*.partial")

    bars = []

    class Bar(datasets.tqdm):
        def __init__(self, **options):
            bars.append(options)
            super().__init__(**options)

    monkeypatch.setattr(datasets, "tqdm", Bar)
    resumed = datasets.load("svhn", svhn_copy, allow_unofficial=True)
    assert [(bar["initial"], bar["total"]) for bar in bars] == [(4096, 6230)]
    assert not left.exists()
    whole = datasets.load("svhn", svhn[0], allow_unofficial=True)
    for part in ("train", "valid", "test"):
        one, other = getattr(resumed, part), getattr(whole, part)
        assert np.array_equal(one.X[:], other.X[:])
        assert np.array_equal(one.y, other.y)


def test_what_a_killed_conversion_left_is_not_used_for_other_files(svhn, svhn_copy):
    folder = svhn_copy / "binaryconnect"
    folder.mkdir()
    (folder / "svhn_format_2.hdf5.0123.partial").write_bytes(b"of other files")
    (folder / "svhn_format_2.hdf5.0123.new").write_bytes(b"of other files")
    datasets.load("svhn", svhn_copy, allow_unofficial=True)
    assert sorted(os.listdir(folder)) == ["svhn_format_2.hdf5", "svhn_format_2.lock"]


def test_one_of_three_files_is_missing(svhn_copy):
    (svhn_copy / "extra_32x32.mat").unlink()
    assert error("svhn", svhn_copy, allow_unofficial=True) == (
        f"extra_32x32.mat is not in {svhn_copy} and cannot be downloaded (http://127.0.0.1:9/ "
        "ConnectionError): put train_32x32.mat, test_32x32.mat, extra_32x32.mat there"
    )


def test_a_truncated_mat_file(svhn_copy):
    path = svhn_copy / "extra_32x32.mat"
    content = path.read_bytes()
    path.unlink()
    for size, reason in ((1_000_000, "KeyError: 'y'"), (100, "")):
        path.write_bytes(content[:size])
        message = error("svhn", svhn_copy, allow_unofficial=True)
        assert message.startswith(f"{path} is not a whole file of SVHN's format 2 ({reason}")
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
            "has X of shape and type ((28, 28, 3, 2), 'uint8') and y of shape (2, 1); expected "
            "(32, 32, 3, n), uint8 and (n, 1) as in SVHN's format 2",
        ),
        (
            (32, 32, 3, 2),
            np.float64,
            [1, 2],
            "has X of shape and type ((32, 32, 3, 2), 'double') and y of shape (2, 1); expected "
            "(32, 32, 3, n), uint8 and (n, 1) as in SVHN's format 2",
        ),
        (
            (32, 32, 3, 3),
            np.uint8,
            [1, 2],
            "has X of shape and type ((32, 32, 3, 3), 'uint8') and y of shape (2, 1); expected "
            "(32, 32, 3, n), uint8 and (n, 1) as in SVHN's format 2",
        ),
    ],
)
def test_a_mat_file_of_another_shape_or_label_range(svhn_copy, shape, kind, labels, message):
    path = svhn_copy / "test_32x32.mat"
    path.unlink()
    y = np.array(labels, np.uint8)[:, np.newaxis]
    scipy.io.savemat(path, {"X": np.zeros(shape, kind), "y": y})
    assert error("svhn", svhn_copy, allow_unofficial=True) == f"{path} {message}"


def test_too_few_images_for_the_validation_set(tmp_path):
    formats.svhn(tmp_path, train=4100, extra=1990)
    assert error("svhn", tmp_path, allow_unofficial=True) == (
        "extra_32x32.mat has 199 images of class 1; the validation set takes 200 of each, so give "
        "it more"
    )


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


# Every data set


def test_a_full_disk(tmp_path, monkeypatch):
    formats.mnist(tmp_path)

    def full(*arguments):
        Path(arguments[1], arguments[2]).write_bytes(b"half")
        raise OSError("Can't write data (file write failed: errno = 28, 'No space left on device')")

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "convert_mnist", full)
        assert error("mnist", tmp_path, allow_unofficial=True) == (
            f"cannot prepare mnist in {tmp_path}: the disk is full; free some space, or choose "
            "another directory with --data"
        )
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


def test_an_unknown_name():
    assert (
        error("imagenet") == "unknown data set 'imagenet'; expected mnist, digits, cifar10 or svhn"
    )
