"""A look at BinaryConnect's two methods and two baselines: a few epochs of each on 10,000 images of
MNIST, or on embedded digits."""

import dataclasses
import sys
import tempfile

import original_stack
from original_stack.command_line import Parser, run
from original_stack.errors import UserError

from reproduction import datasets
from reproduction.experiments import EXPERIMENTS
from reproduction.training import loop

METHODS = ("stochastic", "deterministic", "none", "dropout")
EPOCHS = {"mnist": 4, "digits": 20}


def look(_):
    """The command: trains each method and prints its test error."""
    try:
        dataset = datasets.load("mnist", train_size=10000)
    except UserError as error:
        print(f"no MNIST ({error}); scikit-learn's handwritten digits instead\n")
        dataset = datasets.load("digits")
    experiment, epochs = EXPERIMENTS[dataset.name], EPOCHS[dataset.name]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            row = experiment.row("paper", method)
            hp = dataclasses.replace(row, epochs=epochs, num_units=512)
            print(f"\n{method}", flush=True)
            done = loop.run(dataset, hp, experiment.build_network, seed=1234, results=folder)
            lines.append(
                f"{method:13}  test error {done['test_error']:5.2f}%  {done['seconds']:4.0f} s"
            )
    print(f"\n{dataset.name}, {len(dataset.train.y)} training images, {epochs} epochs, 3 x 512")
    print("\n".join(lines))
    print("Too short to compare with the paper: ./reproduce mnist runs its experiment.")


def main(argv=None):
    return run(Parser(prog="quick", description=__doc__), look, argv)


if __name__ == "__main__":
    sys.exit(main())
