"""Times rivals side by side: in separate processes that take turns of a quarter of a second.

The speed of a machine changes from minute to minute, so only ratios of neighboring blocks count.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

import original_stack
from original_stack import lock, machine
from original_stack.errors import UserError, write_atomically, writing

from reproduction.report.markdown import commit_of, update_block
from reproduction.training.environment import commit, now

ROOT = Path(__file__).resolve().parent.parent

# The variables by which this project and its user set up Python, OpenMP, BLAS and Theano.
SETTINGS = ("GOMP_", "GOTO_", "KMP_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON", "THEANO")


class Rival:
    """A process that runs `serve`.

    Parameters
    ----------
    command : list
        The command line.
    environment : dict
        The environment variables: those of this process, or `foreign_environment()` for other
        engines.

    Attributes
    ----------
    start : float
        The seconds from the command to the end of the first step.
    facts : dict
        What the rival reports about itself.
    """

    def __init__(self, command, environment=os.environ):
        begun = time.monotonic()
        self._process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._read()
        self.start = self.facts.pop("ready") - begun

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise UserError(
                f"{' '.join(self._process.args)} ended early; expected timings; see above"
            )
        return json.loads(line)

    def block(self, seconds):
        """Median milliseconds of a step over a block of that length."""
        print(seconds, file=self._process.stdin, flush=True)
        return self._read()

    def close(self):
        self._process.communicate()


def foreign_environment():
    """The environment for another engine: without our settings, but with our number of threads, so
    that it runs as its own authors would have it."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return {**others, "OMP_NUM_THREADS": str(machine.threads())}


def alternate(rivals, rounds, seconds=0.25):
    """{name: [median milliseconds of a step in each round]} of rivals that take turns."""
    times = {name: [] for name in rivals}
    for i in range(rounds + 1):
        for name, rival in rivals.items():
            time.sleep(0.05)  # the threads of the previous rival go to sleep
            milliseconds = rival.block(seconds)
            if i > 0:  # the first round warms up
                times[name].append(milliseconds)
    return times


def ratio(times, name, other):
    """The median over the rounds of the ratio of the times of `name` and `other`."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def write_record(name, record):
    """Write results/benchmarks/<name>.json atomically."""
    path = original_stack.RESULTS / "benchmarks" / f"{name}.json"
    _write(path, json.dumps(record, indent=1) + "\n")


def update_page(mark, block):
    """Put the text `block` between the mark and the next end in results/benchmarks/README.md;
    results that go elsewhere have no such page."""
    if original_stack.RESULTS != ROOT / "results":
        return
    path = original_stack.RESULTS / "benchmarks" / "README.md"
    update_block(path, mark, block)


def _write(path, text):
    with writing(path, "make room or name another folder: BINARYCONNECT_RESULTS=DIR"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())


def environment():
    """Processor, threads, versions, commit and date, for the record."""
    compiler = subprocess.check_output(["g++", "-dumpfullversion"], text=True)
    return {
        "processor": machine.processor().get("model name", platform.machine()),
        "processors": len(os.sched_getaffinity(0)),
        "threads": machine.threads(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": f"g++ {compiler.strip()}",
        "blas": machine.blas(),
        "packages": {
            name: version
            for name, version in lock.locked_versions().items()
            if name in ("theano", "lasagne", "numpy", "scipy-openblas32")
        },
        **commit(),
        "date": now()[:10],
    }


def timed_code(facts):
    """The commit and the date of an `environment`: "; commit 0123456789ab, 2026-11-29". Early
    records lack them, and their text is empty."""
    return f"; commit {commit_of(facts)}, {facts['date']}" if "date" in facts else ""
