"""Read arrays (.npy, .npz) that come from outside. Sizes are checked before memory is allocated."""

import ast
import io
import math
import re
import zipfile

from original_stack.errors import open_regular, reading

import numpy as np

LARGEST = 2 * 2**30  # bytes of all arrays in an archive; a checkpoint has less than 1 GiB
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LONGEST_HEADER = 10_000  # bytes; a longer one may exhaust the parser
_TYPE = re.compile("[<|=]?[biufcSU][1-9][0-9]{0,5}")  # no Python objects, records, swapped bytes


def load_npz(path, remedy, largest=LARGEST):
    """The arrays of an .npz archive, {name: array}.

    Parameters
    ----------
    path : path
    remedy : str
        What to do if the file is damaged.
    largest : int
        The number of bytes that all arrays together may have.

    Raises
    ------
    FileNotFoundError
    UserError
        If the file cannot be read or is damaged: it is shorter than it says, has more than
        `largest` bytes, or has an array of anything but numbers and text in little-endian order.
    """
    with open_regular(path) as f, reading(path, remedy), zipfile.ZipFile(f) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > largest:
            raise ValueError(f"more than {largest} bytes")
        arrays = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays or name == member.filename:
                raise ValueError(f"member {member.filename}")
            if member.compress_type not in _COMPRESSIONS:
                raise ValueError(f"unknown compression {member.compress_type}")
            with archive.open(member) as content:
                arrays[name] = read_npy(content, member.file_size)
        return arrays


def read_npy(content, available):
    """The array of an .npy file.

    Parameters
    ----------
    content : binary file object
        Ends with the array.
    available : int
        The largest number of bytes that `content` may have.

    Raises
    ------
    ValueError and others of `errors.DAMAGE`
        If the file is damaged.
    """
    if np.lib.format.read_magic(content) != (1, 0):
        raise ValueError("the version of its header is not 1.0")
    length = int.from_bytes(content.read(2), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = ast.literal_eval(content.read(length).decode("latin1").strip())
    kind, fortran_order, shape = (header[key] for key in ("descr", "fortran_order", "shape"))
    if not (isinstance(kind, str) and _TYPE.fullmatch(kind)):
        raise ValueError(f"an array of type {kind!r}; expected numbers or text")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    dtype = np.dtype(kind)
    size = math.prod(shape) * dtype.itemsize
    if size > available:
        raise ValueError(f"an array of shape {shape} in {available} bytes")
    data = content.read(size + 1)  # the checksum is compared at the end of the file
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
    array = np.frombuffer(bytearray(data), dtype)
    return array.reshape(shape, order="F" if fortran_order is True else "C")


def npz(**arrays):
    """The bytes of an .npz archive."""
    content = io.BytesIO()  # on a full disk, zipfile would leave half an archive
    np.savez(content, **arrays)
    return content.getbuffer()
