"""Short runs of the four methods of MNIST's protocol paper, with the expected range of each
test error. The exit status is 1 if an error is outside its range. The runs train on the first
10,000 images of MNIST, or without MNIST on embedded digits."""

import dataclasses
import json
import math
import statistics
import sys
import tempfile
from typing import TypedDict

import original_stack
from original_stack.command_line import Parser, integer_between, run
from original_stack.errors import UserError, open_regular, reading, write_atomically, writing

import scipy.stats

from reproduction import datasets
from reproduction.experiments import EXPERIMENTS
from reproduction.training import loop, records
from reproduction.training.environment import environment

METHODS = ("stochastic", "deterministic", "none", "dropout")
TRAIN_SIZE = 10000  # of MNIST
SETTINGS = {
    "mnist": {"epochs": 4, "num_units": 256},
    "digits": {"epochs": 20, "num_units": 256},
}
SEED = 1234  # the reference has seeds 1, 2, ...
FALSE_ALARMS = 0.01
FEWEST = 10  # runs that the reference must have for each row
REFERENCE = original_stack.ROOT / "results" / "reference"


class Row(TypedDict):
    """The recorded runs of a row."""

    hyperparameters: dict[str, float | str | bool | None]
    test_errors: list[records.Percent]  # by seed, the first is 1


class Reference(TypedDict):
    """results/reference/<data set>.json."""

    train_images: records.Count
    rows: dict[str, Row]  # by method
    environment: records.Environment


def expected(errors):
    """The range in which the test error of one further run is expected.

    It is Student's prediction interval. Its level is divided by the number of rows, so that a check
    of an unchanged program fails with probability `FALSE_ALARMS` at most.

    Parameters
    ----------
    errors : list of float
        Test errors in percent of runs with other seeds.

    Returns
    -------
    tuple of float
    """
    n = len(errors)
    t = scipy.stats.t.ppf(1 - FALSE_ALARMS / len(METHODS) / 2, n - 1)
    mean, reach = statistics.fmean(errors), t * statistics.stdev(errors) * math.sqrt(1 + 1 / n)
    return max(0.0, mean - reach), min(100.0, mean + reach)


def load(data):
    """The first images of MNIST; without MNIST, the embedded digits, unless a folder is named."""
    if data == "digits":
        return datasets.load("mnist", data)
    try:
        return datasets.load("mnist", data, train_size=TRAIN_SIZE)
    except UserError as error:
        if data is not None:
            raise
        print(f"no MNIST ({error}); scikit-learn's handwritten digits instead\n")
        return datasets.load("digits")


def read_reference(name):
    """results/reference/<name>.json, see `Reference`.

    Raises
    ------
    UserError
        If it is missing, is damaged, or has too few runs.
    """
    path = REFERENCE / f"{name}.json"
    again = f"restore it or record it again: ./reproduce check --record {FEWEST}"
    try:
        with open_regular(path) as f, reading(path, again):
            reference = json.load(f)
            records.check(reference, Reference)
            for method in METHODS:
                runs = len(reference["rows"][method]["test_errors"])
                if runs < FEWEST:
                    raise ValueError(f"{runs} runs of {method}; expected at least {FEWEST}")
    except FileNotFoundError:
        raise UserError(f"there is no {path}; {again}") from None
    return reference


def train(dataset, method, seed):
    """Train one short run, and return the content of its run.json."""
    experiment = EXPERIMENTS[dataset.name]
    row = experiment.row("paper", method)
    hp = dataclasses.replace(row, **SETTINGS[dataset.name])
    with tempfile.TemporaryDirectory() as folder:
        return loop.run(dataset, hp, experiment.build_network, seed, folder)


def record(dataset, runs):
    """Write results/reference/<data set>.json: test errors of as many runs of each row, and what
    they ran on."""
    path, rows, here = REFERENCE / f"{dataset.name}.json", {}, environment()
    for seed in range(1, runs + 1):
        for method in METHODS:
            print(f"\n{method}, seed {seed} of {runs}", flush=True)
            done = train(dataset, method, seed)
            row = {"hyperparameters": done["hyperparameters"], "test_errors": []}
            rows.setdefault(method, row)["test_errors"].append(round(done["test_error"], 2))
        reference = {"train_images": len(dataset.train.y), "rows": rows, "environment": here}
        with writing(path, "make room"):
            REFERENCE.mkdir(exist_ok=True)
            write_atomically(path, (json.dumps(reference, indent=1) + "\n").encode())


def compare(dataset, reference):
    """Train each row, and print its test error beside what is expected of it.

    Returns
    -------
    list of str
        The methods whose test error is outside.

    Raises
    ------
    UserError
        If the reference is of runs in other settings.
    """
    size, settings = len(dataset.train.y), SETTINGS[dataset.name]
    lines, outside = [], []
    for method in METHODS:
        print(f"\n{method}", flush=True)
        done = train(dataset, method, SEED)
        row = reference["rows"][method]
        if (reference["train_images"], row["hyperparameters"]) != (size, done["hyperparameters"]):
            raise UserError(
                f"results/reference/{dataset.name}.json has runs of {method} in other settings; "
                f"record it again: ./reproduce check --record {FEWEST}"
            )
        error, errors = round(done["test_error"], 2), row["test_errors"]
        low, high = (round(limit, 2) for limit in expected(errors))
        if not low <= error <= high:
            outside.append(method)
        lines.append(
            f"{method:13}  test error {error:5.2f}%  expected {low:5.2f} to {high:5.2f}%  "
            f"(mean {statistics.fmean(errors):5.2f}, spread {statistics.stdev(errors):.2f}, "
            f"{len(errors)} runs)  {done['seconds']:4.0f} s"
        )
    print(f"\n{dataset.name}, {size} training images, {settings['epochs']} epochs, ", end="")
    print(f"3 x {settings['num_units']}", *lines, sep="\n")
    print(
        "The ranges are prediction intervals from runs with other seeds, results/reference/"
        f"{dataset.name}.json: by chance, at most {FALSE_ALARMS:.0%} of checks fail."
    )
    print("Too short to compare with the paper: ./reproduce mnist runs its experiment.")
    return outside


def main(argv=None):
    """Exit status: 1 if a row is outside, otherwise see `original_stack.command_line.run`."""
    parser = Parser(prog="check", description=__doc__)
    parser.add_argument("--data", metavar="DIR", help="where MNIST's files are, or digits")
    parser.add_argument(
        "--record",
        metavar="N",
        type=integer_between(FEWEST),
        help="instead train N runs of each row, from which later checks take their ranges",
    )
    outside = []

    def check(options):
        dataset = load(options.data)
        if options.record:
            record(dataset, options.record)
        else:
            outside.extend(compare(dataset, read_reference(dataset.name)))

    status = run(parser, check, argv)
    if outside:
        print(f"check: outside the expected range: {', '.join(outside)}", file=sys.stderr)
    return status or int(bool(outside))


if __name__ == "__main__":
    sys.exit(main())
