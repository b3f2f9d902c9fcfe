"""A trained network in one file of packed binary weights, which needs only numpy to run. Networks
with binary activations have another format, see bnn_network.py.

The file, version 1, is an .npz archive without pickles:

- `manifest`: JSON text with `format` "binaryconnect", `version` 1, `preprocessing` ("centred",
  "whitened", "contrast-normalized" or "contrast-normalized, all channels"), `image` ([channels,
  rows, columns]), `layers`, and facts about the run: `dataset`, `protocol`, `method`, `seed`,
  `test_error` (in percent, as Theano computes it from these weights). A layer has `kind` ("dense"
  or "convolution": 3x3, true, zero border of one pixel), `shape` of its weights ([inputs, units] or
  [filters, channels, 3, 3]), `packed` (whether they are bits), `pool` (2x2 maximum of its output,
  before scale and shift) and `rectify` (after them).
- `weights0`, `weights1`, ...: uint8, the bits of `numpy.packbits`, 1 for +1 and 0 for -1, in the
  C order of the weights; if not packed, float32 of that shape.
- `scale0`, `shift0`, ...: float32, for each unit: batch normalization, bias and the magnitude of
  the weights, folded. A layer gives scale * (product of weights and input) + shift.
- `mean` ("centred", "whitened") and `matrix` ("whitened"): the arrays of the preprocessing.
"""

import json
import math

import numpy as np

from reproduction.arrays import npz
from reproduction.datasets import preprocessing

VERSION = 1
LARGEST = 2**30  # bytes of all weights as float32
PREPROCESSING = {  # {name: the arrays that it needs}
    "centred": ("mean",),
    "whitened": ("mean", "matrix"),
    "contrast-normalized": (),
    "contrast-normalized, all channels": (),
}


class Network:
    """A network from the manifest and arrays of its file.

    Parameters
    ----------
    manifest : dict
    arrays : dict
        {name: array}; both as the head of this page says, see `check`.
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
        float32 array of shape (n, classes)
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
                x = x[:, :, : rows // 2 * 2, : columns // 2 * 2]
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
        return npz(manifest=json.dumps(self.manifest), **self.arrays)


def comparison(deployed, scores, images):
    """Compare the scores of a network in another form with its own scores, in one line.

    Parameters
    ----------
    deployed : Network or bnn_network.Network
    scores : float32 array of shape (n, classes)
    images : uint8 array of shape (n, *image)
    """
    expected = deployed.outputs(images)
    if deployed.manifest["format"] == "bnn":
        equal = (scores.view(np.uint32) == expected.view(np.uint32)).all(axis=1)
        what = "scores equal, bit for bit"
    else:
        equal = scores.argmax(axis=1) == expected.argmax(axis=1)
        what = f"scores differ by at most {np.abs(scores - expected).max():.1e}, classes equal"
    return f"{what}: {np.sum(equal):,} of {len(images):,} test images"


def _convolve(x, W):
    """True convolution with filters given as columns, turned."""
    n, channels, rows, columns = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    windows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * rows * columns, channels * 9)
    return (windows @ W).reshape(n, rows, columns, -1).transpose(0, 3, 1, 2)


def check(manifest, arrays):
    """Raise one of `errors.DAMAGE` unless the arrays are as the manifest says, and fit together."""

    def of_layer(i, layer, units):
        need(all(type(layer[key]) is bool for key in ("packed", "rectify")), f"layer {i}")
        count = math.prod(layer["shape"])
        weights = ((-(-count // 8),), np.uint8) if layer["packed"] else (layer["shape"], np.float32)
        of_units = ((units,), np.float32)
        return {f"weights{i}": weights, f"scale{i}": of_units, f"shift{i}": of_units}

    kind, image = manifest["preprocessing"], manifest["image"]
    need(kind in PREPROCESSING, "preprocessing")
    need(is_shape(image), "image")
    pixels = math.prod(image)
    shapes = {"mean": image if kind == "centred" else (pixels,), "matrix": (pixels, pixels)}
    others = {name: (shapes[name], np.float32) for name in PREPROCESSING[kind]}
    check_layers(manifest, arrays, of_layer, others)


def check_layers(manifest, arrays, of_layer, others=()):
    """Raise unless the layers fit the image and one another, and the arrays fit the layers.

    Parameters
    ----------
    manifest : dict
    arrays : dict
        {name: array}
    of_layer : callable
        of_layer(i, layer, units) gives {name: (shape, dtype)} for the arrays of layer i.
    others : dict
        The same for the arrays of no layer.

    Raises
    ------
    ValueError, or what reading a manifest of other types raises
    """
    shape, layers, expected = manifest["image"], manifest["layers"], dict(others)
    need(is_shape(shape) and shape in ([1, 28, 28], [3, 32, 32]), "image")
    need(type(layers) is list and 1 <= len(layers) <= 100, "layers")
    size = 0
    for i, layer in enumerate(layers):
        dense, what = layer["kind"] == "dense", f"layer {i}"
        need(dense or (layer["kind"] == "convolution" and len(shape) == 3), what)
        need(is_shape(layer["shape"]) and len(layer["shape"]) == (2 if dense else 4), what)
        units = layer["shape"][1 if dense else 0]
        fitting = [math.prod(shape), units] if dense else [units, shape[0], 3, 3]
        size += 4 * math.prod(fitting)
        need(layer["shape"] == fitting and size <= LARGEST, what)
        need(type(layer["pool"]) is bool and not (dense and layer["pool"]), what)
        expected.update(of_layer(i, layer, units))
        shape = [units] if dense else [units, *shape[1:]]
        need(math.prod(shape) <= 2**20, what)
        if layer["pool"]:
            need(min(shape[1:]) >= 2, what)
            shape = [units, shape[1] // 2, shape[2] // 2]
    need(len(shape) == 1, "the last layer")
    for name in {**expected, **arrays}:
        need(name in expected and name in arrays, name)
        shape, dtype = expected[name]
        need(arrays[name].shape == tuple(shape) and arrays[name].dtype == dtype, name)
        need(np.isfinite(arrays[name]).all(), name)


def is_shape(value):
    """Whether a value of a manifest is a list of positive integers that are not too large."""
    return type(value) is list and all(type(n) is int and 0 < n <= 2**20 for n in value)


def need(truth, what):
    """Raise a ValueError that names the wrong part of the file, unless `truth`."""
    if not truth:
        raise ValueError(what)
