"""Times the kernels of binary operands on one core, beside the bounds of their instructions.

    ./reproduce benchmark kernels

A bound is the number of multiply-adds a cycle that the vector instructions of a kernel's innermost
loop allow on a core that starts two of 512 bits or three of 256 bits a cycle. For example, a table
of signed sums takes a permutation and an addition for 64, and the gradient of weights an addition
for 32, because half of its inputs are negative. A kernel is timed as its op runs it, with all that
it packs and stores. Prints a table and writes results/benchmarks/kernels.json and the table in
results/benchmarks/README.md.
"""

import argparse
import functools
import os
import statistics
import sys
import time

from original_stack.command_line import Parser, run

from rivals import environment, timed_code, update_page, write_record

from reproduction.report.markdown import table

ROUNDS = 15
LATENCY = 3  # cycles of a product of integers, on Intel since 2008 and on AMD since 2017
CHAIN = 50_000  # products; some 50 microseconds, in which the clock stays as it was
BATCH, UNITS = 100, 4096  # of MNIST's network of method bnn
IMAGES, CHANNELS, SIZE = 50, 128, 32  # of CIFAR-10's second convolution
DENSE = f"{BATCH} x {UNITS} x {UNITS}"
XNOR = {  # kernel: source, bound
    "avx512": ("counts.h", 341),
    "avx512bw": ("slices.h", 762),
    "avx2": ("tables.h", 256),
}
CONVOLUTION = f"{IMAGES} images of {SIZE} x {SIZE}, {CHANNELS} to {CHANNELS} channels"


def chain():
    """A function that runs CHAIN dependent products of integers and returns the seconds."""
    import theano
    import theano.tensor as T

    class Chain(theano.Op):
        __props__ = ()

        def make_node(self, x):
            return theano.Apply(self, [x], [T.dvector()])

        def c_headers(self):
            return ["<time.h>"]

        def c_code(self, node, name, inputs, outputs, sub):
            return f"""
            struct timespec begin, end;
            clock_gettime(CLOCK_MONOTONIC, &begin);
            npy_int64 factor = *(npy_int64 *)PyArray_DATA({inputs[0]}), product = 1;
            for (long i = 0; i < {CHAIN}; i++) {{
                product *= factor;
                asm volatile("" : "+r"(product)); // one after another
            }}
            clock_gettime(CLOCK_MONOTONIC, &end);
            npy_intp shape = 2;
            Py_XDECREF({outputs[0]});
            {outputs[0]} = (PyArrayObject *)PyArray_SimpleNew(1, &shape, NPY_FLOAT64);
            double *out = (double *)PyArray_DATA({outputs[0]});
            out[0] = end.tv_sec - begin.tv_sec + 1e-9 * (end.tv_nsec - begin.tv_nsec);
            out[1] = product;
            """

    return theano.function([], Chain()(theano.shared(3)))


def _arrays():
    """Shared variables: real and binary inputs, and latent weights, of the dense layer."""
    import numpy as np
    import theano

    random = np.random.RandomState(0)
    real = random.normal(size=(BATCH, UNITS))
    weights = random.uniform(-1, 1, (UNITS, UNITS))
    return [theano.shared(x.astype("float32")) for x in (real, np.sign(real), weights)]


def _product(binary):
    import theano
    import theano.tensor as T

    import fused

    x, signs, W = _arrays()
    return theano.function([], T.dot(signs if binary else x, fused.binarize(W, 1.0)))


def _gradient():
    """W <- W - X^T dY."""
    import theano
    import theano.tensor as T

    import fused

    dY, x, W = _arrays()
    return theano.function([], updates=[(W, W - T.dot(fused.binarize(x, 1.0).T, dY))])


def _convolution(binary):
    import numpy as np
    import theano

    import fused

    random = np.random.RandomState(0)
    x = random.normal(size=(IMAGES, CHANNELS, SIZE, SIZE))
    W = random.normal(size=(CHANNELS, CHANNELS, 3, 3))
    x, W = (theano.shared(a.astype("float32")) for a in (np.sign(x) if binary else x, W))
    return theano.function([], fused.conv3x3(x, fused.binarize(W, 1.0)))


def _filter_gradient():
    """The gradient with respect to the filters of binary images."""
    import numpy as np
    import theano
    import theano.tensor as T

    import fused

    random = np.random.RandomState(0)
    x, dy = (random.normal(size=(IMAGES, CHANNELS, SIZE, SIZE)) for _ in range(2))
    W = random.normal(size=(CHANNELS, CHANNELS, 3, 3))
    x, dy, W = (theano.shared(a.astype("float32")) for a in (x, dy, W))
    y = fused.conv3x3(fused.binarize(x, 1.0), W)
    return theano.function([], T.grad(None, W, known_grads={y: dy}))


def _packed(kernel):
    """The product of packed operands by an XNOR kernel."""
    import numpy as np
    import theano

    from fused import xnor

    os.environ["BINARYCONNECT_XNOR"] = kernel
    random = np.random.RandomState(0)
    bits, weights = (random.randint(0, 2, (UNITS, UNITS), np.int8) for _ in range(2))
    rows = theano.shared(xnor.pack_bits(bits))
    panels = theano.shared(xnor.panels(xnor.pack_bits(weights)))
    return theano.function([], xnor.dot(rows, panels, UNITS, UNITS))


def kernels():
    """The kernels that this processor can run: (name, source, task, multiply-adds, bound, a
    function that makes a function that runs the op once)."""
    from original_stack import machine

    from fused import xnor
    from fused.product import INSTRUCTIONS

    dense = DENSE, BATCH * UNITS**2
    images = CONVOLUTION, IMAGES * SIZE**2 * 9 * CHANNELS**2
    cube = f"{UNITS} x {UNITS} x {UNITS}", UNITS**3
    runnable = []
    if machine.has(*INSTRUCTIONS):
        runnable += [
            ("signed sums", "product.cpp", *dense, 64, lambda: _product(binary=False)),
            ("additions", "gradient.h", *dense, 64, _gradient),
            ("signed sums", "binary_convolution.cpp", *images, 64, lambda: _convolution(False)),
            ("signed sums", "binary_filter_gradient.cpp", *images, 64, _filter_gradient),
        ]
    if machine.has(*INSTRUCTIONS, "avx512_vpopcntdq"):
        runnable += [
            ("counts", "counted.h", *dense, 341, lambda: _product(binary=True)),
            ("counts", "counted_images.h", *images, 341, lambda: _convolution(True)),
        ]
    for name, (source, bound) in XNOR.items():
        if name in xnor.kernels():
            build = functools.partial(_packed, name)
            runnable.append((f"xnor, {name}", f"xnor/{source}", *cube, bound, build))
    return runnable


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_kernel(name, source, task, products, bound, build, clock):
    """The record of a kernel. Its clock is that of a chain of products right after it, because
    processors slow down under wide vectors."""
    function = build()
    function()
    rounds = []
    for _ in range(ROUNDS):
        seconds = _seconds(function)
        rounds.append((seconds, CHAIN * LATENCY / clock()[0]))
    rates = [products / seconds / frequency for seconds, frequency in rounds]
    return {
        "name": name,
        "source": source,
        "task": task,
        "bound": bound,
        "products_a_cycle": statistics.median(rates),
        "milliseconds": [1e3 * seconds for seconds, _ in rounds],
        "gigahertz": [frequency / 1e9 for _, frequency in rounds],
    }


def block(record):
    """The text of the page: a row for each kernel, and the machine."""
    rows = []
    for kernel in record["kernels"]:
        milliseconds = statistics.median(kernel["milliseconds"])
        rate, bound = kernel["products_a_cycle"], kernel["bound"]
        row = [kernel["name"], kernel["source"], kernel["task"], f"{milliseconds:.3g}"]
        rows.append([*row, f"{rate:.1f}", bound, f"{rate / bound:.0%}"])
    clock = statistics.median(ghz for kernel in record["kernels"] for ghz in kernel["gigahertz"])
    facts = record["machine"]
    note = f"{facts['processor']}, one thread, {clock:.2f} GHz as measured{timed_code(facts)}."
    header = ["kernel", "source", "task", "ms", "multiply-adds a cycle", "bound", "reached"]
    return f"{table(header, rows)}\n\n{note}"


def main(argv=None):
    parser = Parser(
        prog="benchmark kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return run(parser, measure, argv)


def measure(args):
    os.environ["OMP_NUM_THREADS"] = "1"  # before OpenMP starts
    clock = chain()
    record = {"kernels": [time_kernel(*kernel, clock) for kernel in kernels()]}
    record["machine"] = environment()
    print(block(record))
    write_record("kernels", record)
    update_page("./reproduce benchmark kernels", block(record))


if __name__ == "__main__":
    sys.exit(main())
