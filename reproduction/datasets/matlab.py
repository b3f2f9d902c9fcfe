"""Read arrays from files of MATLAB's format 5, without SciPy, whose reader crashes on some damaged
files.

A file consists of a head of 128 bytes and elements. An element is a tag of 8 bytes (type, size) and
its content. A variable is an element, which may be compressed, of four elements: flags, shape, name
and values.
Source: MATLAB MAT-File Format, The MathWorks.
"""

import math
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

_CLASSES = {6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16"}
_CLASSES |= {12: "int32", 13: "uint32"}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_TYPES = {_INT8: "i1", 2: "u1", 3: "<i2", 4: "<u2", _INT32: "<i4", _UINT32: "<u4"}
_TYPES |= {7: "<f4", 9: "<f8"}
_BLOCK = 2**20


class Variable(NamedTuple):
    """A variable of a file.

    Attributes
    ----------
    shape : tuple of int
    kind : str or None
        The class, for example "uint8", or None if the values are not real numbers.
    source
        The values are read from it, which is possible until another variable is found.
    """

    shape: tuple
    kind: str | None
    source: Any


def find(file, wanted):
    """Find a variable.

    Parameters
    ----------
    file : binary file object
    wanted : str
        Its name.

    Returns
    -------
    Variable

    Raises
    ------
    ValueError and others of `errors.DAMAGE`
        If the file is damaged or has no such variable.
    """
    file.seek(0)
    if file.read(128)[124:] != b"\0\1IM":
        raise ValueError("it is not of MATLAB's format 5")
    while tag := file.read(8):
        kind, size = struct.unpack("<II", tag)
        end, source = file.tell() + size, file
        if kind == _COMPRESSED:
            source = _Inflated(file, size)
            kind, _ = struct.unpack("<II", source.read(8))
        if kind == _MATRIX:
            flags, _ = struct.unpack("<II", _element(source, _UINT32))
            shape = np.frombuffer(_element(source, _INT32), "<i4")
            if _element(source, _INT8).decode() == wanted:
                # Complex numbers set another bit of the flags.
                return Variable(tuple(shape.tolist()), _CLASSES.get(flags & 0x8FF), source)
        file.seek(end)
    raise ValueError(f"{wanted} is missing")


def array(variable):
    """The values of a variable; a ValueError if their size does not fit the shape."""
    shape, _, source = variable
    kind, size, content = _read_tag(source)
    dtype = np.dtype(_TYPES[kind])
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{size} bytes for an array of shape {shape}")
    values = np.empty(math.prod(shape), dtype)
    bytes_ = values.view(np.uint8)
    for start in range(0, size, _BLOCK):
        length = min(_BLOCK, size - start)
        block = content or source.read(length)
        if len(block) != length:
            raise EOFError("it ends too early")
        bytes_[start : start + length] = np.frombuffer(block, np.uint8)
    return values.reshape(shape, order="F")


def _element(source, expected):
    """The content of a short element of the expected type."""
    kind, size, content = _read_tag(source)
    if kind != expected or size > 1000:
        raise ValueError(f"an element of type {kind} and {size} bytes")
    return content or source.read(size + -size % 8)[:size]


def _read_tag(source):
    """The type and size of an element, and its content if the tag holds it (at most 4 bytes)."""
    tag = source.read(8)
    kind, size = struct.unpack("<II", tag)
    if kind >> 16:
        return kind & 0xFFFF, kind >> 16, tag[4 : 4 + (kind >> 16)]
    return kind, size, None


class _Inflated:
    """A compressed element, which is inflated while it is read."""

    def __init__(self, file, size):
        self._file, self._left, self._zlib = file, size, zlib.decompressobj()

    def read(self, size):
        content = b""
        while len(content) < size:
            packed = self._zlib.unconsumed_tail
            if not packed:
                packed = self._file.read(min(2**16, self._left))
                self._left -= len(packed)
            block = self._zlib.decompress(packed, size - len(content))
            if not (packed or block):
                raise EOFError("it ends too early")
            content += block
        return content
