"""CIFAR-10: a network of six convolutions and three dense layers, without data augmentation.

Its inputs are whitened images (BinaryConnect, section 3.2), or raw pixels if activations are binary
(Binarized Neural Networks, section 2.2)."""

import sys
from dataclasses import dataclass, field, replace
from typing import Annotated

import original_stack
from original_stack.command_line import integer_between, number_between

from lasagne.layers import InputLayer, MaxPool2DLayer
from lasagne.nonlinearities import identity, rectify

import batch_norm
import binary_connect
import binary_net
from reproduction.training import command_line, hyperparameters
from reproduction.training.records import Number, Width

WIDTHS = 0.001, 8  # factors of the numbers of filters and units


@dataclass(frozen=True)
class Hyperparameters(hyperparameters.Hyperparameters):
    """Hyperparameters of a convolutional network. Fields with `option` become command-line
    options."""

    filters: Width = 128  # of the first two convolutions; twice as many after each max pooling
    units: Width = 1024  # of the two dense layers
    width: Annotated[float, *WIDTHS] = field(
        default=1.0,
        metadata={
            "option": {
                "type": number_between(*WIDTHS),
                "help": "scales numbers of filters and units",
            }
        },
    )
    train_size: Number | None = field(
        default=None,
        metadata={
            "option": {
                "type": integer_between(1),
                "metavar": "N",
                "help": "take the first N training images",
            }
        },
    )

    @property
    def choices(self):
        """Rows of Table 1 are also chosen by optimizer and scaling, which that table compares."""
        if not self.protocol.startswith("table1"):
            return super().choices
        scaling = "off" if self.W_LR_scale == 1 else "on"
        return {**super().choices, "optimizer": self.optimizer, "lr_scaling": scaling}

    @property
    def data_options(self):
        return {**super().data_options, "train_size": self.train_size}


PAPER = Hyperparameters(
    protocol="paper",
    method="stochastic",
    epochs=500,
    batch_size=50,
    optimizer="adam",
    LR_start=0.003,
    LR_fin=0.000002,
    H=1.0,
    W_LR_scale="Glorot",
)
BNN_THEANO = replace(PAPER, protocol="bnn-theano", method="bnn", LR_start=0.001, LR_fin=0.0000003)
BNN_TORCH7 = replace(
    BNN_THEANO,
    protocol="bnn-torch7",
    batch_size=200,
    optimizer="shift-based adamax",
    LR_start=2**-10,
    LR_fin=2**-19,
    LR_stages=10,  # halved every 50 epochs
    shift_based=True,
)


def _table1(optimizer, scaling, W_LR_scale, LR_start):
    """A row of Table 1, which compares optimizers with and without scaling of the learning rates.

    The paper does not describe the small network: it names only the optimizer and the scaling, and
    the rest is our inference (DEVIATIONS.md, 14). The rate decays by the same factor as in Table 2.
    """
    return replace(
        PAPER,
        protocol=f"table1-{optimizer}-{scaling}",
        method="deterministic",
        optimizer=optimizer,
        W_LR_scale=W_LR_scale,
        filters=64,
        LR_start=LR_start,
        LR_fin=LR_start * PAPER.LR_fin / PAPER.LR_start,
    )


ROWS = [
    PAPER,
    replace(PAPER, method="deterministic"),
    replace(PAPER, method="none"),
    _table1("adam", "on", "Glorot", 0.003),
    _table1("adam", "off", 1.0, 0.3),
    _table1("nesterov", "on", "Glorot squared", 0.1),
    _table1("nesterov", "off", 1.0, 1.0),
    _table1("sgd", "on", "Glorot squared", 1.0),
    _table1("sgd", "off", 1.0, 10.0),
    BNN_THEANO,
    BNN_TORCH7,
]


def build_network(hp):
    """2 x 128C3 - MP2 - 2 x 256C3 - MP2 - 2 x 512C3 - MP2 - 2 x 1024FC - classes.

    Batch normalization follows each convolution (after max pooling) and each dense layer. All
    layers but the last have ReLU, or binary activations for method bnn.

    Parameters
    ----------
    hp : Hyperparameters
        The hyperparameters of SVHN fit too.

    Returns
    -------
    Layer
        The output layer, with output shape (batch, classes).
    """

    def normalized(net, hidden):
        if hp.method == "bnn":
            return binary_net.normalize_and_binarize(net, hidden, hp.shift_based)
        nonlinearity = rectify if hidden else identity
        return batch_norm.BatchNormLayer(net, epsilon=1e-4, alpha=0.1, nonlinearity=nonlinearity)

    net = InputLayer((None, 3, 32, 32))
    scale = binary_net.scale_pixels if hp.method == "bnn" else identity  # of the inputs
    for factor in (1, 2, 4):
        filters = max(1, round(factor * hp.filters * hp.width))
        for pool in (False, True):
            net = binary_connect.Conv2DLayer(
                net, filters, (3, 3), pad=1, nonlinearity=scale, **hp.weights
            )
            scale = identity
            if pool:
                net = MaxPool2DLayer(net, (2, 2))
            net = normalized(net, hidden=True)
    dense = max(1, round(hp.units * hp.width))
    for units, hidden in [(dense, True)] * 2 + [(hp.classes, False)]:
        net = binary_connect.DenseLayer(net, units, nonlinearity=identity, **hp.weights)
        net = normalized(net, hidden)
    return net


if __name__ == "__main__":
    sys.exit(command_line.main("cifar10", ROWS, build_network))
