"""Convert SVHN's format 2, which is published in .mat files, to Fuel's HDF5 format."""

import os
from itertools import pairwise

from original_stack.errors import UserError, open_regular, reading

import h5py
import numpy as np
from fuel.datasets import H5PYDataset
from tqdm import tqdm

from reproduction.datasets import matlab
from reproduction.datasets.files import REMEDY
from reproduction.datasets.prepared import quiet

SETS = ("train", "test", "extra")  # in this order in Fuel's file
LARGEST = 2**20  # images in a file; extra has 531,131


def convert(paths, output, block=4096):
    """Write the file that Fuel's converter of SVHN's format 2 writes.

    Fuel's converter takes 5.5 GiB of memory and starts again after a kill. This function takes
    1.7 GiB and resumes at the first label 255, because a label is 255 until its image is on the
    disk.
    """
    labels = [_labels(paths[f"{which}_32x32.mat"]) for which in SETS]
    bounds = np.cumsum([0, *(len(part) for part in labels)])
    features, targets, done = _begun(output, bounds[-1]) or _allocate(output, bounds)
    with (
        open(output, "r+b") as file,
        tqdm(
            desc="converting SVHN", total=bounds[-1], initial=done, unit="images", disable=None
        ) as bar,
    ):
        for which, part, (first, end) in zip(SETS, labels, pairwise(bounds), strict=True):
            if done >= end:
                continue
            images = _images(paths[f"{which}_32x32.mat"], len(part))
            for start in range(max(done, first), end, block):
                rows = slice(start - first, min(start + block, end) - first)
                for offset, size, content in (
                    (features, 3072, images[rows]),
                    (targets, 1, part[rows] % 10),
                ):
                    file.seek(offset + start * size)
                    file.write(content.tobytes())
                    file.flush()
                    os.fdatasync(file.fileno())  # the order holds even after a power cut
                bar.update(len(part[rows]))
            del images  # free the memory before the next images are read


def _labels(path):
    """The labels of a file, 1 to 10, as uint8 of shape (n,), after shapes have been checked."""
    with open_regular(path) as file, reading(path, REMEDY):
        images, labels = matlab.find(file, "X"), matlab.find(file, "y")
        count = labels.shape[0]
        expected = (images.shape, labels.shape) == ((32, 32, 3, count), (count, 1))
        if not expected or images.kind != "uint8" or labels.kind is None:
            raise UserError(
                f"{path} has X of shape and type {images[:2]} and y of {labels[:2]}; expected "
                "(32, 32, 3, n), uint8 and (n, 1), numbers, as in SVHN's format 2"
            )
        if not 0 < count <= LARGEST:
            raise UserError(f"{path} has {count} images; expected 1 to {LARGEST}")
        labels = matlab.array(labels)
    if not np.isin(labels, np.arange(1, 11)).all():
        raise UserError(
            f"{path} has labels from {labels.min()} to {labels.max()}; expected 1 to 10 as in "
            "SVHN's format 2"
        )
    return labels[:, 0].astype(np.uint8)


def _images(path, count):
    """The images of a file, as uint8 of shape (count, 3, 32, 32)."""
    with open_regular(path) as file, reading(path, REMEDY):
        variable = matlab.find(file, "X")
        if variable.shape != (32, 32, 3, count):
            raise ValueError(f"X has shape {variable.shape}")
        images = matlab.array(variable)
        if images.dtype != np.uint8:
            raise ValueError(f"X is stored as {images.dtype}")
        return images.transpose(3, 2, 0, 1)


def _begun(output, size):
    """Like `_allocate`, for the file that a killed run left. None if there is no usable file."""
    try:
        with (
            open_regular(output) as file,
            reading(output, "delete it"),
            h5py.File(file, "r") as content,
        ):
            features, targets = content["features"], content["targets"]
            if features.shape != (size, 3, 32, 32) or targets.shape != (size, 1):
                return None
            done = int(np.cumprod(targets[:, 0] != 255).sum())
            return features.id.get_offset(), targets.id.get_offset(), done
    except (FileNotFoundError, UserError):
        return None


def _allocate(output, bounds):
    """Write an HDF5 file as Fuel expects it, with its full size and all labels 255.

    Returns
    -------
    features, targets : int
        The offsets of the arrays in the file, in bytes.
    done : int
        The number of images that the file has.
    """
    new = output.with_suffix(".new")
    with h5py.File(new, "w") as file:
        features = file.create_dataset("features", (bounds[-1], 3, 32, 32), np.uint8)
        features[-1:] = 0  # gives it its place in the file
        targets = file.create_dataset("targets", data=np.full((bounds[-1], 1), 255, np.uint8))
        for dataset, axes in (
            (features, ("batch", "channel", "height", "width")),
            (targets, ("batch", "index")),
        ):
            for dimension, label in zip(dataset.dims, axes, strict=True):
                dimension.label = label
        with quiet():
            file.attrs["split"] = H5PYDataset.create_split_array(
                {
                    which: {"features": (first, end), "targets": (first, end)}
                    for which, (first, end) in zip(SETS, pairwise(bounds), strict=True)
                }
            )
        offsets = features.id.get_offset(), targets.id.get_offset()
    with open(new, "r+b") as file:  # a full disk is noticed now
        os.posix_fallocate(file.fileno(), 0, new.stat().st_size)
        os.fsync(file.fileno())
    os.replace(new, output)
    return *offsets, 0
