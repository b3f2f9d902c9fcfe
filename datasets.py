"""A name -> checked files -> Fuel's HDF5 file -> training, validation and test sets as published.

The official files are looked for in the data directory and downloaded where missing. What is made
of them lies in `binaryconnect/` below it (else in the per-user cache), carries the checksums of its
inputs, and is made again when these change.
"""

import contextlib
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import tempfile
import warnings
import zlib
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from original_stack import UserError, cache_directory

# isort: split
import h5py
import numpy as np
import pooch
import scipy.io
from fuel.converters.cifar10 import convert_cifar10
from fuel.converters.mnist import convert_mnist
from fuel.datasets import H5PYDataset
from tqdm import tqdm

import preprocessing

VERSION = 1  # of what is written into the prepared files; one of another version is made again

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/",),
    "svhn": ("http://ufldl.stanford.edu/housenumbers/",),
}

# Official md5 of every file as it may lie in a data directory: MNIST also unzipped, CIFAR-10 also
# extracted.
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
WANTED = {
    "mnist": [name for name in CHECKSUMS if name.endswith("ubyte.gz")],
    "cifar10": ["cifar-10-python.tar.gz"],
    "svhn": [name for name in CHECKSUMS if name.endswith(".mat")],
}
CIFAR10_BATCHES = [name for name in CHECKSUMS if "batch" in name]


@dataclass(frozen=True)
class File:
    """A file that a data set was made from: its name, its md5, whether that is the official one."""

    name: str
    md5: str
    official: bool


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
    directories = data_directories(data)
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
            reason = "the disk is full; free some space, or choose another directory with --data"
        else:
            reason = f"{error}; make it readable, or choose another directory with --data"
        raise UserError(f"cannot prepare {name} in {directories[0]}: {reason}") from error
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
    paths, files = _official_files("mnist", directories, allow_unofficial)
    prepared = _prepare("mnist.hdf5", files, directories, lambda path: _convert_mnist(paths, path))
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
    with _folder_beside(output) as folder:
        for name, path in paths.items():
            if path.suffix == ".gz":
                os.symlink(path.resolve(), Path(folder, name))
            else:  # Fuel expects gzip
                with open(path, "rb") as plain, gzip.open(Path(folder, name), "wb", 1) as packed:
                    shutil.copyfileobj(plain, packed)
        with _fuel("MNIST", next(iter(paths.values())).parent):
            convert_mnist(folder, str(output.parent), output.name)
    _check("MNIST", output, (1, 28, 28))


def _digits(inputs):
    """scikit-learn's 1,797 digits, bilinearly scaled from 8x8 to 28x28, in the order of their file:
    1,200 for training, 297 for validation, 300 for the test."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits  # slow to import, and rarely needed

    pixels, labels = load_digits(return_X_y=True)
    file = File("scikit-learn digits", hashlib.md5(pixels.tobytes()).hexdigest(), False)
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
    if folder and not _find("cifar10", WANTED["cifar10"][0], directories):
        missing = [batch for batch in CIFAR10_BATCHES if not (folder / batch).is_file()]
        if missing:
            raise UserError(f"{folder} lacks {', '.join(missing)}; extract the whole archive there")
        paths = {batch: folder / batch for batch in CIFAR10_BATCHES}
        files = tuple(_checked(path, allow_unofficial) for path in paths.values())
    else:
        paths, files = _official_files("cifar10", directories, allow_unofficial)
    official = all(file.official for file in files)
    prepared = _prepare(
        "cifar10.hdf5", files, directories, lambda path: _convert_cifar10(paths, official, path)
    )
    images, labels = _read(prepared, "train")
    test_images, test_labels = _read(prepared, "test")
    number = len(labels)
    if inputs == "signed":
        images, test_images, words = _signed(images), _signed(test_images), PIXELS[inputs][1]
    else:
        whitened = _prepare(
            "cifar10_whitened.hdf5",
            files,
            directories,
            lambda path: _whiten_cifar10(images, test_images, path),
        )
        whitened = _memory_map(whitened, "features")
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
        _folder_beside(output) as folder,
        _fuel("CIFAR-10", first.parent),
    ):
        archive = Path(folder, WANTED["cifar10"][0])
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
    paths, files = _official_files("svhn", directories, allow_unofficial)
    prepared = _prepare(
        "svhn_format_2.hdf5", files, directories, lambda path: _convert_svhn(paths, path)
    )
    pixels = _memory_map(prepared, "features")
    # Fuel's files have 0 for the digit zero; the released code has it last, after 1 to 9.
    labels = [(_targets(prepared, which) - 1) % 10 for which in SVHN_SETS]
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


SVHN_SETS = ("train", "test", "extra")  # in this order in Fuel's file


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


def _convert_svhn(paths, output, block=4096):
    """Writes what Fuel's converter of SVHN's format 2 writes, which takes 5.5 GiB of memory and
    starts again after a kill; this takes 1.7 GiB and goes on.

    A label is written after its image, and is 255 until then: the first 255 is where to go on.
    """
    labels = [_svhn_labels(paths[f"{which}_32x32.mat"]) for which in SVHN_SETS]
    bounds = np.cumsum([0, *(len(part) for part in labels)])
    if not output.exists():
        _allocate_svhn(output, bounds)
    with h5py.File(output, "r") as file:
        features, targets = file["features"].id.get_offset(), file["targets"].id.get_offset()
        done = np.cumprod(file["targets"][:, 0] != 255).sum()
    with (
        open(output, "r+b") as file,
        tqdm(
            desc="converting SVHN", total=bounds[-1], initial=done, unit="images", disable=None
        ) as bar,
    ):
        for which, part, (first, end) in zip(SVHN_SETS, labels, pairwise(bounds), strict=True):
            if done >= end:
                continue
            images = _loadmat(paths[f"{which}_32x32.mat"], "X").transpose(3, 2, 0, 1)
            for start in range(max(done, first), end, block):
                rows = slice(start - first, min(start + block, end) - first)
                for offset, size, content in (
                    (features, 3072, images[rows]),
                    (targets, 1, part[rows] % 10),
                ):
                    file.seek(offset + start * size)
                    file.write(content.tobytes())
                    file.flush()
                bar.update(len(part[rows]))
            del images  # before the next ones are read


def _svhn_labels(path):
    """Labels 1 to 10 of a file, uint8 of shape (n,), when the shapes of images and labels fit."""
    try:
        kinds = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(path)}
    except Exception as error:  # a damaged file can raise anything
        raise _unreadable(path, error) from error
    labels = _loadmat(path, "y")
    expected = (32, 32, 3, len(labels)), "uint8"
    if (
        kinds.get("X") != expected
        or labels.shape != (len(labels), 1)
        or labels.dtype.kind not in "iuf"
    ):
        raise UserError(
            f"{path} has X of shape and type {kinds.get('X')} and y of shape {labels.shape}; "
            "expected (32, 32, 3, n), uint8 and (n, 1) as in SVHN's format 2"
        )
    if not np.isin(labels, np.arange(1, 11)).all():
        raise UserError(
            f"{path} has labels from {labels.min()} to {labels.max()}; expected 1 to 10 as in "
            "SVHN's format 2"
        )
    return labels[:, 0].astype(np.uint8)


def _loadmat(path, name):
    try:
        return scipy.io.loadmat(path, variable_names=[name])[name]
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path, error):
    return UserError(
        f"{path} is not a whole file of SVHN's format 2 ({type(error).__name__}: {error}); delete "
        "it to have it downloaded"
    )


def _allocate_svhn(output, bounds):
    """An HDF5 file as Fuel expects it, with all of its space and the labels 255."""
    whole = output.with_suffix(".new")
    with h5py.File(whole, "w") as file:
        features = file.create_dataset("features", (bounds[-1], 3, 32, 32), np.uint8)
        features[-1:] = 0  # gives it its place in the file
        file.create_dataset("targets", data=np.full((bounds[-1], 1), 255, np.uint8))
        for dataset, axes in (
            (features, ("batch", "channel", "height", "width")),
            (file["targets"], ("batch", "index")),
        ):
            for dimension, label in zip(dataset.dims, axes, strict=True):
                dimension.label = label
        with _fuel("SVHN", output.parent):
            file.attrs["split"] = H5PYDataset.create_split_array(
                {
                    which: {"features": (first, end), "targets": (first, end)}
                    for which, (first, end) in zip(SVHN_SETS, pairwise(bounds), strict=True)
                }
            )
    with open(whole, "r+b") as file:  # a full disk shows now
        os.posix_fallocate(file.fileno(), 0, whole.stat().st_size)
    os.replace(whole, output)


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


def data_directories(data=None):
    """Where to look for files, and to write in the first that can be written: what the user named,
    then the per-user cache."""
    if data is None:
        data = os.environ.get("BINARYCONNECT_DATA")
    fuel = os.environ.get("FUEL_DATA_PATH", "")
    named = [data] if data else [path for path in fuel.split(os.pathsep) if path]
    return [Path(path).expanduser() for path in named] + [cache_directory() / "data"]


def _writable(directories):
    """The first of the directories that can be written, made where it does not exist. One without a
    write permission is left alone by root too, who could write it."""
    for directory in directories:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        if os.access(existing, os.W_OK) and existing.stat().st_mode & 0o222:
            directory.mkdir(parents=True, exist_ok=True)
            return directory
    raise PermissionError(errno.EACCES, "not writable", str(directories[0]))


def _official_files(name, directories, allow_unofficial):
    """({official name: path}, File of each), checked; those that are nowhere are downloaded."""
    paths = {file: _find(name, file, directories) for file in WANTED[name]}
    missing = [file for file, path in paths.items() if path is None]
    if missing:
        target = _writable(directories)
        for file in missing:
            paths[file] = _download(name, file, target, directories[0])
    return paths, tuple(_checked(path, allow_unofficial) for path in paths.values())


def _find(name, file, directories):
    """Path of a file, in a directory or in its subdirectory `name`, also unzipped, or None."""
    for directory in directories:
        for candidate in (file, f"{name}/{file}", file[:-3], f"{name}/{file[:-3]}"):
            if Path(candidate).name in CHECKSUMS and (directory / candidate).is_file():
                return directory / candidate
    return None


def _checked(path, allow_unofficial):
    """The File at `path`."""
    md5, official = pooch.file_hash(path, alg="md5"), CHECKSUMS[path.name]
    if md5 != official and not allow_unofficial:
        raise UserError(
            f"{path} is not the official file: its md5 is {md5}, expected {official}; delete it to "
            "have it downloaded, or take it as it is with --allow-unofficial-data"
        )
    return File(path.name, md5, md5 == official)


def _download(name, file, target, directory):
    """Path of a file downloaded whole and checked: pooch renames it only then, so that neither a
    broken download nor a second process at the same time leaves anything else under its name."""
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    reasons = []
    for mirror in MIRRORS[name]:
        try:
            md5 = f"md5:{CHECKSUMS[file]}"
            return Path(pooch.retrieve(mirror + file, md5, file, target, downloader=downloader))
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise
            wrong = type(error) is ValueError
            reasons.append(f"{mirror} {'wrong checksum' if wrong else type(error).__name__}")
    alternative = ", or train on embedded digits with --data digits" if name == "mnist" else ""
    raise UserError(
        f"{file} is not in {directory} and cannot be downloaded ({'; '.join(reasons)}): put "
        f"{', '.join(WANTED[name])} there{alternative}"
    )


def _prepare(name, files, directories, make):
    """Path of the file `binaryconnect/name` made of `files` by `make(path)`, unless it is there.

    It gets its name when it is whole. Until then it lies beside it under one that only the same
    inputs have, so that `make` may go on with what a killed run left.
    """
    stamp = json.dumps([VERSION, *(file.md5 for file in files)])
    for directory in directories:
        if _stamp(directory / "binaryconnect" / name) == stamp:
            return directory / "binaryconnect" / name
    path = _writable([directory / "binaryconnect" for directory in directories]) / name
    partial = path.with_name(f"{name}.{hashlib.md5(stamp.encode()).hexdigest()}.partial")
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, then finds the file made
        if _stamp(path) == stamp:
            return path
        _clear(path, keep=partial)
        if path.exists():
            print(f"{path} is of other files or another version: making it again", file=sys.stderr)
        try:
            make(partial)
            with h5py.File(partial, "r+") as file:
                file.attrs["made of"] = stamp
            with open(partial, "rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        except Exception:
            _clear(path)
            raise
    return path


def _clear(path, keep=None):
    """Removes what a failed or killed run left beside `path`."""
    for left in path.parent.glob(f"{path.name}.*"):
        if left.is_dir():
            shutil.rmtree(left)
        elif left != keep:
            left.unlink()


def _folder_beside(output):
    return tempfile.TemporaryDirectory(dir=output.parent, prefix=f"{output.name}.")


def _stamp(path):
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("made of")
    except OSError:  # none there, or not a whole one
        return None


DAMAGED = ValueError, EOFError, struct.error, zlib.error, gzip.BadGzipFile, tarfile.TarError


@contextlib.contextmanager
def _fuel(name, directory):
    """For a converter of Fuel: silences what it says of its age, names files it cannot read."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        try:
            yield
        except (*DAMAGED, KeyError) as error:
            raise UserError(
                f"the {name} files in {directory} are not of the official format ({error}); delete "
                "them to have them downloaded"
            ) from error


def _check(name, path, shape):
    """Refuses a converted file with images of another shape or labels beyond 9."""
    with h5py.File(path, "r") as file:
        found, largest = file["features"].shape[1:], file["targets"][:].max(initial=0)
    if found != shape or largest > 9:
        raise UserError(
            f"the {name} files have images of shape {found} and labels up to {largest}; expected "
            f"shape {shape} and labels up to 9"
        )


def _memory_map(path, name):
    """A data set of an HDF5 file as a read-only array on the file."""
    with h5py.File(path, "r") as file:
        found = file[name]
        return np.memmap(path, found.dtype, "r", found.id.get_offset(), found.shape).view(
            np.ndarray
        )


def _targets(path, which):
    """The labels, int32 of shape (n,), of a set of Fuel's file."""
    dataset = H5PYDataset(str(path), (which,), sources=("targets",), load_in_memory=True)
    return dataset.data_sources[0][:, 0].astype(np.int32)


def _read(path, which):
    """Images as they are in Fuel's file and labels, int32 of shape (n,), of "train" or "test"."""
    images, labels = H5PYDataset(str(path), (which,), load_in_memory=True).data_sources
    return images, labels[:, 0].astype(np.int32)
