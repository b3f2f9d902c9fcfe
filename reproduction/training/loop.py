"""One run: training, model selection by the validation error, checkpoints and the record.

The caller gives the data set and the network; mnist.py is an example.
"""

import dataclasses
import datetime
import json
import math
import sys
import time

from original_stack.command_line import Stopped, noted_signals
from original_stack.errors import UserError

import lasagne
import numpy as np
from tqdm import tqdm

import fused
from reproduction.published import published
from reproduction.training.environment import environment, now
from reproduction.training.model import Model
from reproduction.training.progress import Progress, Snapshot
from reproduction.training.run_folder import CHECKPOINT_INTERVAL, COLUMNS, RunFolder

STOPPED = "stopped after epoch {}; the same command resumes from there"


def run(dataset, hp, build_network, seed, results, test_weights=None, resume=False, restart=False):
    """Train one row and keep its record. An unfinished run is resumed.

    Parameters
    ----------
    dataset : datasets.Dataset
    hp : Hyperparameters
    build_network : callable
        build_network(hp) returns the output layer.
    seed : int
        Determines the initial weights, all random numbers and the order of the training images.
    results : path
        The folder of the run is <results>/<dataset's title>/<protocol>-<method>/seed-<seed>.
    test_weights : None, "binary", "real" or "ensemble"
        None means the choice of the paper.
    resume, restart : bool
        Fail if there is nothing to resume; discard the existing run.

    Returns
    -------
    dict
        What run.json holds.

    Raises
    ------
    UserError, Stopped
        See `train` and `RunFolder`. UserError also if the training images do not fill a batch.
    """
    size = len(dataset.train.y)
    if size < hp.batch_size:
        raise UserError(
            f"{size} training images do not fill a batch of {hp.batch_size}, so nothing would be "
            "trained; give more"
        )
    hp = dataclasses.replace(hp, classes=dataset.classes)
    test_weights = test_weights or hp.default_test_weights
    row = published(dataset.name, hp.protocol, hp.method)
    configuration = {
        "dataset": dataset.name,
        "protocol": hp.protocol,
        "method": hp.method,
        "seed": seed,
        "epochs": hp.epochs,
        "test_weights": test_weights,
        "published_error": float(row["value"]) if row and row["value"] else None,
        "hyperparameters": dataclasses.asdict(hp),
        "fused": fused.enabled(),
        "data": [dataclasses.asdict(file) for file in dataset.files],
        "official_data": dataset.official,
        "preprocessing": dataset.preprocessing,
        "train_images": size,
        "test_images": len(dataset.test.y),
    }
    path = f"{results}/{dataset.title}/{hp.protocol}-{hp.method}/seed-{seed}"
    with RunFolder(path, json.loads(json.dumps(configuration)), resume, restart) as folder:
        if folder.run and folder.run["finished"]:
            print(f"{path} is finished; --restart runs it again", file=sys.stderr)
            return folder.run
        lasagne.random.set_rng(np.random.RandomState(seed))
        return train(Model(build_network(hp), hp, test_weights), hp, dataset, seed, folder)


def train(model, hp, dataset, seed, folder):
    """Train to the end, from the folder's checkpoint if there is one.

    Parameters
    ----------
    model : Model
    hp : Hyperparameters
    dataset : datasets.Dataset
    seed : int
        Determines the order of the training images. The caller has initialized the weights.
    folder : RunFolder

    Returns
    -------
    dict
        What run.json holds.

    Raises
    ------
    UserError
        If the loss is not finite, or the folder cannot be written.
    Stopped
        After SIGTERM or SIGINT, with the last whole epoch saved.
    """
    size = len(dataset.train.y)
    progress, snapshot = _begin(model, folder)
    with noted_signals() as received:
        folder.write(progress.record(), progress.rows)
        started, saved = time.monotonic() - progress.seconds, -math.inf
        with _bar(hp, size, progress.epoch) as bar:
            for epoch in range(progress.epoch + 1, hp.epochs + 1):
                LR = np.float32(hp.learning_rate(epoch))
                shuffle = np.random.RandomState([seed, (epoch - 1) // hp.evaluate_every])
                losses = _train_epoch(model, dataset.train, shuffle, LR, bar, received)
                _require_finite("loss", losses[-1], epoch, LR, progress, folder)
                if len(losses) == hp.steps(size):  # otherwise a signal was received
                    row = {**dict.fromkeys(COLUMNS), "epoch": epoch, "learning_rate": float(LR)}
                    row["train_loss"] = float(np.mean(losses))
                    if epoch % hp.evaluate_every == 0 or epoch == hp.epochs:
                        model.recompute_statistics(dataset.train, dataset.valid)
                        loss, row["valid_error"] = model.evaluate(dataset.valid)
                        _require_finite("validation loss", loss, epoch, LR, progress, folder)
                        row["valid_loss"] = loss
                        if progress.is_best(row["valid_error"]):
                            progress.select(row, test_error=model.evaluate(dataset.test)[1])
                            snapshot.best = model.parameter_values()
                    progress.note(row, time.monotonic() - started)
                    snapshot.state = model.state()
                    bar.write(_describe(row, progress, hp.epochs))
                    sys.stdout.flush()
                # The first epoch is always saved, so that a record never lacks its checkpoint.
                if received or time.monotonic() - saved >= CHECKPOINT_INTERVAL:
                    folder.save_checkpoint(progress, snapshot)
                    saved = time.monotonic()
                folder.write(progress.record(), progress.rows)
                if received and progress.epoch < hp.epochs:
                    raise Stopped(STOPPED.format(progress.epoch), received[-1])
        folder.finish(progress.record(finished=True, ended=now()), progress.rows, snapshot.best)
    return folder.run


def _begin(model, folder):
    """Progress and snapshot of a run, from its checkpoint if there is one. All functions of the
    model are compiled."""
    here = {**environment(), "kernels": model.kernels}
    snapshot = Snapshot(model.state(), model.parameter_values())
    progress = folder.load_checkpoint(snapshot) or Progress(now(), here)
    progress.move_to(here)
    model.set_state(snapshot.state)
    return progress, snapshot


def _train_epoch(model, split, shuffle, LR, bar, received):
    """Train on the full batches of a split in a random order.

    Returns
    -------
    list of float
        The loss of each step. The last step is the first one whose loss is not finite or during
        which a signal was received, if there is such a step.
    """
    steps = model.hp.steps(len(split.y))
    order = shuffle.permutation(len(split.y))[: steps * model.hp.batch_size]
    losses = []
    for images in order.reshape(steps, model.hp.batch_size):
        loss = model.train_step(split.X[images], model.targets[split.y[images]], LR)
        losses.append(float(loss))
        bar.update()
        if received or not math.isfinite(loss):
            break
    return losses


def _require_finite(name, loss, epoch, LR, progress, folder):
    """If a loss is not finite, end the run and say so in its record."""
    if not math.isfinite(loss):
        reason = f"the {name} is {loss} in epoch {epoch} at learning rate {LR:.3g}"
        folder.write(progress.record(stopped=reason, ended=now()), progress.rows)
        raise UserError(f"{reason}; lower the learning rate")


def _bar(hp, size, epoch):
    """The progress bar, after `epoch` epochs."""
    return tqdm(
        total=hp.epochs * hp.steps(size),
        initial=epoch * hp.steps(size),
        unit="batch",
        disable=None,  # shown on a terminal only; a log has the lines of `_describe`
        dynamic_ncols=True,
    )


def _describe(row, progress, epochs):
    """The line that is printed after an epoch."""
    line = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  train loss {row['train_loss']:.5f}"
    if row["valid_error"] is not None:
        best = progress.best
        line += (
            f"  valid loss {row['valid_loss']:.5f}  valid error {row['valid_error']:.2f}%"
            f"  best {best['valid_error']:.2f}% (epoch {best['best_epoch']})"
        )
    left = progress.seconds / progress.epoch * (epochs - progress.epoch)
    left = datetime.timedelta(seconds=round(left))
    return f"{line}  rate {row['learning_rate']:.3g}  left {left}"
