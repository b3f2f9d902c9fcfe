"""A trained run, loaded: its record, its network and the parameters of its best epoch."""

import dataclasses
import fcntl
import json
import os
import zipfile
from pathlib import Path

import original_stack
from original_stack.errors import UserError

import lasagne
import numpy as np

import cifar10
import mnist
import svhn
from reproduction import datasets

SCRIPTS = {
    "mnist": (mnist.Hyperparameters, mnist.build_network),
    "digits": (mnist.Hyperparameters, mnist.build_network),
    "cifar10": (cifar10.Hyperparameters, cifar10.build_network),
    "svhn": (svhn.Hyperparameters, cifar10.build_network),
}


class TrainedRun:
    """A finished run with its model.npz.

    Parameters
    ----------
    path : path
        The run's folder.

    Attributes
    ----------
    path : Path
    run : dict
        What run.json holds.
    h : Hyperparameters
    parameters : list of arrays
        Of the best epoch, in the order of ``lasagne.layers.get_all_params``.

    Raises
    ------
    UserError
        If there is no finished run, or its files are damaged or of another version.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._hold()
        try:
            self.run = json.loads((self.path / "run.json").read_text())
            finished = self.run["finished"]
            hyperparameters, self._build = SCRIPTS[self.run["dataset"]]
            self.h = hyperparameters(**self.run["hyperparameters"])
            with open(self.path / "model.npz", "rb") as f, np.load(f, allow_pickle=False) as model:
                self.parameters = [model[name] for name in sorted(model.files)]
        except FileNotFoundError as error:
            finished = None
            missing = Path(error.filename).name
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            raise UserError(
                f"{self.path} holds a run that is damaged or of another version of this program; "
                "train it anew with --restart"
            ) from None
        if finished is None:
            raise UserError(
                f"{self.path} has no {missing}; name the folder of a finished run on the machine "
                "that trained it, such as results/mnist/paper-stochastic/seed-1234"
            )
        if not finished:
            raise UserError(f"{self.path} holds an unfinished run; finish it by its command first")

    def _hold(self):
        # Until the process ends: training it anew would leave its outcome beside another model.
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.path} is in use by another process; wait until it has finished"
            ) from None
        except OSError:
            pass  # reading what is not there says so

    def network(self):
        """The output layer of a new network with the run's parameters; its random draws are those
        of the run's seed."""
        lasagne.random.set_rng(np.random.RandomState(self.run["seed"]))
        network = self._build(self.h)
        try:
            lasagne.layers.set_all_param_values(network, self.parameters)
        except ValueError as error:
            raise UserError(f"{self.path}/model.npz is of another network: {error}") from None
        return network

    def dataset(self, data=None):
        """The data set that the run was trained on.

        Parameters
        ----------
        data : path, optional
            See `datasets.load`.

        Raises
        ------
        UserError
            If it cannot be loaded or its files are not those of the run.
        """
        name = self.run["dataset"]
        official = self.run["official_data"]
        found = datasets.load(name, data, not official, **self.h.data_options)
        # The official files hold the same images in any packing.
        same = [dataclasses.asdict(file) for file in found.files] == self.run["data"]
        if not (same or (official and found.official)):
            raise UserError(
                f"the {name} files are not those that {self.path} was trained on; name their "
                "folder with --data"
            )
        return found
