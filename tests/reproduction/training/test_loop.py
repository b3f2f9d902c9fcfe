import csv
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import original_stack
from original_stack import machine
from original_stack.errors import UserError

import lasagne
import numpy as np
import pytest
from checks import assert_near
from toy import SMALL, run, toy

import cifar10
import mnist
import svhn
from reproduction import datasets
from reproduction.datasets.dataset import Dataset, Split
from reproduction.datasets.files import File
from reproduction.training import loop as training
from reproduction.training import run_folder as record

RELEASED = dataclasses.replace(
    mnist.RELEASE, num_units=12, batch_size=20, epochs=3, dropout_hidden=0.5
)
THEANO = dataclasses.replace(mnist.BNN_THEANO, num_units=12, batch_size=20, epochs=3)
TORCH7 = dataclasses.replace(mnist.BNN_TORCH7, num_units=12, batch_size=20, epochs=3)
TABLE1 = [h for h in cifar10.ROWS if "optimizer" in h.choices]


def result(path):
    with np.load(path / "model.npz") as model:
        arrays = {name: model[name] for name in model.files}
    with open(path / "epochs.csv", newline="") as f:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]
    return arrays, rows


def test_learning_rate_decays_by_one_factor_to_the_final_rate():
    rates = [training.learning_rate(mnist.PAPER, epoch) for epoch in (1, 501, 1001)]
    np.testing.assert_allclose(rates, [0.3, np.sqrt(0.3 * 0.01), 0.01], rtol=1e-12)


def test_learning_rate_is_halved_in_stages():
    rates = [training.learning_rate(mnist.BNN_TORCH7, epoch) for epoch in (1, 10, 11, 191, 200)]
    np.testing.assert_allclose(rates, [2**-10, 2**-10, 2**-11, 2**-29, 2**-29], rtol=1e-12)
    compressed = dataclasses.replace(mnist.BNN_TORCH7, epochs=40)
    rates = [training.learning_rate(compressed, epoch) for epoch in (1, 2, 3, 40)]
    np.testing.assert_allclose(rates, [2**-10, 2**-10, 2**-11, 2**-29], rtol=1e-12)


def test_record(tmp_path):
    run(SMALL, tmp_path)
    found = json.loads((tmp_path / "run.json").read_text())
    assert (found["epochs_done"], found["finished"], found["seed"]) == (6, True, 7)
    assert found["threads"] == machine.threads()
    assert found["versions"]["theano"] == "1.0.5"
    _, rows = result(tmp_path)
    assert [row["epoch"] for row in rows] == ["2", "4", "6"]
    errors = [float(row["valid_error"]) for row in rows]
    assert found["valid_error"] == min(errors)
    assert found["best_epoch"] == max(2 * i + 2 for i, e in enumerate(errors) if e == min(errors))
    files = ["epochs.csv", "first_layer.npz", "model.npz", "run.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files


@pytest.mark.parametrize(
    ("h", "test_weights"),
    [(SMALL, "real"), (RELEASED, "ensemble"), (THEANO, "binary"), (TORCH7, "binary")],
    ids=["paper", "release", "bnn-theano", "bnn-torch7"],
)
def test_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, h, test_weights):
    run(h, tmp_path / "whole", test_weights=test_weights)

    monkeypatch.setattr(training, "CHECKPOINT_INTERVAL", 0)
    write, calls = record.RunFolder.write, []

    def die(*args):  # as by kill -9 after the checkpoint of an epoch: the record lags behind
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(record.RunFolder, "write", die)
        with pytest.raises(KeyboardInterrupt):
            run(h, tmp_path / "broken", test_weights=test_weights)
    here = record.surroundings()
    monkeypatch.setattr(record, "surroundings", lambda: {**here, "cpu": "another"})
    run(h, tmp_path / "broken", test_weights=test_weights, resume=True)

    found = json.loads((tmp_path / "broken" / "run.json").read_text())
    assert found["cpu"] == "another"
    assert found["earlier"] == [{"until_epoch": 2, **here}]
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["earlier"] == []
    (whole, whole_rows), (broken, broken_rows) = (result(tmp_path / p) for p in ("whole", "broken"))
    assert whole_rows == broken_rows
    assert whole.keys() == broken.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], broken[name])


DRIVER = """
import dataclasses, sys
import toy
from reproduction.training import loop as training
h = dataclasses.replace(toy.SMALL, epochs=400)
try:
    toy.run(h, __import__("pathlib").Path(sys.argv[1]))
except training.Stopped as stop:
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
    assert "; the same command goes on from there\n" in output
    assert process.returncode == 128 + signal.SIGTERM
    processes = [driver(tmp_path / "killed"), driver(tmp_path / "whole")]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0
    assert len(output.splitlines()) == 400
    (whole, whole_rows), (killed, killed_rows) = (result(tmp_path / p) for p in ("whole", "killed"))
    assert whole_rows == killed_rows
    for name in whole:
        np.testing.assert_array_equal(whole[name], killed[name])


def test_not_finite_loss_stops_the_run_with_its_record_intact(tmp_path):
    h = dataclasses.replace(SMALL, method="none", LR_start=1e30, LR_fin=1e30)
    with pytest.raises(
        UserError, match=r"^the loss is (nan|inf) in epoch 1 at learning rate 1e\+30; lower"
    ):
        run(h, tmp_path)
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["stopped"].startswith("the loss is ")
    assert found["epochs_done"] == 0


def test_ensemble_averages_the_outputs_of_several_networks():
    h = dataclasses.replace(SMALL, method="stochastic")
    lasagne.random.set_rng(np.random.RandomState(1))
    model = training.Model(mnist.build_network(h), h, "ensemble")
    model.recompute_statistics(toy().train)
    X = toy().test.X
    outputs = [model.outputs(X) for _ in range(2)]
    assert abs(outputs[0] - outputs[1]).max() > 0.01
    assert model.draws == training.ENSEMBLE_SIZE


def test_statistics_of_the_test_weights():
    h = dataclasses.replace(mnist.RELEASE, num_units=6, batch_size=40)  # five, and 10 images left
    lasagne.random.set_rng(np.random.RandomState(1))
    network = mnist.build_network(h)
    model = training.Model(network, h, "binary")
    subset = toy().train
    before = model.parameter_values()
    assert model.renew_statistics(subset)
    after = model.parameter_values()
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert changed == [name for name in before if name.endswith(("_mean", "_std"))]
    dense, first = lasagne.layers.get_all_layers(network)[1:3]
    binary = np.where(dense.W.get_value() >= 0, dense.H, -dense.H)
    batches = np.split(subset.X.reshape(210, 784)[:200] @ binary, 5)
    assert_near(first.mean.get_value()[0], np.mean([b.mean(0) for b in batches], axis=0))
    assert_near(first.std.get_value()[0], np.mean([b.std(0) for b in batches], axis=0))


@pytest.mark.parametrize("h", [SMALL, dataclasses.replace(RELEASED, method="deterministic")])
def test_statistics_that_are_the_test_weights_already_stay(h):
    model = training.Model(mnist.build_network(h), h, "binary")
    before = model.parameter_values()
    assert not model.renew_statistics(toy().train)
    after = model.parameter_values()
    assert all(np.array_equal(before[name], after[name]) for name in before)


RESULT = {
    "dataset": "mnist",
    "protocol": "paper",
    "method": "stochastic",
    "seed": 3,
    "test_error": 1.4,
    "valid_error": 1.2,
    "test_weights": "real",
    "best_epoch": 8,
    "epochs": 10,
    "published_error": 1.18,
    "test_images": 10000,
    "official_data": True,
}


def test_summary_compares_with_the_published_error():
    # binomial standard error: sqrt(.0118 * .9882 / 10000) = .108%; .22 / .108 = 2.04
    assert training.summary(RESULT) == (
        "mnist, paper, stochastic, seed 3: test error 1.40% with real weights at epoch 8 of 10 "
        "(validation error 1.20%); published 1.18%, difference +0.22, +2.0 standard errors of one "
        "run"
    )


def test_summary_does_not_compare_unofficial_data():
    files = [{"name": "a", "official": True}, {"name": "b", "official": False}]
    text = training.summary({**RESULT, "official_data": False, "data": files})
    assert text.endswith("; not comparable with a published error: unofficial data (b)")


def call(capsys, *options, script=mnist):
    status = 0
    build = getattr(script, "build_network", None)
    try:
        status = training.main(script.__name__, script.ROWS, build, [*map(str, options)])
    except SystemExit as stop:
        status = stop.code
    return status, capsys.readouterr().err


def chosen(monkeypatch, script, *options):
    """The hyperparameters that options choose."""
    seen = []

    def run(dataset, h, *rest):
        seen.append(h)
        raise UserError

    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: None)
    monkeypatch.setattr(training, "run", run)
    assert training.main("name", script.ROWS, None, options) == 2
    return seen[0]


@pytest.mark.parametrize(
    ("options", "protocol", "changes"),
    [
        ([], "paper", {}),
        (["--method", "none"], "paper", {"method": "none"}),
        (["--optimizer", "adam", "--lr-scaling", "on"], "table1-adam-on", {}),
        (["--optimizer", "adam"], "table1-adam-on", {}),
        (["--lr-scaling", "off"], "table1-adam-off", {"W_LR_scale": 1.0}),
        (["--optimizer", "sgd"], "table1-sgd-on", {"W_LR_scale": "Glorot squared"}),
        (
            ["--optimizer", "nesterov", "--lr-scaling", "off", "--method", "deterministic"],
            "table1-nesterov-off",
            {"W_LR_scale": 1.0},
        ),
    ],
)
def test_options_choose_a_row_of_a_table(monkeypatch, options, protocol, changes):
    h = chosen(monkeypatch, cifar10, *options)
    expected = {"method": "stochastic", "optimizer": "adam", "W_LR_scale": "Glorot", "filters": 128}
    if protocol != "paper":
        expected.update(method="deterministic", optimizer=protocol.split("-")[1], filters=64)
    expected.update(changes, protocol=protocol)
    assert {name: getattr(h, name) for name in expected} == expected


def test_rows_are_named_after_what_chooses_them():
    for h in TABLE1:
        assert h.protocol == "table1-{optimizer}-{lr_scaling}".format(**h.choices)
        assert h.LR_start / h.LR_fin == pytest.approx(1500)


@pytest.mark.parametrize("h", TABLE1, ids=lambda h: h.protocol)
def test_learning_rates_of_table_1_are_the_best_on_record(h):
    tried = {}
    for path in (original_stack.ROOT / "results" / "tuning").rglob("run.json"):
        run = json.loads(path.read_text())
        if run["protocol"] == h.protocol and run["finished"]:
            tried[run["valid_error"]] = run["hyperparameters"]["LR_start"]
    assert tried[min(tried)] == h.LR_start


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (
            cifar10,
            ["--optimizer", "sgd", "--method", "none"],
            "no row of the published tables is --method none --optimizer sgd; leave one of them "
            "out",
        ),
        (
            cifar10,
            ["--protocol", "paper", "--lr-scaling", "off"],
            "no row of the published tables is --protocol paper --lr-scaling off; leave one of "
            "them out",
        ),
        (mnist, ["--optimizer", "adam"], "unrecognized arguments: --optimizer adam; --help lists "),
        (
            svhn,
            ["--lr-scaling", "on"],
            "unrecognized arguments: --lr-scaling on; --help lists the ",
        ),
        (cifar10, ["--optimizer", "x"], "argument --optimizer: invalid choice: 'x' (choose from "),
    ],
)
def test_choices_that_no_table_has(capsys, script, options, message):
    status, error = call(capsys, *options, script=script)
    assert status == 2
    assert error.startswith(f"{script.__name__}: {message}")
    assert error.count("\n") == 1


def test_run_without_a_published_figure(tmp_path):
    """The paper prints a dash for SGD without scaling."""
    (h,) = (h for h in cifar10.ROWS if h.protocol == "table1-sgd-off")
    h = dataclasses.replace(h, epochs=1, filters=1, units=4, batch_size=20)
    rng = np.random.RandomState(0)
    parts = [
        Split(rng.rand(n, 3, 32, 32).astype(np.float32), np.arange(n) % 10) for n in (40, 20, 20)
    ]
    dataset = Dataset("cifar10", *parts, (File("toy", "0" * 32, True),), "none")
    found = training.run(dataset, h, cifar10.build_network, 1, tmp_path)
    assert found["published_error"] is None
    assert (tmp_path / "cifar10/table1-sgd-off-deterministic/seed-1/run.json").exists()
    assert training.summary(found).endswith("; no published error for this row")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--epochs", "0"],
            "argument --epochs: '0' is not an integer from 1 to",
        ),
        (
            ["--seed", "-1"],
            "argument --seed: '-1' is not an integer from 0 to",
        ),
        (["--method", "x"], "argument --method: invalid choice: 'x' (choose from 'stochastic', "),
        (["--x"], "unrecognized arguments: --x; --help lists the options"),
        (
            ["--method", "none", "--test-weights", "binary"],
            "--test-weights binary is not for method none, which has real ones only; leave it out",
        ),
        (
            ["--method", "bnn", "--test-weights", "real"],
            "--test-weights real is not for method bnn, which has binary ones only; leave it out",
        ),
        (
            ["--protocol", "bnn-torch7", "--method", "none"],
            "no row of the published tables is --protocol bnn-torch7 --method none; leave one "
            "of them out",
        ),
        (["--resume", "--restart"], "argument --restart: not allowed with argument --resume"),
    ],
)
def test_wrong_options(capsys, options, message):
    status, error = call(capsys, *options)
    assert status == 2
    assert error.startswith(f"mnist: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ([], mnist.PAPER),
        (["--method", "dropout"], mnist.ROWS[3]),
        (["--protocol", "release"], mnist.RELEASE),
        (["--method", "bnn"], mnist.BNN_THEANO),
        (["--protocol", "bnn-torch7"], mnist.BNN_TORCH7),
    ],
)
def test_rows_that_options_choose(tmp_path, monkeypatch, options, row):
    chosen = []
    monkeypatch.setattr(training, "run", lambda dataset, h, *rest: chosen.append(h))
    monkeypatch.setattr(training, "summary", str)
    monkeypatch.setattr(training.datasets, "load", lambda *args, **more: None)
    assert training.main("mnist", mnist.ROWS, mnist.build_network, options) == 0
    assert chosen == [row]


def test_fewer_images_than_a_batch(tmp_path):
    h = dataclasses.replace(SMALL, batch_size=len(toy().train.y) + 1)
    with pytest.raises(UserError) as caught:
        training.run(toy(), h, mnist.build_network, 7, tmp_path)
    assert str(caught.value) == (
        f"{h.batch_size - 1} training images are fewer than a batch of {h.batch_size}, so that "
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
    assert not (tmp_path / "model.npz").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["stochastic", "deterministic", "none", "dropout"])
def test_real_mnist(tmp_path, capsys, method):
    data = os.environ.get("BINARYCONNECT_DATA")
    if not data or not any(Path(data).rglob("train-images-idx3-ubyte*")):
        pytest.skip("BINARYCONNECT_DATA does not say where MNIST is")
    started = time.time()
    status, _ = call(capsys, "--method", method, "--epochs", 2, "--results", tmp_path)
    assert status == 0
    found = json.loads((tmp_path / f"mnist/paper-{method}/seed-1234/run.json").read_text())
    assert found["official_data"]
    assert found["fused"]
    assert found["test_error"] < 4
    assert found["seconds"] < time.time() - started
