"""Short runs for the choices that the paper does not record for two rows of its MNIST table:
learning rates of deterministic BinaryConnect and of dropout, and whether dropout drops inputs too.
Records go to results/tuning/; the choice, by validation error, is DEVIATIONS.md, 6."""

import dataclasses
import itertools
import sys

import datasets
import mnist
import original_stack
import training

EPOCHS = 10
GRIDS = {
    "deterministic": {"LR_start": (0.1, 0.3, 1.0), "LR_fin": (0.003, 0.01)},
    "dropout": {"LR_start": (0.1, 0.3, 1.0), "dropout_in": (0.0, 0.2)},
}


def main():
    dataset = datasets.load("mnist")
    rows = {h.method: h for h in mnist.ROWS if h.protocol == "paper"}
    lines = []
    for method, grid in GRIDS.items():
        for values in itertools.product(*grid.values()):
            choice = dict(zip(grid, values, strict=True))
            name = "-".join(f"{key}={value:g}" for key, value in choice.items())
            h = dataclasses.replace(rows[method], epochs=EPOCHS, **choice)
            folder = original_stack.RESULTS / "tuning" / name
            run = training.run(dataset, h, mnist.build_network, seed=1234, results=folder)
            lines.append(f"{method:14}{name:30}validation error {run['valid_error']:.2f}%")
    print("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except original_stack.UserError as error:
        print(f"tune.py: {error}", file=sys.stderr)
        sys.exit(2)
