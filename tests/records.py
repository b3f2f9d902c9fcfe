"""Write the records of finished runs, for tests."""

import csv
import dataclasses
import json

import numpy as np

from reproduction.experiments import ROWS

FILES = [{"name": "train-images", "md5": "0" * 32, "official": True}]
UNOFFICIAL = {"official_data": False, "data": [{**FILES[0], "official": False}]}
RECORD = {
    "dataset": "mnist",
    "protocol": "paper",
    "method": "stochastic",
    "seed": 1,
    "epochs": 1000,
    "epochs_done": 1000,
    "best_epoch": 4,
    "finished": True,
    "test_weights": "real",
    "test_error": 1.2,
    "valid_error": 1.1,
    "test_images": 10000,
    "official_data": True,
    "data": FILES,
    "seconds": 7200.0,
    "hyperparameters": {},
    "started": "2026-11-20T10:00:00+00:00",
    "cpu": "A processor",
    "threads": 2,
    "versions": {"theano": "1.0.5"},
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
}


def record(hyperparameters=None, **changes):
    """The content of run.json for a run of a published row, with changes."""
    run = {**RECORD, **changes}
    row = ROWS[run["dataset"], run["protocol"], run["method"]]
    ours = {**dataclasses.asdict(row), "epochs": run["epochs"], **(hyperparameters or {})}
    return {**run, "hyperparameters": ours}


def first_layer(seed=1):
    """The content of first_layer.npz for 784 inputs and 70 units."""
    W = np.random.RandomState(seed).uniform(-0.03, 0.03, (784, 70))
    counts, edges = np.histogram(W, 101, (-abs(W).max(), abs(W).max()))
    weights = W[:, :64].astype(np.float16)
    return {
        "shape": np.array(W.shape),
        "counts": counts,
        "edges": edges.astype(np.float32),
        "weights": weights,
    }


def add_run(results, name=None, hyperparameters=None, **changes):
    """Write the files of a finished run.

    Returns
    -------
    Path
        Its folder: <results>/<name>, or where training puts such a run.
    """
    content = record(hyperparameters, **changes)
    folder = results / (name or "{dataset}/{protocol}-{method}/seed-{seed}".format(**content))
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(content))
    with open(folder / "epochs.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(
            ["epoch", "learning_rate", "train_loss", "valid_loss", "valid_error", "seconds"]
        )
        writer.writerows([epoch, 0.3, 1 / epoch, 0.5, 5 / epoch, 10 * epoch] for epoch in (2, 4, 6))
    np.savez(folder / "first_layer.npz", **first_layer(content["seed"]))
    return folder
