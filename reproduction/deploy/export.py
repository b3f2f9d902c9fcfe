"""A trained run as one deployable file: weights packed one bit each, batch normalization folded to
scale and shift or, where activations are binary too, to a threshold. deployed.py and packed.py
document the formats and run them.
"""

import sys

import original_stack
from original_stack.command_line import Parser, run
from original_stack.errors import UserError, write_atomically

import lasagne
import numpy as np
import theano
import theano.tensor as T

import batch_norm
import shift_based
from fused import xnor
from reproduction import datasets
from reproduction.datasets import preprocessing
from reproduction.deploy import bnn_network as packed
from reproduction.deploy import network as deployed
from reproduction.deploy import trained
from reproduction.training import model as training


def export(one, dataset, raw):
    """The deployable network of a run.

    A run with binary weights is exported with them (section 2.6, method 1), whatever its own test
    weights; batch-norm statistics are made anew for them where the protocol does so or training
    left those of drawn weights. Others keep real weights.

    Parameters
    ----------
    one : trained.TrainedRun
    dataset : datasets.Dataset
        That it was trained on.
    raw : datasets.Dataset
        The same with inputs="signed", from which raw pixels are had.

    Returns
    -------
    network : deployed.Network
    unequal : int
        The number of test images whose class differs from Theano's.
    """
    network = one.network()
    model = training.Model(network, one.h, "binary" if one.h.binary else "real")
    model.recompute_statistics(dataset.train, dataset.valid)
    model.renew_statistics(dataset.train)
    batches = range(0, len(dataset.test.y), 200)
    outputs = [model.outputs(dataset.test.X[start : start + 200]) for start in batches]
    classes = np.concatenate(outputs).argmax(axis=1)

    kind, arrays = _preprocessing(one, raw)
    layers = []
    for i, (layer, following) in enumerate(stages(network)):
        W = layer.W.get_value()
        normalization = _normalization(following)
        scale, shift = _folded(layer, normalization)
        if one.h.binary:  # as binarization does
            arrays[f"weights{i}"] = np.packbits(np.clip((W / layer.H + 1) / 2, 0, 1) >= 0.5)
            scale = scale * layer.H
        else:
            arrays[f"weights{i}"] = W
        arrays.update({f"scale{i}": np.float32(scale), f"shift{i}": np.float32(shift)})
        layers.append(
            {
                "kind": "dense" if W.ndim == 2 else "convolution",
                "shape": list(W.shape),
                "packed": one.h.binary,
                "pool": _pools(following),
                "rectify": normalization.nonlinearity is lasagne.nonlinearities.rectify,
            }
        )
    manifest = {
        "format": "binaryconnect",
        "version": deployed.VERSION,
        **{key: one.run[key] for key in ("dataset", "protocol", "method", "seed")},
        "test_error": 100 * float(np.mean(classes != dataset.test.y)),
        "preprocessing": kind,
        "image": list(dataset.test.X.shape[1:]),
        "layers": layers,
    }
    made = deployed.Network(manifest, arrays)
    return made, int(np.sum(made.predict(_pixels(raw.test)) != classes))


def export_bnn(one, dataset):
    """The deployable network of a run with binary activations.

    Parameters
    ----------
    one : trained.TrainedRun
    dataset : datasets.Dataset
        That it was trained on.

    Returns
    -------
    network : packed.Network
    unequal : int
        The number of test images with an output that is not, bit for bit, Theano's.

    Raises
    ------
    UserError
        If the last layer does not compute as packed.py does.
    """
    network = one.network()
    X = T.tensor4()
    expression = lasagne.layers.get_output(network, X, deterministic=True, test_weights="binary")
    of_theano = theano.function([X], expression)
    batches = range(0, len(dataset.test.y), 200)
    outputs = np.concatenate([of_theano(dataset.test.X[i : i + 200]) for i in batches])

    arrays, layers = {}, []
    parts = list(stages(network))
    for i, (layer, following) in enumerate(parts):
        W = layer.W.get_value()
        dense = W.ndim == 2
        arrays[f"weights{i}"] = packed.pack(np.where(np.clip((W + 1) / 2, 0, 1) >= 0.5, 1, -1))
        most = W[:, 0].size if dense else W[0].size
        most *= 1 if i else 255
        ask = _asked(layer, following)
        if i < len(parts) - 1:
            arrays[f"threshold{i}"], negative = thresholds(ask, most, W.shape[1 if dense else 0])
            arrays[f"negative{i}"] = xnor.pack_bits(negative)
        else:
            arrays.update(_affine(layer, following))
            sums = np.arange(-most, most + 1)[:, np.newaxis] * np.ones(W.shape[1], np.int32)
            if not np.array_equal(packed.normalized(sums, arrays), ask(sums)):
                raise UserError(
                    "the last layer rounds in another order than the file's; export without "
                    "THEANO_FLAGS of your own"
                )
        kind = "dense" if dense else "convolution"
        layers.append({"kind": kind, "shape": list(W.shape), "pool": _pools(following)})
    manifest = {
        "format": "bnn",
        "version": packed.VERSION,
        **{key: one.run[key] for key in ("dataset", "protocol", "method", "seed")},
        "test_error": 100 * float(np.mean(outputs.argmax(axis=1) != dataset.test.y)),
        "image": list(dataset.test.X.shape[1:]),
        "layers": layers,
    }
    made = packed.Network(manifest, arrays)
    equal = made.outputs(_pixels(dataset.test)) == outputs
    return made, int(np.sum(~equal.all(axis=1)))


def stages(network):
    """(layer with weights, those that follow it up to the next) from the bottom up."""
    layers = lasagne.layers.get_all_layers(network)
    weights = [i for i, layer in enumerate(layers) if hasattr(layer, "W")]
    for start, end in zip(weights, [*weights[1:], len(layers)], strict=True):
        yield layers[start], layers[start + 1 : end]


def _pools(following):
    return any(isinstance(one, lasagne.layers.MaxPool2DLayer) for one in following)


def _normalization(following):
    (found,) = (one for one in following if hasattr(one, "gamma"))
    return found


def after(sums, layer, following):
    """What the layers make, at test time, of the product of the first one's inputs and weights.

    Pooling is left out: the maximum of what a non-decreasing function gives is what it gives of the
    maximum.

    Parameters
    ----------
    sums : float32 variable (batch, units, ...)
    layer : Layer
        With weights.
    following : list of Layer
        That follow it, up to the next with weights.
    """
    x = sums if layer.b is None else sums + layer.b.dimshuffle("x", 0, *["x"] * (sums.ndim - 2))
    x = layer.nonlinearity(x)
    for one in following:
        if not isinstance(one, lasagne.layers.MaxPool2DLayer):
            x = one.get_output_for(x, deterministic=True)
    return x


def _asked(layer, following):
    """A function from sums, whole numbers (n, units), to what `after` gives."""
    sums = T.TensorType("float32", (False,) * layer.W.ndim)()
    function = theano.function([sums], after(sums, layer, following))

    def ask(values):
        shape = (*values.shape, *[1] * (sums.ndim - 2))
        return function(np.float32(values).reshape(shape)).reshape(values.shape)

    return ask


def thresholds(ask, most, units):
    """Where the activations of units turn, found by bisection.

    Parameters
    ----------
    ask : callable
        From whole numbers (1, units) to activations, +1 and -1, monotonic in each unit.
    most : int
        Sums are whole numbers from -most to most, below 2^24, so that float32 holds them.
    units : int

    Returns
    -------
    thresholds : int32 array of shape (units,)
    negative : bool array of shape (units,)
        A unit is +1 where (sum >= threshold) xor negative.
    """

    def positive(sums):
        return ask(sums[np.newaxis])[0] > 0

    low, high = np.full(units, -most), np.full(units, most)
    first, last = positive(low), positive(high)
    while (high - low > 1).any():  # positive(high) is last, positive(low) first
        middle = (low + high) // 2
        turned = positive(middle) == last
        high = np.where(turned, middle, high)
        low = np.where(turned, low, middle)
    return np.int32(np.where(first == last, -most, high)), ~last


def _affine(layer, following):
    """Arrays of the last layer's bias and batch normalization; see packed.py."""
    normalization = _normalization(following)
    values = {name: getattr(normalization, name).get_value() for name in packed.LAST[1:]}
    if isinstance(normalization, shift_based.ShiftBatchNormLayer):
        for name in ("gamma", "inv_std"):
            values[name] = shift_based.ap2(T.constant(values[name])).eval()
    bias = np.zeros_like(values["beta"]) if layer.b is None else layer.b.get_value()
    return {"bias": bias, **values}


def _folded(layer, normalization):
    """Scale and shift of each unit, float64: the layer's bias and its batch normalization."""
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


def _preprocessing(one, raw):
    """Name and arrays of what is done to the pixels of test images."""
    if one.run["dataset"] == "mnist":  # the test set's own mean image, as published
        images = np.asarray(_pixels(raw.test), np.float32) / np.float32(255)
        return "centred", {"mean": np.mean(images, axis=0, dtype=np.float64).astype(np.float32)}
    if one.run["dataset"] == "cifar10":
        images = np.concatenate([_pixels(raw.train), _pixels(raw.valid)])
        mean, matrix = preprocessing.fit_zca(preprocessing.global_contrast_normalize(images, 55.0))
        return "whitened", {"mean": np.float32(mean), "matrix": np.float32(matrix)}
    suffix = "" if one.h.lcn == "released" else ", all channels"
    return f"contrast-normalized{suffix}", {}


def _pixels(subset):
    """Raw pixels, 0 to 255, of a subset with inputs="signed"."""
    return ((subset.X[:] + 255) / 2).astype(np.uint8)


def write(options):
    """The command: exports the run `options.run_dir` to deployed.npz in its folder."""
    one = trained.TrainedRun(options.run_dir)
    if one.run["dataset"] == "digits":
        raise UserError("the embedded digits have no raw pixels to predict; export a run on MNIST")
    dataset = one.dataset(options.data)
    if one.h.method == "bnn":
        made, unequal = export_bnn(one, dataset)
        compared = "outputs equal to Theano's, bit for bit"
    else:
        name, unofficial = one.run["dataset"], not dataset.official
        raw = datasets.load(name, options.data, unofficial, inputs="signed")
        made, unequal = export(one, dataset, raw)
        compared = "classes equal to Theano's"
    path = one.path / "deployed.npz"
    try:
        write_atomically(path, made.content())
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; make it writable or make room"
        ) from None
    images = len(dataset.test.y)
    print(f"{path}: test error {made.manifest['test_error']:.2f}% with the weights exported")
    print(f"{compared}: {images - unequal:,} of {images:,} test images")
    print(deployed.describe_sizes(made))


def main(argv=None):
    parser = Parser(prog="export", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of a finished run")
    parser.add_argument("--data", metavar="DIR", help="where the data files are or are to go")
    return run(parser, write, argv)


if __name__ == "__main__":
    sys.exit(main())
