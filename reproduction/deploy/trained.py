"""A trained run, loaded: its record, its network and the parameters of its best epoch."""

import dataclasses
import os
from pathlib import Path

import original_stack
from original_stack.errors import Lock, UserError, unreadable

import lasagne
import numpy as np

from reproduction import datasets
from reproduction.arrays import load_npz
from reproduction.experiments import EXPERIMENTS
from reproduction.training.records import check, read_run, same_data

REMEDY = "train the run again with --restart"
EXPECTED = (
    "name the folder of a finished run on the machine that trained it, such as "
    "results/mnist/paper-stochastic/seed-1234"
)


class TrainedRun:
    """A finished run with its model.npz.

    Parameters
    ----------
    path : path
        The folder of the run.

    Attributes
    ----------
    path : Path
    record : dict
        The content of run.json.
    hp : Hyperparameters
    parameters : dict of arrays
        {name: array} at the best epoch, in the order of ``lasagne.layers.get_all_params``.

    Raises
    ------
    UserError
        If there is no finished run, or its files cannot be read, are damaged, of another version,
        or in use.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._hold()
        self.record = self._read("run.json", read_run)
        if not self.record["finished"]:
            raise UserError(f"{self.path} holds an unfinished run; finish it by its command first")
        name = self.record["dataset"]
        try:
            if name not in EXPERIMENTS:
                raise ValueError(f"data set {name}")
            self._experiment = EXPERIMENTS[name]
            check(self.record["hyperparameters"], self._experiment.hyperparameters)
            self.hp = self._experiment.hyperparameters(**self.record["hyperparameters"])
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self.path}/run.json is of another version of this program ({error}); {REMEDY}"
            ) from None
        model = self._read("model.npz", load_npz)
        self.parameters = {name: model[name] for name in sorted(model)}
        for name, array in self.parameters.items():
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise UserError(
                    f"{self.path}/model.npz is damaged ({name} is not of finite float32); {REMEDY}"
                )

    def _hold(self):
        # Held until the process ends: if the run were trained again meanwhile, the result of this
        # process would lie beside another model.
        if not os.path.isdir(self.path):
            raise UserError(f"{self.path} is not a folder; {EXPECTED}")
        try:
            self._lock = Lock(self.path, shared=True)
        except BlockingIOError:
            raise UserError(
                f"{self.path} is in use by another process; wait until it has finished"
            ) from None
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _read(self, name, read):
        try:
            return read(self.path / name, REMEDY)
        except FileNotFoundError:
            raise UserError(f"{self.path} has no {name}; {EXPECTED}") from None

    def network(self):
        """The output layer of a new network with the parameters of the run. Its random numbers
        follow from the seed of the run."""
        lasagne.random.set_rng(np.random.RandomState(self.record["seed"]))
        network = self._experiment.build_network(self.hp)
        variables = lasagne.layers.get_all_params(network)
        ours = {f"{i:03d}_{v.name}": _description(v.get_value()) for i, v in enumerate(variables)}
        theirs = {name: _description(array) for name, array in self.parameters.items()}
        for name in sorted(ours.keys() | theirs.keys()):
            expected, given = ours.get(name, "no such array"), theirs.get(name, "no such array")
            if given != expected:
                raise UserError(
                    f"{self.path}/model.npz is of another network ({name}: {given}, expected "
                    f"{expected}); {REMEDY}"
                )
        lasagne.layers.set_all_param_values(network, list(self.parameters.values()))
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
            If it cannot be loaded, or if its files are not the files of the run.
        """
        name = self.record["dataset"]
        unofficial = not self.record["official_data"]
        names = [file["name"] for file in self.record["data"]]
        own = next((file for file in names if file.endswith(".npz")), None)
        if own and not str(data).endswith(".npz"):
            raise UserError(f"{self.path} was trained on {own}; name this file with --data")
        dataset = datasets.load(name, data, unofficial, **self.hp.data_options)
        files = [dataclasses.asdict(file) for file in dataset.files]
        if not same_data(self.record, {"data": files, "official_data": dataset.official}):
            raise UserError(
                f"the {name} files are not those that {self.path} was trained on; name their "
                f"{'file' if own else 'folder'} with --data"
            )
        return dataset


def _description(array):
    return f"{array.dtype} {array.shape}"
