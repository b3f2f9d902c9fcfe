"""results/scale.md: what the whole table costs, how that grows with seeds and nodes, and what
limits at 1,000 nodes."""

import heapq
from typing import TypedDict

from reproduction.report.markdown import MADE, NAMES, table, text
from reproduction.report.times import duration, threads_of, time_of_a_run
from reproduction.training.records import Count, Positive
from reproduction.training.run_folder import CHECKPOINT_INTERVAL

SEEDS = 6  # of a row, as in the papers
HEAD = """\
# The whole table on a cluster

{made} `benchmarks/scale.json` (`./reproduce benchmark scale`), the benchmarks of training steps and
{runs} finished runs. `./reproduce sweep --slurm` runs the table."""
COST = """\
CPU hours are hours times threads. Memory, disk and files are of one run. The memory is that of a
run whose data are prepared. Rows that were not measured have the numbers of the row of the same
data set that needs most memory."""
GROWTH = """\
Each node runs one run at a time, as long as the table above says, and then takes the longest run
that is left. The last run to end sets the time, so more nodes than runs do not help."""
UNKNOWN = "Rows without a time are left out of the CPU hours: {rows}."
MEASURED = """\
- Measured: memory, disk, files, and compiled code of each row named in `benchmarks/scale.json`, on
  one machine; Snakemake with jobs that do nothing, on one machine; times of runs, by the report.
- Tested: preemption, time limits, and killed jobs, on a Slurm of one node (`.ci/sweep`).
- Not tested: more than one node, a shared disk, and Apptainer. The figures for 1,000 nodes are
  calculated."""


class Needs(TypedDict):
    """What a run of a row needs; memory and disk in bytes."""

    row: str
    first_memory: Count  # of the first run, which prepares the data
    memory: Count
    prepared_data: Count
    checkpoint: Count
    folder: Count
    files: Count
    compiled: Count
    compiled_files: Count


class Machine(TypedDict):
    """The machine that made the measurements."""

    processor: str


class Scale(TypedDict):
    """results/benchmarks/scale.json."""

    runs: list[Needs]
    engine: dict[str, Positive]  # {number of jobs: seconds of Snakemake}
    machine: Machine


def needs_of(row, scale):
    """What a run of a row needs, or a run of the same data set that needs more memory.

    Parameters
    ----------
    row : (data set, protocol, method)
    scale : Scale or None

    Returns
    -------
    Needs or None
    """
    of_data = (
        [needs for needs in scale["runs"] if needs["row"].split(":")[0] == row[0]] if scale else []
    )
    own = [needs for needs in of_data if needs["row"] == ":".join(row)]
    return max(own or of_data, key=lambda needs: needs["memory"], default=None)


def wall_time(seconds, nodes):
    """The time until the last of some runs ends, if each node takes the longest run left."""
    free = [0.0] * min(nodes, len(seconds))
    for run in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + run)
    return max(free, default=0.0)


def memory_and_disk(scale):
    """What a run on each data set needs at most, as a table for README.

    Parameters
    ----------
    scale : Scale or None
    """
    lines = []
    for name, shown in NAMES.items():
        of_data = [n for n in scale["runs"] if n["row"].split(":")[0] == name] if scale else []
        if of_data:
            memory = max(max(n["memory"], n["first_memory"]) for n in of_data)
            disk = max(n["checkpoint"] + n["folder"] for n in of_data)
            sizes = memory, disk, _prepared(scale)[name]
            lines.append([shown, *(f"{size / 1e9:.2g}" for size in sizes)])
    header = ["at most, in GB", "memory", "disk of a run", "disk of the prepared data"]
    return table(header, lines) if lines else ""


def scale_page(findings):
    """The text of results/scale.md.

    Parameters
    ----------
    findings : reproduction.report.findings.Findings
    """
    scale = findings.scale
    times = {c.row: time_of_a_run(c, findings.epochs) for c in findings.compared}
    known = {row: time for row, time in times.items() if time[0]}
    parts = [
        HEAD.format(made=MADE, runs=len(findings.runs)),
        f"## What it costs, with {SEEDS} seeds",
        COST,
        _costs(times, scale),
    ]
    unknown = [":".join(row) for row in times if row not in known]
    if unknown:
        parts.append(UNKNOWN.format(rows=text(", ".join(unknown))))
    parts += ["## Seeds and nodes", GROWTH, _growth([time[0] for time in known.values()])]
    if scale:
        parts += ["## What limits at 1,000 nodes", _limits(known, scale)]
        parts += [
            "## What was measured",
            f"{MEASURED}\n- Processor: {text(scale['machine']['processor'])}.",
        ]
    return "\n\n".join(parts) + "\n"


def _costs(times, scale):
    lines, total = [], {"hours": 0.0, "folder": 0, "files": 0}
    for row, (seconds, threads, source) in times.items():
        needs = needs_of(row, scale)
        hours = seconds and SEEDS * seconds * threads / 3600
        total["hours"] += hours or 0
        shown = ["", "", ""]
        if needs:
            total["folder"] += SEEDS * needs["folder"]
            total["files"] += SEEDS * needs["files"]
            shown = [
                _size(needs["memory"]),
                _size(needs["checkpoint"] + needs["folder"]),
                needs["files"],
            ]
        time = (
            [duration(seconds), threads_of(threads), f"{hours:,.0f}"]
            if seconds
            else [source, "", ""]
        )
        lines.append([NAMES[row[0]], *map(text, row[1:]), *time, *shown])
    end = ["", f"{_size(total['folder'])} after them", f"{total['files']:,}"] if scale else [""] * 3
    lines.append(
        [f"all, {SEEDS * len(times)} runs", "", "", "", "", f"{total['hours']:,.0f}", *end]
    )
    header = "data set,protocol,method,time of a run,with,CPU hours,memory,disk while it runs,files"
    return table(header.split(","), lines)


def _growth(seconds):
    nodes = (1, 10, 100, 1000)
    lines = [
        [count, count * len(seconds), *(duration(wall_time(seconds * count, n)) for n in nodes)]
        for count in (1, 3, 6, 10)
    ]
    return table(["seeds", "runs", *(f"{n:,} node{'s' * (n > 1)}" for n in nodes)], lines)


def _limits(known, scale):
    largest = max(scale["runs"], key=lambda needs: needs["checkpoint"])
    compiled = max(needs["compiled"] for needs in scale["runs"])
    number = max(needs["compiled_files"] for needs in scale["runs"])
    jobs, seconds = max((int(jobs), seconds) for jobs, seconds in scale["engine"].items())
    all_rows = [needs_of(row, scale)["checkpoint"] for row in known]
    mean = sum(all_rows) / len(all_rows)
    lines = [
        f"**The longest run**, {duration(max(time[0] for time in known.values()))}. A run is not "
        "split over nodes, so with six seeds the time stops falling at "
        f"{SEEDS * len(known)} nodes. Threads shorten a run: `--threads N`.",
        f"**Checkpoints on the shared disk.** A run saves one at most every {CHECKPOINT_INTERVAL} "
        f"seconds; the largest ({largest['row']}) has {_size(largest['checkpoint'])}, and the mean "
        f"over the rows is {_size(mean)}. So 1,000 nodes write at most "
        f"{_size(1000 * mean / CHECKPOINT_INTERVAL)} a second. Each epoch also replaces two small "
        "files of the run.",
        f"**Compiled code** is on each node's own disk: up to {_size(compiled)} in {number:,} "
        "files. Each node compiles it once and waits for no other node.",
        f"**Snakemake** took {seconds:.0f} seconds for {jobs:,} jobs that do nothing, or "
        f"{1000 * seconds / jobs:.0f} ms a job, on two cores. It submits at most 1,000 jobs at a "
        "time, and asks Slurm for the states of all of them in one command, so the number of "
        "requests does not grow with the nodes.",
        "**Data.** Each node reads the prepared data set from the shared disk when a run starts: "
        + ", ".join(
            f"{_size(size)} for {NAMES[name]}" for name, size in _prepared(scale).items() if size
        )
        + ".",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _prepared(scale):
    """{data set: bytes of its prepared files}"""
    return {
        name: sum(n["prepared_data"] for n in scale["runs"] if n["row"].split(":")[0] == name)
        for name in NAMES
    }


def _size(number):
    """Bytes in the largest unit that gives at least 2: "3.1 GB"."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= 2 * unit:
            return f"{number / unit:.1f} {name}"
    return f"{number:.0f} bytes"
