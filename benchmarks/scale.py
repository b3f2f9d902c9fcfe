"""Measures what a run needs, and how fast Snakemake starts jobs.

    BINARYCONNECT_DATA=DIR ./reproduce benchmark scale

DIR holds the files of MNIST and CIFAR-10, official or not. Files of SVHN of the official sizes are
generated in a temporary folder (4 GB). Each row runs with few images: it is stopped after its first
epoch, and then resumed to its end. Images are read from mapped files, so the memory that a run
cannot do without does not depend on their number. The command writes
results/benchmarks/scale.json, from which `./reproduce report` makes results/scale.md, and by which
`./reproduce sweep` asks Slurm for memory.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import original_stack
from original_stack.command_line import Parser, Stopped, run
from original_stack.errors import UserError

from rivals import environment, write_record

ROWS = [
    ("mnist", "paper", "stochastic"),
    ("mnist", "release", "stochastic"),
    ("mnist", "bnn-theano", "bnn"),
    ("mnist", "bnn-torch7", "bnn"),
    ("cifar10", "paper", "stochastic"),
    ("cifar10", "bnn-theano", "bnn"),
    ("cifar10", "bnn-torch7", "bnn"),
    ("cifar10", "table1-adam-on", "deterministic"),
    ("svhn", "paper", "stochastic"),
    ("svhn", "bnn-theano", "bnn"),
]
BATCHES = 4  # of an epoch, and of each evaluation
JOBS = (10, 100, 1000)  # of a sweep


def train(data, results, row):
    """Two short epochs of a row."""
    from reproduction import datasets
    from reproduction.experiments import EXPERIMENTS
    from reproduction.training import loop

    dataset, protocol, method = row
    experiment = EXPERIMENTS[dataset]
    hp = dataclasses.replace(experiment.row(protocol, method), epochs=2)
    images = BATCHES * hp.batch_size
    inputs = "signed" if method == "bnn" else "centred"
    loaded = datasets.load(dataset, data, allow_unofficial=True, inputs=inputs, train_size=images)
    loaded = dataclasses.replace(
        loaded, valid=loaded.valid.first(images), test=loaded.test.first(images)
    )
    loop.run(loaded, hp, experiment.build_network, 1, results)


def process(arguments, cache, until=None):
    """Run this file with `arguments` in a process, and return its largest resident memory in bytes.

    Linux counts the memory of the process that starts it too, so that one must stay small.

    Parameters
    ----------
    arguments : list
    cache : path
        The cache of compiled code.
    until : path, optional
        The process is told to stop when this file exists.
    """
    command = [sys.executable, __file__, *map(str, arguments)]
    started = subprocess.Popen(
        command, env={**os.environ, "THEANO_FLAGS": "", "BINARYCONNECT_CACHE": str(cache)}
    )
    told = False
    while True:
        pid, status, usage = os.wait4(started.pid, os.WNOHANG)
        if pid:
            break
        if until and until.exists() and not told:
            started.send_signal(signal.SIGTERM)
            told = True
        time.sleep(0.05)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode != (128 + signal.SIGTERM if told else 0):
        raise UserError(f"{' '.join(command)} ended with {started.returncode}; see above")
    return usage.ru_maxrss * 1024


def files_below(folder):
    """{path: bytes} of the files below a folder; links are left out."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
    return {path: path.stat().st_size for path in paths}


def needs(row, data, work):
    """What a run of a row needs, in bytes and numbers of files."""
    dataset, protocol, method = row
    cache, results = work / f"cache-{'-'.join(row)}", work / "results"
    folder = results / dataset / f"{protocol}-{method}" / "seed-1"
    before = files_below(data)
    arguments = ["--train", data, results, *row]
    peak = process(arguments, cache, folder / "checkpoint.npz")
    prepared = files_below(data).keys() - before.keys()
    checkpoint = (folder / "checkpoint.npz").stat().st_size
    resumed = process(arguments, cache)
    compiled = files_below(cache)
    finished = files_below(folder)
    return {
        "row": ":".join(row),
        "first_memory": peak,  # prepares the data, if no run before it has
        "memory": resumed,
        "prepared_data": sum(path.stat().st_size for path in prepared),
        "checkpoint": checkpoint,
        "folder": sum(finished.values()),
        "files": len(finished),
        "compiled": sum(compiled.values()),
        "compiled_files": len(compiled),
    }


def engine(jobs, work):
    """The seconds that Snakemake takes for a sweep of jobs that do nothing, two at a time."""
    root = work / f"stub-{jobs}"
    (root / "reproduction" / "sweep").mkdir(parents=True)
    marks = root / "marks"
    for path, line in (
        (root / "reproduction" / "sweep" / "job", 'echo finished >"$MARK"'),
        (root / "reproduce", "exit 0"),
    ):
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    configuration = {
        "root": str(root),
        "results": str(root),
        "marks": str(marks),
        "logs": str(root),
        "threads": 1,
        "runs": {f"run-{i}": ["mnist"] for i in range(jobs)},
        "memory": {f"run-{i}": 100 for i in range(jobs)},
        "resources": {},
    }
    (root / "configuration.json").write_text(json.dumps(configuration))
    begun = time.monotonic()
    done = subprocess.run(
        [
            os.environ["BINARYCONNECT_SNAKEMAKE"],
            *("--snakefile", original_stack.ROOT / "reproduction" / "sweep" / "Snakefile"),
            *("--directory", root, "--cores", "2", "--nolock", "--quiet"),
            *("--configfile", root / "configuration.json"),
        ],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    if done.returncode or len(list(marks.glob("run-*"))) != jobs:
        raise UserError(f"Snakemake ended with {done.returncode}: {done.stderr[-500:]}")
    return time.monotonic() - begun


def measure(options):
    """The command: measures all, or trains one row for a measurement."""
    if options.train:
        data, results, *row = options.train
        try:
            train(data, results, tuple(row))
        except Stopped:
            sys.exit(128 + signal.SIGTERM)
        return
    if options.generate:
        from svhn_memory import generate

        generate(options.generate)
        return
    given = os.environ.get("BINARYCONNECT_DATA")
    if not given:
        raise UserError("BINARYCONNECT_DATA must name the folder with MNIST and CIFAR-10")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = work / "data"
        data.mkdir()
        for path in Path(given).rglob("*"):
            if path.is_file() and "binaryconnect" not in path.parts:
                (data / path.name).symlink_to(path.resolve())
        process(["--generate", data], work / "cache")
        record = {"runs": [], "engine": {}}
        for row in ROWS:
            record["runs"].append(needs(row, data, work))
            print(json.dumps(record["runs"][-1]), flush=True)
        for jobs in JOBS:
            record["engine"][jobs] = engine(jobs, work)
            print(f"Snakemake, {jobs} jobs: {record['engine'][jobs]:.1f} s", flush=True)
    write_record("scale", {**record, "machine": environment()})


def main(argv=None):
    parser = Parser(
        prog="benchmark scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--train", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    return run(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
