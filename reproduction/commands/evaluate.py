"""The test error of a trained run with each of the paper's three kinds of weights (BinaryConnect,
section 2.6): binary, real, and ensembles of sampled networks.

The command writes evaluation.json beside run.json. It also counts how often the binary kernels of a
convolutional network repeat (Binarized Neural Networks, section 3.3).
"""

import json
import sys

import original_stack
from original_stack.command_line import Parser, folder, run
from original_stack.errors import write_atomically, writing

import lasagne
import numpy as np

from binary_connect import is_positive
from reproduction.deploy.trained import TrainedRun
from reproduction.training.model import Model

ENSEMBLES = (1, 2, 4, 8, 16)  # sizes; the networks of all are sampled once


def evaluate(trained, dataset):
    """Test errors, in percent, of one trained model.

    In MNIST's paper protocol, batch-norm statistics are recomputed for each kind of weights from
    the training and validation sets. In other protocols, the running averages of training are used;
    if these belong to sampled weights, binary weights are also tested with recomputed statistics.
    The networks of an ensemble are sampled again for each batch, as in training.

    Parameters
    ----------
    trained : TrainedRun
    dataset : datasets.Dataset

    Returns
    -------
    dict
        `binary`, `binary_own_statistics` and `real` are errors, or None if the network does not
        have these weights. `ensemble` is {size: error}, maybe empty. If the network has binary
        convolutions, `unique_kernels` lists the result of `unique_kernels` for each of them.
    """
    errors = {"binary": None, "binary_own_statistics": None, "real": None, "ensemble": {}}
    for kind in trained.hp.kinds_of_weights:
        model = Model(trained.network(), trained.hp, kind)
        model.recompute_statistics(dataset.train, dataset.valid)
        if kind == "ensemble":
            errors[kind] = _ensembles(model, dataset.test)
        else:
            errors[kind] = model.evaluate(dataset.test)[1]
        if kind == "binary" and model.renew_statistics(dataset.train):
            errors["binary_own_statistics"] = model.evaluate(dataset.test)[1]
    if trained.hp.binary and (shares := repetitions(trained.network())):
        errors["unique_kernels"] = shares
    return errors


def repetitions(network):
    """`unique_kernels` of each convolution of a network with binary weights, a list of float."""
    layers = lasagne.layers.get_all_layers(network)
    weights = [layer.W.get_value() for layer in layers if hasattr(layer, "W")]
    return [unique_kernels(W) for W in weights if W.ndim == 4]


def unique_kernels(W):
    """Percent of unique kernels among those that a layer applies to one of its feature maps.

    A kernel whose signs are all opposite counts as a repetition: its result is the negated one.

    Parameters
    ----------
    W : array of shape (filters, channels, rows, columns)
        Latent or binary weights.

    Returns
    -------
    float
        The mean over the channels.
    """
    signs = is_positive(W).reshape(*W.shape[:2], -1)
    signs = signs ^ signs[..., :1]  # the same for a kernel and its inverse
    unique = [len(np.unique(signs[:, channel], axis=0)) for channel in range(W.shape[1])]
    return 100 * float(np.mean(unique)) / len(W)


def _ensembles(model, split):
    """{size: error} of averages over the first `size` networks of one set of sampled networks."""
    sums = np.cumsum(model.all_outputs(split, max(ENSEMBLES)), axis=0)
    wrong = {size: int((sums[size - 1].argmax(axis=1) != split.y).sum()) for size in ENSEMBLES}
    return {str(size): 100 * count / len(split.y) for size, count in wrong.items()}


def write(options):
    """The command: evaluates the run `options.run_dir` and writes its evaluation.json."""
    trained = TrainedRun(options.run_dir)
    evaluation = evaluate(trained, trained.dataset(options.data))
    path = trained.path / "evaluation.json"
    with writing(path, "make it writable or make room"):
        write_atomically(path, (json.dumps(evaluation, indent=2) + "\n").encode())
    errors = {
        "binary": evaluation["binary"],
        "binary, recomputed statistics": evaluation["binary_own_statistics"],
        "real": evaluation["real"],
        **{f"ensemble of {size:>2}": error for size, error in evaluation["ensemble"].items()},
    }
    for label, error in errors.items():
        if error is not None:
            print(f"{label:29} {error:6.2f}%")
    for i, share in enumerate(evaluation.get("unique_kernels", ())):
        print(f"unique kernels, layer {i} {share:5.1f}%")


def main(argv=None):
    parser = Parser(prog="evaluate", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", type=folder, help="folder of a finished run")
    parser.add_argument("--data", metavar="DIR or FILE.npz", help="the data of the run")
    return run(parser, write, argv)


if __name__ == "__main__":
    sys.exit(main())
