"""Read raw pixels from image files, for `predict`. Sizes are checked before images are decoded."""

import gzip
import math
import os
import struct
import warnings
from pathlib import Path

from original_stack.errors import UserError, open_regular, reading, unreadable

import numpy as np
from PIL import Image

from reproduction.arrays import load_npz, read_npy

LARGEST = 2**31  # bytes of the images of one file
IDX = b"\x00\x00\x08\x03"
PICTURES = ("PNG", "PPM")  # Pillow's names; its PPM reads PBM and PGM too
SUFFIXES = (".png", ".pbm", ".pgm", ".ppm")
KINDS = "expected .npy, .npz, IDX (also packed by gzip), PNG or PGM"
_STARTS = (b"\x89PNG", *(f"P{i}".encode() for i in range(1, 7)))


def read_images(paths, shape, scale=None):
    """Read the images in files.

    Parameters
    ----------
    paths : list of path
        Files with arrays (.npy, IDX, also packed by gzip; .npz with one array or with test_images),
        files with one picture (PNG, PGM), and folders. The pictures of a folder are read in the
        order of names.
    shape : list of int
        [channels, rows, columns].
    scale : float or None
        The values of arrays times `scale` are pixels from 0 to 255. None means 1, but then arrays
        whose values are all from 0 to 1 are refused, since 1 is likely to mean white.

    Returns
    -------
    names : list of (str, int or None)
        For each image its file and, if the file has arrays, its number in the file.
    images : array of shape (n, *shape)

    Raises
    ------
    UserError
    """
    names, images = [], []
    for path in _files(paths):
        try:
            read = _read(path, shape, scale)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; name a file of images") from None
        if read.ndim == 3:
            names.append((path, None))
            read = read[np.newaxis]
        else:
            names += [(path, i) for i in range(len(read))]
        images.append(read)
    return names, np.concatenate(images)


def _files(paths):
    """The paths, with the pictures of a folder instead of the folder."""
    for path in map(str, paths):
        if not os.path.isdir(path):
            yield path
            continue
        try:
            pictures = sorted(p for p in os.listdir(path) if p.lower().endswith(SUFFIXES))
        except OSError as error:
            raise unreadable(path, error) from None
        if not pictures:
            raise UserError(f"{path} holds no picture; expected files {', '.join(SUFFIXES)}")
        yield from (str(Path(path, picture)) for picture in pictures)


def _read(path, shape, scale):
    """Pixels of shape (n, *shape), or for a picture of shape `shape`."""
    with open_regular(path) as f, reading(path, KINDS):
        available = os.fstat(f.fileno()).st_size
        start = f.read(4)
        if start[:2] == b"\x1f\x8b":
            f.seek(0)
            f, available = gzip.GzipFile(fileobj=f), LARGEST
            start = f.read(4)
        f.seek(0)
        if start.startswith(_STARTS):
            return _picture(path, f, shape)
        if start == IDX:
            values = _idx(f, available)
        elif start == b"\x93NUM":
            values = read_npy(f, min(available, LARGEST))
        elif start == b"PK\x03\x04":
            values = _of_npz(path, load_npz(path, KINDS, LARGEST))
        else:
            raise UserError(f"{path} is not an image file; {KINDS}")
    return _pixels(path, values, shape, scale)


def _of_npz(path, arrays):
    """The array test_images, or the only one."""
    if "test_images" in arrays:
        return arrays["test_images"]
    if len(arrays) != 1:
        raise UserError(
            f"{path} holds {len(arrays)} arrays; expected one, or test_images among them"
        )
    return next(iter(arrays.values()))


def _idx(f, available):
    """The array of an IDX file with three axes."""
    size = struct.unpack(">4x3I", f.read(16))
    count = math.prod(size)
    if count > min(available, LARGEST):
        raise ValueError(f"an array of shape {size} in {available} bytes")
    data = f.read(count + 1)
    if len(data) != count:
        raise ValueError(f"{len(data)} bytes for an array of shape {size}")
    return np.frombuffer(data, np.uint8).reshape(size)


def _pixels(path, values, shape, scale):
    """An array as pixels (n, *shape)."""
    if values.dtype.kind not in "uif":
        raise UserError(f"{path} has values of type {values.dtype}; expected numbers")
    # With another order of axes (channels last), the same values would be another image.
    forms = [tuple(shape), (math.prod(shape),)]
    if shape[0] == 1:
        forms += [tuple(shape[1:]), (*shape[1:], 1)]
    if values.shape[1:] not in forms:
        form = "x".join(map(str, shape))
        raise UserError(
            f"{path} holds an array of shape {values.shape}; expected images of {form} pixels, "
            f"(n, {', '.join(map(str, shape))})"
        )
    if len(values) == 0:
        raise UserError(f"{path} holds no image; expected at least one")
    low, high = values.min(), values.max()
    if scale is None and low >= 0 and 0 < high <= 1:
        raise UserError(
            f"{path} has values from {low:g} to {high:g}, expected pixels from 0 to 255; give "
            "--scale 255 if 1 is white, or --scale 1 if these are pixels"
        )
    scale = 1 if scale is None else scale
    low, high = low * scale, high * scale
    if not (low >= 0 and high <= 255):
        raise UserError(f"{path} has values from {low:g} to {high:g}; expected 0 to 255")
    values = values.reshape(len(values), *shape)
    return values if scale == 1 else np.multiply(values, scale, dtype=np.float32)


def _picture(path, f, shape):
    """The pixels of a picture, uint8 of that shape."""
    channels, rows, columns = shape
    color = "gray" if channels == 1 else "color"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = Image.open(f, formats=PICTURES)  # reads only the head
            size = "x".join(map(str, picture.size))
        except Image.DecompressionBombError:
            size = "far more"
    if size != f"{columns}x{rows}":
        raise UserError(
            f"{path} has {size} pixels; expected {columns}x{rows} in {color}; resize it first"
        )
    if picture.mode not in ("1", "L", "P", "RGB"):
        raise UserError(
            f"{path} has transparency or more than 8 bits a pixel (mode {picture.mode}); save it "
            f"in 8 bits of {color}"
        )
    pixels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    if channels == 1:
        if (pixels != pixels[:1]).any():
            raise UserError(f"{path} has colors; save it in gray")
        pixels = pixels[:1]
    return pixels
