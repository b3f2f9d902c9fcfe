"""SVHN at full size: the memory that preparation and training take, and the speed of a training
step whose images come from the memory map, compared with a step whose images are in RAM.

    ./reproduce python benchmarks/svhn_memory.py [DIRECTORY]

DIRECTORY holds the three .mat files; without it, files of the official sizes and shapes are
generated (2 GB of disk, 6 GB of memory, a minute) and removed at the end.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.io

from reproduction import datasets
from reproduction.experiments import EXPERIMENTS
from reproduction.training.model import Model

SIZES = {"train": 73_257, "test": 26_032, "extra": 531_131}
STEPS, BLOCKS = 4, 12  # steps of a block, blocks from either source, alternating


def generate(directory):
    """Images of equal rows, so that they are written and compressed fast."""
    random = np.random.default_rng(0)
    for name, number in SIZES.items():
        images = np.empty((32, 32, 3, number), np.uint8, order="F")
        images[:] = random.integers(0, 256, (1, 32, 3, number), np.uint8)
        labels = random.integers(1, 11, (number, 1), np.uint8)
        path = Path(directory, f"{name}_32x32.mat")
        scipy.io.savemat(path, {"X": images, "y": labels}, do_compression=True)


def memory(kind):
    """VmHWM (peak), RssAnon or RssFile (memory-mapped pages) of this process in GiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+)", status)[1]) / 2**20


def prepare(directory):
    started = time.perf_counter()
    datasets.load("svhn", directory, allow_unofficial=True)
    seconds = time.perf_counter() - started
    print(f"preparation: {seconds:.0f} s, peak resident memory {memory('VmHWM'):.2f} GiB")


def train(directory):
    dataset = datasets.load("svhn", directory, allow_unofficial=True)
    svhn = EXPERIMENTS["svhn"]
    hp = svhn.row("paper", "stochastic")
    model = Model(svhn.build_network(hp), hp, "real")
    size = len(dataset.train.y)
    order = np.random.RandomState(0).permutation(size)

    started = time.perf_counter()
    for start in range(0, size, 50):
        dataset.train.X[order[start : start + 50]]
    seconds = time.perf_counter() - started
    print(f"all training images, shuffled: {seconds:.1f} s, {5e4 * seconds / size:.2f} ms a batch")
    anonymous = memory("RssAnon")

    # Fewer images than in the data set, so that RAM is as fast as it can be.
    in_ram = dataset.train.X[:10_000]
    sources = {"memory map": (dataset.train.X, size), "RAM": (in_ram, len(in_ram))}
    times = {name: [] for name in sources}
    random = np.random.RandomState(1)
    for block in range(2 * BLOCKS + 2):
        name = list(sources)[block % 2]
        images, number = sources[name]
        started = time.perf_counter()
        for _ in range(STEPS):
            batch = random.randint(0, number, 50)
            model.train_step(images[batch], model.targets[dataset.train.y[batch]], 0.001)
        if block >= 2:  # the first block of each source warms up
            times[name].append((time.perf_counter() - started) / STEPS)
        anonymous = max(anonymous, memory("RssAnon") - in_ram.nbytes / 2**30)
    mapped, ram = (1000 * np.median(times[name]) for name in ("memory map", "RAM"))
    print(f"a step fed from the memory map: {mapped:.0f} ms")
    print(f"a step fed from RAM: {ram:.0f} ms, so the speed is {ram / mapped:.1%} of this")
    print(f"training: {anonymous:.2f} GiB resident, and {memory('RssFile'):.2f} GiB memory-mapped")


def main():
    if len(sys.argv) == 3:
        {"generate": generate, "prepare": prepare, "train": train}[sys.argv[1]](sys.argv[2])
        return
    with tempfile.TemporaryDirectory() as directory:
        stages = ["generate", "prepare", "train"]
        if len(sys.argv) == 2:
            directory, stages = sys.argv[1], stages[1:]
        for stage in stages:  # each has its own process, whose memory is measured
            subprocess.run([sys.executable, __file__, stage, directory], check=True)


if __name__ == "__main__":
    main()
