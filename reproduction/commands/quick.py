"""A look at BinaryConnect's four methods: a few epochs of each on 10,000 images of MNIST, or on
embedded digits."""

import dataclasses
import sys
import tempfile

from original_stack.command_line import Parser, run
from original_stack.errors import UserError

import mnist
from reproduction import datasets
from reproduction.training import loop as training

EPOCHS = {"mnist": 4, "digits": 20}


def look(_):
    """The command: trains each method and prints what came out."""
    try:
        dataset = datasets.load("mnist", train_size=10000)
    except UserError as error:
        print(f"no MNIST ({error}); scikit-learn's handwritten digits instead\n")
        dataset = datasets.load("digits")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for row in mnist.ROWS[:4]:
            h = dataclasses.replace(row, epochs=EPOCHS[dataset.name], num_units=512)
            print(f"\n{h.method}", flush=True)
            done = training.run(dataset, h, mnist.build_network, seed=1234, results=folder)
            lines.append(
                f"{h.method:13}  test error {done['test_error']:5.2f}%  {done['seconds']:4.0f} s"
            )
    print(f"\n{dataset.name}, {len(dataset.train.y)} training images, {h.epochs} epochs, 3 x 512")
    print("\n".join(lines))
    print("Too short to compare with the paper: ./reproduce mnist runs its experiment.")


def main(argv=None):
    return run(Parser(prog="quick", description=__doc__), look, argv)


if __name__ == "__main__":
    sys.exit(main())
