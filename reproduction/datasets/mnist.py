"""MNIST, and scikit-learn's embedded digits in MNIST's shape."""

import gzip
import hashlib
import math
import shutil
import struct
from pathlib import Path

from original_stack.errors import UserError, reading

import numpy as np
from fuel.converters.mnist import convert_mnist

from reproduction.datasets import files as data_files
from reproduction.datasets.dataset import Split, split
from reproduction.datasets.prepared import folder_beside, prepare, quiet
from reproduction.datasets.preprocessing import PIXELS

LARGEST = 2**20  # images in a file; MNIST has 70,000


def load(directories, allow_unofficial, inputs):
    """See `datasets.load`."""
    paths, files = data_files.official_files("mnist", directories, allow_unofficial)
    with prepare("mnist.hdf5", files, directories, lambda path: _convert(paths, path)) as prepared:
        images, labels = prepared.images("train"), prepared.labels("train")
        test_images, test_labels = prepared.images("test"), prepared.labels("test")
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
    with folder_beside(output) as folder:
        counts = []
        for name, path in paths.items():
            plain = Path(folder, "plain")
            data_files.unpack(path, plain, 16 + LARGEST * 28 * 28)
            counts.append(_count(path, plain))
            # Fuel expects gzip.
            with open(plain, "rb") as content, gzip.open(Path(folder, name), "wb", 0) as packed:
                shutil.copyfileobj(content, packed)
        for (images, labels), (n, m) in zip(pairs(paths.values()), pairs(counts), strict=True):
            if n != m:
                raise UserError(
                    f"{images} has {n} images, but {labels} has {m} labels; delete both to have "
                    "them downloaded"
                )
        with quiet():
            convert_mnist(folder, str(output.parent), output.name)


def pairs(values):
    """Values in pairs: one for a file of images, one for the file of its labels."""
    values = list(values)
    return zip(values[::2], values[1::2], strict=True)


def _count(path, plain):
    """The number of images or labels in the file at `path`, whose unzipped copy is `plain`.

    The format is IDX: a magic number, the number of entries and the sizes of an entry, as 32-bit
    integers with the most significant byte first, and then the entries with one byte per value.
    """
    magic, shape = (2051, (28, 28)) if "images" in path.name else (2049, ())
    with open(plain, "rb") as content, reading(path, data_files.REMEDY):
        number, count, *sizes = struct.unpack(
            f">{2 + len(shape)}I", content.read(8 + 4 * len(shape))
        )
        if number != magic:
            raise ValueError(f"magic number {number}; expected {magic}")
        available = plain.stat().st_size - content.tell()
        if available != count * math.prod(sizes):
            raise ValueError(f"{available} bytes for {count} entries of shape {tuple(sizes)}")
        if tuple(sizes) != shape:
            problem = f"images of shape {tuple(sizes)}; expected {shape}"
        elif not count:
            problem = "no entries"
        elif not shape and (largest := max(content.read())) > 9:
            problem = f"labels up to {largest}; expected 0 to 9"
        else:
            return count
    raise UserError(f"{path} has {problem}; {data_files.REMEDY}")


def digits(inputs):
    """scikit-learn's 1,797 digits, scaled bilinearly from 8x8 to 28x28. In the order of their file,
    1,200 are for training, 297 for validation and 300 for the test."""
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
