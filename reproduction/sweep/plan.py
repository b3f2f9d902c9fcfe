"""The plan of a sweep: the rows and seeds to run, what is finished, and how long the rest takes."""

import dataclasses
import json
import math
import re
import shlex
from pathlib import Path

import original_stack
from original_stack.command_line import Parser, integer_between
from original_stack.errors import UserError, open_regular, reading

from reproduction.experiments import ROWS
from reproduction.published import published
from reproduction.report import findings
from reproduction.report.runs import read_runs
from reproduction.report.scale import needs_of
from reproduction.report.statistics import comparisons
from reproduction.report.times import command, duration, time_of_a_run

SPARE = 1.25  # of the memory that a run is known to take
UNKNOWN_MEMORY = 16_000  # MB


@dataclasses.dataclass
class Job:
    """One run of a sweep.

    Attributes
    ----------
    name : str
        The name of its log and of its mark.
    arguments : list of str
        The arguments of `reproduce`.
    folder : Path
        The folder of the run.
    memory : int
        The memory that it needs, in MB.
    seconds : float or None
        How long it takes with `threads` threads; None if that is not known.
    threads : int
    """

    name: str
    arguments: list
    folder: Path
    memory: int
    seconds: float | None
    threads: int

    @property
    def epochs_done(self):
        """The number of epochs that are done; None if the run is finished."""
        path = self.folder / "run.json"
        try:
            with reading(path, "run it again with --restart"), open_regular(path) as f:
                record = json.loads(f.read())
                return None if record["finished"] else int(record["epochs_done"])
        except FileNotFoundError:
            return 0


def rows(text):
    """The rows that --rows names.

    Parameters
    ----------
    text : str or None
        Comma-separated "dataset[:protocol][:method]". None means every row with a published error.

    Returns
    -------
    list of (data set, protocol, method)
    """
    if text is None:
        return [row for row in ROWS if published(*row)]
    chosen = []
    for item in text.split(","):
        dataset, *given = item.split(":")
        matching = [row for row in ROWS if row[0] == dataset and set(given) <= set(row[1:])]
        if not given:
            matching = [row for row in matching if published(*row)] or matching
        if not matching:
            expected = sorted({":".join(row) for row in ROWS if row[0] == dataset})
            expected = expected or [
                f"{name}[:protocol][:method]" for name in dict.fromkeys(row[0] for row in ROWS)
            ]
            raise UserError(f"--rows: no row is {item!r}; expected one of {', '.join(expected)}")
        chosen += [row for row in matching if row not in chosen]
    return chosen


def seeds(text):
    """The seeds that --seeds names: "1-3,7" is 1, 2, 3 and 7."""
    chosen = []
    for item in text.split(","):
        match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", item)
        first, last = (int(n or match[1]) for n in match.groups()) if match else (1, 0)
        if not first <= last < 2**32 or last - first >= 1000:
            raise UserError(f"--seeds: {item!r} is not a seed or a range of them such as 1-6")
        chosen += [seed for seed in range(first, last + 1) if seed not in chosen]
    return chosen


def missing(compared):
    """The seeds that a row still needs for a verdict."""
    done = {run["seed"] for run in compared.runs}
    free = (seed for seed in range(1, 10**6) if seed not in done)
    return [next(free) for _ in range(compared.enough - len(done))]


def read_options(options):
    """What data of one's own among the options of a run is called, and the number of epochs that
    they give; each may be None."""
    parser = Parser(prog="sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("--data", default="")
    parser.add_argument("--epochs", type=integer_between(1))
    given = parser.parse_known_args(options)[0]
    return Path(given.data).stem if given.data.endswith(".npz") else None, given.epochs


def memory(row, scale):
    """The memory to ask for a run of a row, in MB."""
    dataset, protocol, method = row
    needs = needs_of(("mnist" if dataset == "digits" else dataset, protocol, method), scale)
    if not needs:
        return UNKNOWN_MEMORY
    return math.ceil(SPARE * max(needs["first_memory"], needs["memory"]) / 1e6)


def plan(options):
    """The runs of a sweep that are not finished, in the order of the tables.

    Parameters
    ----------
    options : Namespace
        The options of the command.

    Returns
    -------
    list of Job
    """
    results = Path(options.results)
    runs = read_runs(results, ROWS)[0] if results.exists() else []
    measured = findings.read(original_stack.ROOT / "results", ROWS)
    of_row = {
        tuple(c.published[key] for key in ("dataset", "protocol", "method")): c
        for c in comparisons(runs)
    }
    jobs, (own, epochs) = [], read_options(options.options)
    for row in rows(options.rows):
        compared = of_row.get(row)
        if options.seeds:
            wanted = seeds(options.seeds)
        elif compared:
            wanted = missing(compared)
        else:
            raise UserError(f"--rows: {':'.join(row)} has no published error; say which --seeds")
        seconds, threads = time_of_a_run(compared, measured.epochs)[:2] if compared else (None, 1)
        if seconds and epochs:
            seconds *= epochs / int(compared.published["epochs"])
        dataset, protocol, method = row
        line = command(*row) if dataset != "digits" else command("mnist", protocol, method)
        for seed in wanted:
            arguments = shlex.split(line)[1:-1] + [str(seed), *options.options]
            if dataset == "digits":
                arguments += ["--data", "digits"]
            job = Job(
                f"{dataset}-{protocol}-{method}-seed-{seed}",
                arguments,
                results
                / (f"{dataset}-{own}" if own else dataset)
                / f"{protocol}-{method}"
                / f"seed-{seed}",
                memory(row, measured.scale),
                seconds,
                threads,
            )
            if job.epochs_done is not None:
                jobs.append(job)
    return jobs


def show(jobs):
    """Print what would run, and how long all of it takes."""
    for job in jobs:
        left = "not measured" if job.seconds is None else f"about {duration(job.seconds)}"
        begun = f", {job.epochs_done} epochs done" if job.epochs_done else ""
        print(f"./reproduce {shlex.join(job.arguments)}    {left}{begun}")
    hours = sum((job.seconds or 0) * job.threads for job in jobs) / 3600
    unknown = sum(job.seconds is None for job in jobs)
    total = f"{len(jobs)} run{'s' * (len(jobs) != 1)}, about {hours:,.0f} CPU hours"
    print(total + f", and {unknown} runs that were not measured" * bool(unknown))
