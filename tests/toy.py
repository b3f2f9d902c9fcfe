"""A small data set and a run on it, for the tests of training and of trained runs."""

import dataclasses
from pathlib import Path

import original_stack

import numpy as np

import mnist
from reproduction.datasets.dataset import Dataset, Split
from reproduction.datasets.files import File
from reproduction.training import loop

SMALL = dataclasses.replace(mnist.PAPER, num_units=12, batch_size=20, epochs=6, LR_start=0.1)


def toy(seed=0):
    """A data set of MNIST's shapes whose label is the brightest of ten regions."""
    rng = np.random.RandomState(seed)

    def split(n):
        X = rng.rand(n, 1, 28, 28).astype(np.float32) - 0.5
        y = rng.randint(10, size=n)
        X[np.arange(n), 0, 2 * y, :] += 0.5
        return Split(X, y)

    files = (File("toy", "0" * 32, False),)
    return Dataset("toy", split(210), split(50), split(53), files, "none")


def folder_of(hp, results, seed=7):
    """The folder of a run on the toy data."""
    return Path(results) / f"toy/{hp.protocol}-{hp.method}/seed-{seed}"


def run(hp, results, test_weights="real", **options):
    """Train on the toy data; the folder of the run."""
    loop.run(toy(), hp, mnist.build_network, 7, results, test_weights, **options)
    return folder_of(hp, results)
