"""Permutation-invariant MNIST (BinaryConnect, section 3.1): a multilayer perceptron of three hidden
layers, as in the published experiments (protocol paper) or the released script (release)."""

import sys
from dataclasses import dataclass, replace

import training

# isort: split
import lasagne
from lasagne.layers import DropoutLayer, InputLayer
from lasagne.nonlinearities import identity, rectify

import batch_norm
import binary_connect


@dataclass(frozen=True)
class Hyperparameters(training.Hyperparameters):
    """See facts of both protocols in README.md; choices where no source says in DEVIATIONS.md."""

    num_units: int = 1024  # in each of three hidden layers
    cumulative_batch_norm: bool = True  # the published code's batch normalization, or the released
    dropout_in: float = 0.0  # share of inputs dropped
    dropout_hidden: float = 0.0  # share of hidden units dropped


PAPER = Hyperparameters(
    protocol="paper",
    method="stochastic",
    epochs=1000,
    batch_size=200,
    optimizer="sgd",
    LR_start=0.3,
    LR_fin=0.01,
    H="Glorot",
    W_LR_scale=1.0,
    hinge="sum",
    evaluate_every=2,
)
RELEASE = Hyperparameters(
    protocol="release",
    method="stochastic",
    epochs=250,
    batch_size=100,
    optimizer="adam",
    LR_start=0.001,
    LR_fin=0.000003,
    H=1.0,
    W_LR_scale="Glorot",
    num_units=2048,
    cumulative_batch_norm=False,
)
ROWS = [
    PAPER,
    replace(PAPER, method="deterministic"),
    replace(PAPER, method="none", LR_fin=0.003),
    replace(PAPER, method="dropout", LR_start=1.0, LR_fin=0.003, dropout_hidden=0.5),
    RELEASE,
    replace(RELEASE, method="deterministic"),
    replace(RELEASE, method="none"),
    replace(RELEASE, method="dropout", dropout_hidden=0.5),
]


def build_network(h):
    """784 - 3 x num_units ReLU - 10; each dense layer is followed by batch normalization."""
    weights = {
        "binary": h.binary,
        "stochastic": h.stochastic,
        "H": h.H,
        "W_LR_scale": h.W_LR_scale,
        "nonlinearity": identity,
    }
    if h.cumulative_batch_norm:  # the published code: no bias, weights start uniform on (-2H, 2H)
        weights.update(b=None, W=lasagne.init.GlorotUniform())
    net = InputLayer((None, 1, 28, 28))
    if h.dropout_in:
        net = DropoutLayer(net, h.dropout_in)
    for units, nonlinearity in [(h.num_units, rectify)] * 3 + [(10, identity)]:
        net = binary_connect.DenseLayer(net, units, **weights)
        if h.cumulative_batch_norm:
            net = batch_norm.CumulativeBatchNormLayer(net, nonlinearity=nonlinearity)
        else:
            net = batch_norm.BatchNormLayer(
                net, epsilon=1e-4, alpha=0.15, nonlinearity=nonlinearity
            )
        if h.dropout_hidden and nonlinearity is rectify:
            net = DropoutLayer(net, h.dropout_hidden)
    return net


if __name__ == "__main__":
    sys.exit(training.main("mnist", ROWS, build_network))
