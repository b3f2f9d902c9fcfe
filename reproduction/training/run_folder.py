"""The folder of a run: run.json, epochs.csv, checkpoint, trained model and what the figures need of
it.

Files appear whole or not at all, so that a crash, a kill or a full disk never leaves a broken one.
"""

import csv
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from original_stack.errors import Lock, UserError, reading, write_atomically, writing

import numpy as np

from reproduction.arrays import load_npz, npz
from reproduction.training.progress import Progress
from reproduction.training.records import Row, check, read_run, same_data

FILES = (
    "checkpoint.npz",
    "run.json",
    "epochs.csv",
    "model.npz",
    "first_layer.npz",
    "evaluation.json",
    "deployed.npz",
)
# All else of the configuration makes a run this run. The preprocessing follows from the
# hyperparameters; its description may be reworded, and the published error corrected.
DESCRIPTIVE = ("published_error", "official_data", "preprocessing")
AGAIN = "start the run again with --restart"
UNITS_KEPT = 64  # of the first layer, for the figures
COLUMNS = list(Row.__annotations__)  # of epochs.csv


class RunFolder:
    """The folder of a run, results/<dataset>/<protocol>-<method>/seed-<seed>, held by one process.

    Parameters
    ----------
    path : path
    configuration : dict
        The part of run.json that does not change. All of it but DESCRIPTIVE is the run's identity,
        which an existing run must have.
    resume, restart : bool
        Fail if there is nothing to resume; discard the existing run.

    Attributes
    ----------
    run : dict or None
        What run.json holds.

    Raises
    ------
    UserError
        If another process holds the folder, if it cannot be written, or if it holds a run of
        another identity or a damaged record and `restart` is false.
    """

    def __init__(self, path, configuration, resume=False, restart=False):
        self.path, self.configuration = Path(path), configuration
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = Lock(self.path)
            except BlockingIOError:
                raise UserError(
                    f"{self.path} is in use by another process; wait for it or choose another "
                    "--results"
                ) from None
        try:
            self._discard([path.name for path in self.path.glob(".*.part")])  # of a killed process
            if restart:
                self._discard(FILES)
            self.run = self._existing()
            if resume and not self.run:
                raise UserError(f"--resume: no run to continue in {self.path}; leave --resume out")
            if self.run and self.run["finished"]:
                self._discard(["checkpoint.npz"])  # of a process killed within `finish`
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lock.release()

    def write(self, run, rows):
        """Write run.json (`configuration` and `run`) and epochs.csv (`rows`: dicts of COLUMNS)."""
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.run = {**self.configuration, **run}
        text = json.dumps(self.run, indent=2, allow_nan=False) + "\n"
        self._put("epochs.csv", table.getvalue().encode())
        self._put("run.json", text.encode())

    def save_checkpoint(self, progress, snapshot):
        """Keep a `Progress` and a `Snapshot` to continue from."""
        description = json.dumps([self.configuration, dataclasses.asdict(progress)])
        self._put("checkpoint.npz", npz(progress=description, **snapshot.arrays()))

    def load_checkpoint(self, snapshot):
        """The `Progress` that was kept, or None where nothing is; its arrays go to `snapshot`.

        Parameters
        ----------
        snapshot : Snapshot
            Of the same network.

        Raises
        ------
        UserError
            If the checkpoint is damaged, of another identity or of another version.
        """
        path = self.path / "checkpoint.npz"
        try:
            arrays = load_npz(path, AGAIN)
        except FileNotFoundError:
            return None
        with reading(path, AGAIN):
            configuration, progress = json.loads(str(arrays.pop("progress")))
            check([configuration, progress], list[dict[str, Any]])
            check(configuration.get("hyperparameters"), dict[str, Any])
        self._compare(configuration)
        names = {field.name for field in dataclasses.fields(Progress)}
        if progress.keys() != names or not snapshot.fits(arrays):
            raise UserError(f"{path} is of another version of this program; {AGAIN}")
        with reading(path, AGAIN):
            check(progress, Progress)
            if progress["epoch"] > self.configuration["epochs"]:
                raise ValueError(f"epoch {progress['epoch']} of {self.configuration['epochs']}")
        snapshot.restore(arrays)
        return Progress(**progress)

    def finish(self, run, rows, model):
        """Write the model ({name: array}, the first layer's weights the first), what the figures
        need of it (see `first_layer`) and the final record, and remove the checkpoint."""
        content = npz(**model)
        self._put("model.npz", content)
        self._put("first_layer.npz", npz(**first_layer(next(iter(model.values())))))
        self.write({**run, "model_sha256": hashlib.sha256(content).hexdigest()}, rows)
        self._discard(["checkpoint.npz"])

    def _put(self, name, content):
        with self._writing():
            write_atomically(self.path / name, content)

    def _existing(self):
        """What run.json holds, or None where no run is."""
        path = self.path / "run.json"
        try:
            run = read_run(path, AGAIN)
        except FileNotFoundError:
            # A run stopped before its first run.json leaves epochs.csv.
            if {path.name for path in self.path.glob("[!.]*")} - {"epochs.csv"}:
                raise UserError(
                    f"{self.path} holds files but no run.json; choose another --results or discard "
                    "them with --restart"
                ) from None
            return None
        self._compare(run)
        saved = (self.path / "checkpoint.npz").exists()
        if not run["finished"] and run["epochs_done"] and not saved:
            raise UserError(
                f"{self.path} holds a run without the checkpoint to continue it (only its record "
                f"was kept); {AGAIN} or choose another --results"
            )
        return run

    def _compare(self, run):
        """Raise a UserError unless a record has the identity of this run, as far as it has one:
        early records lack some keys."""
        ours, theirs = _identity(self.configuration), _identity(run)
        if same_data(run, self.configuration):
            theirs.pop("data", None)
        for name, value in ours.items():
            if theirs.get(name, value) != value:
                raise UserError(
                    f"{self.path} holds a run with {name} {_shortened(theirs[name])}, this one has "
                    f"{_shortened(value)}; use the same options, another --results, or discard it "
                    "with --restart"
                )

    def _discard(self, names):
        with self._writing():
            for name in names:
                (self.path / name).unlink(missing_ok=True)

    def _writing(self):
        return writing(
            self.path,
            "make room or choose another --results, then the same command resumes from the last "
            "checkpoint",
        )


def first_layer(W):
    """What the figures need of a model: small enough for git, which model.npz is not.

    Parameters
    ----------
    W : float array of shape (inputs, units) or (filters, channels, rows, columns)
        The latent weights of the first layer.

    Returns
    -------
    dict
        `shape` of W; `counts`, a histogram of all of W over 101 equal bins from -max|W| to max|W|,
        and their `edges`; `weights`, those of the first 64 units or filters, float16.
    """
    largest = np.abs(W).max() or 1.0
    counts, edges = np.histogram(W, bins=101, range=(-largest, largest))
    kept = W[:, :UNITS_KEPT] if W.ndim == 2 else W[:UNITS_KEPT]
    return {
        "shape": np.array(W.shape),
        "counts": counts,
        "edges": edges.astype(np.float32),
        "weights": kept.astype(np.float16),
    }


def _identity(run):
    identity = {**run.get("hyperparameters", {}), **run}
    return {k: v for k, v in identity.items() if k not in ("hyperparameters", *DESCRIPTIVE)}


def _shortened(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
