"""A deployed network as ONNX, with standard operators only, or as QONNX, whose BipolarQuant makes
binary weights and activations; zero becomes +1, as in this project.

The graph takes `pixels`, uint8 of shape (images, channels, rows, columns), and gives `scores`,
float32 of shape (images, classes). Sums of method bnn are integers below 2^24, which are exact in
float32 whatever the order of additions. This module describes the graph in plain Python. The script
onnx_file.py, which runs in the environment of requirements-onnx.lock, makes, checks and runs it.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from original_stack.errors import UserError, write_atomically, writing

import numpy as np

from reproduction.arrays import npz
from reproduction.datasets import preprocessing
from reproduction.deploy import bnn_network, network

MAKER = Path(__file__).parent / "onnx_file.py"
FLOAT, INT32 = 1, 6  # TensorProto's


def write(path, deployed, images, qonnx=False):
    """Write a network as ONNX, and compare the scores of both.

    Parameters
    ----------
    path : path
    deployed : network.Network or bnn_network.Network
    images : uint8 array of shape (n, *image)
    qonnx : bool

    Returns
    -------
    str
        The result of the comparison, in one line.

    Raises
    ------
    UserError
        See `graph` and `make`; if the file cannot be written.
    """
    content, scores = make(graph(deployed, qonnx), images)
    with writing(path, "make it writable or make room"):
        write_atomically(path, content)
    return f"{path}: {len(content):,} bytes; {network.comparison(deployed, scores, images)}"


def make(graph, images):
    """The file of a graph, and the scores that it gives.

    Parameters
    ----------
    graph : Graph
    images : uint8 array of shape (n, *image)

    Returns
    -------
    content : bytes
    scores : float32 array of shape (n, classes)

    Raises
    ------
    UserError
        If there is no environment of requirements-onnx.lock, or it fails.
    """
    python = os.environ.get("BINARYCONNECT_ONNX")
    if python is None:
        raise UserError("there is no ONNX here; use ./reproduce export, which installs it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "graph.json").write_text(json.dumps(graph.description))
        (folder / "constants.npz").write_bytes(npz(**graph.constants))
        np.save(folder / "images.npy", np.ascontiguousarray(images, np.uint8))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [python, "-P", MAKER, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            raise UserError(f"{python} did not make the file: {reason}")
        return (folder / "network.onnx").read_bytes(), np.load(folder / "scores.npy")


class Graph:
    """A graph under construction.

    Parameters
    ----------
    image : list of int
        Shape of an image.
    classes : int
    text : str
        What the network is.
    qonnx : bool

    Attributes
    ----------
    description : dict
        What `onnx_file.model` takes.
    constants : dict of arrays
        {name: array}
    """

    def __init__(self, image, classes, text, qonnx):
        self.description = {
            "image": image,
            "classes": classes,
            "text": text,
            "qonnx": qonnx,
            "nodes": [],
        }
        self.constants = {}

    def constant(self, value):
        name = f"constant{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def add(self, operator, *inputs, outputs=1, **attributes):
        """Add a node; the names of its outputs, or its one. Inputs that are no names are
        constants."""
        nodes = self.description["nodes"]
        names = [f"{operator}{len(nodes)}_{i}" for i in range(outputs)]
        inputs = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        nodes.append([operator, inputs, names, attributes])
        return names[0] if outputs == 1 else names


def graph(deployed, qonnx=False):
    """The graph of a network.

    Parameters
    ----------
    deployed : network.Network or bnn_network.Network
    qonnx : bool

    Returns
    -------
    Graph

    Raises
    ------
    UserError
        If the network has real weights, which QONNX does not quantize.
    """
    manifest, arrays = deployed.manifest, deployed.arrays
    bnn, layers = manifest["format"] == "bnn", manifest["layers"]
    if qonnx and not (bnn or all(layer["packed"] for layer in layers)):
        raise UserError(
            f"method {manifest['method']} has no binary weights to write as QONNX; export it as "
            "ONNX, or a run of BinaryConnect or of method bnn"
        )
    text = (
        f"{manifest['dataset']}, {manifest['protocol']}, {manifest['method']}, seed "
        f"{manifest['seed']}: test error {manifest['test_error']:.2f}%"
    )
    g = Graph(manifest["image"], layers[-1]["shape"][1], text, qonnx)
    x = g.add("Cast", "pixels", to=FLOAT)
    if bnn:
        x = g.add("Sub", g.add("Mul", x, np.float32(2)), np.float32(255))
    else:
        x = _preprocessed(g, x, manifest, arrays)
    for i, layer in enumerate(layers):
        x = _product(g, x, layer, _weights(g, deployed, i))
        if layer["pool"]:
            x = g.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        units = (-1, 1, 1) if layer["kind"] == "convolution" else (-1,)
        if not bnn:
            x = g.add("Mul", x, arrays[f"scale{i}"].reshape(units))
            x = g.add("Add", x, arrays[f"shift{i}"].reshape(units))
            x = g.add("Relu", x) if layer["rectify"] else x
        elif i < len(layers) - 1:
            threshold = arrays[f"threshold{i}"]
            negative = bnn_network.unpack(arrays[f"negative{i}"], threshold.shape)
            x = _activation(g, x, threshold.reshape(units), negative.reshape(units))
        else:
            # As integers, so that no runtime adds the bias while it sums, which would round.
            x = g.add("Cast", g.add("Cast", x, to=INT32), to=FLOAT)
            for operator, name in zip(
                ("Add", "Sub", "Mul", "Mul", "Add"), bnn_network.LAST, strict=True
            ):
                x = g.add(operator, x, arrays[name])
    g.description["nodes"][-1][2] = ["scores"]
    return g


def _weights(g, deployed, i):
    """The name of a layer's weights, float32; of a convolution turned, since ONNX correlates."""
    layer, W = deployed.manifest["layers"][i], deployed.arrays[f"weights{i}"]
    shape = layer["shape"]
    if deployed.manifest["format"] == "bnn":
        W = np.where(bnn_network.unpack(W, shape), np.int8(1), np.int8(-1))
    elif layer["packed"]:
        bits = np.unpackbits(W, count=np.prod(shape)).reshape(shape)
        W = np.where(bits, np.int8(1), np.int8(-1))
    W = W[:, :, ::-1, ::-1] if layer["kind"] == "convolution" else W
    if g.description["qonnx"]:
        return g.add("BipolarQuant", np.float32(W), np.float32(1))
    return g.constant(W) if W.dtype == np.float32 else g.add("Cast", W, to=FLOAT)


def _product(g, x, layer, weights):
    """Inputs times weights; the border is zero."""
    if layer["kind"] == "convolution":
        return g.add("Conv", x, weights, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return g.add("MatMul", g.add("Flatten", x), weights)


def _activation(g, sums, threshold, negative):
    """+1 if (sum >= threshold) xor negative, otherwise -1."""
    if g.description["qonnx"]:
        # As sum - threshold >= 0, or threshold - 1 - sum >= 0: all are integers.
        x = g.add("Mul", sums, np.where(negative, np.float32(-1), np.float32(1)))
        x = g.add("Add", x, np.float32(np.where(negative, threshold - 1, -threshold)))
        return g.add("BipolarQuant", x, np.float32(1))
    least = g.add("GreaterOrEqual", sums, np.float32(threshold))
    return g.add("Where", g.add("Xor", least, negative), np.float32(1), np.float32(-1))


def _preprocessed(g, x, manifest, arrays):
    """What network.Network does to pixels; see reproduction/datasets/preprocessing.py."""
    kind = manifest["preprocessing"]
    if kind == "centred":
        return g.add("Sub", g.add("Div", x, np.float32(255)), arrays["mean"])
    if kind == "whitened":
        rows = g.add("Sub", g.add("Flatten", _globally(g, x, 55, manifest)), arrays["mean"])
        shape = np.array([-1, *manifest["image"]])
        return g.add("Reshape", g.add("MatMul", rows, arrays["matrix"]), shape)
    x = _globally(g, x, 1, manifest)
    if kind.endswith("all channels"):
        return _locally(g, x)
    first, others = g.add("Split", x, np.array([1, 2]), outputs=2, axis=1)
    return g.add("Concat", _locally(g, first), others, axis=1)


def _sum(g, x, axes):
    return g.add("ReduceSum", x, np.array(axes), keepdims=1)


def _globally(g, x, scale, manifest):
    """Global contrast normalization."""
    mean = g.add("Div", _sum(g, x, [1, 2, 3]), np.float32(np.prod(manifest["image"])))
    x = g.add("Sub", x, mean)
    norms = g.add("Sqrt", _sum(g, g.add("Mul", x, x), [1, 2, 3]))
    norms = g.add("Div", norms, np.float32(scale))
    flat = g.add("Less", norms, np.float32(1e-8))
    return g.add("Div", x, g.add("Where", flat, np.float32(1), norms))


def _locally(g, x):
    """Local contrast normalization of each channel."""
    band = g.constant(preprocessing.gaussian_band(32))

    def smoothed(x):
        return g.add("MatMul", g.add("MatMul", band, x), band)

    rms = g.add("Sqrt", smoothed(g.add("Mul", x, x)))
    mean = g.add("Div", _sum(g, rms, [2, 3]), np.float32(32 * 32))
    divisor = g.add("Max", rms, mean, np.float32(preprocessing.THRESHOLD))
    return g.add("Div", g.add("Sub", x, smoothed(x)), divisor)
