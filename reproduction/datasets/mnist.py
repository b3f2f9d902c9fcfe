"""MNIST, and scikit-learn's embedded digits in MNIST's shape."""

import gzip
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
from fuel.converters.mnist import convert_mnist

from reproduction.datasets import files as data_files
from reproduction.datasets import prepared
from reproduction.datasets.dataset import Split, split
from reproduction.datasets.preprocessing import PIXELS


def load(directories, allow_unofficial, inputs):
    """See `datasets.load`."""
    paths, files = data_files.official_files("mnist", directories, allow_unofficial)
    path = prepared.prepare("mnist.hdf5", files, directories, lambda path: _convert(paths, path))
    images, labels = prepared.read(path, "train")
    test_images, test_labels = prepared.read(path, "test")
    transform, description = PIXELS[inputs]
    return split(
        "mnist",
        Split(transform(images), labels),
        len(labels) // 6,
        Split(transform(test_images), test_labels),
        files,
        description,
    )


def _convert(paths, output):
    with prepared.folder_beside(output) as folder:
        for name, path in paths.items():
            if path.suffix == ".gz":
                os.symlink(path.resolve(), Path(folder, name))
            else:  # Fuel expects gzip
                with open(path, "rb") as plain, gzip.open(Path(folder, name), "wb", 1) as packed:
                    shutil.copyfileobj(plain, packed)
        with prepared.converting("MNIST", next(iter(paths.values())).parent):
            convert_mnist(folder, str(output.parent), output.name)
    prepared.check("MNIST", output, (1, 28, 28))


def digits(inputs):
    """scikit-learn's 1,797 digits, bilinearly scaled from 8x8 to 28x28, in the order of their file:
    1,200 for training, 297 for validation, 300 for the test."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits  # slow to import, and rarely needed

    pixels, labels = load_digits(return_X_y=True)
    file = data_files.File("scikit-learn digits", hashlib.md5(pixels.tobytes()).hexdigest(), False)
    images = pixels.reshape(-1, 1, 8, 8) * (255 / 16)
    images = zoom(images, (1, 1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True)
    labels = labels.astype(np.int32)
    transform, description = PIXELS[inputs]
    return split(
        "digits",
        Split(transform(images[:1497]), labels[:1497]),
        297,
        Split(transform(images[1497:]), labels[1497:]),
        (file,),
        description,
    )
