"""One run: training, model selection by the validation error, checkpoints, record.

The data set and the network come from outside; see mnist.py for a page that brings them together.
"""

import dataclasses
import datetime
import json
import math
import signal
import sys
import time
from collections import OrderedDict

import original_stack
from original_stack import command_line
from original_stack.command_line import Parser, Stopped, integer_between
from original_stack.errors import UserError

import lasagne
import numpy as np
import theano
import theano.tensor as T
from tqdm import tqdm

import batch_norm
import binary_connect
import fused
from reproduction import datasets
from reproduction.training import run_folder as record
from shift_based import shift_adamax

ENSEMBLE_SIZE = 16  # networks drawn for test_weights="ensemble"
CHECKPOINT_INTERVAL = 60  # seconds
TARGETS = 2 * np.eye(10, dtype=np.float32) - 1
OPTIMIZERS = {
    "sgd": lasagne.updates.sgd,
    "nesterov": lasagne.updates.nesterov_momentum,  # momentum 0.9
    "adam": lasagne.updates.adam,
    "shift-based adamax": shift_adamax,
}


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """One row of a published table: how its network is trained.

    Scripts derive from it for what their networks need besides.
    """

    protocol: str
    method: str  # none, deterministic, stochastic, dropout or bnn
    epochs: int
    batch_size: int
    optimizer: str  # a key of OPTIMIZERS
    LR_start: float  # learning rate of the first epoch ...
    LR_fin: float  # ... and what it decays to, by one factor per epoch or in LR_stages
    H: float | str  # magnitude of the binary weights
    W_LR_scale: float | str  # factor of the updates of binary weights, see binary_connect
    hinge: str = "mean"  # squared hinge loss: its mean or its sum over the classes
    evaluate_every: int = 1  # epochs; training images are shuffled as often
    LR_stages: int | None = None  # as many equally long stretches of one learning rate each
    shift_based: bool = False  # method bnn as in the Torch7 experiments

    @property
    def choices(self):
        """{option: value} by which the command line chooses this row among those of its script."""
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
        return self.method in ("deterministic", "stochastic", "bnn")

    @property
    def stochastic(self):
        return self.method == "stochastic"

    @property
    def kinds_of_weights(self):
        """Those of binary_connect.TEST_WEIGHTS that a trained network has."""
        if self.method == "bnn":  # its activations are binary as well
            return ("binary",)
        return binary_connect.TEST_WEIGHTS if self.binary else ("real",)

    @property
    def default_test_weights(self):
        """The papers' choice (BinaryConnect, section 2.6): binary for deterministic weights, else
        real."""
        return "binary" if self.method in ("deterministic", "bnn") else "real"


def learning_rate(h, epoch):
    """Learning rate of an epoch (the first is 1)."""
    share = (epoch - 1) / h.epochs
    if h.LR_stages:
        share = (epoch - 1) * h.LR_stages // h.epochs / (h.LR_stages - 1)
    return h.LR_start * (h.LR_fin / h.LR_start) ** share


def updates_of(loss, network, h, LR):
    """What a training step does: the optimizer on the binary weights, by their own rule, and on the
    other parameters, with optimizer states apart."""
    optimize = OPTIMIZERS[h.optimizer]
    updates = OrderedDict()
    weights = lasagne.layers.get_all_params(network, binary=True)
    if weights:
        grads = binary_connect.compute_grads(loss, network)
        updates = binary_connect.clipping_scaling(optimize(grads, weights, LR), network)
    others = lasagne.layers.get_all_params(network, trainable=True)
    updates.update(optimize(theano.grad(loss, others), others, LR))
    return updates


class Model:
    """A network with its compiled functions and all that training changes.

    Parameters
    ----------
    network : Layer
        The output layer.
    h : Hyperparameters
    test_weights : "binary", "real" or "ensemble"
    """

    def __init__(self, network, h, test_weights):
        self.h, self.network, self.test_weights = h, network, test_weights
        self.draws = ENSEMBLE_SIZE if test_weights == "ensemble" else 1
        X, Y = T.tensor4("X"), T.matrix("Y")
        LR, count = T.scalar("LR"), T.scalar("count")
        hinge = T.sqr(T.maximum(0.0, 1.0 - Y * lasagne.layers.get_output(network, X)))
        loss = hinge.mean() if h.hinge == "mean" else hinge.sum(axis=1).mean()
        at_test = {"inputs": X, "deterministic": True, "test_weights": test_weights}
        self.train_step = theano.function(
            [X, Y, LR], loss, updates=updates_of(loss, network, h, LR)
        )
        self.outputs = theano.function([X], lasagne.layers.get_output(network, **at_test))
        functions = [self.train_step, self.outputs]
        self.accumulate = None
        if batch_norm.cumulative_statistics(network, count, inputs=X):
            self.accumulate = [
                theano.function(
                    [X, count],
                    updates=batch_norm.cumulative_statistics(
                        network, count, batch_norm_use_averages=averages, **at_test
                    ),
                )
                for averages in (False, True)
            ]
            functions += self.accumulate
        self.parameters = lasagne.layers.get_all_params(network)
        shared = self.parameters + [v for f in functions for v in f.get_shared()]
        storages = {id(variable.container): variable for variable in reversed(shared)}
        self.shared = list(reversed(storages.values()))

    def state(self):
        """{name: array}, a copy of everything that training changes."""
        return {f"state{i:03d}": v.get_value() for i, v in enumerate(self.shared)}

    def set_state(self, arrays):
        for i, variable in enumerate(self.shared):
            variable.set_value(arrays[f"state{i:03d}"])

    def parameter_values(self):
        """{name: array}, a copy of the network's parameters in the order of its layers."""
        return {f"{i:03d}_{p.name}": p.get_value() for i, p in enumerate(self.parameters)}

    def recompute_statistics(self, *subsets):
        """Batch-norm statistics of the published MNIST code, made anew from `subsets`: for each a
        batch normalized by its own statistics, then all batches by those so far."""
        if self.accumulate is None:
            return
        first, following = self.accumulate
        count = 0
        for subset in subsets:
            batches = _batches(len(subset.y), self.h.batch_size)
            for function, batch in [(first, batches[0])] + [(following, b) for b in batches]:
                count += 1
                function(subset.X[batch], count)

    def renew_statistics(self, subset):
        """Running batch-norm statistics that training left, of drawn weights, replaced by those of
        the test weights: the mean over the full batches of `subset`, each normalized by its own.

        Returns
        -------
        bool
            Whether there are such; statistics of other networks stay as they are.
        """
        if self.accumulate is not None or not self.h.stochastic:
            return False
        X, count = T.tensor4("X"), T.scalar("count")
        output = lasagne.layers.get_output(
            self.network,
            X,
            deterministic=True,
            test_weights=self.test_weights,
            batch_norm_use_averages=False,
            batch_norm_alpha=1 / count,
        )
        forward = theano.function([X, count], output)
        full = len(subset.y) // self.h.batch_size
        for i, batch in enumerate(_batches(len(subset.y), self.h.batch_size)[:full]):
            forward(subset.X[batch], i + 1)
        return True

    def evaluate(self, subset):
        """(loss, error in percent) over all images of a subset."""
        outputs = []
        for batch in _batches(len(subset.y), max(self.h.batch_size, 200)):
            X = subset.X[batch]
            outputs.append(np.mean([self.outputs(X) for _ in range(self.draws)], axis=0))
        outputs = np.concatenate(outputs)
        hinge = np.square(np.maximum(0.0, 1.0 - TARGETS[subset.y] * outputs))
        loss = hinge.mean() if self.h.hinge == "mean" else hinge.sum(axis=1).mean()
        return float(loss), 100.0 * float(np.mean(outputs.argmax(axis=1) != subset.y))


def run(dataset, h, build_network, seed, results, test_weights=None, resume=False, restart=False):
    """One run from its configuration to its record: continues what is there, if anything.

    Parameters
    ----------
    dataset : datasets.Dataset
    h : Hyperparameters
    build_network : callable
        build_network(h) returns the output layer.
    seed : int
        Of the weights, of every random draw and of the order of the training images.
    results : path
        The run goes to <results>/<dataset>/<protocol>-<method>/seed-<seed>.
    test_weights : None, "binary", "real" or "ensemble"
        None: the paper's choice.
    resume, restart : bool
        Demand a run to continue; discard the run that is there.

    Returns
    -------
    dict
        What run.json holds.

    Raises
    ------
    UserError, Stopped
        See `train` and `record.RunFolder`; UserError if there are fewer images than a batch has.
    """
    size = len(dataset.train.y)
    if size < h.batch_size:
        raise UserError(
            f"{size} training images are fewer than a batch of {h.batch_size}, so that nothing "
            "would be trained; give more"
        )
    test_weights = test_weights or h.default_test_weights
    published = record.published(dataset.name, h.protocol, h.method)
    configuration = {
        "dataset": dataset.name,
        "protocol": h.protocol,
        "method": h.method,
        "seed": seed,
        "epochs": h.epochs,
        "test_weights": test_weights,
        "published_error": float(published["value"]) if published and published["value"] else None,
        "hyperparameters": dataclasses.asdict(h),
        "fused": fused.enabled(),
        "data": [dataclasses.asdict(file) for file in dataset.files],
        "official_data": dataset.official,
        "preprocessing": dataset.preprocessing,
        "train_images": size,
        "test_images": len(dataset.test.y),
    }
    path = f"{results}/{dataset.name}/{h.protocol}-{h.method}/seed-{seed}"
    with record.RunFolder(path, json.loads(json.dumps(configuration)), resume, restart) as folder:
        if folder.run and folder.run["finished"]:
            print(f"{path} is finished; --restart runs it again", file=sys.stderr)
            return folder.run
        lasagne.random.set_rng(np.random.RandomState(seed))
        return train(Model(build_network(h), h, test_weights), h, dataset, seed, folder)


def train(model, h, dataset, seed, folder):
    """Train to the end, from the folder's checkpoint if there is one.

    Parameters
    ----------
    model : Model
    h : Hyperparameters
    dataset : datasets.Dataset
    seed : int
        Of the order of the training images (weights are drawn before, by the caller).
    folder : record.RunFolder

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
    started = time.time()
    state = model.state()
    best = model.parameter_values()
    progress = {
        "epoch": 0,
        "rows": [],
        "best": {"best_epoch": None, "valid_error": None, "test_error": None},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "surroundings": record.surroundings(),
        "earlier": [],  # others, in which the run was until it was continued in these
    }
    checkpoint = folder.load_checkpoint(progress, {**state, **_prefixed(best)})
    if checkpoint:
        now = progress["surroundings"]
        progress, arrays = checkpoint
        then, epoch, earlier = (progress[name] for name in ("surroundings", "epoch", "earlier"))
        if then != now and epoch > (earlier[-1]["until_epoch"] if earlier else 0):
            earlier.append({"until_epoch": epoch, **then})
        progress["surroundings"] = now
        model.set_state(arrays)
        state = {k: arrays[k] for k in state}
        best = {k: arrays[f"best_{k}"] for k in best}
    before = progress["seconds"]
    first_epoch = progress["epoch"] + 1

    def run(**more):
        return {
            "epochs_done": progress["epoch"],
            "finished": False,
            **progress["best"],
            "started": progress["started"],
            "seconds": round(progress["seconds"], 1),
            **progress["surroundings"],
            "earlier": progress["earlier"],
            **more,
        }

    def save():
        folder.save_checkpoint(progress, {**state, **_prefixed(best)})

    folder.write(run(), progress["rows"])
    saved = -math.inf  # the first epoch is always kept, so that a record never lacks a checkpoint
    size = len(dataset.train.y)
    steps = size // h.batch_size
    bar = tqdm(
        total=h.epochs * steps,
        initial=progress["epoch"] * steps,
        unit="batch",
        disable=None,  # on a terminal only: a log has the lines
        dynamic_ncols=True,
    )
    with bar, _Signals() as signals:
        for epoch in range(first_epoch, h.epochs + 1):
            LR = np.float32(learning_rate(h, epoch))
            shuffles = (epoch - 1) // h.evaluate_every
            order = np.random.RandomState([seed, shuffles]).permutation(size)
            losses = np.zeros(steps)
            for step, batch in enumerate(_batches(size, h.batch_size)[:steps]):
                images = order[batch]
                y = dataset.train.y[images]
                losses[step] = model.train_step(dataset.train.X[images], TARGETS[y], LR)
                bar.update()
                if not math.isfinite(losses[step]):
                    line = f"the loss is {losses[step]} in epoch {epoch} at learning rate {LR:.3g}"
                    folder.write(run(stopped=line), progress["rows"])
                    raise UserError(f"{line}; lower the learning rate")
                if signals.received:
                    save()
                    raise _stopped(signals.received, epoch - 1)
            row = dict.fromkeys(record.COLUMNS)
            row.update(epoch=epoch, learning_rate=float(LR), train_loss=float(losses.mean()))
            evaluated = epoch % h.evaluate_every == 0 or epoch == h.epochs
            if evaluated:
                model.recompute_statistics(dataset.train, dataset.valid)
                row["valid_loss"], row["valid_error"] = model.evaluate(dataset.valid)
                # A tie goes to the later epoch.
                if best_so_far(progress["rows"]) >= row["valid_error"]:
                    best = model.parameter_values()
                    progress["best"] = {
                        "best_epoch": epoch,
                        "valid_error": row["valid_error"],
                        "test_error": model.evaluate(dataset.test)[1],
                    }
            progress["seconds"] = before + time.time() - started
            row["seconds"] = round(progress["seconds"], 1)
            if evaluated:
                progress["rows"].append(row)
            progress["epoch"] = epoch
            state = model.state()
            left = (time.time() - started) / (epoch - first_epoch + 1) * (h.epochs - epoch)
            bar.write(_line(row, h.epochs, progress["best"], left))
            sys.stdout.flush()
            if time.monotonic() - saved >= CHECKPOINT_INTERVAL or signals.received:
                save()
                saved = time.monotonic()
            folder.write(run(), progress["rows"])
            if signals.received and epoch < h.epochs:
                raise _stopped(signals.received, epoch)
        folder.finish(run(finished=True), progress["rows"], best)
    return folder.run


def best_so_far(rows):
    """The lowest validation error of `rows`, in percent; infinity where there is none."""
    return min((row["valid_error"] for row in rows), default=math.inf)


def _stopped(signum, epoch):
    return Stopped(f"stopped after epoch {epoch}; the same command goes on from there", signum)


class _Signals:
    """Notes SIGTERM and SIGINT, so that the run can end where nothing is lost."""

    received = None

    def __enter__(self):
        self._old = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, signum, frame):
        self.received = signum

    def __exit__(self, *_):
        for signum, handler in self._old.items():
            signal.signal(signum, handler)


def _batches(size, batch_size):
    return [slice(start, start + batch_size) for start in range(0, size, batch_size)]


def _prefixed(arrays):
    return {f"best_{name}": array for name, array in arrays.items()}


def _line(row, epochs, best, left):
    line = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  train loss {row['train_loss']:.5f}"
    if row["valid_error"] is not None:
        line += (
            f"  valid loss {row['valid_loss']:.5f}  valid error {row['valid_error']:.2f}%"
            f"  best {best['valid_error']:.2f}% (epoch {best['best_epoch']})"
        )
    left = datetime.timedelta(seconds=round(left))
    return f"{line}  rate {row['learning_rate']:.3g}  left {left}"


def summary(run):
    """The end of a run in one line: its test error beside the published one."""
    error = run["test_error"]
    line = (
        f"{run['dataset']}, {run['protocol']}, {run['method']}, seed {run['seed']}: test error "
        f"{error:.2f}% with {run['test_weights']} weights at epoch {run['best_epoch']} of "
        f"{run['epochs']} (validation error {run['valid_error']:.2f}%)"
    )
    if not run["official_data"]:
        files = ", ".join(file["name"] for file in run["data"] if not file["official"])
        return f"{line}; not comparable with a published error: unofficial data ({files})"
    if run["published_error"] is None:
        return f"{line}; no published error for this row"
    expected = run["published_error"]
    deviation = 100 * math.sqrt(expected / 100 * (1 - expected / 100) / run["test_images"])
    return (
        f"{line}; published {expected:.2f}%, difference {error - expected:+.2f}, "
        f"{(error - expected) / deviation:+.1f} standard errors of one run"
    )


def main(dataset_name, rows, build_network, argv=None):
    """The command line of a data set's script.

    Parameters
    ----------
    dataset_name : str
    rows : list of Hyperparameters
        Options choose the first that fits them (see `Hyperparameters.choices`).
    build_network : callable
        build_network(h) returns the output layer.
    argv : list of str or None

    Returns
    -------
    int
        Exit status, see `command_line.run`.
    """
    parser = Parser(prog=dataset_name, description=sys.modules["__main__"].__doc__)
    choices = {}
    for h in rows:
        for name, value in h.choices.items():
            choices.setdefault(name, []).append(value)
    for name, values in choices.items():
        parser.add_argument(_flag(name), choices=list(dict.fromkeys(values)))
    parser.add_argument("--seed", type=integer_between(0), default=1234)
    parser.add_argument(
        "--epochs", type=integer_between(1), help="compresses the learning-rate schedule to as many"
    )
    parser.add_argument("--data", metavar="DIR", help="where the data files are or are to go")
    parser.add_argument("--results", metavar="DIR", default=original_stack.RESULTS)
    parser.add_argument("--test-weights", choices=binary_connect.TEST_WEIGHTS)
    own = [f for f in dataclasses.fields(rows[0]) if "option" in f.metadata]
    for f in own:
        parser.add_argument(_flag(f.name), default=f.default, **f.metadata["option"])
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="demand a run to continue")
    again.add_argument("--restart", action="store_true", help="discard the run that is there")
    parser.add_argument("--allow-unofficial-data", action="store_true")

    def train_row(options):
        given = {name: getattr(options, name) for name in choices}
        h = _row(rows, {k: v for k, v in given.items() if v is not None}, options.test_weights)
        h = dataclasses.replace(h, **{f.name: getattr(options, f.name) for f in own})
        h = dataclasses.replace(h, epochs=options.epochs or h.epochs)
        dataset = datasets.load(
            dataset_name, options.data, options.allow_unofficial_data, **h.data_options
        )
        result = run(
            dataset,
            h,
            build_network,
            options.seed,
            options.results,
            options.test_weights,
            options.resume,
            options.restart,
        )
        print(summary(result))

    return command_line.run(parser, train_row, argv)


def _flag(name):
    return "--" + name.replace("_", "-")


def _row(rows, given, test_weights):
    """The first row with the choices that were given."""
    h = next((h for h in rows if given.items() <= h.choices.items()), None)
    if h is None:
        options = " ".join(f"{_flag(name)} {value}" for name, value in given.items())
        raise UserError(f"no row of the published tables is {options}; leave one of them out")
    if test_weights not in (None, *h.kinds_of_weights):
        raise UserError(
            f"--test-weights {test_weights} is not for method {h.method}, which has "
            f"{h.kinds_of_weights[0]} ones only; leave it out"
        )
    return h
