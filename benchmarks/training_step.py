"""Times a training step against the plain graph, PyTorch and the bare matrix products of the step.

    ./reproduce benchmark [STEP ...] [--torch-python PYTHON]

The steps are mnist-adam (MNIST's network of 3 x 1024, batches of 200, Adam with scaling and
clipping), mnist-published (the same network by the published protocol), cifar10 and svhn (the
published networks), all stochastic, and those of Binarized Neural Networks: mnist-bnn and
cifar10-bnn (protocol bnn-theano) and mnist-bnn-torch7 (protocol bnn-torch7, without PyTorch).
Rivals take turns of a quarter of a second, and ratios are taken within a turn. The
command prints a table, and writes results/benchmarks/<step>.json and the table in
results/benchmarks/README.md.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import original_stack
from original_stack import machine
from original_stack.command_line import Parser, run
from original_stack.errors import UserError

from rivals import (
    Rival,
    alternate,
    environment,
    foreign_environment,
    ratio,
    timed_code,
    update_page,
    write_record,
)
from serve import serve

from reproduction.report.markdown import table

STEPS = {  # data set, protocol and method of the row, and the changes to it
    "mnist-adam": ("mnist", "release", "stochastic", {"num_units": 1024, "batch_size": 200}),
    "mnist-published": ("mnist", "paper", "stochastic", {}),
    "cifar10": ("cifar10", "paper", "stochastic", {}),
    "svhn": ("svhn", "paper", "stochastic", {}),
    "mnist-bnn": ("mnist", "bnn-theano", "bnn", {}),
    "mnist-bnn-torch7": ("mnist", "bnn-torch7", "bnn", {}),
    "cifar10-bnn": ("cifar10", "bnn-theano", "bnn", {}),
}
ROUNDS = 20
NAMES = {"fused": "ours", "plain": "ours, plain graph", "products": "bare matrix products"}
# Products of one step, (rows, depth, columns): forward, data gradient, weight gradient.
DENSE_PRODUCTS = {
    step: [(batch, 784, units), *[(batch, units, units)] * 2, (batch, units, 10)]
    for step, batch, units in (
        ("mnist-adam", 200, 1024),
        ("mnist-published", 200, 1024),
        ("mnist-bnn", 100, 4096),
        ("mnist-bnn-torch7", 100, 2048),
    )
}
CONVOLUTIONAL_PRODUCTS = {
    step: [
        (50 * pixels, 9 * channels, filters)
        for pixels, channels, filters in (
            (32 * 32, 3, first),
            (32 * 32, first, first),
            (16 * 16, first, 2 * first),
            (16 * 16, 2 * first, 2 * first),
            (8 * 8, 2 * first, 4 * first),
            (8 * 8, 4 * first, 4 * first),
        )
    ]
    + [(50, 64 * first, 1024), (50, 1024, 1024), (50, 1024, 10)]
    for step, first in (("cifar10", 128), ("svhn", 64), ("cifar10-bnn", 128))
}


def training_step(name):
    """A function that trains on one batch, as the script of the data set does."""
    import numpy as np

    from reproduction.experiments import EXPERIMENTS
    from reproduction.training.model import Model

    dataset, protocol, method, changes = STEPS[name]
    experiment = EXPERIMENTS[dataset]
    hp = dataclasses.replace(experiment.row(protocol, method), **changes)
    shape = (1, 28, 28) if dataset == "mnist" else (3, 32, 32)
    model = Model(experiment.build_network(hp), hp, hp.default_test_weights)
    random = np.random.RandomState(0)
    X = random.normal(size=(hp.batch_size, *shape)).astype(np.float32)
    Y = model.targets[random.randint(10, size=hp.batch_size)]
    LR = np.float32(hp.LR_start)
    return lambda: model.train_step(X, Y, LR)


def products(shapes):
    """A function that computes only the matrix products of a training step.

    A convolution is the product of patches of its images (im2col) and its filters.
    """
    import numpy as np

    sgemm = machine.load_blas().scipy_cblas_sgemm
    ordinary, transposed = 111, 112
    one, zero = ctypes.c_float(1), ctypes.c_float(0)

    def product(m, n, k, a, ta, b, tb, out):
        lda, ldb = (m if ta == transposed else k), (k if tb == transposed else n)
        a, b, out = (ctypes.c_void_p(x.ctypes.data) for x in (a, b, out))
        sgemm(101, ta, tb, m, n, k, one, a, lda, b, ldb, zero, out, n)

    def arrays():
        for m, k, n in shapes:
            yield [np.random.rand(*s).astype(np.float32) for s in ((m, k), (k, n), (m, n))]

    layers = list(arrays())

    def step():
        for (m, k, n), (x, W, y) in zip(shapes, layers, strict=True):
            product(m, n, k, x, ordinary, W, ordinary, y)
        for i, ((m, k, n), (x, W, y)) in reversed(
            list(enumerate(zip(shapes, layers, strict=True)))
        ):
            product(k, n, m, x, transposed, y, ordinary, W)
            if i > 0:
                product(m, k, n, y, ordinary, W, transposed, x)

    return step


def rivals_of(name, torch_python):
    """{rival: its process}."""
    this = [sys.executable, __file__, name, "--rival"]
    rivals = {
        "fused": Rival([*this, "fused"]),
        "plain": Rival([*this, "fused"], {**os.environ, "BINARYCONNECT_FUSED": "0"}),
        "products": Rival([*this, "products"]),
    }
    if torch_python and name != "mnist-bnn-torch7":  # torch_step.py has no shift-based arithmetic
        script = Path(__file__).with_name("torch_step.py")
        command = [torch_python, script, name, "--threads", machine.threads()]
        orders = {"": []}
        if name in CONVOLUTIONAL_PRODUCTS:
            orders[", channels last"] = ["--channels-last"]
        foreign = foreign_environment()
        for order, options in orders.items():
            rivals["PyTorch" + order] = Rival([*command, *options], foreign)
            rivals["torch.compile" + order] = Rival([*command, *options, "--compile"], foreign)
    return rivals


def compare(name, torch_python):
    """The record of a step: milliseconds of each rival in each round, ratios, time to start."""
    rivals = rivals_of(name, torch_python)
    times = alternate(rivals, ROUNDS if name not in CONVOLUTIONAL_PRODUCTS else ROUNDS // 2)
    for rival in rivals.values():
        rival.close()
    starts = {}
    with tempfile.TemporaryDirectory() as cache:
        for kind in ("cold_cache", "warm_cache"):
            command = [sys.executable, __file__, name, "--rival", "fused"]
            cold = {"THEANO_FLAGS": "", "BINARYCONNECT_CACHE": cache}
            rival = Rival(command, {**os.environ, **cold})
            starts[kind] = rival.start
            rival.close()
    torch = rivals["PyTorch"].facts["version"] if "PyTorch" in rivals else None
    return {
        "step": name,
        "median_milliseconds": {rival: statistics.median(t) for rival, t in times.items()},
        "over_fused": {rival: ratio(times, rival, "fused") for rival in times},
        "fused_over_products": ratio(times, "fused", "products"),
        "seconds_to_first_step": starts,
        "milliseconds": times,
        "machine": {**environment(), "torch": torch},
    }


def block(records):
    """The text of the page: a row for each step and rival of `records`, and the machines."""
    rows, notes = [], []
    for record in records:
        for rival, milliseconds in record["median_milliseconds"].items():
            ratio_to_ours = f"{record['over_fused'][rival]:.2f}"
            name = NAMES.get(rival, rival)
            rows.append([record["step"], name, f"{milliseconds:.1f}", ratio_to_ours])
        facts, starts = record["machine"], record["seconds_to_first_step"]
        torch = f", PyTorch {facts['torch']}" if facts["torch"] else ""
        notes.append(
            f"{record['step']}: {facts['processor']}, {facts['threads']} threads, "
            f"{facts['blas']}{torch}{timed_code(facts)}; from the command to the first step "
            f"{starts['warm_cache']:.1f} s, {starts['cold_cache']:.1f} s with nothing compiled yet."
        )
    header = ["step", "rival", "ms a step", "x ours"]
    return "\n".join([table(header, rows), "", *notes])


def main(argv=None):
    parser = Parser(
        prog="benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--torch-python", help="a Python that imports PyTorch, to compare with it")
    parser.add_argument("--rival", choices=["fused", "products"], help=argparse.SUPPRESS)
    return run(parser, measure, argv)


def measure(args):
    """The command: times the steps, or serves as a rival of one."""
    unknown = set(args.steps) - set(STEPS)
    if unknown:
        raise UserError(f"unknown step {', '.join(sorted(unknown))}; expected {', '.join(STEPS)}")
    if args.rival == "fused":
        serve(training_step(args.steps[0]))
    elif args.rival == "products":
        serve(products({**DENSE_PRODUCTS, **CONVOLUTIONAL_PRODUCTS}[args.steps[0]]))
    else:
        for name in args.steps or STEPS:
            record = compare(name, args.torch_python)
            print(block([record]), flush=True)
            write_record(name, record)
        files = [original_stack.RESULTS / "benchmarks" / f"{step}.json" for step in STEPS]
        records = [json.loads(file.read_text()) for file in files if file.exists()]
        update_page("./reproduce benchmark", block(records))


if __name__ == "__main__":
    sys.exit(main())
