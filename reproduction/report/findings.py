"""Read all that the pages need from a folder of results."""

import csv
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NotRequired, TypedDict

import original_stack
from original_stack.errors import UserError, open_regular, reading

from reproduction.report.markdown import text
from reproduction.report.networks import Deployed, read_networks
from reproduction.report.runs import Run, read_runs
from reproduction.report.scale import Scale
from reproduction.report.statistics import comparisons
from reproduction.report.times import read_benchmarks
from reproduction.training.records import Count, Percent, Positive, check

INEXACT = original_stack.ROOT / "results" / "unofficial.csv"


class Multiplications(TypedDict):
    """The counts of a network in results/multiplications.json."""

    training: Percent  # share with a binary operand in a training step
    test: Percent  # share with a binary operand in the products at test time
    parts: dict[str, dict[str, Count]]


class Timed(TypedDict):
    """The time of a product or a network in results/benchmarks/xnor.json."""

    task: str
    size: Count
    images: Count
    over: dict[str, dict[str, Positive]]


class Bytes(TypedDict):
    """The size of the weights of the network that `./reproduce benchmark xnor` times, in bytes."""

    float32: Count
    packed: Count


class Machine(TypedDict):
    """The machine that made the measurements."""

    processor: str
    device: NotRequired[str]  # of OpenCL


class Xnor(TypedDict):
    """results/benchmarks/xnor.json, of a processor, and opencl-gpu.json."""

    weights_bytes: Bytes
    machine: Machine
    records: list[Timed]


@dataclass
class Findings:
    """The content of a folder of results.

    Attributes
    ----------
    runs, tuned : list of Run
        `tuned` has the runs of results/tuning, which chose hyperparameters; `runs` has the others.
    notes : list of str
        A sentence on everything that is left out.
    epochs : dict
        See `read_benchmarks`.
    multiplications : dict of Multiplications
        By network; empty if nothing is recorded.
    xnor, gpu : Xnor or None
    scale : Scale or None
    networks : list of Deployed
    """

    runs: list[Run] = field(default_factory=list)
    tuned: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    epochs: dict = field(default_factory=dict)
    multiplications: dict[str, Multiplications] = field(default_factory=dict)
    xnor: Xnor | None = None
    gpu: Xnor | None = None
    scale: Scale | None = None
    networks: list[Deployed] = field(default_factory=list)

    @property
    def compared(self):
        """A Comparison for each published row."""
        return comparisons(self.runs)

    @property
    def by_row(self):
        """{(data set, protocol, method): Comparison}"""
        return {c.row: c for c in self.compared}


def read(results, rows):
    """The findings in a folder.

    Parameters
    ----------
    results : path
    rows : dict
        {(data set, protocol, method): Hyperparameters} of all rows.

    Raises
    ------
    UserError
        If the folder cannot be read.
    """
    results = Path(results)
    runs, notes = read_runs(results, rows)
    tuned, more = read_runs(results, rows, tuning=True)
    epochs, damaged = read_benchmarks(results, rows)
    networks, unreadable = read_networks(results, runs)
    findings = Findings(runs, tuned, [*notes, *more, *damaged, *unreadable], epochs)
    findings.networks = networks
    for name, file, kind, command in (
        ("multiplications", "multiplications.json", dict[str, Multiplications], "multiplications"),
        ("xnor", "benchmarks/xnor.json", Xnor, "benchmark xnor"),
        ("gpu", "benchmarks/opencl-gpu.json", Xnor, "benchmark xnor --opencl"),
        ("scale", "benchmarks/scale.json", Scale, "benchmark scale"),
    ):
        path = results / file
        try:
            with reading(path, f"run ./reproduce {command} again"), open_regular(path) as f:
                record = json.loads(f.read())
                check(record, kind)
                setattr(findings, name, record)
        except FileNotFoundError:
            continue
        except UserError as error:
            findings.notes.append(text(str(error).replace(f"{results}/", "")))
    return findings


@cache
def inexact_files():
    """{md5: row} of results/unofficial.csv, which says how many images of some unofficial data
    files differ from the official ones."""
    with open(INEXACT, newline="") as f:
        return {row["md5"]: row for row in csv.DictReader(f)}


def inexact_test_images(run):
    """How many test images of a run differ from the official ones, "20 of 10,000"; None if that is
    not known."""
    rows = [inexact_files().get(f["md5"]) for f in run["data"] if not f["official"]]
    if not rows or None in rows:
        return None
    differing, images = (
        sum(int(row[column]) for row in rows)
        for column in ("test_images_that_differ", "test_images")
    )
    return f"{differing:,} of {images:,}"
