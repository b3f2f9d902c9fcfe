"""SVHN, from files to the arrays of a run."""

import functools

import formats
import numpy as np
import pytest
from checks import refusal

from reproduction import datasets
from reproduction.datasets import files as data_files
from reproduction.datasets import preprocessing

pytestmark = pytest.mark.usefixtures("no_other_data")
error = functools.partial(refusal, datasets.load)


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


def test_normalization_is_refused_before_data_are_looked_for(tmp_path):
    assert (
        error("svhn", tmp_path, inputs="signed", lcn="all-channels")
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
