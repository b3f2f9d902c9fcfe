"""Short runs to choose hyperparameters that the papers do not record. For MNIST (protocol paper),
they are the learning rates of deterministic BinaryConnect and of dropout, and whether inputs are
dropped too. For CIFAR-10's Table 1, they are the learning rates, in a reduced setting.

Records go to results/tuning/. DEVIATIONS.md, 6 and 14, lists the choices by validation error."""

import dataclasses
import itertools
import sys

import original_stack
from original_stack import command_line
from original_stack.errors import UserError

from reproduction import datasets
from reproduction.experiments import EXPERIMENTS
from reproduction.training import loop

RATES = {  # of Table 1; wider apart for optimizers that do not divide by the size of the gradient
    "adam-on": (0.001, 0.003, 0.01),
    "adam-off": (0.003, 0.01, 0.03, 0.1, 0.3),
    "nesterov-on": (0.01, 0.1, 1.0),
    "nesterov-off": (0.1, 1.0, 10.0),
    "sgd-on": (0.1, 1.0, 10.0),
    "sgd-off": (1.0, 10.0, 100.0),
}
GRIDS = {  # {data set: [(protocol, method, {field: values to try})]}
    "mnist": [
        ("paper", "deterministic", {"LR_start": (0.1, 0.3, 1.0), "LR_fin": (0.003, 0.01)}),
        ("paper", "dropout", {"LR_start": (0.1, 0.3, 1.0), "dropout_in": (0.0, 0.2)}),
        ("paper", "dropout", {"epochs": (100,), "dropout_in": (0.0, 0.2)}),
    ],
    "cifar10": [
        (f"table1-{row}", "deterministic", {"LR_start": rates}) for row, rates in RATES.items()
    ],
}
SETTINGS = {  # unless a grid has other values
    "mnist": {"epochs": 10},
    "cifar10": {"epochs": 10, "evaluate_every": 5, "width": 0.25, "train_size": 5000},
}


def tune(options):
    """The command: trains the runs that are missing and prints all validation errors."""
    experiment = EXPERIMENTS[options.dataset]
    setting = SETTINGS[options.dataset]
    dataset = datasets.load(
        options.dataset,
        options.data,
        options.allow_unofficial_data,
        train_size=setting.get("train_size"),
    )
    lines = []
    for protocol, method, grid in GRIDS[options.dataset]:
        row = experiment.row(protocol, method)
        for values in itertools.product(*grid.values()):
            choice = dict(zip(grid, values, strict=True))
            name = "-".join(f"{key}={value:g}" for key, value in choice.items())
            if protocol.startswith("table1"):  # the rate decays as in the rows of Table 2
                paper = experiment.row("paper", method)
                choice["LR_fin"] = choice["LR_start"] * paper.LR_fin / paper.LR_start
            hp = dataclasses.replace(row, **{**setting, **choice})
            folder = original_stack.RESULTS / "tuning" / name
            try:
                run = loop.run(dataset, hp, experiment.build_network, seed=1234, results=folder)
                outcome = f"validation error {run['valid_error']:.2f}%"
            except UserError as error:  # for example a loss that is not finite
                outcome = str(error)
            lines.append(f"{protocol:20}{method:14}{name:30}{outcome}")
    print("\n".join(lines))


def main(argv=None):
    parser = command_line.Parser(prog="tune", description=__doc__)
    parser.add_argument("dataset", choices=GRIDS)
    parser.add_argument("--data", metavar="DIR", help="has or receives the data files")
    parser.add_argument("--allow-unofficial-data", action="store_true")
    return command_line.run(parser, tune, argv)


if __name__ == "__main__":
    sys.exit(main())
