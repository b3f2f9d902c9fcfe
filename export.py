"""A trained run as one deployable file: weights packed one bit each, batch normalization folded to
scale and shift. deployed.py documents the format and runs it.
"""

import sys

import original_stack  # noqa: F401  (before Theano and Lasagne)

# isort: split
import lasagne
import numpy as np

import batch_norm
import datasets
import deployed
import preprocessing
import trained
import training
from command_line import Parser, run
from original_stack import UserError


def export(one, dataset, raw):
    """The deployable network of a run.

    A run with binary weights is exported with them (section 2.6, method 1), whatever its own test
    weights; batch-norm statistics are recomputed for them where the protocol does so. Others keep
    real weights.

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
        The number of test images whose class differs from the checkpoint's.
    """
    network = one.network()
    model = training.Model(network, one.h, "binary" if one.h.binary else "real")
    model.recompute_statistics(dataset.train, dataset.valid)
    batches = range(0, len(dataset.test.y), 200)
    outputs = [model.outputs(dataset.test.X[start : start + 200]) for start in batches]
    classes = np.concatenate(outputs).argmax(axis=1)

    kind, arrays = _preprocessing(one, raw)
    layers = []
    for i, (layer, pool, normalization) in enumerate(_blocks(network)):
        W = layer.W.get_value()
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
                "pool": pool,
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


def _blocks(network):
    """(layer with weights, whether max pooling follows, batch normalization) from the bottom up."""
    found, pool = [], False
    for layer in lasagne.layers.get_all_layers(network):
        if hasattr(layer, "W"):
            weights, pool = layer, False
        elif isinstance(layer, lasagne.layers.MaxPool2DLayer):
            pool = True
        elif hasattr(layer, "gamma"):
            found.append((weights, pool, layer))
    return found


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
    raw = datasets.load(one.run["dataset"], options.data, not dataset.official, inputs="signed")
    made, unequal = export(one, dataset, raw)
    path = one.path / "deployed.npz"
    try:
        made.save(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room") from None
    images = len(dataset.test.y)
    print(f"{path}: test error {made.manifest['test_error']:.2f}% with the weights exported")
    print(f"classes equal to the checkpoint's: {images - unequal:,} of {images:,} test images")
    print(deployed.describe_sizes(made))


def main(argv=None):
    parser = Parser(prog="export.py", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of a finished run")
    parser.add_argument("--data", metavar="DIR", help="where the data files are or are to go")
    return run(parser, write, argv)


if __name__ == "__main__":
    sys.exit(main())
