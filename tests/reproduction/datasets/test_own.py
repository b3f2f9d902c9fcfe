"""The user's own data is read, split and preprocessed, or refused in one line."""

import functools
import os

import formats
import numpy as np
import pytest
from checks import refusal

from reproduction import arrays, datasets
from reproduction.datasets import own, preprocessing
from reproduction.datasets.files import File

pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


def letters(shape=(28, 28), classes=26, train=120, test=30, valid=None):
    rng = np.random.RandomState(0)
    sets = {"train": train, "test": test, **({} if valid is None else {"valid": valid})}
    content = {}
    for which, n in sets.items():
        content[f"{which}_images"] = rng.randint(0, 256, (n, *shape)).astype(np.uint8)
        content[f"{which}_labels"] = np.arange(n) % classes
    return content


def save(folder, content, **changed):
    path = folder / "letters.npz"
    path.write_bytes(arrays.npz(**{**content, **changed}))
    return path


def test_a_random_sixth_of_the_training_images_validates(tmp_path):
    content = letters()
    path = save(tmp_path, content)
    loaded = datasets.load("mnist", path, inputs="signed")
    assert (loaded.name, loaded.official, loaded.classes) == ("mnist", False, 26)
    assert loaded.title == "mnist-letters"
    assert loaded.files == (File("letters.npz", formats.md5(path.read_bytes()), False),)
    assert loaded.preprocessing == (
        "2 pixel - 255, divided by 255 after the first layer's sum; own data of 26 classes: 100 "
        "training, 20 validation (a random sixth of the training images), 30 test images"
    )
    valid = np.sort(np.random.RandomState(0).permutation(120)[:20])
    train = np.setdiff1d(np.arange(120), valid)
    images, labels = content["train_images"], content["train_labels"]
    for split, expected, targets in (
        (loaded.train, images[train], labels[train]),
        (loaded.valid, images[valid], labels[valid]),
        (loaded.test, content["test_images"], content["test_labels"]),
    ):
        assert np.array_equal(split.X[:, 0], 2.0 * expected - 255)
        assert split.X.dtype == np.float32
        assert split.y.dtype == np.int32
        assert np.array_equal(split.y, targets)


def test_given_validation_images(tmp_path):
    content = letters(valid=26, classes=2)
    loaded = datasets.load("mnist", save(tmp_path, content), train_size=50)
    assert loaded.classes == 2
    assert [len(split.y) for split in (loaded.train, loaded.valid, loaded.test)] == [50, 26, 30]
    both = np.concatenate([content["train_images"], content["valid_images"]])
    centred = preprocessing.center(both / np.float32(255))
    np.testing.assert_allclose(loaded.train.X[:, 0], centred[:50], atol=1e-6)
    np.testing.assert_allclose(loaded.valid.X[:, 0], centred[120:], atol=1e-6)
    assert loaded.preprocessing.endswith(
        "own data of 2 classes: 120 training, 26 validation, 30 test images"
    )


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2)])
@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_colors(tmp_path, name, axes):
    content = letters((32, 32, 3), classes=3, valid=7)
    saved = {
        array: values.transpose(axes) if values.ndim == 4 else values
        for array, values in content.items()
    }
    loaded = datasets.load(name, save(tmp_path, saved), inputs="signed")
    expected = 2.0 * content["valid_images"].transpose(0, 3, 1, 2) - 255
    assert np.array_equal(loaded.valid.X[:], expected)
    assert loaded.classes == 3


def test_svhn_is_normalized(tmp_path):
    content = letters((3, 32, 32), classes=3)
    loaded = datasets.load("svhn", save(tmp_path, content), lcn="all-channels")
    expected = preprocessing.local_contrast_normalize(
        preprocessing.global_contrast_normalize(content["test_images"])
    )
    np.testing.assert_allclose(loaded.test.X[:], expected, atol=1e-5)


def test_cifar10_is_whitened_once(tmp_path, monkeypatch, capfd):
    def fit(images):  # the real one takes 10 seconds
        return images.reshape(-1, 3072).mean(axis=0), 2 * np.eye(3072)

    monkeypatch.setattr(preprocessing, "fit_zca", fit)
    content = letters((3, 32, 32), classes=3, train=20, test=3, valid=4)
    loaded = datasets.load("cifar10", save(tmp_path, content))
    normalized = [
        preprocessing.global_contrast_normalize(content[f"{which}_images"], 55.0)
        for which in ("train", "valid", "test")
    ]
    mean = np.concatenate(normalized[:2]).mean(axis=0)
    for split, images in zip((loaded.train, loaded.valid, loaded.test), normalized, strict=True):
        np.testing.assert_allclose(split.X, 2 * (images - mean), atol=1e-5)
    assert "whitening the images" in capfd.readouterr().err
    datasets.load("cifar10", tmp_path / "letters.npz")
    assert capfd.readouterr().err == ""


ZEROS = np.zeros((120, 28, 28))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_images": ZEROS}, ": train_images is of type float64; expected uint8"),
        (
            {"test_images": ZEROS[:, :20].astype(np.uint8)},
            ": test_images has shape (120, 20, 28); expected (n, 28, 28)",
        ),
        (
            {"test_images": np.zeros((), np.uint8)},
            ": test_images has shape (); expected (n, 28, 28)",
        ),
        (
            {"test_labels": np.arange(29)},
            ": test_labels is of type int64 and shape (29,); expected integers of shape (30,)",
        ),
        (
            {"test_labels": np.zeros(30)},
            ": test_labels is of type float64 and shape (30,); expected integers of shape (30,)",
        ),
        (
            {"test_images": ZEROS[:0].astype(np.uint8), "test_labels": np.arange(0)},
            ": test_images has no images; add some",
        ),
        (
            {"train_images": ZEROS[:5].astype(np.uint8), "train_labels": np.arange(5)},
            ": train_images has 5 images, of which a sixth validates; give it at least 6, or "
            "valid_images and valid_labels",
        ),
        (
            {"test_labels": np.arange(30) - 1},
            ": a label is -1; number the classes 0, 1, ... without a gap",
        ),
        (
            {"train_labels": np.arange(120) % 26 + 1},
            ": class 0 has no training images; number the classes 0, 1, ... without a gap",
        ),
        (
            {"test_labels": np.arange(30)},
            ": class 26 has no training images; number the classes 0, 1, ... without a gap",
        ),
        (
            {"test_labels": np.full(30, 2**40)},
            ": class 26 has no training images; number the classes 0, 1, ... without a gap",
        ),
        (
            {"train_labels": np.zeros(120, int), "test_labels": np.zeros(30, int)},
            ": the number of classes is 1; expected 2 to 8192",
        ),
        (
            {"valid_images": ZEROS.astype(np.uint8)},
            " lacks valid_labels; expected train_images, train_labels, valid_images, valid_labels, "
            "test_images and test_labels",
        ),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, changed, message):
    path = save(tmp_path, letters(), **changed)
    assert error("mnist", path) == f"{path}{message}"


def test_too_many_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "LARGEST", 25)
    path = save(tmp_path, letters())
    assert error("mnist", path) == f"{path}: the number of classes is 26; expected 2 to 25"


def test_missing_arrays(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(arrays.npz(train_images=ZEROS))
    assert error("mnist", path) == (
        f"{path} lacks train_labels, test_images and test_labels; expected train_images, "
        "train_labels, test_images and test_labels"
    )


def test_no_such_file(tmp_path):
    assert error("svhn", "~nosuchuser/a.npz") == (
        "--data is '~nosuchuser/a.npz', but there is no such home; give a full path"
    )
    assert error("svhn", tmp_path / "a.npz") == (
        f"there is no file {tmp_path}/a.npz; name one with train_images, train_labels, "
        "test_images and test_labels"
    )


def test_a_fifo_and_a_damaged_file(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    assert error("mnist", tmp_path / "a.npz") == (
        f"{tmp_path}/a.npz is not a regular file; give the name of a file"
    )
    (tmp_path / "b.npz").write_bytes(b"no zip")
    assert error("mnist", tmp_path / "b.npz") == (
        f"{tmp_path}/b.npz is damaged (File is not a zip file); save it again"
    )


def test_a_name_that_records_cannot_hold(tmp_path):
    assert error("mnist", tmp_path / "a\n.npz") == (
        f"'{tmp_path}/a\\n.npz': the name cannot be printed; rename the file"
    )
