"""The user's own images and labels in one .npz file, preprocessed like a published data set."""

import hashlib

from original_stack.errors import UserError, expanded, open_regular

import numpy as np

from reproduction.arrays import load_npz
from reproduction.datasets import cifar10, svhn
from reproduction.datasets.dataset import Dataset, Images, Split
from reproduction.datasets.files import File
from reproduction.datasets.preprocessing import PIXELS

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "svhn": (3, 32, 32)}
LARGEST = 2**13  # classes
_NUMBERING = "number the classes 0, 1, ... without a gap"


def load(name, path, directories, inputs, lcn):
    """The data set in a file.

    The file has the arrays `train_images`, `train_labels`, `test_images` and `test_labels`. Images
    are uint8 of shape (n, 28, 28) for "mnist" and (n, 32, 32, 3) for "cifar10" and "svhn"; the axis
    of the channels may also come second. Labels are integers of shape (n,), from 0 to the number of
    classes - 1. If `valid_images` and `valid_labels` are missing, a random sixth of the training
    images is used for validation.

    Parameters
    ----------
    name : "mnist", "cifar10" or "svhn"
        The data set whose preprocessing is applied.
    path : path
    directories : list of Path
        Where whitened images are kept, see `files.data_directories`.
    inputs, lcn
        See `datasets.load`.

    Returns
    -------
    Dataset
        It is not official. Its only file is `path`, after which it is called.

    Raises
    ------
    UserError
        If the file does not have what is described above.
    """
    path = expanded(path, "--data")
    if not path.name.isprintable():
        raise UserError(f"{str(path)!r}: the name cannot be printed; rename the file")
    md5, sets = _read(path, SHAPES[name])
    files = (File(path.name, md5, False),)
    test_images, test_y = sets.pop("test")
    images, y = (np.concatenate(parts) for parts in zip(*sets.values(), strict=True))
    count = len(y)
    if "valid" in sets:
        train, valid = np.split(np.arange(count), [len(sets["train"][1])])
        share = ""
    else:
        order = np.random.RandomState(0).permutation(count)
        valid, train = (np.sort(rows) for rows in np.split(order, [count // 6]))
        share = " (a random sixth of the training images)"
        if count < 6:
            raise UserError(
                f"{path}: train_images has {count} images, of which a sixth validates; give it at "
                "least 6, or valid_images and valid_labels"
            )
    classes = _classes(path, y[train], np.concatenate([y, test_y]))
    if name == "svhn":
        transform, description = svhn.preprocess(inputs, lcn)
        rows = (images, train), (images, valid), (test_images, np.arange(len(test_y)))
        X = [Images(pixels, some, transform) for pixels, some in rows]
    else:
        if name == "mnist":
            transform, description = PIXELS[inputs]
            images, test_images = transform(images), transform(test_images)
        else:
            images, test_images, description = cifar10.preprocess(
                images, test_images, inputs, "own_whitened.hdf5", files, directories
            )
        X = [images[train], images[valid], test_images]
    labels = [part.astype(np.int32) for part in (y[train], y[valid], test_y)]
    counts = f"{len(train)} training, {len(valid)} validation{share}, {len(test_y)} test images"
    description += f"; own data of {classes} classes: {counts}"
    return Dataset(name, *map(Split, X, labels), files, description, classes, path.stem)


def _read(path, shape):
    """The md5 of the file and {set: (images, labels)} for train, valid (if present) and test."""
    try:
        with open_regular(path) as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        arrays = load_npz(path, "save it again")
    except FileNotFoundError:
        names = _listed(_names("train", "test"))
        raise UserError(f"there is no file {path}; name one with {names}") from None
    sets = ["train", "test"]
    if any(name in arrays for name in _names("valid")):
        sets.insert(1, "valid")
    missing = [name for name in _names(*sets) if name not in arrays]
    if missing:
        raise UserError(f"{path} lacks {_listed(missing)}; expected {_listed(_names(*sets))}")
    return md5, {which: _images_and_labels(path, which, arrays, shape) for which in sets}


def _names(*sets):
    return [f"{which}_{part}" for which in sets for part in ("images", "labels")]


def _listed(names):
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _images_and_labels(path, which, arrays, shape):
    """The images of a set, channels first, and its labels, int64, after both have been checked."""
    images, labels = arrays[f"{which}_images"], arrays[f"{which}_labels"]
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {which}_images is of type {images.dtype}; expected uint8")
    channels, *size = shape
    image_shape = images.shape[1:]
    if channels == 1 and image_shape == tuple(size):
        images = images[:, np.newaxis]
    elif image_shape == (*size, channels):
        images = images.transpose(0, 3, 1, 2)
    elif image_shape != shape:
        expected = ("n", *size) if channels == 1 else ("n", *size, channels)
        raise UserError(
            f"{path}: {which}_images has shape {images.shape}; expected "
            f"({', '.join(map(str, expected))})"
        )
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise UserError(
            f"{path}: {which}_labels is of type {labels.dtype} and shape {labels.shape}; expected "
            f"integers of shape ({len(images)},)"
        )
    if not len(images):
        raise UserError(f"{path}: {which}_images has no images; add some")
    return images, labels.astype(np.int64)


def _classes(path, train_y, every_y):
    """The number of classes; a UserError if the training images lack one of them."""
    if every_y.min() < 0:
        raise UserError(f"{path}: a label is {every_y.min()}; {_NUMBERING}")
    there = np.unique(train_y)
    gap = next((i for i, label in enumerate(there) if i != label), len(there))
    if gap <= every_y.max():
        raise UserError(f"{path}: class {gap} has no training images; {_NUMBERING}")
    if not 2 <= gap <= LARGEST:
        raise UserError(f"{path}: the number of classes is {gap}; expected 2 to {LARGEST}")
    return gap
