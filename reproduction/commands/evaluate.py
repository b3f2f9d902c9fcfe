"""The test error of a trained run with each of the paper's three kinds of weights (BinaryConnect,
section 2.6): binary, real, and ensembles of several draws. Writes evaluation.json beside run.json.
"""

import json
import sys

import original_stack
from original_stack.command_line import Parser, run
from original_stack.errors import UserError, write_atomically

import numpy as np

from reproduction.deploy import trained
from reproduction.training import model as training

ENSEMBLES = (1, 2, 4, 8, 16)  # sizes, all from one set of draws


def evaluate(one, dataset):
    """Test errors, in percent, of one trained model.

    Batch normalization is the protocol's: its statistics are recomputed for each kind of weights
    from the training and validation sets (MNIST, paper), or those that training left. Where the
    latter are of drawn weights, binary weights are also tested with statistics of their own. Each
    batch of an ensemble member takes its own draw, as in training.

    Parameters
    ----------
    one : trained.TrainedRun
    dataset : datasets.Dataset

    Returns
    -------
    dict
        `binary`, `binary_own_statistics` and `real`: an error; `ensemble`: {size: error}. None and
        empty for what the network does not have.
    """
    found = {"binary": None, "binary_own_statistics": None, "real": None, "ensemble": {}}
    for kind in one.h.kinds_of_weights:
        model = training.Model(one.network(), one.h, kind)
        model.recompute_statistics(dataset.train, dataset.valid)
        if kind == "ensemble":
            found[kind] = _ensembles(model, dataset.test)
        else:
            found[kind] = model.evaluate(dataset.test)[1]
        if kind == "binary" and model.renew_statistics(dataset.train):
            found["binary_own_statistics"] = model.evaluate(dataset.test)[1]
    return found


def _ensembles(model, split):
    """{size: error} of the averages over the first `size` of one set of sampled networks."""
    sums = np.cumsum(model.all_outputs(split, max(ENSEMBLES)), axis=0)
    wrong = {size: int((sums[size - 1].argmax(axis=1) != split.y).sum()) for size in ENSEMBLES}
    return {str(size): 100 * count / len(split.y) for size, count in wrong.items()}


def write(options):
    """The command: evaluates the run `options.run_dir` and writes its evaluation.json."""
    one = trained.TrainedRun(options.run_dir)
    found = evaluate(one, one.dataset(options.data))
    try:
        write_atomically(
            one.path / "evaluation.json", (json.dumps(found, indent=2) + "\n").encode()
        )
    except OSError as error:
        raise UserError(
            f"cannot write {one.path}/evaluation.json: {error.strerror}; make it writable or "
            "make room"
        ) from None
    errors = {
        "binary": found["binary"],
        "binary, own statistics": found["binary_own_statistics"],
        "real": found["real"],
        **{f"ensemble of {size:>2}": error for size, error in found["ensemble"].items()},
    }
    for label, error in errors.items():
        if error is not None:
            print(f"{label:22} {error:6.2f}%")


def main(argv=None):
    parser = Parser(prog="evaluate", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of a finished run")
    parser.add_argument("--data", metavar="DIR", help="where the data files are or are to go")
    return run(parser, write, argv)


if __name__ == "__main__":
    sys.exit(main())
