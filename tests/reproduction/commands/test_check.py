import dataclasses
import json
import math
import re

import original_stack
from original_stack.errors import UserError

import numpy as np
import pytest
from toy import toy

from reproduction import datasets
from reproduction.commands import check
from reproduction.training import loop

METHODS = ["stochastic", "deterministic", "none", "dropout"]


def test_expected_is_a_prediction_interval_for_one_of_four_rows():
    errors = [49.0, 51.0] * 5  # mean 50, variance 10 / 9
    # Student's t of 9 degrees of freedom is above 4.1458 with a probability of .00125.
    reach = 4.1458 * math.sqrt(10 / 9 * 1.1)
    assert check.expected(errors) == pytest.approx((50 - reach, 50 + reach), abs=1e-3)
    assert check.expected([1.0, 3.0] * 5)[0] == 0  # 2 - 4.6 is no error rate
    assert check.expected([97.0, 99.0] * 5)[1] == 100


def test_one_row_in_four_hundred_is_outside_by_chance():
    outside = 0
    for *errors, error in np.random.RandomState(0).normal(50, 1, (20000, 11)):
        low, high = check.expected(errors)
        outside += not low <= error <= high
    assert 30 < outside < 70  # 50 are expected, give or take 7


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Settings for runs that take no time, on toy data instead of MNIST and digits."""
    made = []

    def load(name, *data, **options):
        if name == "mnist" and data != ("digits",):
            raise UserError("it is not there")
        return toy()

    def run(dataset, hp, build_network, seed, results):
        made.append((hp.protocol, hp.method, hp.epochs, hp.num_units, seed))
        error = 3.2 if seed == check.SEED else 3.0 + seed % 2
        return {"test_error": error, "seconds": 10.4, "hyperparameters": vars(hp)}

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(check, "REFERENCE", tmp_path / "reference")
    monkeypatch.setitem(check.SETTINGS, "toy", {"epochs": 20, "num_units": 256})
    monkeypatch.setitem(check.EXPERIMENTS, "toy", check.EXPERIMENTS["digits"])
    return made


def change(tmp_path, **row):
    """Change the recorded row of dropout."""
    path = tmp_path / "reference" / "toy.json"
    reference = json.loads(path.read_text())
    reference["rows"]["dropout"].update(row)
    path.write_text(json.dumps(reference))


def test_record_and_check(tmp_path, runs, capsys):
    assert check.main(["--data", "digits", "--record", "10"]) == 0
    expected = [("paper", method, 20, 256, seed) for seed in range(1, 11) for method in METHODS]
    assert runs == expected
    reference = json.loads((tmp_path / "reference" / "toy.json").read_text())
    assert {m: row["test_errors"] for m, row in reference["rows"].items()} == dict.fromkeys(
        METHODS, [4.0, 3.0] * 5
    )
    assert reference["environment"]["versions"]["theano"] == "1.0.5"
    runs.clear()
    capsys.readouterr()
    assert check.main([]) == 0
    assert runs == [("paper", method, 20, 256, 1234) for method in METHODS]
    # 4.1458 sqrt(1.1 * 10 / 36) = 2.29
    facts = "expected  1.21 to  5.79%  (mean  3.50, spread 0.53, 10 runs)    10 s"
    assert capsys.readouterr().out.splitlines() == [
        "no MNIST (it is not there); scikit-learn's handwritten digits instead",
        "",
        *(line for method in METHODS for line in ("", method)),
        "",
        "toy, 210 training images, 20 epochs, 3 x 256",
        *(f"{method:13}  test error  3.20%  {facts}" for method in METHODS),
        "The ranges are prediction intervals from runs with other seeds, "
        "results/reference/toy.json: by chance, at most 1% of checks fail.",
        "Too short to compare with the paper: ./reproduce mnist runs its experiment.",
    ]


def test_rows_outside_their_range_are_named_in_one_line(tmp_path, runs, capsys):
    check.main(["--data", "digits", "--record", "10"])
    change(tmp_path, test_errors=[5.0, 5.1] * 5)
    capsys.readouterr()
    assert check.main(["--data", "digits"]) == 1
    assert capsys.readouterr().err == "check: outside the expected range: dropout\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"test_errors": [3.0] * 9}, r"toy.json is damaged \(9 runs of dropout; expected at least"),
        ({"test_errors": [300.0] * 10}, r"toy.json is damaged \(rows is \{"),
        ({"hyperparameters": {"epochs": 5}}, "toy.json has runs of dropout in other settings; "),
    ],
)
def test_unusable_references(tmp_path, runs, capsys, row, message):
    check.main(["--data", "digits", "--record", "10"])
    change(tmp_path, **row)
    capsys.readouterr()
    assert check.main(["--data", "digits"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("check: ")
    assert error.count("\n") == 1
    assert error.endswith("record it again: ./reproduce check --record 10\n")
    assert re.search(message, error)


def test_without_a_reference(tmp_path, runs, capsys):
    assert check.main(["--data", "digits"]) == 2
    assert capsys.readouterr().err == (
        f"check: there is no {tmp_path}/reference/toy.json; restore it or record it again: "
        "./reproduce check --record 10\n"
    )


def test_a_reference_needs_ten_runs(capsys):
    with pytest.raises(SystemExit):
        check.main(["--record", "9"])
    assert "argument --record: '9' is not an integer from 10 to " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_recorded_runs_have_the_settings_of_a_check(name):
    reference = check.read_reference(name)
    assert reference["train_images"] == {"mnist": check.TRAIN_SIZE, "digits": 1200}[name]
    for method in METHODS:
        row = check.EXPERIMENTS[name].row("paper", method)
        hp = dataclasses.replace(row, **check.SETTINGS[name])
        assert reference["rows"][method]["hyperparameters"] == dataclasses.asdict(hp)


def test_ranges_on_mnist_distinguish_methods():
    rows = check.read_reference("mnist")["rows"]
    ranges = {method: check.expected(row["test_errors"]) for method, row in rows.items()}
    assert ranges["deterministic"][1] < ranges["stochastic"][0]
    assert ranges["stochastic"][1] < ranges["dropout"][0]
