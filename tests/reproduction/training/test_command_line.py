import json
import os
import time
from pathlib import Path

import original_stack
from original_stack.errors import UserError

import pytest

import cifar10
import mnist
import svhn
from reproduction import datasets
from reproduction.training import command_line, loop

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
    assert command_line.summary(RESULT) == (
        "mnist, paper, stochastic, seed 3: test error 1.40% with real weights at epoch 8 of 10 "
        "(validation error 1.20%); published 1.18%, difference +0.22, +2.0 standard errors of one "
        "run"
    )


def test_summary_does_not_compare_unofficial_data():
    files = [{"name": "a", "official": True}, {"name": "b", "official": False}]
    text = command_line.summary({**RESULT, "official_data": False, "data": files})
    assert text.endswith("; not comparable with a published error: unofficial data (b)")


def call(capsys, *options, script=mnist):
    status = 0
    build = getattr(script, "build_network", None)
    try:
        status = command_line.main(script.__name__, script.ROWS, build, [*map(str, options)])
    except SystemExit as stop:
        status = stop.code
    return status, capsys.readouterr().err


def chosen(monkeypatch, script, *options):
    """The hyperparameters that options choose."""
    seen = []

    def run(dataset, hp, *rest):
        seen.append(hp)
        raise UserError

    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: None)
    monkeypatch.setattr(loop, "run", run)
    assert command_line.main("name", script.ROWS, None, options) == 2
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
    hp = chosen(monkeypatch, cifar10, *options)
    expected = {"method": "stochastic", "optimizer": "adam", "W_LR_scale": "Glorot", "filters": 128}
    if protocol != "paper":
        expected.update(method="deterministic", optimizer=protocol.split("-")[1], filters=64)
    expected.update(changes, protocol=protocol)
    assert {name: getattr(hp, name) for name in expected} == expected


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
        (
            cifar10,
            ["--width", "1e308"],
            "argument --width: '1e308' is not a number from 0.001 to 8;",
        ),
        (cifar10, ["--train-size", "0"], "argument --train-size: '0' is not an integer from 1 to "),
        (cifar10, ["--optimizer", "x"], "argument --optimizer: invalid choice: 'x' (choose from "),
    ],
)
def test_choices_that_no_table_has(capsys, script, options, message):
    status, error = call(capsys, *options, script=script)
    assert status == 2
    assert error.startswith(f"{script.__name__}: {message}")
    assert error.count("\n") == 1


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
            "--test-weights binary is not possible: method none has only real weights; leave it "
            "out",
        ),
        (
            ["--method", "bnn", "--test-weights", "real"],
            "--test-weights real is not possible: method bnn has only binary weights; leave it out",
        ),
        (
            ["--protocol", "bnn-torch7", "--method", "none"],
            "no row of the published tables is --protocol bnn-torch7 --method none; leave one "
            "of them out",
        ),
        (
            ["--results", ""],
            "argument --results: '' is not the name of a folder; --help lists the ",
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
    monkeypatch.setattr(loop, "run", lambda dataset, hp, *rest: chosen.append(hp))
    monkeypatch.setattr(command_line, "summary", str)
    monkeypatch.setattr(datasets, "load", lambda *args, **more: None)
    assert command_line.main("mnist", mnist.ROWS, mnist.build_network, options) == 0
    assert chosen == [row]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "epochs"), [("stochastic", 1), ("deterministic", 1), ("none", 1), ("dropout", 2)]
)
def test_real_mnist(tmp_path, capsys, method, epochs):
    data = os.environ.get("BINARYCONNECT_DATA")
    if not data or not any(Path(data).rglob("train-images-idx3-ubyte*")):
        pytest.skip("BINARYCONNECT_DATA does not say where MNIST is")
    started = time.time()
    status, _ = call(capsys, "--method", method, "--epochs", epochs, "--results", tmp_path)
    assert status == 0
    record = json.loads((tmp_path / f"mnist/paper-{method}/seed-1234/run.json").read_text())
    assert record["official_data"]
    assert record["fused"]
    assert record["test_error"] < 4
    assert record["seconds"] < time.time() - started
