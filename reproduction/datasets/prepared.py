"""Prepare the files of a data set once, and keep the arrays in Fuel's format.

`binaryconnect/NAME.hdf5` below a data directory holds the arrays. `NAME.json` beside it holds the
checksums of the files that NAME.hdf5 was made of, the checksum of NAME.hdf5, and the time stamp of
NAME.hdf5 when this checksum was last compared. It is compared again only if the time stamp changes.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from original_stack.errors import Lock, UserError, open_regular, reading, write_atomically

import h5py
import numpy as np
from fuel.datasets import H5PYDataset

from reproduction.datasets.files import writable

VERSION = 2  # of the content of prepared files; a file of another version is made again


@dataclass(frozen=True)
class Prepared:
    """An open file of Fuel's format.

    The content stays the same even if another process replaces the file at `path`.
    """

    path: Path
    file: BinaryIO

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    @contextlib.contextmanager
    def _content(self):
        with (
            reading(self.path, "delete it to have it made again"),
            h5py.File(self.file, "r") as content,
        ):
            yield content

    def images(self, which):
        """Images of "train", "test" or "extra": uint8 of shape (n, channels, rows, columns)."""
        with self._content() as content:
            return _typed(_source(content, which, "features"), np.uint8)

    def labels(self, which):
        """Labels of "train", "test" or "extra": int32 of shape (n,), 0 to 9."""
        with self._content() as content:
            labels = _typed(_source(content, which, "targets"), np.uint8)
            if labels.shape != (len(labels), 1) or labels.max(initial=0) > 9:
                raise ValueError(f"labels of shape {labels.shape} up to {labels.max(initial=0)}")
            return labels[:, 0].astype(np.int32)

    def memory_map(self, name, dtype):
        """An array of a type in the file, memory-mapped and read-only."""
        with self._content() as content:
            data = _typed(content[name], dtype)
            offset = data.id.get_offset()
            return np.memmap(self.file, data.dtype, "r", offset, data.shape).view(np.ndarray)


def _source(content, which, source):
    dataset = H5PYDataset(content, (which,), sources=(source,), load_in_memory=True)
    return dataset.data_sources[0]


def _typed(data, dtype):
    """`data`, if it has this type. Objects would be addresses that the file chooses."""
    if data.dtype != dtype:
        raise ValueError(f"an array of type {data.dtype}; expected {np.dtype(dtype)}")
    return data


def prepare(name, files, directories, make):
    """Open the file `binaryconnect/name`. If it does not exist, `make(path)` makes it of `files`.

    The file gets its name when it is complete. Until then it has a temporary name derived from the
    inputs, so that `make` may resume what a killed run left.

    Parameters
    ----------
    name : str
    files : sequence of File
        The input files. The prepared file is made again if their checksums or VERSION change, or if
        its content is not what was written.
    directories : list of Path
        See `data_directories`.
    make : callable
        Writes an HDF5 file at the path that it is given.

    Returns
    -------
    Prepared
    """
    made_of = [VERSION, *(file.md5 for file in files)]
    for directory in directories:
        prepared = _open(directory / "binaryconnect" / name, made_of)
        if prepared:
            return prepared
    path = writable([directory / "binaryconnect" for directory in directories]) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = hashlib.md5(json.dumps(made_of).encode()).hexdigest()
    partial = path.with_name(f"{name}.{inputs}.partial")
    waiting = f"waiting for another process, which prepares {path}"
    with Lock(path.with_suffix(".lock"), waiting=waiting):
        prepared = _open(path, made_of)  # another process may have made it
        if prepared:
            return prepared
        _clear(path, keep=partial)
        if os.path.lexists(path):
            print(
                f"{path} is damaged, or was made of other files or by another version: making it "
                "again",
                file=sys.stderr,
            )
        try:
            make(partial)
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(open(partial, "rb"))
                os.fsync(file.fileno())
                md5 = hashlib.file_digest(file, "md5").hexdigest()
                os.replace(partial, path)
                _note(path, {"made of": made_of, "md5": md5, "compared at": _time_stamp(file)})
                stack.pop_all()
                return Prepared(path, file)
        except Exception:
            _clear(path)
            raise


def _open(path, made_of):
    """The file at `path` if it was made of these files and is intact, otherwise None."""
    note = path.with_suffix(".json")
    try:
        with open_regular(note) as content, reading(note, "delete it"):
            record = json.loads(content.read(10_000))
            if record["made of"] != made_of:
                return None
            md5, compared_at = record["md5"], record["compared at"]
        file = open_regular(path)
    except (FileNotFoundError, UserError):
        return None
    if _time_stamp(file) != compared_at:
        if hashlib.file_digest(file, "md5").hexdigest() != md5:
            file.close()
            return None
        with contextlib.suppress(OSError):  # in a read-only folder, compare each time
            _note(path, {**record, "compared at": _time_stamp(file)})
    return Prepared(path, file)


def _time_stamp(file):
    status = os.fstat(file.fileno())
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _note(path, record):
    write_atomically(path.with_suffix(".json"), json.dumps(record).encode())


def _clear(path, keep=None):
    """Remove what a failed or killed run left beside `path`."""
    for left in path.parent.glob(f"{path.name}.{32 * '[0-9a-f]'}.*"):
        if left.is_dir():
            shutil.rmtree(left)
        elif left != keep:
            left.unlink()


def folder_beside(output):
    """A temporary folder for the function `make` of `prepare`. It is removed at the end."""
    return tempfile.TemporaryDirectory(dir=output.parent, prefix=f"{output.name}.")


@contextlib.contextmanager
def quiet():
    """Silence the deprecation warnings of Fuel's converters."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        yield
