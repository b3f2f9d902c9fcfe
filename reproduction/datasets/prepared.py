"""What is made of the files of a data set: once, kept, and read from then on."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings

from original_stack.errors import UserError

import h5py
import numpy as np
from fuel.datasets import H5PYDataset

from reproduction.datasets.files import DAMAGED, writable

VERSION = 1  # of what is written into the prepared files; one of another version is made again


def prepare(name, files, directories, make):
    """Path of the file `binaryconnect/name` made of `files` by `make(path)`, unless it is there.

    It gets its name when it is whole. Until then it lies beside it under one that only the same
    inputs have, so that `make` may go on with what a killed run left.

    Parameters
    ----------
    name : str
    files : sequence of File
        What it is made of: it is made again when their checksums, or VERSION, are others.
    directories : list of Path
        See `data_directories`.
    make : callable
        Writes an HDF5 file at the path that it is given.
    """
    stamp = json.dumps([VERSION, *(file.md5 for file in files)])
    for directory in directories:
        if _stamp(directory / "binaryconnect" / name) == stamp:
            return directory / "binaryconnect" / name
    path = writable([directory / "binaryconnect" for directory in directories]) / name
    path.parent.mkdir(parents=True, exist_ok=True)
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


def _stamp(path):
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("made of")
    except OSError:  # none there, or not a whole one
        return None


def folder_beside(output):
    """A temporary folder in which `make` of `prepare` may prepare its output; removed after it."""
    return tempfile.TemporaryDirectory(dir=output.parent, prefix=f"{output.name}.")


def memory_map(path, name):
    """A data set of an HDF5 file as a read-only array on the file."""
    with h5py.File(path, "r") as file:
        found = file[name]
        return np.memmap(path, found.dtype, "r", found.id.get_offset(), found.shape).view(
            np.ndarray
        )


@contextlib.contextmanager
def converting(name, directory):
    """Within it a converter of Fuel is silent about its age, and input that it cannot read is a
    UserError that names the data set and its directory."""
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


def check(name, path, shape):
    """Refuses a converted file with images of another shape or labels beyond 9."""
    with h5py.File(path, "r") as file:
        found, largest = file["features"].shape[1:], file["targets"][:].max(initial=0)
    if found != shape or largest > 9:
        raise UserError(
            f"the {name} files have images of shape {found} and labels up to {largest}; expected "
            f"shape {shape} and labels up to 9"
        )


def targets(path, which):
    """The labels, int32 of shape (n,), of a set of Fuel's file."""
    dataset = H5PYDataset(str(path), (which,), sources=("targets",), load_in_memory=True)
    return dataset.data_sources[0][:, 0].astype(np.int32)


def read(path, which):
    """Images as they are in Fuel's file and labels, int32 of shape (n,), of "train" or "test"."""
    images, labels = H5PYDataset(str(path), (which,), load_in_memory=True).data_sources
    return images, labels[:, 0].astype(np.int32)
