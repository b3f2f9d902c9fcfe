import csv
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys

import original_stack
from original_stack import machine
from original_stack.errors import UserError

import numpy as np
import pytest
from toy import SMALL, folder_of, run, toy

import cifar10
import mnist
from reproduction.datasets.dataset import Dataset, Split
from reproduction.datasets.files import File
from reproduction.training import command_line, loop
from reproduction.training.environment import environment
from reproduction.training.run_folder import RunFolder

RELEASED = dataclasses.replace(
    mnist.RELEASE, num_units=12, batch_size=20, epochs=3, dropout_hidden=0.5
)
THEANO = dataclasses.replace(mnist.BNN_THEANO, num_units=12, batch_size=20, epochs=3)
TORCH7 = dataclasses.replace(mnist.BNN_TORCH7, num_units=12, batch_size=20, epochs=3)


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
    found = json.loads((folder / "run.json").read_text())
    assert (found["epochs_done"], found["finished"], found["seed"]) == (6, True, 7)
    assert found["threads"] == machine.threads()
    assert found["versions"]["theano"] == "1.0.5"
    _, rows = result(folder)
    assert [row["epoch"] for row in rows] == ["2", "4", "6"]
    errors = [float(row["valid_error"]) for row in rows]
    assert found["valid_error"] == min(errors)
    assert found["best_epoch"] == max(2 * i + 2 for i, e in enumerate(errors) if e == min(errors))
    files = ["epochs.csv", "first_layer.npz", "model.npz", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == files


@pytest.mark.parametrize(
    ("hp", "test_weights"),
    [(SMALL, "real"), (RELEASED, "ensemble"), (THEANO, "binary"), (TORCH7, "binary")],
    ids=["paper", "release", "bnn-theano", "bnn-torch7"],
)
def test_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, hp, test_weights):
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

    found = json.loads((broken / "run.json").read_text())
    assert found["cpu"] == "another"
    assert found["earlier"] == [{"until_epoch": 2, **here}]
    assert json.loads((whole / "run.json").read_text())["earlier"] == []
    assert_same_results(whole, broken)


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


def test_not_finite_loss_stops_the_run_with_its_record_intact(tmp_path):
    hp = dataclasses.replace(SMALL, method="none", LR_start=1e30, LR_fin=1e30)
    with pytest.raises(
        UserError, match=r"^the loss is (nan|inf) in epoch 1 at learning rate 1e\+30; lower"
    ):
        run(hp, tmp_path)
    found = json.loads((folder_of(hp, tmp_path) / "run.json").read_text())
    assert found["stopped"].startswith("the loss is ")
    assert found["epochs_done"] == 0


def test_run_without_a_published_figure(tmp_path):
    """The paper prints a dash for SGD without scaling."""
    (hp,) = (hp for hp in cifar10.ROWS if hp.protocol == "table1-sgd-off")
    hp = dataclasses.replace(hp, epochs=1, filters=1, units=4, batch_size=20)
    rng = np.random.RandomState(0)
    parts = [
        Split(rng.rand(n, 3, 32, 32).astype(np.float32), np.arange(n) % 10) for n in (40, 20, 20)
    ]
    dataset = Dataset("cifar10", *parts, (File("toy", "0" * 32, True),), "none")
    found = loop.run(dataset, hp, cifar10.build_network, 1, tmp_path)
    assert found["published_error"] is None
    assert (tmp_path / "cifar10/table1-sgd-off-deterministic/seed-1/run.json").exists()
    assert command_line.summary(found).endswith("; no published error for this row")


def test_fewer_images_than_a_batch(tmp_path):
    hp = dataclasses.replace(SMALL, batch_size=len(toy().train.y) + 1)
    with pytest.raises(UserError) as caught:
        loop.run(toy(), hp, mnist.build_network, 7, tmp_path)
    assert str(caught.value) == (
        f"{hp.batch_size - 1} training images are fewer than a batch of {hp.batch_size}, so that "
        "nothing would be trained; give more"
    )
    assert not list(tmp_path.iterdir())


def test_full_disk(tmp_path, monkeypatch):
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
