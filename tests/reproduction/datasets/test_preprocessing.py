"""The preprocessing gives the same values as pylearn2, which the released code used."""

from pathlib import Path

import numpy as np
import pytest

from reproduction.datasets import preprocessing


def golden(name):
    return np.load(Path(__file__).parents[2] / "golden" / f"{name}.npz")


def assert_close(actual, expected, relative=1e-5):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * np.abs(expected).max())


def channels_first(images):
    return images.transpose(0, 3, 1, 2)


def test_center():
    values = golden("center")
    assert_close(preprocessing.center(values["X"]), values["centered"])


def test_global_contrast_normalize():
    values = golden("gcn")
    assert_close(preprocessing.global_contrast_normalize(values["X"]), values["gcn_default"])
    assert_close(preprocessing.global_contrast_normalize(values["X"], 55.0), values["gcn55"])


def test_global_contrast_normalize_has_the_norm_that_is_asked_for():
    images = np.random.RandomState(1).randint(0, 256, (5, 3, 8, 8)).astype(np.uint8)
    normalized = preprocessing.global_contrast_normalize(images, 55.0)
    assert normalized.shape == images.shape
    norms = np.sqrt(np.square(normalized).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(norms, 55, rtol=1e-6)


def test_global_contrast_normalize_makes_an_image_of_one_value_zero():
    images = np.full((1, 3, 32, 32), 100, np.uint8)
    assert np.array_equal(preprocessing.global_contrast_normalize(images, 55.0), 0 * images)


def test_zca():
    values = golden("zca")
    mean, matrix = preprocessing.fit_zca(values["train"], filter_bias=0.1)
    np.testing.assert_allclose(mean, values["mean"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(matrix, values["P"], rtol=0, atol=1e-3 * values["P"].max())
    for name in ("train", "test"):
        white = preprocessing.whiten(values[name], mean, matrix)
        assert_close(white, values[f"{name}_white"], 1e-3)


def test_zca_does_not_depend_on_the_blocks():
    images = golden("zca")["train"]
    for whole, other in zip(
        preprocessing.fit_zca(images), preprocessing.fit_zca(images, block=7), strict=True
    ):
        np.testing.assert_allclose(whole, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("channels", "name"), [([0], "as_released"), (None, "all_channels")])
def test_local_contrast_normalize(channels, name):
    values = golden("lecun_lcn")
    images = channels_first(values["images"])
    normalized = preprocessing.local_contrast_normalize(images, channels)
    assert_close(normalized, channels_first(values[name]))


def test_svhn_pipeline():
    values = golden("svhn_pipeline")
    normalized = preprocessing.global_contrast_normalize(channels_first(values["images"]))
    assert_close(normalized, channels_first(values["gcn"]))
    released = preprocessing.local_contrast_normalize(normalized, [0])
    assert_close(released, channels_first(values["as_released"]))


def test_nothing_is_changed_in_place():
    images = np.random.RandomState(1).rand(4, 3, 8, 8).astype(np.float32)
    before = images.copy()
    preprocessing.center(images)
    preprocessing.global_contrast_normalize(images)
    preprocessing.whiten(images, *preprocessing.fit_zca(images))
    preprocessing.local_contrast_normalize(images)
    assert np.array_equal(images, before)


def test_parity_with_pylearn2():
    pylearn2 = pytest.importorskip(
        "pylearn2.expr.preprocessing",
        reason="pylearn2 is not installed; requirements-pylearn2.txt says how",
    )
    X = np.random.RandomState(3).randint(256, size=(20, 3, 8, 8)).astype(np.float32)
    X[0] = 7  # an image without contrast, which is not divided
    for scale in (1.0, 55.0):
        theirs = pylearn2.global_contrast_normalize(X.reshape(20, -1), scale=scale)
        assert_close(preprocessing.global_contrast_normalize(X, scale), theirs.reshape(X.shape))
