"""SVHN's format 2, as contrast-normalized images or as signed pixels."""

from functools import partial

from original_stack.errors import UserError

import numpy as np

from reproduction.datasets import files as data_files
from reproduction.datasets import preprocessing, svhn_format_2
from reproduction.datasets.dataset import Dataset, Images, Split
from reproduction.datasets.prepared import prepare


def load(directories, allow_unofficial, inputs, lcn):
    """See `datasets.load`."""
    transform, description = preprocess(inputs, lcn)
    paths, files = data_files.official_files("svhn", directories, allow_unofficial)
    with prepare(
        "svhn_format_2.hdf5", files, directories, lambda path: svhn_format_2.convert(paths, path)
    ) as prepared:
        pixels = prepared.memory_map("features", np.uint8)
        # The digit zero has label 0 in Fuel's files, but the last label in the released code.
        labels = [(prepared.labels(which) - 1) % 10 for which in svhn_format_2.SETS]
    y = np.concatenate(labels)
    parts = [Split(Images(pixels, rows, transform), y[rows]) for rows in _rows(*labels)]
    return Dataset("svhn", *parts, files, description)


def preprocess(inputs, lcn):
    """The function that preprocesses some images, and its description."""
    if inputs == "signed":
        if lcn != "released":
            raise UserError(
                "method bnn takes SVHN without local contrast normalization; leave --lcn out"
            )
        return preprocessing.PIXELS[inputs]
    channels, description = {
        "released": ([0], "GCN (scale 1), LeCun LCN of channel 0 only, as released"),
        "all-channels": (None, "GCN (scale 1), LeCun LCN of all channels"),
    }[lcn]
    return partial(_normalize, channels=channels), description


def _rows(train_labels, test_labels, extra_labels):
    """The rows of Fuel's file for training, validation and test.

    As in the released code, the validation set has 400 images of train and 200 images of extra for
    each class; the remaining images of both are for training.
    """
    first_test = len(train_labels)
    first_extra = first_test + len(test_labels)
    test = np.arange(first_test, first_extra)
    random = np.random.RandomState(322)
    valid = []
    for which, labels, first, number in (
        ("train", train_labels, 0, 400),
        ("extra", extra_labels, first_extra, 200),
    ):
        for label in range(10):
            rows = np.flatnonzero(labels == label)
            if len(rows) < number:
                raise UserError(
                    f"{which}_32x32.mat has {len(rows)} images of class {label + 1}; the "
                    f"validation set takes {number} of each, so give it more"
                )
            random.shuffle(rows)
            valid.append(first + rows[:number])
    valid = np.sort(np.concatenate(valid))
    every = np.arange(first_extra + len(extra_labels))
    return np.setdiff1d(every, np.concatenate([valid, test])), valid, test


def _normalize(images, channels):
    images = preprocessing.global_contrast_normalize(images)
    return preprocessing.local_contrast_normalize(images, channels)
