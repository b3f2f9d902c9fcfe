"""Splits: batches, the first images, and images that are preprocessed when they are read."""

import numpy as np
from checks import refusal

from reproduction.datasets.dataset import Images, Split, split

PIXELS = np.arange(7 * 12, dtype=np.uint8).reshape(7, 3, 2, 2)
ROWS = np.array([6, 0, 3, 1, 5])
LAZY = Split(Images(PIXELS, ROWS, lambda pixels: pixels.astype(np.float32) / 2), np.arange(5))
EAGER = Split(PIXELS[ROWS].astype(np.float32) / 2, np.arange(5))


def test_images_are_preprocessed_when_they_are_read():
    assert LAZY.X.shape == EAGER.X.shape == (5, 3, 2, 2)
    assert len(LAZY.X) == 5
    for index in (slice(None), slice(1, 3), np.array([4, 0, 0])):
        assert LAZY.X[index].dtype == LAZY.X.dtype == np.float32
        assert np.array_equal(LAZY.X[index], EAGER.X[index])


def test_batches_hold_every_image_once():
    for part in (LAZY, EAGER):
        batches = list(part.batches(2))
        assert [len(y) for _, y in batches] == [2, 2, 1]
        assert np.array_equal(np.concatenate([X for X, _ in batches]), EAGER.X)
        assert np.array_equal(np.concatenate([y for _, y in batches]), EAGER.y)
        assert len(list(part.batches(5))) == 1


def test_the_first_images():
    for part in (LAZY, EAGER):
        first = part.first(3)
        assert np.array_equal(first.X[:], EAGER.X[:3])
        assert np.array_equal(first.y, [0, 1, 2])
    assert refusal(EAGER.first, 6) == (
        "--train-size 6 is not possible; the training set has 5 images"
    )


def test_the_last_training_images_are_the_validation_images():
    dataset = split("toy", EAGER, 2, LAZY, (), "none")
    assert np.array_equal(dataset.train.X, EAGER.X[:3])
    assert np.array_equal(dataset.valid.y, [3, 4])
    assert dataset.test is LAZY
    assert dataset.classes == 10
    for size in (0, 5):
        assert refusal(split, "toy", EAGER, size, LAZY, (), "none") == (
            "too few images for toy: one of the three sets would be empty"
        )
