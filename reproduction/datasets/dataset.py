"""A data set: three splits of images and labels, and the files that they come from."""

from dataclasses import dataclass
from typing import Any

from original_stack.errors import UserError

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one of the three parts of a data set.

    Parameters
    ----------
    X : float32 array of shape (n, channels, rows, columns), or Images
        Indexed by an array of indices or a slice, it gives a numpy array.
    y : int array of shape (n,)
        Labels from 0 to the number of classes - 1.
    """

    X: Any
    y: np.ndarray

    def batches(self, size):
        """Consecutive batches (X, y) of `size` images; the last one may have fewer."""
        for start in range(0, len(self.y), size):
            batch = slice(start, start + size)
            yield self.X[batch], self.y[batch]

    def first(self, size):
        """The first `size` images.

        Raises
        ------
        UserError
            If there are fewer images.
        """
        if not 1 <= size <= len(self.y):
            raise UserError(
                f"--train-size {size} is not possible; the training set has {len(self.y)} images"
            )
        lazy = isinstance(self.X, Images)
        return Split(self.X.first(size) if lazy else self.X[:size], self.y[:size])


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three splits, the files they come from and a description of the preprocessing."""

    name: str
    train: Split
    valid: Split
    test: Split
    files: tuple
    preprocessing: str
    classes: int = 10
    own: str = ""  # the name of the user's file; empty for published data

    @property
    def title(self):
        """The name in the path of its results: <name>, or <name>-<own> for the user's own data."""
        return f"{self.name}-{self.own}" if self.own else self.name

    @property
    def official(self):
        """Whether every file is the official one."""
        return all(file.official for file in self.files)


class Images:
    """Some rows of a memory-mapped array, preprocessed when they are read.

    SVHN's images take 1.9 GB as bytes and would take 7.4 GB as normalized float32. Normalizing 50
    images takes 0.3 ms, which is little compared with a training step (benchmarks/svhn_memory.py).

    Parameters
    ----------
    pixels : uint8 array of shape (n, channels, rows, columns)
    rows : int array
    transform : callable
        transform(pixels) returns a float32 array of the same shape.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, pixels, rows, transform):
        self.pixels, self.rows, self.transform = pixels, rows, transform

    @property
    def shape(self):
        return (len(self.rows), *self.pixels.shape[1:])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.transform(self.pixels[self.rows[index]])

    def first(self, size):
        """The first `size` of these images."""
        return Images(self.pixels, self.rows[:size], self.transform)


def split(name, train, valid_size, test, files, description):
    """The data set whose validation images are the last `valid_size` images of `train`.

    Raises
    ------
    UserError
        If one of the three sets would be empty.
    """
    first = len(train.y) - valid_size
    parts = [
        Split(train.X[:first], train.y[:first]),
        Split(train.X[first:], train.y[first:]),
        test,
    ]
    if not all(len(part.y) for part in parts):
        raise UserError(f"too few images for {name}: one of the three sets would be empty")
    return Dataset(name, *parts, files, description)
