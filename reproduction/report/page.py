"""The texts of results/README.md and results/results.csv, and of the table of MNIST in the
project's README.md."""

import csv
import io
import json
import statistics
from collections import defaultdict
from pathlib import Path

from original_stack.errors import UserError, open_regular, reading

from reproduction import published as papers
from reproduction.report.markdown import printable, table, text
from reproduction.report.statistics import SEEDS, Comparison, interval, rule, visible

MADE = "Made by `./reproduce report` from"  # how a page of this command is recognized
SMALL_NETWORK = """\
Table 1 of BinaryConnect. The paper does not describe its small network. Ours, and its learning
rates, are an inference (`DEVIATIONS.md`, 14). The dash is the paper's."""
# Of ./reproduce benchmark: {step: rows (data set, protocol) of its network and batch size}.
BENCHMARKS = {
    "mnist-published": [("mnist", "paper")],
    "cifar10": [("cifar10", "paper")],
    # Table 1's network is that of SVHN.
    "svhn": [
        ("svhn", "paper"),
        *(
            ("cifar10", f"table1-{optimizer}-{scaling}")
            for optimizer in ("sgd", "nesterov", "adam")
            for scaling in ("off", "on")
        ),
    ],
    "mnist-bnn": [("mnist", "bnn-theano")],
    "cifar10-bnn": [("cifar10", "bnn-theano")],
}
CURVES = """\
Curves of three or more seeds are their mean, in a band from the lowest to the highest of them. The
others are a line each."""
COLUMNS = [  # of results.csv: what run.json calls it, and its unit
    *("run", "dataset", "protocol", "method", "seed", "epochs", "best_epoch", "valid_error (%)"),
    *("test_error (%)", "test_weights", "departures", "seconds (s)", "threads", "cpu", "graph"),
    *("blas", "git_commit", "git_dirty", "lock_sha256", "official_data"),
]
BENCHMARK_THREADS = 2
TRAINING_IMAGES = {"mnist": 50000, "cifar10": 45000, "svhn": 598388}
PAPER_TABLES = {("BinaryConnect", "Table 2"), ("Binarized Neural Networks", "Table 1")}
NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "svhn": "SVHN"}


def comparisons(runs):
    """Each published test error of a row that is run here, beside its runs.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    list of Comparison
        In the order of published.csv.
    """
    of_row = _grouped(runs, lambda run: run.row)
    return [
        Comparison(row, of_row[row["dataset"], row["protocol"], row["method"]])
        for row in papers.rows()
        if row["quantity"] == "test error (%)" and row["protocol"]
    ]


def page(runs, notes, benchmarks, pictures):
    """The text of results/README.md.

    Parameters
    ----------
    runs : list of Run
    notes : list of str
    benchmarks : dict
        See `read_benchmarks`.
    pictures : dict
        {title: path relative to the page} of the figures; the comparison is the first.
    """
    compared = comparisons(runs)
    table1 = [c for c in compared if c.published["protocol"].startswith("table1-")]
    number = f"{len(runs)} finished run{'s' * (len(runs) != 1)}"
    (comparison, *others) = [f"![{title}]({path})" for title, path in pictures.items()]
    parts = [
        "# Published and obtained error rates",
        f"{MADE} {number}; no number is typed by hand. Verdicts follow a [rule](#how-to-read). The "
        "last column names the deviations that matter, by their numbers in `DEVIATIONS.md`. "
        "[results.csv](results.csv) has a line for each run.",
        comparison,
    ]
    for dataset, name in NAMES.items():
        of_data = [c for c in compared if c.published["dataset"] == dataset and c not in table1]
        parts += [f"## {name}", _comparison(of_data), _others(dataset)]
    parts += ["## CIFAR-10, a small network: optimizers and scaling of the learning rates"]
    parts += [_comparison(table1), SMALL_NETWORK]
    parts += [
        "## How to read",
        rule(),
        _visible(compared),
        "## Commands",
        _commands(compared, benchmarks),
    ]
    parts += _section("## Runs in other settings", _other_settings(runs))
    parts += _section("## Test-time weights", _test_time_weights(runs))
    parts += ["## Other published figures", _other_figures()]
    parts += _section("## Figures", "\n\n".join(others and [CURVES, *others]))
    parts += _section("## Machines and versions", _machines(runs))
    parts += _section("## Notes", "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def tuning_page(tuned):
    """The text of results/tuning/README.md: the runs that chose hyperparameters.

    Parameters
    ----------
    tuned : list of Run
        Those of results/tuning.
    """
    lines = [
        [*run.row, text(run.name.split("/")[1]), _setting(run), f"{run['valid_error']:.2f}"]
        for run in sorted(tuned, key=lambda run: (run.row, run["valid_error"]))
    ]
    header = ["data set", "protocol", "method", "tried", "setting", "validation error (%)"]
    return f"""# Runs that chose hyperparameters

{MADE} {len(tuned)} finished runs. `./reproduce tune mnist` and `./reproduce tune cifar10` made
them, for what the papers do not record; others are whole runs of a choice that was given up. The
choices are `DEVIATIONS.md`, 6 and 14. The lowest error of a row comes first.

{table(header, lines)}
"""


def mnist_table(runs, picture):
    """What the project's README.md shows: the rows of MNIST, and the comparison of all.

    Parameters
    ----------
    runs : list of Run
    picture : tuple of str
        Title of the comparison, and its path relative to README.md.
    """
    lines = [
        [c.name, _value(c.published), _mean(c), len(c.errors), _delta(c), f"**{c.verdict}**"]
        for c in comparisons(runs)
        if c.published["dataset"] == "mnist"
    ]
    header = "test error on MNIST (%),published,obtained,seeds,difference,verdict"
    return f"{table(header.split(','), lines)}\n\n![{picture[0]}]({picture[1]})"


def results_csv(runs):
    """The text of results/results.csv: a line for each run."""
    text_of_file = io.StringIO()
    writer = csv.writer(text_of_file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        found = {**run.record, "run": run.name, "departures": "; ".join(run.departures)}
        found["graph"] = {True: "fused", False: "plain"}.get(run.record.get("fused"))
        found["blas"] = run.record.get("versions", {}).get("blas")
        values = [found.get(column.partition(" (")[0]) for column in COLUMNS]
        writer.writerow([_plain(value) for value in values])
    return text_of_file.getvalue()


def _plain(value):
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else printable(value)


def command(dataset, protocol, method):
    """The command line of a row's run, for any seed N."""
    if protocol.startswith("table1-"):
        _, optimizer, scaling = protocol.split("-")
        return f"./reproduce {dataset} --optimizer {optimizer} --lr-scaling {scaling} --seed N"
    chosen = f" --protocol {protocol}" if protocol != "paper" else ""
    return f"./reproduce {dataset}{chosen} --method {method} --seed N"


def read_benchmarks(results, rows):
    """Seconds of an epoch's training steps, as ./reproduce benchmark measured them.

    Parameters
    ----------
    results : path
    rows : dict
        {(data set, protocol, method): Hyperparameters}.

    Returns
    -------
    seconds : dict
        {(data set, protocol): float}.
    notes : list of str
        A sentence on each file that is damaged.
    """
    found, notes = {}, []
    row_of = {key[:2]: row for key, row in rows.items()}
    for step, of_step in BENCHMARKS.items():
        path = Path(results) / "benchmarks" / f"{step}.json"
        try:
            with reading(path, "run ./reproduce benchmark again"), open_regular(path) as f:
                timed = float(json.loads(f.read())["median_milliseconds"]["fused"])
                if not 0 < timed < 1e9:
                    raise ValueError(f"{timed} milliseconds")
        except FileNotFoundError:
            continue
        except UserError as error:
            notes.append(text(str(error).replace(f"{results}/", "")))
            continue
        for row in set(of_step) & row_of.keys():
            found[row] = row_of[row].steps(TRAINING_IMAGES[row[0]]) * timed / 1000
    return found, notes


def _grouped(items, key):
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _section(title, content):
    return [title, content] if content else []


def _setting(run):
    return text("; ".join(run.departures))


def _value(row):
    value = f"{row['value']} ± {row['spread']}" if row["spread"] else row["value"] or "–"
    return value + (f" ({row['runs']} runs)" if int(row["runs"] or 1) > 1 else "")


def _mean(compared):
    return f"{statistics.mean(compared.errors):.2f}" if compared.errors else ""


def _delta(compared):
    return "{:+.2f} ± {:.2f}".format(*compared.difference) if compared.difference else ""


def _spread(errors):
    return f"{statistics.stdev(errors):.2f}" if len(errors) > 1 else ""


def _span(low, high):
    return f"{low:.2f} to {high:.2f}"


def _comparison(compared):
    lines = [
        [c.published["protocol"], c.published["label"], _value(c.published), _mean(c)]
        + [_spread(c.errors), len(c.errors), _span(*c.interval) if c.interval else "", _delta(c)]
        + [f"**{c.verdict}**", c.published["deviations"].replace(" ", ", ")]
        for c in compared
    ]
    header = "protocol,method,published,obtained,std,seeds,95% interval,difference,verdict"
    return table([*header.split(","), "deviations"], lines)


def _visible(compared):
    lines = [
        [NAMES[c.published["dataset"]], c.name, f"{c.published['value']} ± {c.published['spread']}"]
        + [f"{visible(c.published, seeds):.2f}" for seeds in SEEDS]
        for c in compared
        if c.published["spread"]
    ]
    header = ["data set", "method", "published", *(f"with {seeds} seeds" for seeds in SEEDS)]
    return table(header, lines)


def _others(dataset):
    others = [
        f"{row['label']} {row['value']}{' ± ' + row['spread'] if row['spread'] else ''}"
        for row in papers.rows()
        if row["dataset"] == dataset
        and row["quantity"] == "test error (%)"
        and not row["protocol"]
        and (row["paper"], row["table"]) in PAPER_TABLES
    ]
    return f"Others, as the papers list them (%): {'; '.join(others)}."


def _commands(compared, benchmarks):
    lines = []
    for c in compared:
        key = [c.published[name] for name in ("dataset", "protocol", "method")]
        done = ", ".join(f"{run['seed']}: {run['test_error']:.2f}" for run in c.runs) or "none"
        lines.append([NAMES[key[0]], f"`{command(*key)}`", done, _time_of_a_run(c, benchmarks)])
    return table(
        ["data set", "command, for any seed N", "test error by seed", "time of a run"], lines
    )


def _time_of_a_run(compared, benchmarks):
    seconds, _, source = time_of_a_run(compared, benchmarks)
    if seconds is None:
        return source
    about = "" if source.startswith("median") else "about "
    return f"{about}{duration(seconds)} ({source})"


def time_of_a_run(compared, benchmarks):
    """How long a run of a row takes.

    Parameters
    ----------
    compared : Comparison
    benchmarks : dict
        See `read_benchmarks`.

    Returns
    -------
    seconds : float or None
    threads : int
        That it takes so long with.
    source : str
        What says so; "not measured".
    """
    timed = [run for run in compared.runs if run["seconds"] > 0]
    if timed:
        counts = sorted({text(e.get("threads")) for run in timed for e in run.environments})
        median = statistics.median(run["seconds"] for run in timed)
        return median, timed[0]["threads"], f"median of these runs, {_threads(' or '.join(counts))}"
    row = compared.published
    key, epochs = (row["dataset"], row["protocol"]), int(row["epochs"] or 0)
    if key in benchmarks and epochs:
        return benchmarks[key] * epochs, BENCHMARK_THREADS, "training steps only, by the benchmark"
    shorter = [
        run
        for run in compared.others
        if run["seconds"] > 0 and all("epochs instead" in d for d in run.departures)
    ]
    if shorter and epochs:
        longest = max(shorter, key=lambda run: run["epochs"])
        source = f"from a run of {longest['epochs']:,} epochs"
        return longest["seconds"] / longest["epochs"] * epochs, longest["threads"], source
    return None, BENCHMARK_THREADS, "not measured"


def _threads(count):
    return f"{count} thread{'' if str(count) == '1' else 's'}"


def duration(seconds):
    """Seconds in the largest unit of which there are two: "2.3 hours"."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def _other_settings(runs):
    groups = _grouped((run for run in runs if run.departures), lambda r: (*r.row, _setting(r)))
    lines = []
    for key, group in sorted(groups.items()):
        errors = [run["test_error"] for run in group]
        seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in group))
        span = _span(*interval(errors, group[0]["test_images"]))
        lines.append([*key, f"{statistics.mean(errors):.2f}", _spread(errors), seeds, span])
    header = "data set,protocol,method,setting,obtained,std,seeds,95% interval"
    found = table(header.split(","), lines)
    return "Not comparable with a published figure.\n\n" + found if lines else ""


def _test_time_weights(runs):
    evaluated = [run for run in runs if run.evaluation]
    sizes = sorted({int(n) for run in evaluated for n in run.evaluation["ensemble"]})
    lines = []
    for run in evaluated:
        ensemble = [run.evaluation["ensemble"].get(str(n)) for n in sizes]
        kinds = ("binary", "binary_own_statistics", "real")
        values = [*(run.evaluation.get(kind) for kind in kinds), *ensemble]
        shown = [f"{value:.2f}" if value is not None else "" for value in values]
        lines.append([*run.row, run["seed"], *shown, _setting(run)])
    header = [
        "data set",
        "protocol",
        "method",
        "seed",
        "binary",
        "binary; recomputed statistics",
        "real",
    ]
    header += [*(f"ensemble of {n}" for n in sizes), "setting"]
    explained = (
        "Test error (%) of one trained model with each of the paper's three kinds of weights "
        "(section 2.6), by `./reproduce evaluate RUN_DIR`. An ensemble of n averages the outputs "
        "of n sampled networks. Recomputed statistics: the batch-norm statistics of training "
        "belong to sampled weights, and are replaced by averages computed with the binary ones."
    )
    return f"{explained}\n\n{table(header, lines)}" if lines else ""


def _other_figures():
    lines = [
        [row["paper"], row["table"], NAMES.get(row["dataset"], ""), row["label"], row["quantity"]]
        + [row["value"] or "not given"]
        for row in papers.rows()
        if row["quantity"] != "test error (%)"
    ]
    return table(["paper", "table", "data set", "what", "quantity", "published"], lines)


def _machines(runs):
    groups = defaultdict(list)
    for run in runs:
        for environment in run.environments:
            versions = dict(environment.get("versions") or {}).items()
            commit = str(environment.get("git_commit") or "unknown")[:12]
            groups[
                text(f"{environment.get('cpu')}, {_threads(environment.get('threads'))}"),
                text(", ".join(f"{name} {version}" for name, version in versions)),
                text(commit + " with changes" * bool(environment.get("git_dirty"))),
            ].append(text(str(run.record.get("started"))[:10]))
    lines = [[*key, len(dates), min(dates), max(dates)] for key, dates in groups.items()]
    header = ["processor", "versions", "commit", "runs", "first started", "last started"]
    return table(header, lines) if lines else ""
