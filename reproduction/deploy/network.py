"""A trained network in one file of packed binary weights, run by numpy alone; those with binary
activations too are packed.py's, which `load` and the command take as well.

The file, version 1, is an .npz archive without pickles:

- `manifest`: JSON text with `format` "binaryconnect", `version` 1, `preprocessing` ("centred",
  "whitened", "contrast-normalized" or "contrast-normalized, all channels"), `image` ([channels,
  rows, columns]), `layers`, and what the network was: `dataset`, `protocol`, `method`, `seed`,
  `test_error` (in percent, as Theano computes it from these weights). A layer has `kind` ("dense"
  or "convolution": 3x3, true, zero border of one pixel), `shape` of its weights ([inputs, units] or
  [filters, channels, 3, 3]), `packed` (whether they are bits), `pool` (2x2 maximum of its output,
  before scale and shift) and `rectify` (after them).
- `weights0`, `weights1`, ...: uint8, the bits of `numpy.packbits`, 1 for +1 and 0 for -1, in the
  order of the weights in C; where not packed, float32 of that shape.
- `scale0`, `shift0`, ...: float32, of each unit: batch normalization, bias and the magnitude of the
  weights folded together. A layer gives scale * (weights and input) + shift.
- `mean` ("centred", "whitened") and `matrix` ("whitened"): of the preprocessing.
"""

import gzip
import io
import json
import math
import sys
import zipfile
import zlib
from pathlib import Path

from original_stack.command_line import Parser, run
from original_stack.errors import UserError

import numpy as np

from reproduction.datasets import preprocessing

VERSION = 1
LARGEST = 2**30  # bytes, of all arrays of a file: a guard against archives that swell
ARRAYS = {
    "centred": ("mean",),
    "whitened": ("mean", "matrix"),
    "contrast-normalized": (),
    "contrast-normalized, all channels": (),
}
DAMAGE = OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, AttributeError, IndexError
DAMAGE += zipfile.BadZipFile, zlib.error, NotImplementedError, RecursionError, OverflowError


class Network:
    """A network from its file's manifest and arrays.

    Parameters
    ----------
    manifest : dict
    arrays : dict
        {name: array}; see the page's head.
    """

    def __init__(self, manifest, arrays):
        self.manifest = manifest
        self.arrays = arrays
        self.weights = []
        for i, layer in enumerate(manifest["layers"]):
            W, shape = arrays[f"weights{i}"], layer["shape"]
            if layer["packed"]:
                bits = np.unpackbits(W, count=math.prod(shape))
                W = bits.reshape(shape).astype(np.float32) * 2 - 1
            if layer["kind"] == "convolution":  # turned, for the windows of `_convolve`
                W = W[:, :, ::-1, ::-1].reshape(shape[0], -1).T
            self.weights.append(W)

    def outputs(self, images, batch=100):
        """Outputs of the network.

        Parameters
        ----------
        images : array of shape (n, *image)
            Raw pixels, 0 to 255.

        Returns
        -------
        float32 array of shape (n, 10)
        """
        starts = range(0, len(images), batch)
        return np.concatenate([self._batch(images[i : i + batch]) for i in starts])

    def predict(self, images):
        """Predicted classes, int array of shape (n,); see `outputs`."""
        return self.outputs(images).argmax(axis=1)

    def _batch(self, images):
        x = self._preprocessed(images)
        for i, layer in enumerate(self.manifest["layers"]):
            if layer["kind"] == "dense":
                x = x.reshape(len(x), -1) @ self.weights[i]
            else:
                x = _convolve(x, self.weights[i])
            if layer["pool"]:
                n, units, rows, columns = x.shape
                x = x.reshape(n, units, rows // 2, 2, columns // 2, 2).max(axis=(3, 5))
            of_units = (-1, *(1,) * (x.ndim - 2))
            x = x * self.arrays[f"scale{i}"].reshape(of_units)
            x += self.arrays[f"shift{i}"].reshape(of_units)
            if layer["rectify"]:
                np.maximum(x, 0, out=x)
        return x

    def _preprocessed(self, images):
        kind = self.manifest["preprocessing"]
        if kind == "centred":
            return np.asarray(images, np.float32) / np.float32(255) - self.arrays["mean"]
        if kind == "whitened":
            images = preprocessing.global_contrast_normalize(images, 55.0)
            return preprocessing.whiten(images, self.arrays["mean"], self.arrays["matrix"])
        channels = None if kind.endswith("all channels") else [0]
        images = preprocessing.global_contrast_normalize(images)
        return preprocessing.local_contrast_normalize(images, channels)

    def sizes(self):
        """Bytes of the weights as float32 and as they are in the file."""
        shapes = [layer["shape"] for layer in self.manifest["layers"]]
        stored = sum(self.arrays[f"weights{i}"].nbytes for i in range(len(shapes)))
        return 4 * sum(math.prod(shape) for shape in shapes), stored

    def content(self):
        """The bytes of the file."""
        content = io.BytesIO()
        np.savez(content, manifest=json.dumps(self.manifest), **self.arrays)
        return content.getbuffer()


def _convolve(x, W):
    """True convolution with filters given as columns, turned."""
    n, channels, rows, columns = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    windows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * rows * columns, channels * 9)
    return (windows @ W).reshape(n, rows, columns, -1).transpose(0, 3, 1, 2)


def load(path):
    """The network of a file.

    Returns
    -------
    Network

    Raises
    ------
    UserError
        If the file cannot be read, is damaged, hostile, or of another version.
    """
    try:
        with open(path, "rb") as f:
            with zipfile.ZipFile(f) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                    raise ValueError("too large")
            f.seek(0)
            with np.load(f, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        manifest = json.loads(str(arrays.pop("manifest")))
        version, check, network = _format(manifest["format"])
        if manifest["version"] == version:
            check(manifest, arrays)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; ./reproduce export RUN_DIR makes such files"
        ) from None
    except DAMAGE:
        raise UserError(
            f"{path} is damaged or no file of ./reproduce export; make it again from its run"
        ) from None
    if manifest["version"] != version:
        raise UserError(
            f"{path} is of version {manifest['version']!r}, this program reads {version}; export "
            "the run again"
        )
    return network(manifest, arrays)


def _format(name):
    """Version, check and class of a format."""
    if name == "bnn":
        from reproduction.deploy import (
            bnn_network as packed,  # with Theano, which the other format does without
        )

        return packed.VERSION, packed.check, packed.Network
    if name != "binaryconnect":
        raise ValueError
    return VERSION, _check, Network


def _check(manifest, arrays):
    """ValueError, KeyError or TypeError unless the arrays are what the manifest says, and fit."""

    def need(truth):
        if not truth:
            raise ValueError

    def has(name, shape, dtype=np.float32):
        need(arrays[name].shape == tuple(shape) and arrays[name].dtype == dtype)
        need(dtype == np.uint8 or np.isfinite(arrays[name]).all())

    shape = manifest["image"]
    need(shape in ([1, 28, 28], [3, 32, 32]))
    need(manifest["preprocessing"] in ARRAYS)
    pixels = math.prod(shape)
    forms = {"matrix": (pixels, pixels)}
    forms["mean"] = shape if manifest["preprocessing"] == "centred" else (pixels,)
    names = set(ARRAYS[manifest["preprocessing"]])
    for name in names:
        has(name, forms[name])
    need(1 <= len(manifest["layers"]) <= 100)
    for i, layer in enumerate(manifest["layers"]):
        dense = layer["kind"] == "dense"
        need(dense or (layer["kind"] == "convolution" and len(shape) == 3))
        units = layer["shape"][1 if dense else 0]
        need(type(units) is int and 1 <= units <= 2**20)
        expected = [math.prod(shape), units] if dense else [units, shape[0], 3, 3]
        need(layer["shape"] == expected and all(type(n) is int for n in layer["shape"]))
        need(all(type(layer[key]) is bool for key in ("packed", "pool", "rectify")))
        need(math.prod(expected) * 4 <= LARGEST)
        if layer["packed"]:
            has(f"weights{i}", (-(-math.prod(expected) // 8),), np.uint8)
        else:
            has(f"weights{i}", expected)
        has(f"scale{i}", (units,))
        has(f"shift{i}", (units,))
        shape = [units] if dense else [units, *shape[1:]]
        need(math.prod(shape) <= 2**20)
        if layer["pool"]:
            need(not dense and shape[1] % 2 == 0 and shape[2] % 2 == 0)
            shape = [units, shape[1] // 2, shape[2] // 2]
        names |= {f"weights{i}", f"scale{i}", f"shift{i}"}
    need(shape == [10] and set(arrays) == names)


def read_images(path, shape):
    """Images of a file.

    Parameters
    ----------
    path : path
        .npy, .npz (its first array) or IDX, packed by gzip or not.
    shape : list of int
        [channels, rows, columns].

    Returns
    -------
    array of shape (n, *shape)

    Raises
    ------
    UserError
    """
    form = "x".join(map(str, shape))
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        if content[:4] == b"\x00\x00\x08\x03":
            size = np.frombuffer(content, ">i4", 3, 4)
            images = np.frombuffer(content, np.uint8, offset=16).reshape(size)
        else:
            with open(path, "rb") as f:
                images = np.load(f, allow_pickle=False)
                if not isinstance(images, np.ndarray):
                    images = images[images.files[0]]
        if images.dtype.kind not in "uif" or len(images) == 0:
            raise ValueError
        # In another order of the axes (channels last) as many values would be another image.
        forms = [tuple(shape), (math.prod(shape),)]
        if shape[0] == 1:
            forms += [tuple(shape[1:]), (*shape[1:], 1)]
        if images.shape[1:] not in forms:
            raise ValueError
        images = images.reshape(len(images), *shape)
        if not (images.min() >= 0 and images.max() <= 255):
            raise ValueError
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; name a file of images") from None
    except DAMAGE:
        raise UserError(
            f"{path} holds no images of {form} pixels from 0 to 255; expected .npy, .npz or IDX"
        ) from None
    return images


def predict(options):
    """The command: prints the class of each image, a line each, and sizes to standard error."""
    network = load(options.file)
    images = read_images(options.images, network.manifest["image"])
    print("\n".join(map(str, network.predict(images))))
    print(describe_sizes(network), file=sys.stderr)


def describe_sizes(network):
    """Sizes of the weights, in one line."""
    whole, stored = network.sizes()
    return f"weights: {whole:,} bytes as float32, {stored:,} here, {whole / stored:.1f} times less"


def main(argv=None):
    parser = Parser(prog="predict", description="Predicted classes of images.")
    parser.add_argument("file", metavar="FILE", help="made by ./reproduce export")
    parser.add_argument("images", metavar="IMAGES", help="raw pixels: .npy, .npz or IDX (.gz)")
    return run(parser, predict, argv)


if __name__ == "__main__":
    sys.exit(main())
