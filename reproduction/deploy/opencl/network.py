"""Packed networks with binary activations on a device of OpenCL. Outputs equal the outputs of
bnn_network.py, bit for bit."""

import dataclasses
import itertools
import math

import numpy as np

from fused import xnor
from reproduction.deploy import bnn_network, network


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer on the device, with the arrays that Device.xnor_bits takes."""

    weights: object
    base: object
    thresholds: object  # None in the last layer
    negative: object
    height: int  # of the images of a convolution; 0 in a dense layer
    width: int
    pool: bool


class Network(network.Network):
    """A network on a device, from the manifest and arrays of its file (see bnn_network.py).

    Parameters
    ----------
    manifest, arrays : dict
    device : reproduction.deploy.opencl.Device

    Raises
    ------
    UserError
        If the device lacks the memory for the weights, or fails.
    """

    def __init__(self, manifest, arrays, device):
        self.manifest = manifest
        self.arrays = arrays
        self.device = device
        self._bytes = 0  # for an image, over all layers; two layers have their arrays at once
        with device.failures():
            self._layers = list(self._load())

    def _load(self):
        _, height, width = self.manifest["image"]
        last = len(self.manifest["layers"]) - 1
        for i, layer in enumerate(self.manifest["layers"]):
            W = bnn_network.unpack(self.arrays[f"weights{i}"], layer["shape"])
            scale = 255 if i == 0 else 1  # the sum of 2^p over the planes
            if layer["kind"] == "convolution":
                W = W.transpose(0, 2, 3, 1).reshape(len(W), 9, -1)
                base = scale * _base(W)
                W = W.reshape(len(W), 1, -1) if i == 0 else W
                places = height, width
            else:
                W = W.T.reshape(layer["shape"][1], -1, 1 if i == 0 else height * width)
                W = W.transpose(0, 2, 1)
                base = np.full((1, len(W)), scale * layer["shape"][0])
                places = 0, 0
            weights = xnor.pack_bits(W).reshape(len(W), -1).view(np.uint32)
            of_units = [None, None]
            if i < last:
                negative = self.arrays[f"negative{i}"].view(np.uint32)
                of_units = [self.device.put(x) for x in (self.arrays[f"threshold{i}"], negative)]
            yield _Layer(
                self.device.put(weights),
                self.device.put(base.astype(np.int32)),
                *of_units,
                *places,
                layer["pool"],
            )
            rows = math.prod(places) or 1
            self._bytes += 4 * rows * (8 if i == 0 else 1) * weights.shape[1]
            self._bytes += 4 * rows * (len(W) if i == last else 2 * xnor.words(len(W)))
            if layer["pool"]:
                height, width = height // 2, width // 2
            elif layer["kind"] != "convolution":
                height, width = 1, 1

    def outputs(self, images):
        """Outputs of the network, float32 (n, classes), for raw pixels (n, *image).

        Images are processed in parts that fit into the memory of the device.

        Raises
        ------
        UserError
            If the device has no memory for one image, or fails.
        """
        images = bnn_network.pixels(images)
        part = max(1, self.device.memory // self._bytes)
        sums = []
        with self.device.failures():
            i = 0
            while i < len(images):
                part = min(part, len(images) - i)
                try:
                    sums.append(self._sums(images[i : i + part]))
                    i += part
                except self.device.NoMemory:
                    if part == 1:
                        raise
                    part = -(-part // 2)
        return bnn_network.normalized(np.concatenate(sums), self.arrays)

    def _sums(self, pixels):
        """The sums of the last layer, int32 (n, units), as NumPy has them."""
        device = self.device
        first = self._layers[0]
        if first.height:
            rows = device.planes(device.put(pixels), 9)
        else:
            rows = device.planes(device.put(pixels.reshape(len(pixels), -1, 1, 1)), 1)
        for layer, following in itertools.pairwise(self._layers):
            place = (layer.height, layer.width)
            of_units = layer.thresholds, layer.negative
            bits = device.xnor_bits(rows, layer.weights, layer.base, *of_units, *place)
            if layer.pool:
                bits = device.pool(bits, layer.negative, *place)
            if following.height:
                rows = device.patches(bits, following.height, following.width)
            else:
                rows = bits.reshape(len(pixels), -1)
        last = self._layers[-1]
        return device.xnor_sums(rows, last.weights, last.base).get()


def _base(W):
    """The sums of a convolution if no bit differs, int (16, filters), for each kind of edge (see
    xnor.cl). Weights are (filters, 9, channels).

    Taps inside the image add 1 for each channel. Taps outside have bits 0, which differ from
    weights of +1; twice that count is added to cancel it.
    """
    base = []
    i, j = np.divmod(np.arange(9), 3)
    for edge in range(16):
        above, below, left, right = (edge >> bit & 1 for bit in range(4))
        outside = (above & (i == 2)) | (below & (i == 0)) | (left & (j == 2)) | (right & (j == 0))
        outside = outside.astype(bool)
        of_outside = 2 * W[:, outside].sum(axis=(1, 2), dtype=int)
        base.append((~outside).sum() * W.shape[2] + of_outside)
    return np.array(base)
