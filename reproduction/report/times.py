"""How long a run takes, by its record or by the benchmark, and what all runs cost."""

import json
import statistics
from collections import defaultdict
from pathlib import Path

from original_stack.errors import UserError, open_regular, reading

from reproduction.report.markdown import text

# {step of ./reproduce benchmark: rows (data set, protocol) that have its network and batch size}
BENCHMARKS = {
    "mnist-published": [("mnist", "paper")],
    "cifar10": [("cifar10", "paper")],
    # Table 1 has the network of SVHN.
    "svhn": [
        ("svhn", "paper"),
        *(
            ("cifar10", f"table1-{optimizer}-{scaling}")
            for optimizer in ("sgd", "nesterov", "adam")
            for scaling in ("off", "on")
        ),
    ],
    "mnist-bnn": [("mnist", "bnn-theano")],
    "mnist-bnn-torch7": [("mnist", "bnn-torch7")],
    "cifar10-bnn": [("cifar10", "bnn-theano")],
}
TRAINING_IMAGES = {"mnist": 50000, "cifar10": 45000, "svhn": 598388}


def command(dataset, protocol, method):
    """The command line of a run of a row, for any seed N."""
    if protocol.startswith("table1-"):
        _, optimizer, scaling = protocol.split("-")
        return f"./reproduce {dataset} --optimizer {optimizer} --lr-scaling {scaling} --seed N"
    chosen = f" --protocol {protocol}" if protocol != "paper" else ""
    return f"./reproduce {dataset}{chosen} --method {method} --seed N"


def read_benchmarks(results, rows):
    """How long the training steps of an epoch take, by ./reproduce benchmark.

    Parameters
    ----------
    results : path
    rows : dict
        {(data set, protocol, method): Hyperparameters}.

    Returns
    -------
    epochs : dict
        {(data set, protocol): (seconds, threads)}.
    notes : list of str
        A sentence on each file that is damaged.
    """
    epochs, notes = {}, []
    row_of = {key[:2]: row for key, row in rows.items()}
    for step, of_step in BENCHMARKS.items():
        path = Path(results) / "benchmarks" / f"{step}.json"
        try:
            with reading(path, "run ./reproduce benchmark again"), open_regular(path) as f:
                record = json.loads(f.read())
                timed = float(record["median_milliseconds"]["fused"])
                threads = int(record["machine"]["threads"])
                if not (0 < timed < 1e9 and 0 < threads < 1e6):
                    raise ValueError(f"{timed} milliseconds, {threads} threads")
        except FileNotFoundError:
            continue
        except UserError as error:
            notes.append(text(str(error).replace(f"{results}/", "")))
            continue
        for row in set(of_step) & row_of.keys():
            steps = row_of[row].steps(TRAINING_IMAGES[row[0]])
            epochs[row] = steps * timed / 1000, threads
    return epochs, notes


def time_of_a_run(compared, benchmarks):
    """How long a run of a row takes: the median of the runs with one number of threads, that of
    most runs.

    Parameters
    ----------
    compared : Comparison
    benchmarks : dict
        See `read_benchmarks`.

    Returns
    -------
    seconds : float or None
    threads : int
        The number of threads with which it takes so long; 1 if that is not known.
    source : str
        Where the time comes from, or "not measured".
    """
    timed = defaultdict(list)
    for run in compared.runs:
        if run["seconds"] > 0:
            timed[run["threads"]].append(run)
    if timed:
        threads, alike = max(timed.items(), key=lambda item: (len(item[1]), -item[0]))
        counts = sorted({text(e.get("threads")) for run in alike for e in run.environments})
        median = statistics.median(run["seconds"] for run in alike)
        return median, threads, f"median of the runs with {threads_of(' or '.join(counts))}"
    row = compared.published
    key, epochs = (row["dataset"], row["protocol"]), int(row["epochs"] or 0)
    if key in benchmarks and epochs:
        seconds, threads = benchmarks[key]
        return seconds * epochs, threads, "training steps only, by the benchmark"
    shorter = [
        run
        for run in compared.others
        if run["seconds"] > 0 and all("epochs instead" in d for d in run.departures)
    ]
    if shorter and epochs:
        longest = max(shorter, key=lambda run: run["epochs"])
        source = f"from a run of {longest['epochs']:,} epochs"
        return longest["seconds"] / longest["epochs"] * epochs, longest["threads"], source
    return None, 1, "not measured"


def threads_of(count):
    return f"{count} thread{'' if str(count) == '1' else 's'}"


def duration(seconds):
    """Seconds in the largest unit that gives at least 2: "2.3 hours"."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def cpu_hours(run):
    """What a run cost: hours times threads, summed over all environments in which it ran.

    An earlier environment took the time until its last epoch, which epochs.csv gives. Without that
    row, its share of the time is its share of the epochs.
    """
    done, hours = 0.0, 0.0
    total = max(0.0, run["seconds"])
    for environment in run.environments:
        end = environment.get("until_epoch", run["epochs_done"])
        until = [row.get("seconds") for row in run.epochs if row["epoch"] == end]
        seconds = until[0] if until and until[0] else total * end / max(1, run["epochs_done"])
        seconds = total if environment is run.record else min(max(done, seconds), total)
        hours += (seconds - done) * environment.get("threads", 1) / 3600
        done = seconds
    return hours
