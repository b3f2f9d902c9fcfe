"""Read the runs below a folder of results, and list in what each departs from its published row.

No file is trusted. A file that cannot be used is left out with a note, and the others count.
"""

import csv
import dataclasses
import io
import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from original_stack.errors import DAMAGE, UserError, open_regular, reading

import numpy as np

from reproduction.arrays import load_npz
from reproduction.published import published
from reproduction.report.markdown import text
from reproduction.training.records import read_evaluation, read_run

LARGEST = 64 * 2**20  # bytes of a file of a run, including first_layer.npz
REMEDY = "restore it or run it again"
# Hyperparameters that early records lack, and the values that these runs had.
BEFORE = {"LR_stages": None, "shift_based": False, "classes": 10}
UNOFFICIAL = "unofficial data"  # the departure of a run whose files are not the official ones
NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,63}", re.ASCII)
PHRASES = {  # wording of some departures, which come first
    "width": "width {}",
    "train_size": "the first {} training images",
    "epochs": "{} epochs instead of {}",
}


@dataclass
class Run:
    """A finished run.

    Attributes
    ----------
    name : str
        The folder of the run, relative to the folder of the results.
    record : dict
        The content of run.json.
    departures : tuple of str
        The differences from the published setting. Without any, the run is comparable with the
        published error.
    epochs : list of dict
        The rows of epochs.csv as numbers; empty if the file is missing or damaged.
    first_layer : dict or None
        The content of first_layer.npz.
    evaluation : dict or None
        The content of evaluation.json.
    """

    name: str
    record: dict
    departures: tuple
    epochs: list = field(default_factory=list)
    first_layer: dict | None = None
    evaluation: dict | None = None

    def __getitem__(self, key):
        return self.record[key]

    @property
    def row(self):
        return self["dataset"], self["protocol"], self["method"]

    @property
    def only_data_departs(self):
        """Whether the run departs from the published setting only by unofficial data."""
        return len(self.departures) == 1 and self.departures[0].startswith(UNOFFICIAL)

    @property
    def environments(self):
        """The environments of the run in order, as dicts of versions, processor and threads."""
        return [*self.record.get("earlier", ()), self.record]


def read_runs(results, rows, tuning=False):
    """All finished runs below a folder.

    Parameters
    ----------
    results : path
    rows : dict
        {(data set, protocol, method): Hyperparameters} of all rows.
    tuning : bool
        Read the runs of results/tuning, which chose hyperparameters, instead of all others.

    Returns
    -------
    runs : list of Run
    notes : list of str
        A sentence on each run, and on each file of a run, that is left out.

    Raises
    ------
    UserError
        If the folder cannot be read.
    """
    results = Path(results)
    runs, notes, seen = [], [], {}
    errors = []
    walk = os.walk(results, onerror=errors.append)
    folders = [Path(folder) for folder, _, files in walk if {"run.json", "epochs.csv"} & {*files}]
    denied = {Path(error.filename): error.strerror for error in errors}
    if results in denied:
        raise UserError(f"cannot read {results}: {denied[results]}; make it readable")
    for folder in sorted([*folders, *denied]):
        name = folder.relative_to(results).as_posix()
        if name.startswith("tuning/") != tuning:
            continue
        shown = f"`{text(name)}`"
        if folder in denied:
            notes.append(f"{shown} is left out: cannot read it: {denied[folder]}; make it readable")
            continue
        try:
            record = _read_record(folder / "run.json")
        except FileNotFoundError:
            notes.append(f"{shown} is left out: it has no run.json")
            continue
        except UserError as error:
            notes.append(f"{shown} is left out: {_reason(error, folder)}")
            continue
        if not record["finished"]:
            reason = f" ({text(record['stopped'])})" if "stopped" in record else ""
            notes.append(
                f"{shown} is left out: unfinished, {record['epochs_done']:,} of "
                f"{record['epochs']:,} epochs{reason}"
            )
            continue
        keys = ("dataset", "protocol", "method", "seed", "test_weights", "hyperparameters", "data")
        identity = json.dumps([record[key] for key in keys], sort_keys=True)
        if identity in seen:
            notes.append(f"{shown} is left out: the same run as {seen[identity]}")
            continue
        seen[identity] = shown
        run = Run(name, record, ())
        run.departures = departures(record, rows.get(run.row))
        if record["seconds"] < 0:
            notes.append(f"{shown} has no time: the clock was set back while it ran")
        for attribute, file, read in (
            ("epochs", "epochs.csv", _read_epochs),
            ("first_layer", "first_layer.npz", _read_first_layer),
            ("evaluation", "evaluation.json", lambda path: read_evaluation(path, REMEDY)),
        ):
            try:
                setattr(run, attribute, read(folder / file))
            except FileNotFoundError:
                if file != "evaluation.json" and not tuning:
                    notes.append(f"{shown} has no {file}: it is not in the figures made of it")
            except UserError as error:
                notes.append(f"{shown} counts without {file}: {_reason(error, folder)}")
        runs.append(run)
    return runs, notes


def departures(record, row):
    """The differences of a run from its published row.

    Parameters
    ----------
    record : dict
        The content of run.json.
    row : Hyperparameters or None
        All hyperparameters are compared. If the record lacks one of `BEFORE`, the value in `BEFORE`
        is taken.

    Returns
    -------
    tuple of str
    """
    differences = []
    if not record["official_data"]:
        unofficial = ", ".join(file["name"] for file in record["data"] if not file["official"])
        differences.append(f"{UNOFFICIAL} ({unofficial})")
    if published(record["dataset"], record["protocol"], record["method"]) is None:
        differences.append("no published row")
    if row is None:
        return tuple(differences)
    ours, theirs = dataclasses.asdict(row), {**BEFORE, **record["hyperparameters"]}
    named = ours.keys() | theirs.keys()
    for name in [*filter(named.__contains__, PHRASES), *sorted(named - PHRASES.keys())]:
        if name not in theirs:
            differences.append(f"{name} not recorded")
        elif name not in ours or not _equal(theirs[name], ours[name]):
            phrase = PHRASES.get(name, name + " {} instead of {}")
            differences.append(phrase.format(_shown(theirs[name]), _shown(ours.get(name))))
    if record["test_weights"] != row.default_test_weights:
        differences.append(f"{record['test_weights']} weights at test time")
    return tuple(differences)


def _equal(theirs, ours):
    if isinstance(theirs, int | float) and isinstance(ours, int | float):
        return math.isclose(theirs, ours, rel_tol=1e-9)
    return theirs == ours


def _shown(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _reason(error, folder):
    """The text of a UserError about a file of `folder`, without the folder."""
    return text(str(error).replace(f"{folder}/", ""))


def _read_record(path):
    """The content of run.json, if its names are valid in paths and its numbers of epochs agree."""
    record = read_run(path, REMEDY)
    with reading(path, REMEDY):
        hyperparameters = record["hyperparameters"]
        names = [record[key] for key in ("dataset", "protocol", "method", "test_weights")]
        for name in (*names, *hyperparameters):
            _require(NAME.fullmatch(name), f"the name {name!r}")
        epochs = hyperparameters.get("epochs")
        _require(epochs in (None, record["epochs"]), f"{record['epochs']} and {epochs} epochs")
    return record


def _read_epochs(path):
    with reading(path, REMEDY, (*DAMAGE, csv.Error)), open_regular(path) as f:
        content = f.read(LARGEST + 1)
        _require(len(content) <= LARGEST, f"more than {LARGEST:,} bytes")
        table = csv.DictReader(io.StringIO(content.decode(), newline=""))
        rows = [{key: float(v) if v else None for key, v in row.items()} for row in table]
        for row in rows:
            epoch, loss, error = (row[key] for key in ("epoch", "train_loss", "valid_error"))
            possible = 1 <= epoch < 2**32 and 0 <= loss < 1e39 and 0 <= error <= 100
            _require(possible, f"epoch {epoch:g}, loss {loss:g}, error {error:g}")
    return rows


def _read_first_layer(path):
    kept = load_npz(path, REMEDY, LARGEST)
    with reading(path, REMEDY):
        shape, counts, edges, weights = (
            kept[name] for name in ("shape", "counts", "edges", "weights")
        )
        _require(shape.dtype.kind == counts.dtype.kind == "i", "integers of another type")
        types = edges.dtype == np.float32 and weights.dtype == np.float16
        _require(types, "numbers of another type")
        _require(shape.shape in ((2,), (4,)), f"weights of {shape.size} axes")
        kept["shape"] = shape = tuple(shape.tolist())
        units = 1 if len(shape) == 2 else 0  # the axis of the units, of which the first are kept
        _require(1 <= weights.shape[units] <= shape[units], "more units than the layer has")
        _require(
            weights.shape == (*shape[:units], weights.shape[units], *shape[units + 1 :]),
            f"weights of shape {weights.shape} of {shape}",
        )
        _require(
            edges.shape == (counts.size + 1,) and 1 <= counts.size <= 1000, "another histogram"
        )
        _require(np.isfinite(weights).all() and np.isfinite(edges).all(), "not finite")
        _require((np.diff(edges) > 0).all() and (counts >= 0).all(), "another histogram")
        _require(sum(counts.tolist()) == math.prod(shape), "not a histogram of all weights")
    return kept


def _require(condition, text):
    if not condition:
        raise ValueError(text)
