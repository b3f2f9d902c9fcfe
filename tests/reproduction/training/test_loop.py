import contextlib
import csv
import dataclasses
import errno
import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time

import original_stack
from original_stack import machine
from original_stack.command_line import Stopped
from original_stack.errors import UserError

import numpy as np
import pytest
from toy import SMALL, folder_of, run, toy

import cifar10
import mnist
from reproduction.datasets.dataset import Dataset, Split
from reproduction.datasets.files import File
from reproduction.training import command_line, loop
from reproduction.training.environment import environment, process
from reproduction.training.records import FinishedRun, check
from reproduction.training.run_folder import RunFolder

RELEASED = dataclasses.replace(
    mnist.RELEASE, num_units=12, batch_size=20, epochs=3, dropout_hidden=0.5
)
THEANO = dataclasses.replace(mnist.BNN_THEANO, num_units=12, batch_size=20, epochs=3)
TORCH7 = dataclasses.replace(mnist.BNN_TORCH7, num_units=12, batch_size=20, epochs=3)


FINISHED = ["epochs.csv", "first_layer.npz", "model.npz", "run.json"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def result(folder):
    with np.load(folder / "model.npz") as model:
        arrays = {name: model[name] for name in model.files}
    with open(folder / "epochs.csv", newline="") as f:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]
    return arrays, rows


def assert_same_results(*folders):
    (arrays, rows), (others, other_rows) = map(result, folders)
    assert rows == other_rows
    assert arrays.keys() == others.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], others[name])


def test_record(tmp_path):
    folder = run(SMALL, tmp_path)
    record = json.loads((folder / "run.json").read_text())
    assert (record["epochs_done"], record["finished"], record["seed"]) == (6, True, 7)
    assert record["threads"] == machine.threads()
    assert record["versions"]["theano"] == "1.0.5"
    assert record["started"] <= record["ended"]
    assert record["command"] == process()["command"]
    assert 2**26 < record["peak_memory"] <= process()["peak_memory"]
    model = (folder / "model.npz").read_bytes()
    assert record["model_sha256"] == hashlib.sha256(model).hexdigest()
    assert ("BinaryProduct" in record["kernels"]) == machine.has("avx512f", "avx512dq")
    check(record, FinishedRun)
    _, rows = result(folder)
    assert [row["epoch"] for row in rows] == ["2", "4", "6"]
    errors = [float(row["valid_error"]) for row in rows]
    assert record["valid_error"] == min(errors)
    assert record["best_epoch"] == max(2 * i + 2 for i, e in enumerate(errors) if e == min(errors))
    assert names(folder) == FINISHED


@pytest.mark.parametrize(
    ("hp", "test_weights"),
    [(SMALL, "real"), (RELEASED, "ensemble"), (THEANO, "binary"), (TORCH7, "binary")],
    ids=["paper", "release", "bnn-theano", "bnn-torch7"],
)
def test_an_interrupted_run_gives_the_same_result(tmp_path, monkeypatch, hp, test_weights):
    whole = run(hp, tmp_path / "whole", test_weights=test_weights)

    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL", 0)
    write, calls = RunFolder.write, []

    def die(*args):  # as by kill -9 after the checkpoint of an epoch: the record lags behind
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", die)
        with pytest.raises(KeyboardInterrupt):
            run(hp, tmp_path / "broken", test_weights=test_weights)
    here = environment()
    monkeypatch.setattr(loop, "environment", lambda: {**here, "cpu": "another"})
    broken = run(hp, tmp_path / "broken", test_weights=test_weights, resume=True)

    record = json.loads((broken / "run.json").read_text())
    assert record["cpu"] == "another"
    other = json.loads((whole / "run.json").read_text())
    assert record["earlier"] == [{"until_epoch": 2, **here, "kernels": other["kernels"]}]
    assert other["earlier"] == []
    assert_same_results(whole, broken)
    assert record["model_sha256"] == other["model_sha256"]


DRIVER = """
import dataclasses, sys
from original_stack.command_line import Stopped
import toy
hp = dataclasses.replace(toy.SMALL, epochs=400)
try:
    toy.run(hp, sys.argv[1])
except Stopped as stop:
    print(stop)
    sys.exit(128 + stop.signum)
"""


def driver(path):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, path],
        cwd=original_stack.ROOT,
        env={**os.environ, "PYTHONPATH": f"{original_stack.ROOT}:{original_stack.ROOT}/tests"},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(process, start):
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line starts with {start!r}")


@pytest.mark.slow
def test_killed_and_terminated_process_continues_bit_identically(tmp_path):
    process = driver(tmp_path / "killed")
    wait_for(process, "epoch  20/400")
    process.kill()
    process.communicate()
    process = driver(tmp_path / "killed")
    wait_for(process, "epoch 150/400")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert "; the same command resumes from there\n" in output
    assert process.returncode == 128 + signal.SIGTERM
    processes = [driver(tmp_path / "killed"), driver(tmp_path / "whole")]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0
    assert len(output.splitlines()) == 400
    hp = dataclasses.replace(SMALL, epochs=400)
    assert_same_results(*(folder_of(hp, tmp_path / name) for name in ("whole", "killed")))


class Mean:
    """A stand-in for a model, without compilation: its only parameter follows the mean image."""

    kernels = ()

    def __init__(self, network, hp, test_weights):
        self.hp, self.W = hp, np.zeros((784, 10), np.float32)
        self.targets = np.eye(10, dtype=np.float32)

    def train_step(self, X, Y, LR):
        self.W += LR * (X.reshape(len(X), 784).T @ Y / len(X) - self.W)
        return np.float32(np.square(self.W).sum())

    def state(self):
        return {"state000": self.W.copy()}

    def set_state(self, arrays):
        self.W = arrays["state000"].copy()

    def parameter_values(self):
        return {"000_W": self.W.copy()}

    def recompute_statistics(self, *splits):
        pass

    def evaluate(self, split):
        outputs = split.X.reshape(-1, 784) @ self.W
        return float(outputs.std()), 100 * float((outputs.argmax(axis=1) != split.y).mean())


@pytest.fixture
def without_compiling(monkeypatch):
    monkeypatch.setattr(loop, "Model", Mean)
    monkeypatch.setattr(loop, "CHECKPOINT_INTERVAL", 0)
    here = environment()
    monkeypatch.setattr(loop, "environment", lambda: here)


class Killed(BaseException):
    """A kill: the process does nothing more."""


# The calls that change files while a record is written.
CALLS = ("mkdir", "fsync", "replace", "unlink")


def at_call(monkeypatch, number, event, forever=False):
    """`event()` before the call of this number (the first is 0) of one of CALLS, and before all
    that follow if `forever`. Returns the list of calls made."""
    made = []

    def wrapped(name, original):
        def call(*args, **options):
            made.append(name)
            if len(made) == number + 1 or (forever and len(made) > number):
                event()
            return original(*args, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrapped(name, getattr(os, name)))
    return made


def kill():
    raise Killed


def fill_the_disk():
    raise OSError(errno.ENOSPC, "No space left on device")


def terminate():
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # a run notes it
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("event", [kill, fill_the_disk, terminate])
def test_a_run_stopped_at_any_call_is_continued_by_the_same_command(
    tmp_path, monkeypatch, without_compiling, event
):
    hp = dataclasses.replace(SMALL, epochs=4)
    with monkeypatch.context() as patch:
        calls = at_call(patch, -1, kill)
        whole = run(hp, tmp_path / "whole")
    assert (
        calls.count("replace") == 18
    )  # six times two of the record, four checkpoints, two of the model
    for number in range(len(calls)):
        results = tmp_path / str(number)
        with monkeypatch.context() as patch, contextlib.suppress(Killed, Stopped, UserError):
            at_call(patch, number, event, forever=event is kill)
            run(hp, results)
        stopped = run(hp, results)
        assert_same_results(whole, stopped)
        assert names(stopped) == names(whole) == FINISHED


def test_a_signal_within_an_epoch_keeps_the_last_whole_epoch(
    tmp_path, monkeypatch, without_compiling
):
    whole = run(SMALL, tmp_path / "whole")
    steps, train_step = [], Mean.train_step

    def step(*args):
        steps.append(args)
        if len(steps) == 25:  # an epoch has ten steps
            signal.raise_signal(signal.SIGINT)
        return train_step(*args)

    monkeypatch.setattr(Mean, "train_step", step)
    with pytest.raises(Stopped) as stop:
        run(SMALL, tmp_path / "stopped")
    assert str(stop.value) == "stopped after epoch 2; the same command resumes from there"
    assert (stop.value.signum, len(steps)) == (signal.SIGINT, 25)
    stopped = run(SMALL, tmp_path / "stopped", resume=True)
    assert len(steps) == 25 + 40
    assert_same_results(whole, stopped)


def test_weights_that_are_not_finite_end_the_run(tmp_path, monkeypatch, without_compiling):
    monkeypatch.setattr(Mean, "evaluate", lambda self, split: (math.nan, 90.0))
    line = "the validation loss is nan in epoch 2 at learning rate 0.0681"
    with pytest.raises(UserError) as caught:
        run(SMALL, tmp_path)
    assert str(caught.value) == f"{line}; lower the learning rate"
    record = json.loads((folder_of(SMALL, tmp_path) / "run.json").read_text())
    assert (record["stopped"], record["epochs_done"], record["test_error"]) == (line, 1, None)


def test_a_clock_set_back_does_not_make_times_negative(tmp_path, monkeypatch, without_compiling):
    times = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    folder = run(SMALL, tmp_path)
    record = json.loads((folder / "run.json").read_text())
    assert 0 <= record["seconds"] < 3600
    with open(folder / "epochs.csv", newline="") as f:
        seconds = [float(row["seconds"]) for row in csv.DictReader(f)]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0


def test_a_job_that_slurm_starts_again_is_the_same_run(tmp_path, monkeypatch, without_compiling):
    def start(restarts):
        facts = {**environment(), "job": {"id": "17", "node": "node-3", "restarts": restarts}}
        monkeypatch.setattr(loop, "environment", lambda: facts)
        return run(dataclasses.replace(SMALL, epochs=4), tmp_path)

    with monkeypatch.context() as patch:
        calls = iter(range(10**6))
        step = Mean.train_step

        def interrupted(*args):
            if next(calls) == 25:  # an epoch has ten steps
                signal.raise_signal(signal.SIGTERM)
            return step(*args)

        patch.setattr(Mean, "train_step", interrupted)
        with pytest.raises(Stopped):
            start(0)
    record = json.loads((start(1) / "run.json").read_text())
    assert record["job"] == {"id": "17", "node": "node-3", "restarts": 1}
    earlier = [(part["until_epoch"], part["job"]["restarts"]) for part in record["earlier"]]
    assert earlier == [(2, 0)]


def test_a_corrected_record_is_the_same_run(tmp_path, monkeypatch, without_compiling):
    folder = run(SMALL, tmp_path)
    finished = (folder / "run.json").read_text()
    other = dataclasses.replace(toy(), preprocessing="said in other words")
    monkeypatch.setattr(loop, "published", lambda *row: {"value": "1.19"})
    loop.run(other, SMALL, None, 7, tmp_path, "real")
    assert (folder / "run.json").read_text() == finished
    files = (dataclasses.replace(other.files[0], md5="1" * 32),)
    with pytest.raises(UserError, match="holds a run with data .*0000.*, this one has .*1111"):
        loop.run(dataclasses.replace(other, files=files), SMALL, None, 7, tmp_path, "real")


def test_not_finite_loss_stops_the_run_with_its_record_intact(tmp_path):
    hp = dataclasses.replace(SMALL, method="none", LR_start=1e30, LR_fin=1e30)
    with pytest.raises(
        UserError, match=r"^the loss is (nan|inf) in epoch 1 at learning rate 1e\+30; lower"
    ):
        run(hp, tmp_path)
    record = json.loads((folder_of(hp, tmp_path) / "run.json").read_text())
    assert record["stopped"].startswith("the loss is ")
    assert record["epochs_done"] == 0


def test_run_without_a_published_figure(tmp_path):
    """The paper prints a dash for SGD without scaling."""
    (hp,) = (hp for hp in cifar10.ROWS if hp.protocol == "table1-sgd-off")
    hp = dataclasses.replace(hp, epochs=1, filters=1, units=4, batch_size=20)
    rng = np.random.RandomState(0)
    parts = [
        Split(rng.rand(n, 3, 32, 32).astype(np.float32), np.arange(n) % 10) for n in (40, 20, 20)
    ]
    dataset = Dataset("cifar10", *parts, (File("toy", "0" * 32, True),), "none")
    record = loop.run(dataset, hp, cifar10.build_network, 1, tmp_path)
    assert record["published_error"] is None
    assert (tmp_path / "cifar10/table1-sgd-off-deterministic/seed-1/run.json").exists()
    assert command_line.summary(record).endswith("; no published error for this row")


def test_own_data_of_three_classes(tmp_path):
    def first_three(split):
        rows = split.y < 3
        return Split(split.X[rows], split.y[rows])

    parts = [first_three(getattr(toy(), which)) for which in ("train", "valid", "test")]
    dataset = Dataset("mnist", *parts, toy().files, "none", classes=3)
    record = loop.run(dataset, SMALL, mnist.build_network, 7, tmp_path)
    assert record["hyperparameters"]["classes"] == 3
    arrays, _ = result(tmp_path / "mnist/paper-stochastic/seed-7")
    assert [arrays[name].shape for name in sorted(arrays) if name.endswith("_W")][-1] == (12, 3)


def test_fewer_images_than_a_batch(tmp_path):
    hp = dataclasses.replace(SMALL, batch_size=len(toy().train.y) + 1)
    with pytest.raises(UserError) as caught:
        loop.run(toy(), hp, mnist.build_network, 7, tmp_path)
    assert str(caught.value) == (
        f"{hp.batch_size - 1} training images do not fill a batch of {hp.batch_size}, so "
        "nothing would be trained; give more"
    )
    assert not list(tmp_path.iterdir())


def test_full_disk(tmp_path, without_compiling):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
        with pytest.raises(
            UserError, match="^cannot write .*: File too large; make room or choose"
        ):
            run(SMALL, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.rglob("model.npz"))
    assert not list(tmp_path.rglob(".*"))
