"""Times binarized products and networks against float kernels and other engines.

    ./reproduce benchmark xnor [--torch-python PYTHON] [--larq-python PYTHON]

Products of n x n matrices of +-1, n from 1024 to 8192, and MNIST's network of 3 x 4096 (Binarized
Neural Networks, section 4 and figure 3) with batches of 10,000 and of one image, by the packed
kernels that this processor can run, by OpenBLAS and by a plain float kernel (plain_product.c: not
vectorized, on all threads). Packed products take packed operands; networks take pixels. The plain
kernel and Larq Compute Engine, which is not optimized for x86, do a part of the large tasks, and
their times are scaled up. Rivals take turns, and ratios are taken within a turn. Prints a table and
writes results/benchmarks/xnor.json and the table in results/benchmarks/README.md.

    ./reproduce benchmark xnor --opencl [N]

The paper's two experiments on device N of ./reproduce devices: the product with n = 8192 and the
network with 10,000 images, by the packed kernels, by an unoptimized and a tiled float kernel and,
where it is installed (Debian, Ubuntu: apt-get install libclblast1), by CLBlast. Writes
results/benchmarks/opencl-gpu.json, or opencl-cpu.json where the device is a processor, and their
tables in the page.
"""

import argparse
import os
import statistics
import sys
import tempfile
import types
from pathlib import Path

from original_stack import machine
from original_stack.command_line import Parser, integer_between, run
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

SIZES = (1024, 2048, 4096, 8192)
UNITS, IMAGES = 4096, 10_000
LARQ_IMAGES = 100
PLAIN_OPERATIONS = 2**30  # multiplications and additions of a task that the plain kernel does
PUBLISHED = (
    "Published, on a GTX 750: the product 23 times faster than by the unoptimized kernel and 3.4 "
    "times faster than by cuBLAS, the network 7 times faster than by the unoptimized kernel "
    "(Binarized Neural Networks, section 4)."
)
CHECKED = 8  # rows or images whose results must be equal


def plain_product():
    """The op of plain_product.c: maps float32 (n, depth) and (m, depth) to (n, m)."""
    import theano
    import theano.tensor as T

    class PlainProduct(theano.gof.COp):
        __props__ = ()

        def __init__(self):
            super().__init__(["plain_product.c"], "APPLY_SPECIFIC(plain_product)")

        def c_compile_args(self):
            return ["-O3", "-fopenmp"]

        def c_code_cache_version(self):
            return (1,)

        def make_node(self, a, b):
            return theano.Apply(self, [a, b], [T.fmatrix()])

    return PlainProduct()


def factors(size):
    """Two matrices of random bits: the rows of the first factor, and the columns of the second."""
    import numpy as np

    random = np.random.RandomState(size)
    return tuple(random.randint(0, 2, (size, size), np.int8) for _ in range(2))


def product(rival, size):
    """A function that multiplies, the share of the rows that it takes, and the first results."""
    import numpy as np
    import theano
    import theano.tensor as T

    from fused import xnor

    a, b = factors(size)
    rows = size
    if rival == "xnor":
        packed, panels = xnor.pack_bits(a), xnor.panels(xnor.pack_bits(b))
        output = xnor.dot(theano.shared(packed), theano.shared(panels), size, size)
    elif rival == "sgemm":
        a, b = (theano.shared(2 * np.float32(x) - 1, borrow=True) for x in (a, b.T.copy()))
        output = T.dot(a, b)
    else:
        rows = max(CHECKED, min(size, PLAIN_OPERATIONS // size**2))
        a, b = (theano.shared(2 * np.float32(x) - 1, borrow=True) for x in (a[:rows], b))
        output = plain_product()(a, b)
    step = theano.function([], output)
    return step, rows / size, step()[:CHECKED].astype(int).tolist()


def hyperparameters(units):
    """Those of MNIST's network of method bnn, with another number of units."""
    import dataclasses

    from reproduction.experiments import EXPERIMENTS

    return dataclasses.replace(EXPERIMENTS["mnist"].row("bnn-theano", "bnn"), num_units=units)


def network_of(units):
    """MNIST's network with random weights of +-1 and batch normalization that suits them."""
    import lasagne
    import numpy as np

    from reproduction.experiments import EXPERIMENTS

    lasagne.random.set_rng(np.random.RandomState(0))
    network = EXPERIMENTS["mnist"].build_network(hyperparameters(units))
    random = np.random.RandomState(1)
    for layer in lasagne.layers.get_all_layers(network):
        if hasattr(layer, "W"):
            layer.W.set_value(np.where(layer.W.get_value() >= 0, np.float32(1), np.float32(-1)))
            spread = np.sqrt(layer.W.get_value().shape[0])
        elif hasattr(layer, "gamma"):
            shape = layer.gamma.get_value().shape
            layer.mean.set_value(np.float32(random.normal(0, spread / 2, shape)))
            layer.inv_std.set_value(np.float32(np.full(shape, 1 / spread)))
            layer.gamma.set_value(np.float32(random.normal(0, 1, shape)))
    return network


def pixels_of(images):
    import numpy as np

    return np.random.RandomState(2).randint(0, 256, (images, 1, 28, 28)).astype(np.uint8)


def export_network(units, path):
    """Write the packed network and return the sizes of its weights."""
    import numpy as np

    from reproduction.datasets.dataset import Dataset, Split
    from reproduction.deploy import export

    part = Split(np.float32(pixels_of(CHECKED)) * 2 - 255, np.zeros(CHECKED, int))
    dataset = Dataset("mnist", part, part, part, files=(), preprocessing="")
    record = {"dataset": "mnist", "protocol": "bnn-theano", "method": "bnn", "seed": 0}
    trained = types.SimpleNamespace(
        record=record, hp=hyperparameters(units), network=lambda: network_of(units)
    )
    packed, unequal = export.export_bnn(trained, dataset)
    if unequal:
        raise UserError("packed and Theano networks differ; expected equal outputs")
    Path(path).write_bytes(packed.content())
    return packed.sizes()


def network(rival, units, images, path):
    """A function that computes the outputs of the network, the share of the images that it takes,
    and the first results."""
    import numpy as np
    import theano
    import theano.tensor as T

    from reproduction.deploy import export, predict

    pixels = pixels_of(images)
    if rival == "xnor":
        packed = predict.load(path)

        def step():
            return packed.outputs(pixels)
    else:
        X = T.matrix()
        x = X
        for layer, following in export.stages(network_of(units)):
            W = layer.W.get_value()
            if rival == "sgemm":
                sums = T.dot(x, theano.shared(W))
            else:
                sums = plain_product()(x, theano.shared(np.ascontiguousarray(W.T)))
            x = export.after(sums, layer, following)
        function = theano.function([X], x)
        if rival == "plain":
            operations = 784 * units + 2 * units**2 + 10 * units
            pixels = pixels[: max(CHECKED, PLAIN_OPERATIONS // operations)]
        inputs = np.float32(pixels.reshape(len(pixels), 784)) * 2 - 255

        def step():
            return function(inputs)

    return step, len(pixels) / images, step()[:CHECKED].tolist()


def rival_of(args):
    """The result of `product` or `network` for the command line of a rival."""
    if args.opencl is None:
        if args.task == "product":
            return product(args.rival, args.size)
        return network(args.rival, args.size, args.images, args.path)
    import opencl_rivals

    on_device = args.opencl, CHECKED
    if args.task == "product":
        return opencl_rivals.product(args.rival, factors(args.size), *on_device)
    return opencl_rivals.network(args.rival, pixels_of(args.images), args.path, *on_device)


def rivals_of(task, size, images, path, options):
    """{rival: its process} for a task."""
    from fused import xnor

    this = [sys.executable, __file__, "--task", task, "--size", size, "--images", images]
    this += ["--path", path, "--rival"]
    if options.opencl is not None:
        from opencl_rivals import rivals_of

        this[-1:-1] = ["--opencl", options.opencl]
        return {name: Rival([*this, rival]) for name, rival in rivals_of(task).items()}
    rivals = {
        f"xnor, {kernel}": Rival([*this, "xnor"], {**os.environ, "BINARYCONNECT_XNOR": kernel})
        for kernel in xnor.kernels()
    }
    rivals["OpenBLAS sgemm"] = Rival([*this, "sgemm"])
    rivals["plain float kernel"] = Rival([*this, "plain"])
    if task == "network":
        for name, python, script, most in (
            ("PyTorch", options.torch_python, "torch_mlp.py", images),
            ("Larq Compute Engine", options.larq_python, "larq_mlp.py", LARQ_IMAGES),
        ):
            if python:
                command = [python, Path(__file__).with_name(script), "--units", size]
                command += ["--images", min(images, most), "--of", images]
                command += ["--threads", machine.threads()]
                rivals[name] = Rival(command, foreign_environment())
    return rivals


def compare(task, size, images, path, options):
    """The record of a task."""
    rivals = rivals_of(task, size, images, path, options)
    results = [r.facts.pop("results") for r in rivals.values() if "results" in r.facts]
    if any(result != results[0] for result in results):
        raise UserError(f"{task} {size}: rivals differ; expected equal results")
    large = size >= 4096 and images != 1
    times = alternate(rivals, 3 if large else 7, seconds=0.25)
    parts = {name: rival.facts.pop("part") for name, rival in rivals.items()}
    for rival in rivals.values():
        rival.close()
    times = {name: [t / parts[name] for t in measured] for name, measured in times.items()}
    ours = [name for name in rivals if name.startswith("xnor, ")]
    return {
        "task": task,
        "size": size,
        "images": images,
        "median_milliseconds": {name: statistics.median(t) for name, t in times.items()},
        "over": {kernel: {name: ratio(times, name, kernel) for name in times} for kernel in ours},
        "part_timed": parts,
        "versions": {name: r.facts["version"] for name, r in rivals.items() if r.facts},
        "milliseconds": times,
    }


def title(record):
    if record["task"] == "product":
        return f"{record['size']} x {record['size']} x {record['size']}"
    many = "one image" if record["images"] == 1 else f"{record['images']:,} images"
    return f"MNIST, 3 x {record['size']}, {many}"


def rows(records):
    """A table with a row for each task and rival; ratios to the kernels that all tasks have."""
    kernels = [k for k in records[0]["over"] if all(k in record["over"] for record in records)]
    lines = []
    for record in records:
        for rival, milliseconds in record["median_milliseconds"].items():
            part = record["part_timed"][rival]
            name = rival if part == 1 else f"{rival} ({part:.2%} of it timed)"
            ratios = [f"{record['over'][kernel][rival]:.2f}" for kernel in kernels]
            lines.append([title(record), name, f"{milliseconds:.4g}", *ratios])
    return table(["task", "by", "ms", *(f"x {kernel}" for kernel in kernels)], lines)


def footnote(weights, facts):
    whole, packed = weights
    others = "".join(f", {name} {version}" for name, version in facts["versions"].items())
    return (
        f"Weights of the network: {whole:,} bytes as float32, {packed:,} packed, "
        f"{whole / packed:.1f} times less. {facts['processor']}, {facts['threads']} threads, "
        f"{facts['blas']}{others}{timed_code(facts)}."
    )


def opencl_facts(number):
    """Facts about a device on which the kernels build, for the record."""
    from reproduction.deploy import opencl

    device = opencl.Device(number).device
    return {"device": opencl.description(device), "is_gpu": opencl.is_gpu(device)}


def opencl_footnote(facts):
    of_processor = "These are times of a processor and say nothing of a GPU's."
    meaning = PUBLISHED if facts["is_gpu"] else of_processor
    return f"{facts['device']}{timed_code(facts)}. {meaning}"


def main(argv=None):
    parser = Parser(
        prog="benchmark xnor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--torch-python", help="a Python that imports PyTorch")
    parser.add_argument("--larq-python", help="a Python with requirements-larq.txt installed")
    parser.add_argument(
        "--opencl",
        type=integer_between(0),
        nargs="?",
        const=0,
        metavar="N",
        help="the paper's experiments on this device of ./reproduce devices (0 if not given)",
    )
    parser.add_argument("--small", action="store_true", help="a trial with small sizes, no record")
    for name, kind in (("task", str), ("size", int), ("images", int), ("path", Path)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--rival", help=argparse.SUPPRESS)
    return run(parser, measure, argv)


def measure(args):
    """The command: times all tasks, or serves as a rival of one."""
    if args.rival:
        step, part, results = rival_of(args)
        serve(step, least=1, part=part, results=results)
        return
    sizes, units, images = ((256, 512), 256, 300) if args.small else (SIZES, UNITS, IMAGES)
    tasks = [*(("product", size, 0) for size in sizes), ("network", units, images)]
    name, mark, facts = "xnor", "./reproduce benchmark xnor", {}
    if args.opencl is None:
        tasks.append(("network", units, 1))
    else:
        tasks = tasks[-2:]
        facts = opencl_facts(args.opencl)
        kind = "gpu" if facts["is_gpu"] else "cpu"
        name, mark = f"opencl-{kind}", f"{mark} --opencl: {kind}"
    records = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.npz")
        weights = export_network(units, path)
        for task in tasks:
            records.append(compare(*task, path, args))
            print(rows(records[-1:]), flush=True)
    record = {
        "weights_bytes": {"float32": weights[0], "packed": weights[1]},
        "machine": {**environment(), "versions": records[-1]["versions"], **facts},
        "records": records,
    }
    note = opencl_footnote(facts) if facts else footnote(weights, record["machine"])
    print(note)
    if args.small:
        return
    write_record(name, record)
    update_page(mark, f"{rows(records)}\n\n{note}")


if __name__ == "__main__":
    sys.exit(main())
