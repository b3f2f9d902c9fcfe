"""A name -> checked files -> Fuel's HDF5 file -> training, validation and test sets as published.

Where the files come from and where those made of them lie: see `data_files`.
"""

import contextlib
import errno
import gzip
import hashlib
import io
import os
import pickle
import shutil
import sys
import tarfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from original_stack.errors import UserError

import h5py
import numpy as np
from fuel.converters.cifar10 import convert_cifar10
from fuel.converters.mnist import convert_mnist
from fuel.datasets import H5PYDataset

from reproduction.datasets import files as data_files
from reproduction.datasets import preprocessing, svhn_format_2

CIFAR10_BATCHES = [name for name in data_files.CHECKSUMS if "batch" in name]


@dataclass(frozen=True, eq=False)
class Subset:
    """Images X, float32 of shape (n, channels, rows, columns), and labels y, 0 to 9, of shape (n,).

    X takes an array of indices or a slice and then gives a numpy array.
    """

    X: Any
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three sets, the files they come from and, in words, what was done to the images."""

    name: str
    train: Subset
    valid: Subset
    test: Subset
    files: tuple
    preprocessing: str

    @property
    def official(self):
        """Whether every file is the official one."""
        return all(file.official for file in self.files)


def load(
    name, data=None, allow_unofficial=False, inputs="centred", train_size=None, lcn="released"
):
    """Training, validation and test set of an experiment.

    Parameters
    ----------
    name : "mnist", "digits", "cifar10" or "svhn"
    data : path, optional
        Directory with the official files, or where they are downloaded to. Default: the environment
        variable BINARYCONNECT_DATA, else the directories of FUEL_DATA_PATH, else `data` in the
        per-user cache. "digits" in place of MNIST's directory gives scikit-learn's embedded digits;
        the name of the data set is then "digits".
    allow_unofficial : bool
        Take files whose checksum is not the official one. If they hold other numbers of images, the
        validation set is the same share of them.
    inputs : "centred" or "signed"
        BinaryConnect's preprocessing, or for Binarized Neural Networks, which scale pixels to
        [-1, 1] and nothing else, the whole numbers 2 pixel - 255 (DEVIATIONS.md, 15).
    train_size : int, optional
        Keep the first `train_size` training images. Validation, test and preprocessing stay.
    lcn : "released" or "all-channels"
        Of SVHN's three channels, those that local contrast normalization changes: the first, as in
        the released code, or all, as was probably meant.

    Returns
    -------
    Dataset

    Raises
    ------
    UserError
        Files that are missing and cannot be downloaded, are not official, or cannot be read.
    """
    if name == "mnist" and data == "digits":
        name = "digits"
    directories = data_files.data_directories(data)
    try:
        if name == "digits":
            dataset = _digits(inputs)
        elif name == "mnist":
            dataset = _mnist(directories, allow_unofficial, inputs)
        elif name == "cifar10":
            dataset = _cifar10(directories, allow_unofficial, inputs)
        elif name == "svhn":
            dataset = _svhn(directories, allow_unofficial, inputs, lcn)
        else:
            raise UserError(f"unknown data set '{name}'; expected mnist, digits, cifar10 or svhn")
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            where = data_files.writable(directories)
            reason = "the disk is full; free some space"
        else:
            where, reason = directories[0], f"{error}; make it readable"
        raise UserError(
            f"cannot prepare {name} in {where}: {reason}, or choose another directory with --data"
        ) from error
    if train_size is not None:
        dataset = replace(dataset, train=_first(dataset.train, train_size))
    return dataset


def _first(subset, size):
    if not 1 <= size <= len(subset.y):
        raise UserError(
            f"--train-size {size} is not possible; the training set has {len(subset.y)} images"
        )
    lazy = isinstance(subset.X, Images)
    return Subset(subset.X.first(size) if lazy else subset.X[:size], subset.y[:size])


def _mnist(directories, allow_unofficial, inputs):
    paths, files = data_files.official_files("mnist", directories, allow_unofficial)
    prepared = data_files.prepare(
        "mnist.hdf5", files, directories, lambda path: _convert_mnist(paths, path)
    )
    images, labels = _read(prepared, "train")
    test_images, test_labels = _read(prepared, "test")
    transform, words = PIXELS[inputs]
    return _split(
        "mnist",
        Subset(transform(images), labels),
        len(labels) // 6,
        Subset(transform(test_images), test_labels),
        files,
        words,
    )


def _convert_mnist(paths, output):
    with data_files.folder_beside(output) as folder:
        for name, path in paths.items():
            if path.suffix == ".gz":
                os.symlink(path.resolve(), Path(folder, name))
            else:  # Fuel expects gzip
                with open(path, "rb") as plain, gzip.open(Path(folder, name), "wb", 1) as packed:
                    shutil.copyfileobj(plain, packed)
        with data_files.converting("MNIST", next(iter(paths.values())).parent):
            convert_mnist(folder, str(output.parent), output.name)
    _check("MNIST", output, (1, 28, 28))


def _digits(inputs):
    """scikit-learn's 1,797 digits, bilinearly scaled from 8x8 to 28x28, in the order of their file:
    1,200 for training, 297 for validation, 300 for the test."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits  # slow to import, and rarely needed

    pixels, labels = load_digits(return_X_y=True)
    file = data_files.File("scikit-learn digits", hashlib.md5(pixels.tobytes()).hexdigest(), False)
    images = pixels.reshape(-1, 1, 8, 8) * (255 / 16)
    images = zoom(images, (1, 1, 3.5, 3.5), order=1, mode="nearest", grid_mode=True)
    labels = labels.astype(np.int32)
    transform, words = PIXELS[inputs]
    return _split(
        "digits",
        Subset(transform(images[:1497]), labels[:1497]),
        297,
        Subset(transform(images[1497:]), labels[1497:]),
        (file,),
        words,
    )


def _cifar10(directories, allow_unofficial, inputs):
    if "PYLEARN2_DATA_PATH" in os.environ:
        directories = [*directories, Path(os.environ["PYLEARN2_DATA_PATH"])]
    folder = _extracted_cifar10(directories)
    if folder and not data_files.find("cifar10", data_files.WANTED["cifar10"][0], directories):
        missing = [batch for batch in CIFAR10_BATCHES if not (folder / batch).is_file()]
        if missing:
            raise UserError(f"{folder} lacks {', '.join(missing)}; extract the whole archive there")
        paths = {batch: folder / batch for batch in CIFAR10_BATCHES}
        files = tuple(data_files.checked(path, allow_unofficial) for path in paths.values())
    else:
        paths, files = data_files.official_files("cifar10", directories, allow_unofficial)
    official = all(file.official for file in files)
    prepared = data_files.prepare(
        "cifar10.hdf5", files, directories, lambda path: _convert_cifar10(paths, official, path)
    )
    images, labels = _read(prepared, "train")
    test_images, test_labels = _read(prepared, "test")
    number = len(labels)
    if inputs == "signed":
        images, test_images, words = _signed(images), _signed(test_images), PIXELS[inputs][1]
    else:
        whitened = data_files.prepare(
            "cifar10_whitened.hdf5",
            files,
            directories,
            lambda path: _whiten_cifar10(images, test_images, path),
        )
        whitened = data_files.memory_map(whitened, "features")
        images, test_images = whitened[:number], whitened[number:]
        words = "GCN (scale 55), ZCA (filter bias 0.1) fitted on training and validation images"
    return _split(
        "cifar10",
        Subset(images, labels),
        number // 10,  # 5,000
        Subset(test_images, test_labels),
        files,
        words,
    )


def _extracted_cifar10(directories):
    """The folder with the extracted batches, or None."""
    for directory in directories:
        for below in ("", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"):
            if (directory / below / CIFAR10_BATCHES[0]).is_file():
                return directory / below
    return None


def _convert_cifar10(paths, official, output):
    first = next(iter(paths.values()))
    with (
        data_files.folder_beside(output) as folder,
        data_files.converting("CIFAR-10", first.parent),
    ):
        archive = Path(folder, data_files.WANTED["cifar10"][0])
        if official and first.name == archive.name:
            os.symlink(first.resolve(), archive)
        else:
            _repack_cifar10(paths, archive)
        convert_cifar10(folder, str(output.parent), output.name)
    _check("CIFAR-10", output, (3, 32, 32))


def _repack_cifar10(paths, archive):
    """Writes the archive that Fuel expects with nothing in it but what `_Unpickler` admits: Fuel
    unpickles whatever it is given."""
    with contextlib.ExitStack() as stack:
        if len(paths) == 1:
            source = stack.enter_context(tarfile.open(*paths.values(), "r:gz"))
        target = stack.enter_context(tarfile.open(archive, "w:gz", compresslevel=1))
        for batch in CIFAR10_BATCHES:
            member = f"cifar-10-batches-py/{batch}"
            if len(paths) == 1:
                if not source.getmember(member).isreg():
                    raise ValueError(f"{member} is not a regular file")
                content = source.extractfile(member).read()
            else:
                content = paths[batch].read_bytes()
            content = pickle.dumps(_cifar10_batch(batch, content), protocol=2)
            info = tarfile.TarInfo(member)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))


def _cifar10_batch(name, content):
    """{"data": uint8 array of shape (n, 3072), "labels": list of n ints}, or a ValueError."""
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        images, labels = batch["data"], np.asarray(batch["labels"])
        kinds = images.dtype, labels.dtype.kind in "iu", images.shape
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{name}: {error}") from error
    if kinds != (np.uint8, True, (len(labels), 3072)) or labels.ndim != 1:
        raise ValueError(f"{name}: expected uint8 data of shape (n, 3072) and n integer labels")
    if not np.isin(labels, np.arange(10)).all():
        raise ValueError(f"{name}: labels from {labels.min()} to {labels.max()}; expected 0 to 9")
    return {"data": images, "labels": labels.tolist()}


class _Unpickler(pickle.Unpickler):
    """Admits arrays, numbers, strings and containers."""

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")  # numpy 2
        if (module, name) == ("_codecs", "encode"):  # bytes pickled by Python 3 for Python 2
            return lambda text, encoding: text.encode("latin1")
        if (module, name) not in {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy.core.numeric", "_frombuffer"),
        }:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data need")
        return super().find_class(module, name)


def _whiten_cifar10(images, test_images, output):
    print("whitening CIFAR-10, once; this takes about half a minute", file=sys.stderr)
    mean, matrix = preprocessing.fit_zca(preprocessing.global_contrast_normalize(images, 55.0))
    images = np.concatenate([images, test_images])
    with h5py.File(output, "w") as file:
        features = file.create_dataset("features", images.shape, np.float32)
        for start in range(0, len(images), 5000):
            block = preprocessing.global_contrast_normalize(images[start : start + 5000], 55.0)
            features[start : start + 5000] = preprocessing.whiten(block, mean, matrix)


def _svhn(directories, allow_unofficial, inputs, lcn):
    paths, files = data_files.official_files("svhn", directories, allow_unofficial)
    prepared = data_files.prepare(
        "svhn_format_2.hdf5", files, directories, lambda path: svhn_format_2.convert(paths, path)
    )
    pixels = data_files.memory_map(prepared, "features")
    # Fuel's files have 0 for the digit zero; the released code has it last, after 1 to 9.
    labels = [(_targets(prepared, which) - 1) % 10 for which in svhn_format_2.SETS]
    y = np.concatenate(labels)
    if inputs == "signed":
        if lcn != "released":
            raise UserError(
                "method bnn takes SVHN without local contrast normalization; leave --lcn out"
            )
        transform, words = PIXELS[inputs]
    else:
        channels, words = {
            "released": ([0], "GCN (scale 1), LeCun LCN of channel 0 only, as released"),
            "all-channels": (None, "GCN (scale 1), LeCun LCN of all channels"),
        }[lcn]
        transform = partial(_normalize_svhn, channels=channels)
    parts = [Subset(Images(pixels, rows, transform), y[rows]) for rows in _split_svhn(*labels)]
    return Dataset("svhn", *parts, files, words)


def _split_svhn(train_labels, test_labels, extra_labels):
    """Rows of Fuel's file for training, validation and test. Released code: of each class, 400
    images of train and 200 of extra validate; the rest of both is for training."""
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


def _normalize_svhn(images, channels):
    images = preprocessing.global_contrast_normalize(images)
    return preprocessing.local_contrast_normalize(images, channels)


class Images:
    """Some rows of a memory-mapped array, preprocessed when they are read.

    SVHN's images are 1.9 GB as bytes and would be 7.4 GB as normalized float32. Normalizing 50 of
    them takes 0.3 ms, next to nothing beside a training step (benchmarks/svhn_memory.py).

    Parameters
    ----------
    pixels : uint8 array of shape (n, channels, rows, columns)
    rows : int array
    transform : function of such an array to a float32 array of the same shape
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


def _signed(images):
    return np.rint(np.asarray(images, np.float32)) * np.float32(2) - np.float32(255)


def _centred(images):
    return preprocessing.center(np.asarray(images, np.float32) / np.float32(255))


PIXELS = {
    "centred": (
        _centred,
        "pixels / 255 minus the mean image (of training and validation; the test set: its own)",
    ),
    "signed": (_signed, "2 pixel - 255, divided by 255 after the first layer's sum"),
}


def _split(name, train, valid_size, test, files, words):
    """The data set whose validation images are the last `valid_size` of `train`."""
    first = len(train.y) - valid_size
    parts = [
        Subset(train.X[:first], train.y[:first]),
        Subset(train.X[first:], train.y[first:]),
        test,
    ]
    if not all(len(part.y) for part in parts):
        raise UserError(f"too few images for {name}: one of the three sets would be empty")
    return Dataset(name, *parts, files, words)


def _check(name, path, shape):
    """Refuses a converted file with images of another shape or labels beyond 9."""
    with h5py.File(path, "r") as file:
        found, largest = file["features"].shape[1:], file["targets"][:].max(initial=0)
    if found != shape or largest > 9:
        raise UserError(
            f"the {name} files have images of shape {found} and labels up to {largest}; expected "
            f"shape {shape} and labels up to 9"
        )


def _targets(path, which):
    """The labels, int32 of shape (n,), of a set of Fuel's file."""
    dataset = H5PYDataset(str(path), (which,), sources=("targets",), load_in_memory=True)
    return dataset.data_sources[0][:, 0].astype(np.int32)


def _read(path, which):
    """Images as they are in Fuel's file and labels, int32 of shape (n,), of "train" or "test"."""
    images, labels = H5PYDataset(str(path), (which,), load_in_memory=True).data_sources
    return images, labels[:, 0].astype(np.int32)
