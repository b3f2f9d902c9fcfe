"""Permutation-invariant MNIST: a multilayer perceptron of three hidden layers.

Protocol paper repeats the published experiments (BinaryConnect, section 3.1), release the released
script, bnn-theano and bnn-torch7 the experiments of Binarized Neural Networks (section 2.1)."""

import sys
from dataclasses import dataclass, replace

import original_stack

import lasagne
import numpy as np
import theano.tensor as T
from lasagne.layers import InputLayer
from lasagne.nonlinearities import identity, rectify

import batch_norm
import binary_connect
import binary_net
from reproduction.training import command_line, hyperparameters
from reproduction.training.records import Share, Width


@dataclass(frozen=True)
class Hyperparameters(hyperparameters.Hyperparameters):
    """Hyperparameters of MNIST's network. README.md describes the protocols; DEVIATIONS.md
    describes the choices for which there is no source."""

    num_units: Width = 1024  # in each of three hidden layers
    cumulative_batch_norm: bool = True  # as in the published code; otherwise running averages
    dropout_in: Share = 0.0  # share of the inputs that are dropped
    dropout_hidden: Share = 0.0  # share of the hidden units that are dropped


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
BNN_THEANO = Hyperparameters(
    protocol="bnn-theano",
    method="bnn",
    epochs=1000,
    batch_size=100,
    optimizer="adam",
    LR_start=0.003,
    LR_fin=0.0000003,
    H=1.0,
    W_LR_scale="Glorot",
    num_units=4096,
    cumulative_batch_norm=False,
    dropout_in=0.2,
    dropout_hidden=0.5,
)
BNN_TORCH7 = Hyperparameters(
    protocol="bnn-torch7",
    method="bnn",
    epochs=200,
    batch_size=100,
    optimizer="shift-based adamax",
    LR_start=2**-10,
    LR_fin=2**-29,
    LR_stages=20,  # halved every 10 epochs
    H=1.0,
    W_LR_scale="Glorot",
    num_units=2048,
    cumulative_batch_norm=False,
    shift_based=True,
)
ROWS = [
    PAPER,
    replace(PAPER, method="deterministic"),
    replace(PAPER, method="none", LR_fin=0.003),
    replace(
        PAPER, method="dropout", LR_start=1.0, LR_fin=0.003, dropout_in=0.2, dropout_hidden=0.5
    ),
    RELEASE,
    replace(RELEASE, method="deterministic"),
    replace(RELEASE, method="none"),
    replace(RELEASE, method="dropout", dropout_hidden=0.5),
    BNN_THEANO,
    BNN_TORCH7,
]


class DropoutLayer(lasagne.layers.Layer):
    """Dropout as in Lasagne, many times faster: masks are sampled like stochastic weights
    (DEVIATIONS.md, 11).

    Parameters
    ----------
    incoming : Layer or tuple
        The layer below, or its output shape.
    p : float
        Share of the inputs that are set to zero in training; the others are divided by 1 - p.
    """

    def __init__(self, incoming, p, **kwargs):
        super().__init__(incoming, **kwargs)
        self.p = p
        self._srng = binary_connect.random_stream()

    def get_output_for(self, input, deterministic=False, **kwargs):
        if deterministic:
            return input
        kept = 1 - self.p
        mask = T.fill(input, np.float32(2 * kept - 1))
        # +1 with probability `kept`, otherwise -1.
        mask = binary_connect.binarization(mask, 1.0, stochastic=True, srng=self._srng)
        return input * ((mask + 1) * np.float32(0.5 / kept))


def build_network(hp):
    """784 - 3 x num_units - classes.

    Batch normalization follows each dense layer. All but the last have ReLU, or binary activations
    for method bnn.

    Parameters
    ----------
    hp : Hyperparameters

    Returns
    -------
    Layer
        The output layer, with output shape (batch, classes).
    """
    weights = hp.weights
    if hp.cumulative_batch_norm:  # published code: no bias, initial weights uniform on (-2H, 2H)
        weights.update(b=None, W=lasagne.init.GlorotUniform())
    net = InputLayer((None, 1, 28, 28))
    if hp.dropout_in:
        net = DropoutLayer(net, hp.dropout_in)
    scale = binary_net.scale_pixels if hp.method == "bnn" else identity  # of the inputs
    for units, hidden in [(hp.num_units, True)] * 3 + [(hp.classes, False)]:
        net = binary_connect.DenseLayer(net, units, nonlinearity=scale, **weights)
        scale = identity
        nonlinearity = rectify if hidden else identity
        if hp.method == "bnn":
            net = binary_net.normalize_and_binarize(net, hidden, hp.shift_based)
        elif hp.cumulative_batch_norm:
            net = batch_norm.CumulativeBatchNormLayer(net, nonlinearity=nonlinearity)
        else:
            net = batch_norm.BatchNormLayer(
                net, epsilon=1e-4, alpha=0.15, nonlinearity=nonlinearity
            )
        if hp.dropout_hidden and hidden:
            net = DropoutLayer(net, hp.dropout_hidden)
    return net


if __name__ == "__main__":
    sys.exit(command_line.main("mnist", ROWS, build_network))
