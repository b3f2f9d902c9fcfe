"""The official files of a data set, found or downloaded, and checked; what is made of them, once.

Files are looked for in the data directory. What is made of them lies in `binaryconnect/` below it
(else in the per-user cache), carries the checksums of its inputs, and is made again when these
change.
"""

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import struct
import sys
import tarfile
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

from original_stack.cache import cache_directory
from original_stack.errors import UserError

import h5py
import numpy as np
import pooch

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

DAMAGED = ValueError, EOFError, struct.error, zlib.error, gzip.BadGzipFile, tarfile.TarError


@dataclass(frozen=True)
class File:
    """A file that a data set was made from: its name, its md5, whether that is the official one."""

    name: str
    md5: str
    official: bool


def data_directories(data=None):
    """Where to look for files, and to write in the first that can be written: what the user named,
    then the per-user cache."""
    if data is None:
        data = os.environ.get("BINARYCONNECT_DATA")
    fuel = os.environ.get("FUEL_DATA_PATH", "")
    named = [data] if data else [path for path in fuel.split(os.pathsep) if path]
    return [Path(path).expanduser() for path in named] + [cache_directory() / "data"]


def official_files(name, directories, allow_unofficial):
    """({official name: path}, File of each), checked; those that are nowhere are downloaded.

    Raises
    ------
    UserError
        A file can neither be found nor downloaded, or is not the official one, which only
        `allow_unofficial` permits.
    """
    paths = {file: find(name, file, directories) for file in WANTED[name]}
    missing = [file for file, path in paths.items() if path is None]
    if missing:
        target = writable(directories)
        target.mkdir(parents=True, exist_ok=True)
        for file in missing:
            paths[file] = _download(name, file, target, directories[0])
    return paths, tuple(checked(path, allow_unofficial) for path in paths.values())


def find(name, file, directories):
    """Path of a file, in a directory or in its subdirectory `name`, also unzipped, or None."""
    for directory in directories:
        for candidate in (file, f"{name}/{file}", file[:-3], f"{name}/{file[:-3]}"):
            if Path(candidate).name in CHECKSUMS and (directory / candidate).is_file():
                return directory / candidate
    return None


def checked(path, allow_unofficial):
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


def writable(directories):
    """The first of the directories that can be written, or made. One without a write permission is
    left alone by root too, who could write it."""
    for directory in directories:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        if os.access(existing, os.W_OK) and existing.stat().st_mode & 0o222:
            return directory
    raise PermissionError(errno.EACCES, "not writable", str(directories[0]))


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
