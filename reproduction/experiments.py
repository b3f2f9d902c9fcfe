"""The experiments: for each data set, the published rows and how to build their network."""

from collections.abc import Callable
from dataclasses import dataclass

import cifar10
import mnist
import svhn


@dataclass(frozen=True)
class Experiment:
    """The rows of a data set and their network.

    Attributes
    ----------
    rows : list of Hyperparameters
    build_network : callable
        build_network(hp) returns the output layer of a row's network.
    """

    rows: list
    build_network: Callable

    @property
    def hyperparameters(self):
        """The class of the hyperparameters."""
        return type(self.rows[0])

    def row(self, protocol, method):
        """The row of a protocol and a method, or None."""
        key = protocol, method
        return next((hp for hp in self.rows if (hp.protocol, hp.method) == key), None)


_MNIST = Experiment(mnist.ROWS, mnist.build_network)
EXPERIMENTS = {
    "mnist": _MNIST,
    "digits": _MNIST,  # scikit-learn's, in MNIST's shape
    "cifar10": Experiment(cifar10.ROWS, cifar10.build_network),
    "svhn": Experiment(svhn.ROWS, cifar10.build_network),
}
ROWS = {  # {(data set, protocol, method): Hyperparameters}
    (dataset, hp.protocol, hp.method): hp
    for dataset, experiment in EXPERIMENTS.items()
    for hp in experiment.rows
}
