"""How the network of one row of a published table is trained. This module does not load Theano."""

from dataclasses import dataclass
from typing import Annotated, Literal

from reproduction.training.records import Number, Positive, check

BINARY_METHODS = ("deterministic", "stochastic", "bnn")  # the methods that have binary weights
TEST_WEIGHTS = ("binary", "real", "ensemble")  # see binary_connect.TEST_WEIGHTS


@dataclass(frozen=True)
class Hyperparameters:
    """One row of a published table.

    Subclasses add what the network of a data set needs. A value that does not have the type of its
    field raises a ValueError.
    """

    protocol: str
    method: Literal["none", "deterministic", "stochastic", "dropout", "bnn"]
    epochs: Number
    batch_size: Number
    optimizer: Literal["sgd", "nesterov", "adam", "shift-based adamax"]
    LR_start: Positive  # learning rate of the first epoch
    LR_fin: Positive  # the rate after the last epoch; with LR_stages, the rate of the last stage
    H: Positive | Literal["Glorot"]  # magnitude of the binary weights
    # Factor of the updates of binary weights, see binary_connect.
    W_LR_scale: Positive | Literal["Glorot", "Glorot squared"]
    # Whether the squared hinge loss is averaged or summed over the classes.
    hinge: Literal["mean", "sum"] = "mean"
    evaluate_every: Number = 1  # epochs; the training images are shuffled as often
    # Number of equally long stages with one learning rate each; None: the rate changes each epoch.
    LR_stages: Annotated[int, 2, 2**32 - 1] | None = None
    shift_based: bool = False  # whether method bnn is trained as in the Torch7 experiments
    classes: Annotated[int, 2, 2**13] = 10  # of the data set

    def __post_init__(self):
        check(vars(self), type(self))

    @property
    def choices(self):
        """{option: value} by which the command line chooses this row among the rows of its data
        set."""
        return {"protocol": self.protocol, "method": self.method}

    @property
    def data_options(self):
        """Keyword arguments of `datasets.load`."""
        return {"inputs": "signed"} if self.method == "bnn" else {}

    @property
    def weights(self):
        """Keyword arguments of the layers of `binary_connect`."""
        return {
            "binary": self.binary,
            "stochastic": self.stochastic,
            "H": self.H,
            "W_LR_scale": self.W_LR_scale,
        }

    @property
    def binary(self):
        return self.method in BINARY_METHODS

    @property
    def stochastic(self):
        return self.method == "stochastic"

    @property
    def kinds_of_weights(self):
        """The members of TEST_WEIGHTS that a trained network has."""
        if self.method == "bnn":  # activations are binary as well
            return ("binary",)
        return TEST_WEIGHTS if self.binary else ("real",)

    @property
    def default_test_weights(self):
        """The choice of the papers (BinaryConnect, section 2.6): "binary" for deterministic
        weights, otherwise "real"."""
        return "binary" if self.method in ("deterministic", "bnn") else "real"

    def steps(self, images):
        """Number of training steps in an epoch over so many images; only full batches are used."""
        return images // self.batch_size

    def learning_rate(self, epoch):
        """Learning rate of an epoch, which is counted from 1."""
        share = (epoch - 1) / self.epochs
        if self.LR_stages:
            share = (epoch - 1) * self.LR_stages // self.epochs / (self.LR_stages - 1)
        return self.LR_start * (self.LR_fin / self.LR_start) ** share
