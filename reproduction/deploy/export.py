"""A trained run as one deployable file: weights packed one bit each, batch normalization folded to
scale and shift or, if activations are binary too, to a threshold. network.py and bnn_network.py
document the formats and run them.
"""

import sys
from pathlib import Path

import original_stack
from original_stack.command_line import Parser, file, folder, run
from original_stack.errors import UserError, write_atomically, writing

import lasagne
import numpy as np
import theano
import theano.tensor as T

import batch_norm
import shift_based
from binary_connect import is_positive
from fused import xnor
from reproduction import datasets
from reproduction.datasets import preprocessing
from reproduction.deploy import bnn_network, c_source, onnx_graph
from reproduction.deploy.network import VERSION, Network
from reproduction.deploy.predict import describe_sizes
from reproduction.deploy.trained import TrainedRun
from reproduction.training.model import Model


def export(trained, dataset, raw):
    """The deployable network of a run.

    A run with binary weights is exported with binary weights (section 2.6, method 1), whatever its
    test weights were. Their batch-norm statistics are recomputed if the protocol does so, or if the
    statistics of training belong to sampled weights. Other runs keep real weights.

    Parameters
    ----------
    trained : TrainedRun
    dataset : datasets.Dataset
        The data set on which the run was trained.
    raw : datasets.Dataset
        The same data set with inputs="signed", which gives the raw pixels.

    Returns
    -------
    deployed : network.Network
    unequal : int
        The number of test images whose class differs from Theano's.
    """
    network, hp = trained.network(), trained.hp
    model = Model(network, hp, "binary" if hp.binary else "real")
    model.recompute_statistics(dataset.train, dataset.valid)
    model.renew_statistics(dataset.train)
    classes = model.all_outputs(dataset.test)[0].argmax(axis=1)

    kind, arrays = _preprocessing(trained, raw)
    layers = []
    for i, (layer, following) in enumerate(stages(network)):
        W = layer.W.get_value()
        normalization = _normalization(following)
        scale, shift = _folded(layer, normalization)
        if hp.binary:
            arrays[f"weights{i}"] = np.packbits(is_positive(W / layer.H))
            scale = scale * layer.H
        else:
            arrays[f"weights{i}"] = W
        arrays.update({f"scale{i}": np.float32(scale), f"shift{i}": np.float32(shift)})
        layers.append(
            {
                "kind": "dense" if W.ndim == 2 else "convolution",
                "shape": list(W.shape),
                "packed": hp.binary,
                "pool": _pools(following),
                "rectify": normalization.nonlinearity is lasagne.nonlinearities.rectify,
            }
        )
    manifest = _manifest(trained, "binaryconnect", VERSION, classes, dataset)
    deployed = Network({**manifest, "preprocessing": kind, "layers": layers}, arrays)
    return deployed, int(np.sum(deployed.predict(_pixels(raw.test)) != classes))


def export_bnn(trained, dataset):
    """The deployable network of a run with binary activations.

    Parameters
    ----------
    trained : TrainedRun
    dataset : datasets.Dataset
        The data set on which the run was trained.

    Returns
    -------
    deployed : bnn_network.Network
    unequal : int
        The number of test images with an output that differs from Theano's in a bit.

    Raises
    ------
    UserError
        If the last layer computes in another way than bnn_network.py does.
    """
    network = trained.network()
    outputs = Model(network, trained.hp, "binary").all_outputs(dataset.test)[0]

    arrays, layers = {}, []
    parts = list(stages(network))
    for i, (layer, following) in enumerate(parts):
        W = layer.W.get_value()
        dense = W.ndim == 2
        arrays[f"weights{i}"] = bnn_network.pack(np.where(is_positive(W), 1, -1))
        most = W[:, 0].size if dense else W[0].size
        most *= 1 if i else 255
        activations = _activations(layer, following)
        if i < len(parts) - 1:
            units = W.shape[1 if dense else 0]
            arrays[f"threshold{i}"], negative = thresholds(activations, most, units)
            arrays[f"negative{i}"] = xnor.pack_bits(negative)
        else:
            arrays.update(_affine(layer, following))
            sums = np.arange(-most, most + 1)[:, np.newaxis] * np.ones(W.shape[1], np.int32)
            if not np.array_equal(bnn_network.normalized(sums, arrays), activations(sums)):
                raise UserError(
                    "the last layer rounds in another order than the file's; export without "
                    "THEANO_FLAGS of your own"
                )
        kind = "dense" if dense else "convolution"
        layers.append({"kind": kind, "shape": list(W.shape), "pool": _pools(following)})
    manifest = _manifest(trained, "bnn", bnn_network.VERSION, outputs.argmax(axis=1), dataset)
    deployed = bnn_network.Network({**manifest, "layers": layers}, arrays)
    equal = deployed.outputs(_pixels(dataset.test)) == outputs
    return deployed, int(np.sum(~equal.all(axis=1)))


def _manifest(trained, name, version, classes, dataset):
    """The first part of the manifest in both formats."""
    return {
        "format": name,
        "version": version,
        "dataset": dataset.title,
        **{key: trained.record[key] for key in ("protocol", "method", "seed")},
        "test_error": 100 * float(np.mean(classes != dataset.test.y)),
        "image": list(dataset.test.X.shape[1:]),
    }


def stages(network):
    """Pairs from the bottom up: a layer with weights, and the layers that follow up to the next."""
    layers = lasagne.layers.get_all_layers(network)
    weights = [i for i, layer in enumerate(layers) if hasattr(layer, "W")]
    for start, end in zip(weights, [*weights[1:], len(layers)], strict=True):
        yield layers[start], layers[start + 1 : end]


def _pools(following):
    return any(isinstance(layer, lasagne.layers.MaxPool2DLayer) for layer in following)


def _normalization(following):
    (normalization,) = (layer for layer in following if hasattr(layer, "gamma"))
    return normalization


def after(sums, layer, following):
    """The outputs of a layer and the layers that follow it, at test time.

    Pooling is left out, since a non-decreasing function commutes with the maximum.

    Parameters
    ----------
    sums : float32 variable (batch, units, ...)
        The product of the layer's inputs and weights.
    layer : Layer
        A layer with weights.
    following : list of Layer
        The layers that follow it, up to the next layer with weights.
    """
    x = sums if layer.b is None else sums + layer.b.dimshuffle("x", 0, *["x"] * (sums.ndim - 2))
    x = layer.nonlinearity(x)
    for other in following:
        if not isinstance(other, lasagne.layers.MaxPool2DLayer):
            x = other.get_output_for(x, deterministic=True)
    return x


def _activations(layer, following):
    """A function that maps sums, integers of shape (n, units), to the result of `after`."""
    sums = T.TensorType("float32", (False,) * layer.W.ndim)()
    function = theano.function([sums], after(sums, layer, following))

    def activations(values):
        shape = (*values.shape, *[1] * (sums.ndim - 2))
        return function(np.float32(values).reshape(shape)).reshape(values.shape)

    return activations


def thresholds(activations, most, units):
    """The sums at which the activations of units change sign, found by bisection.

    Parameters
    ----------
    activations : callable
        Maps integers (1, units) to activations of +1 and -1, monotonically in each unit.
    most : int
        Sums are integers from -most to most, below 2^24, so that float32 holds them.
    units : int

    Returns
    -------
    thresholds : int32 array of shape (units,)
    negative : bool array of shape (units,)
        A unit is +1 if (sum >= threshold) xor negative.
    """

    def positive(sums):
        return activations(sums[np.newaxis])[0] > 0

    low, high = np.full(units, -most), np.full(units, most)
    first, last = positive(low), positive(high)
    while (high - low > 1).any():  # positive(high) is last, positive(low) first
        middle = (low + high) // 2
        turned = positive(middle) == last
        high = np.where(turned, middle, high)
        low = np.where(turned, low, middle)
    return np.int32(np.where(first == last, -most, high)), ~last


def _affine(layer, following):
    """The arrays of the bias and batch normalization of the last layer; see bnn_network.py."""
    normalization = _normalization(following)
    values = {name: getattr(normalization, name).get_value() for name in bnn_network.LAST[1:]}
    if isinstance(normalization, shift_based.ShiftBatchNormLayer):
        for name in ("gamma", "inv_std"):
            values[name] = shift_based.ap2(T.constant(values[name])).eval()
    bias = np.zeros_like(values["beta"]) if layer.b is None else layer.b.get_value()
    return {"bias": bias, **values}


def _folded(layer, normalization):
    """Scale and shift of each unit, float64, from the bias and batch normalization of a layer."""
    values = {
        name: np.ravel(getattr(normalization, name).get_value()).astype(np.float64)
        for name in ("mean", "gamma", "beta")
    }
    if isinstance(normalization, batch_norm.CumulativeBatchNormLayer):
        divisor = np.sqrt(normalization.var.get_value().astype(np.float64) + normalization.epsilon)
    else:
        divisor = np.ravel(normalization.std.get_value()).astype(np.float64) + normalization.epsilon
    bias = 0 if layer.b is None else layer.b.get_value()
    scale = values["gamma"] / divisor
    return scale, (bias - values["mean"]) * scale + values["beta"]


def _preprocessing(trained, raw):
    """The name and the arrays of the preprocessing of test images."""
    if trained.record["dataset"] == "mnist":  # the mean image of the test set itself, as published
        images = np.asarray(_pixels(raw.test), np.float32) / np.float32(255)
        return "centred", {"mean": np.mean(images, axis=0, dtype=np.float64).astype(np.float32)}
    if trained.record["dataset"] == "cifar10":
        images = np.concatenate([_pixels(raw.train), _pixels(raw.valid)])
        mean, matrix = preprocessing.fit_zca(preprocessing.global_contrast_normalize(images, 55.0))
        return "whitened", {"mean": np.float32(mean), "matrix": np.float32(matrix)}
    suffix = "" if trained.hp.lcn == "released" else ", all channels"
    return f"contrast-normalized{suffix}", {}


def _pixels(split):
    """Raw pixels, 0 to 255, of a split with inputs="signed"."""
    return ((split.X[:] + 255) / 2).astype(np.uint8)


def write(options):
    """The command: exports the run `options.run_dir` to deployed.npz in its folder."""
    trained = TrainedRun(options.run_dir)
    if trained.record["dataset"] == "digits":
        raise UserError("the embedded digits have no raw pixels to predict; export a run on MNIST")
    dataset = trained.dataset(options.data)
    if trained.hp.method == "bnn":
        raw = dataset
        deployed, unequal = export_bnn(trained, dataset)
        compared = "outputs equal to Theano's, bit for bit"
    else:
        name, unofficial = trained.record["dataset"], not dataset.official
        raw = datasets.load(name, options.data, unofficial, inputs="signed")
        deployed, unequal = export(trained, dataset, raw)
        compared = "classes equal to Theano's"
    path = trained.path / "deployed.npz"
    with writing(path, "make it writable or make room"):
        write_atomically(path, deployed.content())
    images = len(dataset.test.y)
    print(f"{path}: test error {deployed.manifest['test_error']:.2f}% with the weights exported")
    print(f"{compared}: {images - unequal:,} of {images:,} test images")
    print(describe_sizes(deployed))
    pixels = _pixels(raw.test)
    if options.c is not None:
        print(c_source.write(Path(options.c), deployed, pixels))
    for path, qonnx in ((options.onnx, False), (options.qonnx, True)):
        if path is not None:
            print(onnx_graph.write(path, deployed, pixels, qonnx))


def main(argv=None):
    parser = Parser(prog="export", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", type=folder, help="folder of a finished run")
    parser.add_argument("--data", metavar="DIR or FILE.npz", help="the data of the run")
    parser.add_argument(
        "--c", metavar="DIR", type=folder, help="also write the network as C99 to this folder"
    )
    parser.add_argument("--onnx", metavar="FILE", type=file, help="also write the network as ONNX")
    parser.add_argument(
        "--qonnx", metavar="FILE", type=file, help="also write it as QONNX, for FINN"
    )
    return run(parser, write, argv)


if __name__ == "__main__":
    sys.exit(main())
