"""Find or download the official files of a data set, and check them."""

import errno
import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from original_stack.cache import cache_directory
from original_stack.errors import (
    UserError,
    expanded,
    no_room,
    open_regular,
    reading,
    unreadable,
)

import pooch

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/",),
    "svhn": ("http://ufldl.stanford.edu/housenumbers/",),
}

# The official md5 of every file that a data directory may have. MNIST's files may also be unzipped,
# and CIFAR-10's archive may be extracted.
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

# The licenses, as the distributors state them.
LICENSES = {
    "mnist": "Copyright Yann LeCun and Corinna Cortes, derived from data of NIST; Creative Commons "
    "Attribution-Share Alike 3.0 (https://creativecommons.org/licenses/by-sa/3.0/)",
    "cifar10": "No license is stated; its page asks to cite Alex Krizhevsky, Learning Multiple "
    "Layers of Features from Tiny Images, 2009 (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "svhn": "For non-commercial use only; to cite: Netzer et al., Reading Digits in Natural Images "
    "with Unsupervised Feature Learning, 2011 (http://ufldl.stanford.edu/housenumbers/)",
}

REMEDY = "delete it to have it downloaded"


def dataset_of(name):
    """The data set to which an official file of this name belongs, or None."""
    if name not in CHECKSUMS:
        return None
    return "mnist" if "ubyte" in name else "svhn" if name.endswith(".mat") else "cifar10"


@dataclass(frozen=True)
class File:
    """A file of a data set: its name, its md5, and whether this md5 is the official one."""

    name: str
    md5: str
    official: bool


def data_directories(data=None):
    """The directories where files are looked for, in this order. New files are written to the first
    one that is writable.

    1. `data`; otherwise the environment variable BINARYCONNECT_DATA; otherwise the directories of
       FUEL_DATA_PATH, Fuel's own variable, separated by colons.
    2. `data` in the per-user cache.
    3. PYLEARN2_DATA_PATH, where the released code has `mnist/` and
       `cifar10/cifar-10-batches-py/`.

    Raises
    ------
    UserError
        If one of them is a file or the home directory of an unknown user.
    """
    if data == "":
        raise UserError("--data is empty; name a directory or leave it out")
    named = data or os.environ.get("BINARYCONNECT_DATA")
    paths = [named] if named else os.environ.get("FUEL_DATA_PATH", "").split(os.pathsep)
    paths += [cache_directory() / "data", os.environ.get("PYLEARN2_DATA_PATH")]
    directories = []
    for path in filter(None, paths):
        directories.append(expanded(path, "the data directory"))
        if os.path.exists(directories[-1]) and not os.path.isdir(directories[-1]):
            raise UserError(f"{path} is not a directory; name the directory with the data files")
    return directories


def official_files(name, directories, allow_unofficial):
    """Find, check and, if they are missing, download the official files of a data set.

    Returns
    -------
    paths : dict
        {official name: path}
    files : tuple of File

    Raises
    ------
    UserError
        If a file can neither be found nor downloaded. Unless `allow_unofficial`, also if a file is
        not the official one.
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
    """The path of a file, or None. It may lie in a directory or in its subdirectory `name`, and may
    be unzipped."""
    for directory in directories:
        for candidate in (file, f"{name}/{file}", file[:-3], f"{name}/{file[:-3]}"):
            if Path(candidate).name in CHECKSUMS and exists(directory / candidate):
                return directory / candidate
    return None


def exists(path):
    """Whether `path` exists and is not a folder; `checked` refuses what is not a regular file."""
    try:
        return path.exists() and not path.is_dir()
    except OSError as error:
        raise unreadable(path, error) from None


def checked(path, allow_unofficial):
    """The File at `path`; a UserError if it is not the official one, unless `allow_unofficial`."""
    with open_regular(path) as file, reading(path, REMEDY):
        md5, official = hashlib.file_digest(file, "md5").hexdigest(), CHECKSUMS[path.name]
    if md5 != official and not allow_unofficial:
        raise UserError(
            f"{path} is not the official file: its md5 is {md5}, expected {official}; {REMEDY}, "
            "or take it as it is with --allow-unofficial-data"
        )
    return File(path.name, md5, md5 == official)


def unpack(path, output, largest):
    """Copy a file to `output`, unzipped if its name ends in .gz.

    Raises
    ------
    UserError
        If the file is damaged, or has more than `largest` bytes when it is unzipped.
    """
    with open_regular(path) as packed, open(output, "wb") as plain, reading(path, REMEDY):
        source = gzip.GzipFile(fileobj=packed) if path.suffix == ".gz" else packed
        while block := source.read(2**20):
            if plain.tell() + len(block) > largest:
                raise ValueError(f"more than {largest} bytes")
            plain.write(block)


def _download(name, file, target, directory):
    """Download and check a file, and return its path.

    The file gets its name only after the check, so a broken download never has this name.
    """
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=30)
    reasons = []
    for mirror in MIRRORS[name]:
        try:
            md5 = f"md5:{CHECKSUMS[file]}"
            return Path(pooch.retrieve(mirror + file, md5, file, target, downloader=downloader))
        except (OSError, ValueError) as error:
            if no_room(error):
                raise
            wrong = type(error) is ValueError
            reasons.append(f"{mirror} {'wrong checksum' if wrong else type(error).__name__}")
    alternative = ", or train on embedded digits with --data digits" if name == "mnist" else ""
    raise UserError(
        f"{file} is not in {directory} and cannot be downloaded ({'; '.join(reasons)}): put "
        f"{', '.join(WANTED[name])} there{alternative}"
    )


def writable(directories):
    """The first of the directories that can be written or made. A directory without a write
    permission is left alone even if the user is root, who could write there."""
    for directory in directories:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        if os.access(existing, os.W_OK) and existing.stat().st_mode & 0o222:
            return directory
    raise PermissionError(errno.EACCES, "not writable", str(directories[0]))
