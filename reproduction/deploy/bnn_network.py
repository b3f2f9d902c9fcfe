"""A trained network with binary weights and activations in one file. It runs by exclusive or and
population count (Binarized Neural Networks, Algorithm 5), and its outputs equal the outputs of the
Theano network, bit for bit.

The file, version 1, is an .npz archive without pickles, as in network.py:

- `manifest`: JSON text with `format` "bnn", `version` 1, `image` ([channels, rows, columns]),
  `layers`, and what the network was: `dataset`, `protocol`, `method`, `seed`, `test_error` (in
  percent). A layer has `kind` ("dense" or "convolution": 3x3, true, zero border of one pixel),
  `shape` of its weights ([inputs, units] or [filters, channels, 3, 3]) and `pool` (2x2 maximum of
  its sums). The first layer takes 2 pixel - 255 for pixels from 0 to 255; the others take +1, -1.
- `weights0`, `weights1`, ...: uint64, one bit for each weight, 1 for +1 and 0 for -1, in C order;
  bit i is in word i // 64, and the rest of the last word is 0.
- `threshold0`, ... (int32) and `negative0`, ... (uint64), for each unit of all layers but the last:
  bias, batch normalization and sign, folded. A unit is +1 if its sum is at least the threshold, or,
  if its bit of `negative` is 1, if its sum is less (bits as in the weights).
- `bias`, `mean`, `gamma`, `inv_std`, `beta`: float32, for each unit of the last layer, which gives
  (sum + bias - mean) * gamma * inv_std + beta, from left to right, rounded to float32 at each step.
"""

import math

import original_stack
from original_stack.errors import UserError

import numpy as np
import theano
import theano.tensor as T

from fused import xnor
from reproduction.deploy import network

VERSION = 1
LAST = ("bias", "mean", "gamma", "inv_std", "beta")


class Network(network.Network):
    """A network from the manifest and arrays of its file; see the head of this module.

    The kernels are chosen when the network runs, see fused/xnor.py.
    """

    BATCH = 50  # images whose sums fit into the processor's caches

    def __init__(self, manifest, arrays):
        self.manifest = manifest
        self.arrays = arrays
        images = T.TensorType("uint8", (False,) * 4)("images")
        self._sums = theano.function([images], self._graph(images))

    def outputs(self, images, batch=BATCH):
        """Outputs of the network.

        Parameters
        ----------
        images : array of shape (n, *image)
            Raw pixels, 0 to 255.

        Returns
        -------
        float32 array of shape (n, classes)

        Raises
        ------
        UserError
            If BINARYCONNECT_XNOR names a kernel that the processor does not have.
        """
        images = pixels(images)
        try:
            sums = [self._sums(images[i : i + batch]) for i in range(0, len(images), batch)]
        except ValueError as error:
            raise UserError(str(error).splitlines()[0]) from None
        return normalized(np.concatenate(sums), self.arrays)

    def _graph(self, x):
        """The sums of the last layer, int32 (batch, units), for pixels `x`."""
        layers = self.manifest["layers"]
        _, rows, columns = self.manifest["image"]
        # A dense layer has inputs (channels, area), but a row of `x` has bits (area, channels), in
        # which each pixel begins a new word.
        area = 1
        for i, layer in enumerate(layers):
            W = unpack(self.arrays[f"weights{i}"], layer["shape"])
            if layer["kind"] == "convolution":
                filters, channels = W.shape[:2]
                W = W.transpose(0, 2, 3, 1).reshape(filters, 9, channels)
                if i == 0:
                    convolve, W = xnor.convolve_pixels, W.reshape(filters, 1, 9 * channels)
                else:
                    convolve = xnor.convolve
                sums = convolve(x, _panels(W), channels, filters)
                if layer["pool"]:
                    rows, columns = rows // 2, columns // 2
                area = rows * columns
            else:
                inputs, units = W.shape
                x = xnor.planes(x.flatten(2)) if i == 0 else x.flatten(2)
                W = W.T.reshape(units, inputs // area, area).transpose(0, 2, 1)
                sums = xnor.dot(x, _panels(W), inputs, units)
                area = 1
            if i < len(layers) - 1:
                negative = self.arrays[f"negative{i}"]
                x = xnor.threshold(sums, self.arrays[f"threshold{i}"], negative)
                if layer["pool"]:
                    x = xnor.pool(x, negative)
        return sums


def _panels(W):
    """Weights as booleans (units, areas, inputs of an area), arranged for the products."""
    return xnor.panels(xnor.pack_bits(W).reshape(len(W), -1))


def pack(weights):
    """Weights of +-1, of any shape, packed as in the file."""
    return xnor.pack_bits(np.ravel(weights) > 0)


def unpack(words, shape):
    """Weights that are packed as in the file, as booleans of a shape."""
    return xnor.unpack_bits(words, math.prod(shape)).reshape(shape)


def pixels(images):
    """Raw pixels as uint8, which the first layer takes."""
    images = np.asarray(images)
    return images if images.dtype == np.uint8 else np.rint(images).astype(np.uint8)


def normalized(sums, arrays):
    """Outputs of the last layer, float32, from its sums."""
    bias, mean, gamma, inv_std, beta = (arrays[name] for name in LAST)
    return (sums.astype(np.float32) + bias - mean) * gamma * inv_std + beta


def check(manifest, arrays):
    """Raise one of `errors.DAMAGE` unless the arrays are as the manifest says, and fit together."""
    bits = {}

    def of_layer(i, layer, units):
        count = math.prod(layer["shape"])
        # The products count inputs up to 255 in 32 bits.
        network.need(count // units < 2**22, f"layer {i}")
        bits[f"weights{i}"] = count
        if i == len(manifest["layers"]) - 1:
            rest = {name: ((units,), np.float32) for name in LAST}
        else:
            bits[f"negative{i}"] = units
            rest = {
                f"threshold{i}": ((units,), np.int32),
                f"negative{i}": ((xnor.words(units),), np.uint64),
            }
        return {f"weights{i}": ((xnor.words(count),), np.uint64), **rest}

    network.check_layers(manifest, arrays, of_layer)
    for name, n in bits.items():
        network.need(n % 64 == 0 or arrays[name][-1] >> np.uint64(n % 64) == 0, name)
