"""Times rivals side by side: each in a process of its own, in turns of a quarter of a second.

A machine's speed changes from minute to minute, so only ratios of neighbouring blocks count.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import original_stack
from original_stack import lock, machine
from original_stack.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def serve(step, least=3, **facts):
    """What a rival's process runs: a first `step`, then a block of them, `least` at least, for each
    line of input.

    Prints a line of JSON each: `facts` and the clock's time after the first step; then the block's
    median time of a step in milliseconds.
    """
    step()
    print(json.dumps({"ready": time.time(), **facts}), flush=True)
    for line in sys.stdin:
        times = []
        while len(times) < least or sum(times) < float(line):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(json.dumps(1e3 * statistics.median(times)), flush=True)


class Rival:
    """A process that runs `serve`.

    Attributes
    ----------
    start : float
        Seconds from the command to the end of the first step.
    facts : dict
        What it says of itself.
    """

    def __init__(self, command, **environment):
        begun = time.time()
        self._process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._read()
        self.start = self.facts.pop("ready") - begun

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"{' '.join(self._process.args)} ended early; expected timings; see above"
            )
        return json.loads(line)

    def block(self, seconds):
        """Median milliseconds of a step over a block of that length."""
        print(seconds, file=self._process.stdin, flush=True)
        return self._read()

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def alternate(rivals, rounds, seconds=0.25):
    """{name: [median milliseconds of a step in each round]} of rivals that take turns."""
    times = {name: [] for name in rivals}
    for i in range(rounds + 1):
        for name, rival in rivals.items():
            time.sleep(0.05)  # the threads of the one before go to sleep
            milliseconds = rival.block(seconds)
            if i > 0:  # the first round warms up
                times[name].append(milliseconds)
    return times


def ratio(times, name, other):
    """Median over the rounds of the time of `name` over that of `other`."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def update_readme(mark, lines, path=ROOT / "README.md"):
    """Puts `lines` between the mark and the next end in the README."""
    before, mark, rest = path.read_text().partition(f"<!-- made by {mark} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    path.write_text(before + mark + "\n".join(lines) + "\n" + end + after)


def environment():
    """Processor, threads and versions, for the record."""
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
    }
