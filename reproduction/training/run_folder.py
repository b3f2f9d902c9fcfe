"""The folder of a run: run.json, epochs.csv, checkpoint, trained model, and its first layer for the
figures.

Files are written atomically, so that a crash, a kill or a full disk never leaves a broken file.
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
# These parts of the configuration may differ when a run is resumed; all others may not. The
# preprocessing follows from the hyperparameters, so its description may be reworded, and the
# published error may be corrected.
DESCRIPTIVE = ("published_error", "official_data", "preprocessing")
AGAIN = "start the run again with --restart"
CHECKPOINT_INTERVAL = 60  # seconds between two checkpoints, at least
UNITS_KEPT = 64  # units of the first layer whose weights are kept for the figures
COLUMNS = list(Row.__annotations__)  # of epochs.csv


class RunFolder:
    """The folder of a run, results/<dataset>/<protocol>-<method>/seed-<seed>, held by one process.

    Parameters
    ----------
    path : path
    configuration : dict
        The part of run.json that does not change. All of it but DESCRIPTIVE is the identity of the
        run; an existing run must have the same identity.
    resume, restart : bool
        Fail if there is nothing to resume; discard the existing run.

    Attributes
    ----------
    run : dict or None
        The content of run.json.

    Raises
    ------
    UserError
        If another process holds the folder, or the folder cannot be written. If `restart` is false,
        also if the folder has a run of another identity or a damaged record.
    """

    def __init__(self, path, configuration, resume=False, restart=False):
        self.path, self.configuration = Path(path), configuration
        with self._writing():
            if resume and not (self.path / "run.json").exists():
                raise UserError(f"--resume: no run to continue in {self.path}; leave --resume out")
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = Lock(self.path)
            except BlockingIOError:
                raise UserError(
                    f"{self.path} is in use by another process; wait for it or choose another "
                    "--results"
                ) from None
        try:
            # A killed process leaves unfinished files.
            self._discard([path.name for path in self.path.glob(".*.part")])
            if restart:
                self._discard(FILES)
            self.run = self._existing_run()
            if self.run and self.run["finished"]:
                self._discard(["checkpoint.npz"])  # left by a process that was killed in `finish`
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
        self._write_file("epochs.csv", table.getvalue().encode())
        self._write_file("run.json", text.encode())

    def save_checkpoint(self, progress, snapshot):
        """Save a `Progress` and a `Snapshot`, from which the run can be resumed."""
        description = json.dumps([self.configuration, dataclasses.asdict(progress)])
        self._write_file("checkpoint.npz", npz(progress=description, **snapshot.arrays()))

    def load_checkpoint(self, snapshot):
        """The saved `Progress`, or None if there is no checkpoint.

        Parameters
        ----------
        snapshot : Snapshot
            Of the same network. Receives the arrays of the checkpoint.

        Raises
        ------
        UserError
            If the checkpoint is damaged, of a run of another identity, or of another version of
            this program.
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
        """Write the model, `first_layer` and the final record, and remove the checkpoint.

        Parameters
        ----------
        run, rows
            As in `write`.
        model : dict
            {name: array}. The first array holds the weights of the first layer.
        """
        content = npz(**model)
        self._write_file("model.npz", content)
        self._write_file("first_layer.npz", npz(**first_layer(next(iter(model.values())))))
        self.write({**run, "model_sha256": hashlib.sha256(content).hexdigest()}, rows)
        self._discard(["checkpoint.npz"])

    def _write_file(self, name, content):
        with self._writing():
            write_atomically(self.path / name, content)

    def _existing_run(self):
        """The content of run.json, or None if the folder has no run."""
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
        """Raise a UserError if a record has another identity than this run. Keys that the record
        lacks, as early records do, are not compared."""
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
    """What the figures need of a model. Unlike model.npz, it is small enough for git.

    Parameters
    ----------
    W : float array of shape (inputs, units) or (filters, channels, rows, columns)
        The latent weights of the first layer.

    Returns
    -------
    dict
        `shape`: the shape of W. `counts`: the histogram of W over 101 equal bins from -max|W| to
        max|W|. `edges`: the edges of the bins. `weights`: the weights of the first 64 units or
        filters, as float16.
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
