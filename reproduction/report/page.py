"""The texts of results/README.md, results/results.csv and results/tuning/README.md, and of the
table of MNIST in the project's README.md."""

import csv
import io
import statistics
import textwrap
from collections import defaultdict

from reproduction import published as papers
from reproduction.report.claims import claims, counted, obtained_figures, verdicts
from reproduction.report.findings import inexact_test_images
from reproduction.report.markdown import MADE, NAMES, commit_of, printable, signed, table, text
from reproduction.report.statistics import (
    CONFIDENCE,
    MARGIN,
    SEEDS,
    comparisons,
    difference,
    interval,
    rule,
    verdicts_of,
    visible,
)
from reproduction.report.times import command, cpu_hours, duration, threads_of, time_of_a_run

SMALL_NETWORK = """\
Table 1 of BinaryConnect. The paper does not describe its small network; our network and its
learning rates are an inference (`DEVIATIONS.md`, 14). The dash in the first row is the paper's."""
UNOFFICIAL_DATA = """\
These runs have the published setting, but a data file whose checksum is not the official one. They
are not judged. The last column counts the images that differ from the official ones in a pixel; it
is known for the files in `unofficial.csv`."""
COSTS = """\
CPU hours of finished runs, which are hours times threads. The number of runs is in brackets.
Evaluations, benchmarks and runs that were given up are not included."""
ALL_ROWS = (
    "Verdicts of all {rows} published rows: {verdicts}. *Reproduced*: the {confidence:.0%} "
    "interval of the difference lies within {margin:.0%} of the published error. *Consistent*: it "
    "includes zero, and the published error is too uncertain to say more. *Release*: the "
    "hyperparameters of the released code."
)
CURVES = """\
Three or more seeds are drawn as their mean, in a band from the lowest to the highest seed. Fewer
seeds are drawn as a line each."""
COLUMNS = [  # of results.csv: the name in run.json, and the unit
    *("run", "dataset", "protocol", "method", "seed", "epochs", "best_epoch", "valid_error (%)"),
    *("test_error (%)", "test_weights", "departures", "seconds (s)", "threads", "cpu", "graph"),
    *("blas", "git_commit", "git_dirty", "lock_sha256", "official_data"),
]
PAPER_TABLES = {("BinaryConnect", "Table 2"), ("Binarized Neural Networks", "Table 1")}


def page(findings, pictures):
    """The text of results/README.md.

    Parameters
    ----------
    findings : reproduction.report.findings.Findings
    pictures : dict
        {title: path relative to the page} of the figures; the comparison is the first.
    """
    runs, compared = findings.runs, findings.compared
    table1 = [c for c in compared if c.published["protocol"].startswith("table1-")]
    number = f"{len(runs)} finished run{'s' * (len(runs) != 1)}"
    counts = verdicts(claims(findings))
    (comparison, *others) = [f"![{title}]({path})" for title, path in pictures.items()]
    parts = [
        "# Published and obtained error rates",
        f"{MADE} {number}; no number is typed by hand. Verdicts follow a [rule](#how-to-read). The "
        "last column names the deviations that matter, by their numbers in `DEVIATIONS.md`.",
        "- [article.md](article.md): the reproduction in three pages\n"
        f"- [claims.md](claims.md): the papers' claims; of {counts.total()} statements, "
        f"{counted(counts)}\n"
        "- [networks.md](networks.md): the trained networks\n"
        "- [scale.md](scale.md): what the whole table costs on a cluster\n"
        "- [results.csv](results.csv): a line for each run",
        comparison,
    ]
    for dataset, name in NAMES.items():
        of_data = [c for c in compared if c.published["dataset"] == dataset and c not in table1]
        parts += [f"## {name}", comparison_table(of_data), _others(dataset)]
    parts += ["## CIFAR-10, a small network: optimizers and scaling of the learning rates"]
    parts += [comparison_table(table1), SMALL_NETWORK]
    parts += _section("## Published setting, unofficial data", unofficial_table(compared))
    parts += [
        "## How to read",
        rule(),
        _visible(compared),
        "## Commands",
        _commands(compared, findings.epochs),
    ]
    parts += _section("## Runs in other settings", _other_settings(compared, runs))
    parts += _section("## Test-time weights", _test_time_weights(runs))
    parts += ["## Other published figures", _other_figures(findings)]
    parts += _section("## Costs", costs(runs, findings.tuned))
    parts += _section("## Figures", "\n\n".join(others and [CURVES, *others]))
    parts += _section("## Machines and versions", _machines(runs))
    parts += _section("## Notes", "\n".join(f"- {note}" for note in findings.notes))
    return "\n\n".join(parts) + "\n"


def tuning_page(tuned):
    """The text of results/tuning/README.md: the runs that chose hyperparameters.

    Parameters
    ----------
    tuned : list of Run
        The runs of results/tuning.
    """
    lines = [
        [*run.row, text(run.name.split("/")[1]), _setting(run), f"{run['valid_error']:.2f}"]
        for run in sorted(tuned, key=lambda run: (run.row, run["valid_error"]))
    ]
    header = ["data set", "protocol", "method", "tried", "setting", "validation error (%)"]
    return f"""# Runs that chose hyperparameters

{MADE} {len(tuned)} finished runs. `./reproduce tune mnist` and `./reproduce tune cifar10` made
most of them, to choose hyperparameters that the papers do not record. The others are full-length
runs of a choice that was given up. `DEVIATIONS.md`, 6 and 14, lists the choices. The lowest error
of a row comes first.

{table(header, lines)}
"""


def mnist_table(runs, picture):
    """The block of the project's README.md: the rows of MNIST, and the comparison of all rows.

    Parameters
    ----------
    runs : list of Run
    picture : tuple of str
        The title of the comparison, and its path relative to README.md.
    """
    compared = comparisons(runs)
    lines = [
        [c.name, _value(c.published), _mean(c), len(c.errors), _delta(c), f"**{c.verdict}**"]
        for c in compared
        if c.published["dataset"] == "mnist"
    ]
    header = "test error on MNIST (%),published,obtained,seeds,difference,verdict"
    verdicts = ALL_ROWS.format(
        rows=len(compared), verdicts=verdicts_of(compared), margin=MARGIN, confidence=CONFIDENCE
    )
    parts = table(header.split(","), lines), textwrap.fill(verdicts, 140)
    return "\n\n".join([*parts, f"![{picture[0]}]({picture[1]})"])


def results_csv(runs):
    """The text of results/results.csv: a line for each run."""
    text_of_file = io.StringIO()
    writer = csv.writer(text_of_file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        cells = {**run.record, "run": run.name, "departures": "; ".join(run.departures)}
        cells["graph"] = {True: "fused", False: "plain"}.get(run.record.get("fused"))
        cells["blas"] = run.record.get("versions", {}).get("blas")
        values = [cells.get(column.partition(" (")[0]) for column in COLUMNS]
        writer.writerow([_plain(value) for value in values])
    return text_of_file.getvalue()


def _plain(value):
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else printable(value)


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
    return signed(*compared.difference) if compared.difference else ""


def _spread(errors):
    return f"{statistics.stdev(errors):.2f}" if len(errors) > 1 else ""


def _span(low, high):
    return f"{low:.2f} to {high:.2f}"


def comparison_table(compared):
    """A table of published rows; each is a Comparison."""
    lines = [
        [c.name, _value(c.published), _mean(c), f"**{c.verdict}**"]
        + [_spread(c.errors), len(c.errors), _span(*c.interval) if c.interval else "", _delta(c)]
        + [c.published["protocol"], c.published["deviations"].replace(" ", ", ")]
        for c in compared
    ]
    header = "method,published,obtained,verdict,std,seeds,95% interval,difference,protocol"
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


def unofficial_table(compared):
    """A table of the rows whose runs have the published setting but unofficial data, or ""."""
    lines = []
    for c in compared:
        if not c.unofficial:
            continue
        errors = [run["test_error"] for run in c.unofficial]
        images = c.unofficial[0]["test_images"]
        off = signed(*difference(errors, images, c.published)) if c.published["value"] else ""
        differing = sorted({inexact_test_images(run) or "not known" for run in c.unofficial})
        lines.append(
            [NAMES[c.row[0]], c.row[1], c.published["label"], _value(c.published)]
            + [f"{statistics.mean(errors):.2f}", _spread(errors), len(errors)]
            + [_span(*interval(errors, images)), off, " or ".join(differing)]
        )
    header = "data set,protocol,method,published,obtained,std,seeds,95% interval,difference"
    content = table([*header.split(","), "test images that differ from the official ones"], lines)
    return f"{UNOFFICIAL_DATA}\n\n{content}" if lines else ""


def costs(runs, tuned):
    """CPU hours of each row and in total; "" without runs."""
    lines, totals = [], [0.0] * 4
    for row in sorted({run.row for run in [*runs, *tuned]}):
        kinds = (
            [run for run in runs if run.row == row and not run.departures],
            [run for run in runs if run.row == row and run.departures],
            [run for run in tuned if run.row == row],
        )
        hours = [sum(map(cpu_hours, kind)) for kind in kinds]
        hours.append(sum(hours))
        totals = [total + spent for total, spent in zip(totals, hours, strict=True)]
        counts = [f" ({len(kind)})" * bool(kind) for kind in kinds]
        shown = [f"{h:.1f}{n}" if n else "" for h, n in zip(hours, counts, strict=False)]
        lines.append([*map(text, row), *shown, f"{hours[-1]:.1f}"])
    lines.append(["all", "", "", *(f"{total:.1f}" for total in totals)])
    header = ["data set", "protocol", "method", "as published", "other settings", "tuning", "total"]
    return f"{COSTS}\n\n{table(header, lines)}" if len(lines) > 1 else ""


def _other_settings(compared, runs):
    apart = {run.name for c in compared for run in c.unofficial}
    runs = [run for run in runs if run.name not in apart]
    groups = _grouped((run for run in runs if run.departures), lambda r: (*r.row, _setting(r)))
    lines = []
    for key, group in sorted(groups.items()):
        errors = [run["test_error"] for run in group]
        seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in group))
        span = _span(*interval(errors, group[0]["test_images"]))
        lines.append([*key, f"{statistics.mean(errors):.2f}", _spread(errors), seeds, span])
    header = "data set,protocol,method,setting,obtained,std,seeds,95% interval"
    content = table(header.split(","), lines)
    return "Not comparable with a published figure.\n\n" + content if lines else ""


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
        "belong to sampled weights, so they are replaced by averages computed with binary weights."
    )
    return f"{explained}\n\n{table(header, lines)}" if lines else ""


def _other_figures(findings):
    rows = findings.by_row
    times = {
        dataset: f"{seconds / 3600:.3g} on a CPU ({source})"
        for dataset, protocol in (("mnist", "release"), ("cifar10", "paper"), ("svhn", "paper"))
        for seconds, _, source in [
            time_of_a_run(rows[dataset, protocol, "stochastic"], findings.epochs)
        ]
        if seconds
    }
    obtained = obtained_figures(findings, times)
    lines = [
        [row["paper"], row["table"], NAMES.get(row["dataset"], ""), row["label"], row["quantity"]]
        + [row["value"] or "not given", obtained[row["label"], row["dataset"]]]
        for row in papers.rows()
        if row["quantity"] != "test error (%)"
    ]
    return table(["paper", "table", "data set", "what", "quantity", "published", "obtained"], lines)


def _machines(runs):
    groups = defaultdict(list)
    for run in runs:
        for environment in run.environments:
            versions = dict(environment.get("versions") or {}).items()
            groups[
                text(f"{environment.get('cpu')}, {threads_of(environment.get('threads'))}"),
                text(", ".join(f"{name} {version}" for name, version in versions)),
                text(commit_of(environment)),
            ].append(text(str(run.record.get("started"))[:10]))
    lines = [[*key, len(dates), min(dates), max(dates)] for key, dates in groups.items()]
    header = ["processor", "versions", "commit", "runs", "first started", "last started"]
    return table(header, lines) if lines else ""
