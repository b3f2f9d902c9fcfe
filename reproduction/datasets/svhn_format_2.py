"""SVHN's format 2, as published in .mat files, -> the file that Fuel's converter makes of them."""

import os
from itertools import pairwise

from original_stack.errors import UserError

import h5py
import numpy as np
import scipy.io
from fuel.datasets import H5PYDataset
from tqdm import tqdm

from reproduction.datasets import prepared

SETS = ("train", "test", "extra")  # in this order in Fuel's file


def convert(paths, output, block=4096):
    """Writes what Fuel's converter of SVHN's format 2 writes, which takes 5.5 GiB of memory and
    starts again after a kill; this takes 1.7 GiB and goes on.

    A label is written after its image, and is 255 until then: the first 255 is where to go on.
    """
    labels = [_labels(paths[f"{which}_32x32.mat"]) for which in SETS]
    bounds = np.cumsum([0, *(len(part) for part in labels)])
    if not output.exists():
        _allocate(output, bounds)
    with h5py.File(output, "r") as file:
        features, targets = file["features"].id.get_offset(), file["targets"].id.get_offset()
        done = np.cumprod(file["targets"][:, 0] != 255).sum()
    with (
        open(output, "r+b") as file,
        tqdm(
            desc="converting SVHN", total=bounds[-1], initial=done, unit="images", disable=None
        ) as bar,
    ):
        for which, part, (first, end) in zip(SETS, labels, pairwise(bounds), strict=True):
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


def _labels(path):
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


def _allocate(output, bounds):
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
        with prepared.converting("SVHN", output.parent):
            file.attrs["split"] = H5PYDataset.create_split_array(
                {
                    which: {"features": (first, end), "targets": (first, end)}
                    for which, (first, end) in zip(SETS, pairwise(bounds), strict=True)
                }
            )
    with open(whole, "r+b") as file:  # a full disk shows now
        os.posix_fallocate(file.fileno(), 0, whole.stat().st_size)
    os.replace(whole, output)
