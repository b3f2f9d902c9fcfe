"""The command line of mnist.py, cifar10.py and svhn.py, and the line that ends a run."""

import dataclasses
import math
import sys

import original_stack
from original_stack import command_line
from original_stack.command_line import Parser, folder, integer_between
from original_stack.errors import UserError

from reproduction import datasets
from reproduction.training import loop
from reproduction.training.hyperparameters import TEST_WEIGHTS


def main(dataset_name, rows, build_network, argv=None):
    """Train the row of a data set that the options choose.

    Parameters
    ----------
    dataset_name : str
    rows : list of Hyperparameters
        The options choose the first row that fits them (see `Hyperparameters.choices`).
    build_network : callable
        build_network(hp) returns the output layer.
    argv : list of str or None

    Returns
    -------
    int
        Exit status, see `original_stack.command_line.run`.
    """
    parser = Parser(
        prog=dataset_name,
        description=sys.modules["__main__"].__doc__,
        epilog="The same command again resumes a run that was stopped.",
    )
    choices = {}
    for hp in rows:
        for name, value in hp.choices.items():
            choices.setdefault(name, []).append(value)
    for name, values in choices.items():
        first = rows[0].choices.get(name)
        shown = f"{first} without options" if first else "only Table 1 of BinaryConnect has it"
        parser.add_argument(_flag(name), choices=list(dict.fromkeys(values)), help=shown)
    parser.add_argument("--seed", type=integer_between(0), default=1234, help="1234 if not given")
    parser.add_argument(
        "--epochs",
        type=integer_between(1),
        help="the whole learning-rate schedule is compressed into this many",
    )
    parser.add_argument(
        "--data",
        metavar="DIR or FILE.npz",
        help="the directory that has the data files or receives them; or digits, for MNIST's "
        "network on scikit-learn's digits; or a file of your own with train_images, train_labels, "
        "test_images, test_labels (and valid_images, valid_labels), uint8 images",
    )
    parser.add_argument(
        "--results",
        metavar="DIR",
        type=folder,
        default=original_stack.RESULTS,
        help="receives the folder of the run; the project's results/ if not given",
    )
    parser.add_argument(
        "--test-weights", choices=TEST_WEIGHTS, help="if not given, those that the paper tests"
    )
    own = [field for field in dataclasses.fields(rows[0]) if "option" in field.metadata]
    for field in own:
        parser.add_argument(_flag(field.name), default=field.default, **field.metadata["option"])
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="fail if there is nothing to resume")
    again.add_argument("--restart", action="store_true", help="discard the existing run")
    parser.add_argument(
        "--allow-unofficial-data",
        action="store_true",
        help="accept files whose checksum is not the published one; the run is never judged",
    )

    def train_row(options):
        given = {name: getattr(options, name) for name in choices}
        hp = _row(rows, {k: v for k, v in given.items() if v is not None}, options.test_weights)
        hp = dataclasses.replace(hp, **{field.name: getattr(options, field.name) for field in own})
        hp = dataclasses.replace(hp, epochs=options.epochs or hp.epochs)
        dataset = datasets.load(
            dataset_name, options.data, options.allow_unofficial_data, **hp.data_options
        )
        result = loop.run(
            dataset,
            hp,
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
    """The first row that has the given choices."""
    hp = next((hp for hp in rows if given.items() <= hp.choices.items()), None)
    if hp is None:
        options = " ".join(f"{_flag(name)} {value}" for name, value in given.items())
        raise UserError(f"no row of the published tables is {options}; leave one of them out")
    if test_weights not in (None, *hp.kinds_of_weights):
        raise UserError(
            f"--test-weights {test_weights} is not possible: method {hp.method} has only "
            f"{hp.kinds_of_weights[0]} weights; leave it out"
        )
    return hp


def summary(run):
    """The line that ends a run: its test error beside the published error."""
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
