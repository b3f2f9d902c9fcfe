"""Times the convolutions of the CIFAR-10 network, forward and both gradients, with batches of 50.

The rivals are the fused op with binarized and with other filters, Theano's own op (CorrMM), the
matrix products of direct convolutions, and PyTorch with images in Theano's order and with channels
last. The first layer needs no gradient with respect to its input.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from original_stack import machine
from original_stack.command_line import Parser, run

from rivals import (
    Rival,
    alternate,
    environment,
    foreign_environment,
    ratio,
    write_record,
)
from serve import serve

BATCH = 50
LAYERS = [  # channels, filters, height and width
    (3, 128, 32),
    (128, 128, 32),
    (128, 256, 16),
    (256, 256, 16),
    (256, 512, 8),
    (512, 512, 8),
]
ROUNDS, STEPS = 7, 3
NAMES = ("binarized", "fused", "Theano", "products")


def convolutions(convolution, prepare=lambda filters: filters):
    """A function that computes the output and the gradients of every layer from separate arrays."""
    import numpy as np
    import theano

    random = np.random.RandomState(1)
    functions = []
    for channels, filters, size in LAYERS:
        x, dy = (
            theano.shared(random.normal(size=(BATCH, c, size, size)).astype("float32"))
            for c in (channels, filters)
        )
        w = random.choice([-1, 1], (filters, channels, 3, 3)).astype("float32")
        w = prepare(theano.shared(w))
        y = convolution(x, w)
        gradients = theano.grad(None, [w] if channels == 3 else [w, x], known_grads={y: dy})
        functions.append(theano.function([], [y, *gradients]))
    return lambda: [function() for function in functions]


def products():
    """A function that computes only the matrix products; their operands are already arranged."""
    import numpy as np
    import theano
    import theano.tensor as T

    functions = []
    for channels, filters, size in LAYERS:
        pixels = BATCH * size * size
        patches, w, dy = (
            theano.shared(np.ones(shape, "float32"))
            for shape in ((pixels, 9 * channels), (9 * channels, filters), (pixels, filters))
        )
        wanted = [T.dot(patches, w), T.dot(patches.T, dy)]
        functions.append(theano.function([], wanted + [T.dot(dy, w.T)] * (channels != 3)))
    return lambda: [function() for function in functions]


def step(rival):
    if rival == "products":
        return products()
    if rival in ("binarized", "fused"):
        from fused import binarize, conv3x3

        if rival == "binarized":
            return convolutions(conv3x3, lambda filters: binarize(filters, 1.0))
        return convolutions(conv3x3)
    import theano.tensor as T

    return convolutions(lambda x, w: T.nnet.conv2d(x, w, border_mode=1))


def main(argv=None):
    parser = Parser(prog="convolution.py", description=__doc__)
    parser.add_argument("--torch-python", help="a Python that imports PyTorch, to compare with it")
    parser.add_argument("--rival", choices=NAMES, help=argparse.SUPPRESS)
    return run(parser, measure, argv)


def measure(args):
    """The command: times the convolutions, or serves as a rival."""
    if args.rival is not None:
        serve(step(args.rival))
        return
    rivals = {name: Rival([sys.executable, __file__, "--rival", name]) for name in NAMES}
    if args.torch_python is not None:
        script = Path(__file__).with_name("torch_convolution.py")
        command = [args.torch_python, script, "--threads", machine.threads()]
        layers = ["--batch", BATCH, "--layers", json.dumps(LAYERS)]
        foreign = foreign_environment()
        rivals["PyTorch"] = Rival([*command, *layers], foreign)
        rivals["PyTorch channels last"] = Rival([*command, *layers, "--channels-last"], foreign)
    times = alternate(rivals, ROUNDS, STEPS)
    for rival in rivals.values():
        rival.close()
    record = {
        "machine": environment(),
        "milliseconds": times,
        "over_binarized": {name: ratio(times, name, "binarized") for name in times},
    }
    for name, milliseconds in times.items():
        median = statistics.median(milliseconds)
        print(f"{name:22}{median:8.1f} ms {record['over_binarized'][name]:8.2f} x binarized")
    write_record("convolution", record)


if __name__ == "__main__":
    sys.exit(main())
