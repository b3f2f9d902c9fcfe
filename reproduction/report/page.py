"""results/ -> results/README.md: each published figure beside what our runs obtained, with a
verdict by a stated rule, and the figures of the paper.

Reads files only: published.csv, and run.json, epochs.csv, first_layer.npz and evaluation.json of
each run.
"""

import csv
import json
import math
import statistics
import sys
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import original_stack
from original_stack.command_line import Parser, run
from original_stack.errors import UserError, write_atomically

import numpy as np
import scipy.stats

from reproduction.published import published as published_row
from reproduction.report import figures

CONFIDENCE = 0.95
ENOUGH_RUNS = 3  # where the published figure is a mean over several
ENOUGH_PRECISION = 0.15  # of the published error: half the interval of the difference
HOW_TO_READ = f"""\
Error rates are test errors in percent, at the epoch of the best validation error. The interval of
an obtained error is Student's t over the seeds; for one seed, the Clopper-Pearson interval of its
test images.

A row is judged by the 95% interval of the difference between the obtained mean and the published
figure: Welch's, from the variance over the seeds on either side; on a side with one run only, the
binomial variance of its test error stands in.

- *not enough runs*: fewer than {ENOUGH_RUNS} where the published figure is a mean over several;
- *differs*: the interval excludes zero;
- *not enough runs*, too: it includes zero, but reaches further than {ENOUGH_PRECISION:.0%} of the
  published error to either side;
- *reproduced*: else;
- *not judged*: the paper gives no figure, or does not describe the network (its Table 1);
- *reduced setting*: all runs of the row are on other data, of other size or of other length than
  published. Such runs are listed apart and never judged;
- *missing*: no run."""
TABLE1 = tuple(f"table1-{o}-{s}" for o in ("sgd", "nesterov", "adam") for s in ("off", "on"))
SMALL_NETWORK = """\
Table 1 of BinaryConnect. The paper does not describe its small network: ours, and its learning
rates, are an inference ([DEVIATIONS.md](../DEVIATIONS.md), 14). The dash is the paper's."""
# Of ./reproduce benchmark: {step: {(data set, protocol): training steps an epoch}}; a row without a
# step of its own has that of the same network.
BENCHMARKS = {
    "mnist-published": {("mnist", "paper"): 250},
    "cifar10": {("cifar10", "paper"): 900},
    "svhn": {("svhn", "paper"): 11967, **{("cifar10", row): 900 for row in TABLE1}},
    "mnist-bnn": {("mnist", "bnn-theano"): 500},
    "cifar10-bnn": {("cifar10", "bnn-theano"): 900},
}
PAPER_TABLES = {("BinaryConnect", "Table 2"), ("Binarized Neural Networks", "Table 1")}
NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "svhn": "SVHN"}
PAPER_TEST_WEIGHTS = {"none": "real", "dropout": "real", "stochastic": "real"}
PAPER_TEST_WEIGHTS |= {"deterministic": "binary", "bnn": "binary"}
# Numbers of DEVIATIONS.md that matter to the rows of a protocol, and to those of one method.
DEVIATIONS = {
    ("mnist", "paper"): (7,),
    ("mnist", "release"): (2, 7, 10),
    ("cifar10", "paper"): (2, 7, 10, 12),
    ("svhn", "paper"): (2, 7, 9, 10, 12, 13),
    **{("cifar10", row): (2, 7, 10, 12, 14) for row in TABLE1},
    ("mnist", "bnn-theano"): (1, 2, 7, 10, 11, 12, 15),
    ("mnist", "bnn-torch7"): (1, 2, 7, 10, 11, 12, 15, 16, 17),
    **{(data, "bnn-theano"): (1, 2, 5, 7, 10, 12, 15) for data in ("cifar10", "svhn")},
    **{(data, "bnn-torch7"): (1, 2, 5, 7, 10, 11, 12, 15, 16, 17) for data in ("cifar10", "svhn")},
}
METHOD_DEVIATIONS = {
    ("mnist", "paper", "deterministic"): (1, 6, 12),
    ("mnist", "paper", "stochastic"): (11, 12),
    ("mnist", "paper", "dropout"): (6, 11),
    ("mnist", "release", "none"): (6,),
    ("mnist", "release", "deterministic"): (1, 4, 6, 12),
    ("mnist", "release", "stochastic"): (4, 11, 12),
    ("mnist", "release", "dropout"): (6, 11),
    ("cifar10", "paper", "deterministic"): (1, 5),
    ("cifar10", "paper", "stochastic"): (3, 5, 11),
    ("svhn", "paper", "deterministic"): (1, 5),
    ("svhn", "paper", "stochastic"): (3, 5, 11),
    **{("cifar10", row, "deterministic"): (1, 5) for row in TABLE1},
}
# What reading a damaged file may raise.
DAMAGE = OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError
DAMAGE += (zipfile.BadZipFile,)


@dataclass
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        Its folder.
    run : dict
        What run.json holds.
    departures : tuple of str
        What makes it incomparable with the published figure; empty: it is comparable.
    rows : list of dict
        epochs.csv as numbers; empty if it is missing or damaged.
    first_layer, evaluation : dict or None
        What first_layer.npz and evaluation.json hold.
    """

    path: Path
    run: dict
    departures: tuple
    rows: list = field(default_factory=list)
    first_layer: dict | None = None
    evaluation: dict | None = None

    def __getitem__(self, key):
        return self.run[key]

    @property
    def row(self):
        return self["dataset"], self["protocol"], self["method"]


def read_published():
    """The rows of published.csv, as dicts of str."""
    with open(original_stack.ROOT / "results" / "published.csv", newline="") as f:
        return list(csv.DictReader(f))


def read_runs(results, tuning=False):
    """All finished runs below a folder.

    Parameters
    ----------
    results : path
    tuning : bool
        The runs of results/tuning, by which hyperparameters were chosen (see tune.py), instead of
        all others.

    Returns
    -------
    runs : list of Run
    notes : list of str
        A sentence on each run that was left out, and on each file of a run that was.
    """
    results = Path(results)
    runs, notes, seen = [], [], {}
    folders = {path.parent for name in ("run.json", "epochs.csv") for path in results.rglob(name)}
    for folder in sorted(folders):
        name = folder.relative_to(results).as_posix()
        if name.startswith("tuning/") != tuning:
            continue
        try:
            found = _checked(json.loads((folder / "run.json").read_text()))
            one = Run(folder, found, departures(found))
        except FileNotFoundError:
            notes.append(f"`{name}` is left out: it has no run.json")
            continue
        except DAMAGE:
            notes.append(f"`{name}` is left out: its run.json is damaged")
            continue
        if not found["finished"]:
            reason = f" ({found['stopped']})" if "stopped" in found else ""
            notes.append(
                f"`{name}` is left out: unfinished, {found['epochs_done']:,} of "
                f"{found['epochs']:,} epochs{reason}"
            )
            continue
        keys = ("dataset", "protocol", "method", "seed", "epochs", "test_weights")
        identity = json.dumps([*(found[k] for k in keys), found["hyperparameters"], found["data"]])
        if identity in seen:
            notes.append(f"`{name}` is left out: the same run as `{seen[identity]}`")
            continue
        seen[identity] = name
        for attribute, file, read in (
            ("rows", "epochs.csv", _read_rows),
            ("first_layer", "first_layer.npz", _read_first_layer),
            ("evaluation", "evaluation.json", _read_evaluation),
        ):
            try:
                setattr(one, attribute, read(folder / file))
            except FileNotFoundError:
                if file != "evaluation.json" and not tuning:
                    notes.append(f"`{name}` has no {file}: it is not in the figures made of it")
            except DAMAGE:
                notes.append(f"`{name}/{file}` is damaged and left out")
        runs.append(one)
    return runs, notes


def _checked(found):
    """What run.json holds, if the report can rely on it; else one of DAMAGE."""
    texts = [found[key] for key in ("dataset", "protocol", "method", "test_weights")]
    counts = [found[key] for key in ("seed", "epochs", "epochs_done", "test_images")]
    numbers = [*counts, found["seconds"]]
    numbers += [found["test_error"], found["valid_error"]] if found["finished"] else []
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    if not all(isinstance(count, int) for count in counts) or not found["test_images"]:
        raise TypeError
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError
    if found["finished"] and not found["test_error"] <= 100:
        raise ValueError
    H = found["hyperparameters"].get("H", 1.0)
    if not (H == "Glorot" or isinstance(H, float | int | None)):
        raise TypeError
    for there in (*found.get("earlier", ()), found):
        dict(there.get("versions") or {})
    [(file["official"], file["name"]) for file in found["data"]]
    return found


def _read_rows(path):
    with open(path, newline="") as f:
        rows = [{k: float(v) if v else None for k, v in r.items()} for r in csv.DictReader(f)]
    for row in rows:
        if None in [row[k] for k in ("epoch", "train_loss", "valid_error")]:
            raise ValueError
    return rows


def _read_first_layer(path):
    with open(path, "rb") as f, np.load(f, allow_pickle=False) as archive:
        kept = {name: archive[name] for name in ("shape", "counts", "edges", "weights")}
    units = 1 if len(kept["shape"]) == 2 else 0  # the axis of which the first are kept
    inputs = np.delete(kept["shape"], units).tolist()
    if np.delete(kept["weights"].shape, units).tolist() != inputs:
        raise ValueError
    if len(kept["edges"]) != len(kept["counts"]) + 1:
        raise ValueError
    return kept


def _read_evaluation(path):
    evaluation = json.loads(path.read_text())
    [int(size) for size in evaluation["ensemble"]]
    # Earlier versions did not test with statistics of their own.
    evaluation.setdefault("binary_own_statistics", None)
    errors = [evaluation[kind] for kind in ("binary", "binary_own_statistics", "real")]
    for error in (*errors, *evaluation["ensemble"].values()):
        if error is not None and not 0 <= error <= 100:
            raise ValueError
    return evaluation


def departures(run):
    """In what a run departs from the setting of the published row: a tuple of phrases."""
    found = []
    if not run["official_data"]:
        unofficial = ", ".join(file["name"] for file in run["data"] if not file["official"])
        found.append(f"unofficial data ({unofficial})")
    published = published_row(run["dataset"], run["protocol"], run["method"])
    h = run["hyperparameters"]
    if h.get("width", 1) != 1:
        found.append(f"width {h['width']:g}")
    if h.get("train_size") is not None:
        found.append(f"the first {h['train_size']:,} training images")
    if h.get("lcn") == "all-channels":
        found.append("local contrast normalization of all channels")
    if published and published["epochs"] and run["epochs"] != int(published["epochs"]):
        found.append(f"{run['epochs']:,} epochs instead of {int(published['epochs']):,}")
    if run["test_weights"] != PAPER_TEST_WEIGHTS.get(run["method"], run["test_weights"]):
        found.append(f"{run['test_weights']} weights at test time")
    return tuple(found)


def interval(errors, images):
    """95% interval of an obtained error.

    Parameters
    ----------
    errors : list of float
        In percent, one per seed.
    images : int
        Number of test images.

    Returns
    -------
    low, high : float
        In percent: Student's t over several seeds; for one, Clopper-Pearson's binomial interval.
    """
    if len(errors) == 1:
        wrong = scipy.stats.binomtest(round(errors[0] / 100 * images), images)
        found = wrong.proportion_ci(CONFIDENCE, method="exact")
        return 100 * found.low, 100 * found.high
    mean, variance, df = _moments(errors, images)
    half = math.sqrt(variance) * scipy.stats.t.ppf((1 + CONFIDENCE) / 2, df)
    return mean - half, mean + half


def _moments(errors, images):
    """Mean, variance of the mean, and its degrees of freedom."""
    mean = statistics.mean(errors)
    if len(errors) == 1:
        return mean, mean * (100 - mean) / images, math.inf
    return mean, statistics.variance(errors) / len(errors), len(errors) - 1


def difference(errors, images, published):
    """Difference between the mean of `errors` and a published error, and half its 95% interval.

    Parameters
    ----------
    errors : list of float
    images : int
    published : dict
        A row of published.csv.

    Returns
    -------
    difference, half : float
        In percentage points; Welch's interval (see HOW_TO_READ).
    """
    mean, ours, our_df = _moments(errors, images)
    value, runs = float(published["value"]), int(published["runs"] or 1)
    if runs > 1 and published["spread"]:
        theirs, their_df = float(published["spread"]) ** 2 / runs, runs - 1
    else:
        _, theirs, their_df = _moments([value], images)
    variance = ours + theirs
    spread = ours**2 / our_df + theirs**2 / their_df
    df = variance**2 / spread if spread else math.inf
    return mean - value, scipy.stats.t.ppf((1 + CONFIDENCE) / 2, df) * math.sqrt(variance)


def verdict(errors, images, published):
    """ "reproduced", "differs", "not enough runs", "not judged" or "missing", by the rule of
    HOW_TO_READ."""
    if not errors:
        return "missing"
    if not published["value"] or published["protocol"] in TABLE1:
        return "not judged"
    if len(errors) < min(ENOUGH_RUNS, int(published["runs"] or 1)):
        return "not enough runs"
    found, half = difference(errors, images, published)
    if abs(found) > half:
        return "differs"
    return (
        "not enough runs" if half > ENOUGH_PRECISION * float(published["value"]) else "reproduced"
    )


def command(dataset, protocol, method, seed="N"):
    """The command line of a row's run."""
    chosen = f" --protocol {protocol}" if protocol != "paper" else ""
    if protocol in TABLE1:
        _, optimizer, scaling = protocol.split("-")
        return f"./reproduce {dataset} --optimizer {optimizer} --lr-scaling {scaling} --seed {seed}"
    return f"./reproduce {dataset}{chosen} --method {method} --seed {seed}"


def seconds_of_a_run(published, runs, benchmarks):
    """How long a run of a published row takes, in words with their source.

    Parameters
    ----------
    published : dict
        A row of published.csv.
    runs : list of Run
        All runs of the row.
    benchmarks : dict
        See `read_benchmarks`.
    """
    comparable = [run for run in runs if not run.departures]
    if comparable:
        median = _duration(statistics.median(run["seconds"] for run in comparable))
        stretches = [s for run in comparable for s in (*run.run.get("earlier", ()), run.run)]
        counts = sorted({str(stretch.get("threads")) for stretch in stretches})
        return f"{median} (median of these runs, {_threads(' or '.join(counts))})"
    epochs = int(published["epochs"] or 0)
    row = published["dataset"], published["protocol"]
    if row in benchmarks and epochs:
        return (
            f"about {_duration(benchmarks[row] * epochs)} (training steps only, by the benchmark)"
        )
    whole = [run for run in runs if all("epochs instead" in d for d in run.departures)]
    if whole and epochs:
        longest = max(whole, key=lambda run: run["epochs"])
        estimate = longest["seconds"] / longest["epochs"] * epochs
        return f"about {_duration(estimate)} (from a run of {longest['epochs']:,} epochs)"
    return "not measured"


def _threads(count):
    return f"{count} thread{'' if str(count) == '1' else 's'}"


def _duration(seconds):
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def read_benchmarks(results):
    """{(data set, protocol): seconds of training an epoch}, from results/benchmarks/*.json; and a
    note on each file that is damaged."""
    found, notes = {}, []
    for path in sorted(Path(results).glob("benchmarks/*.json")):
        if path.stem in BENCHMARKS:
            try:
                timed = json.loads(path.read_text())["median_milliseconds"]["fused"]
                for row, steps in BENCHMARKS[path.stem].items():
                    found[row] = steps * timed / 1000
            except (OSError, ValueError, TypeError, KeyError):
                notes.append(f"`benchmarks/{path.name}` is damaged and left out")
    return found, notes


def page(published, runs, tuned, notes, benchmarks, pictures):
    """The text of results/README.md.

    Parameters
    ----------
    published : list of dict
        See `read_published`.
    runs, tuned : list of Run
        Those of results/tuning apart.
    notes : list of str
    benchmarks : dict
    pictures : dict
        {title: path relative to the page} of the figures.
    """
    of_row = defaultdict(list)
    for one in runs:
        of_row[one.row].append(one)
    errors = [row for row in published if row["quantity"] == "test error (%)"]
    ours = [row for row in errors if row["protocol"]]
    number = f"{len(runs)} finished run{'s' * (len(runs) != 1)}"
    parts = [
        "# Published and obtained error rates",
        f"Made by `./reproduce report` from {number}; no number is typed by hand. Verdicts follow "
        "a [rule](#how-to-read).",
    ]
    for dataset, name in NAMES.items():
        rows = [r for r in ours if r["dataset"] == dataset and r["protocol"] not in TABLE1]
        parts += [f"## {name}", _comparison(rows, of_row), _others(errors, dataset)]
    rows = [row for row in ours if row["protocol"] in TABLE1]
    parts += ["## CIFAR-10, a small network: optimizers and scaling of the learning rates"]
    parts += [_comparison(rows, of_row), SMALL_NETWORK]
    parts += ["## How to read", HOW_TO_READ, "## Commands", _commands(ours, of_row, benchmarks)]
    parts += _section("## Runs in other settings", _other_settings(runs))
    parts += _section("## Test-time weights", _test_time_weights(runs))
    parts += _section("## Runs that chose hyperparameters", _tuning(tuned))
    parts += ["## Other published figures", _other_figures(published)]
    if pictures:
        parts.append("## Figures")
        parts += [f"![{title}]({path})" for title, path in pictures.items()]
    parts += _section("## Machines and versions", _machines(runs))
    parts += _section("## Notes", "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _section(title, text):
    return [title, text] if text else []


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _machines(runs):
    groups = defaultdict(list)
    for one in runs:
        for there in (*one.run.get("earlier", ()), one.run):
            versions = dict(there.get("versions") or {}).items()
            commit = str(there.get("git_commit") or "unknown")[:12]
            groups[
                f"{there.get('cpu')}, {_threads(there.get('threads'))}",
                ", ".join(f"{name} {version}" for name, version in versions),
                commit + (" with changes" if there.get("git_dirty") else ""),
            ].append(str(one.run.get("started"))[:10])
    lines = [[*key, len(dates), min(dates), max(dates)] for key, dates in groups.items()]
    header = ["processor", "versions", "commit", "runs", "first started", "last started"]
    return _table(header, lines) if lines else ""


def _comparison(rows, of_row):
    lines = []
    for row in rows:
        key = row["dataset"], row["protocol"], row["method"]
        runs = [run for run in of_row[key] if not run.departures]
        found = sorted(run["test_error"] for run in runs)
        judged = verdict(found, runs[0]["test_images"] if runs else 0, row)
        obtained = spread = span = delta = ""
        if found:
            images = runs[0]["test_images"]
            obtained = f"{statistics.mean(found):.2f}"
            spread = f"{statistics.stdev(found):.2f}" if len(found) > 1 else ""
            span = "{:.2f} to {:.2f}".format(*interval(found, images))
            if row["value"]:
                delta = "{:+.2f} ± {:.2f}".format(*difference(found, images, row))
        elif of_row[key]:
            judged = "reduced setting"
        value = f"{row['value']} ± {row['spread']}" if row["spread"] else row["value"] or "–"
        value += f" ({row['runs']} runs)" if int(row["runs"] or 1) > 1 else ""
        numbers = sorted(DEVIATIONS.get(key[:2], ()) + METHOD_DEVIATIONS.get(key, ()))
        lines.append(
            [row["protocol"], row["label"], value, obtained, spread, len(found), span, delta]
            + [f"**{judged}**", ", ".join(map(str, numbers))]
        )
    header = "protocol,method,published,obtained,std,seeds,95% interval,difference,verdict"
    return _table([*header.split(","), "[deviations](../DEVIATIONS.md)"], lines)


def _others(errors, dataset):
    others = [
        f"{row['label']} {row['value']}{' ± ' + row['spread'] if row['spread'] else ''}"
        for row in errors
        if row["dataset"] == dataset
        and not row["protocol"]
        and (row["paper"], row["table"]) in PAPER_TABLES
    ]
    return f"Others, as the papers list them (%): {'; '.join(others)}."


def _commands(rows, of_row, benchmarks):
    lines = []
    for row in rows:
        key = row["dataset"], row["protocol"], row["method"]
        done = sorted(run["seed"] for run in of_row[key] if not run.departures)
        time = seconds_of_a_run(row, of_row[key], benchmarks)
        lines.append(
            [NAMES[row["dataset"]], f"`{command(*key)}`", ", ".join(map(str, done)) or "none", time]
        )
    return _table(["data set", "command, for any seed N", "seeds done", "time of a run"], lines)


def _other_settings(runs):
    groups = defaultdict(list)
    for one in runs:
        if one.departures or published_row(*one.row) is None:
            groups[(*one.row, "; ".join(one.departures) or "no published row")].append(one)
    lines = []
    for (*row, setting), group in sorted(groups.items()):
        found = [one["test_error"] for one in group]
        spread = f"{statistics.stdev(found):.2f}" if len(found) > 1 else ""
        seeds = ", ".join(str(seed) for seed in sorted(one["seed"] for one in group))
        mean = f"{statistics.mean(found):.2f}"
        span = "{:.2f} to {:.2f}".format(*interval(found, group[0]["test_images"]))
        lines.append([*row, setting, mean, spread, seeds, span])
    if not lines:
        return ""
    header = "data set,protocol,method,setting,obtained,std,seeds,95% interval"
    return "Not comparable with a published figure.\n\n" + _table(header.split(","), lines)


def _test_time_weights(runs):
    evaluated = [one for one in runs if one.evaluation]
    if not evaluated:
        return ""
    sizes = sorted({int(n) for one in evaluated for n in one.evaluation["ensemble"]})
    lines = []
    for one in evaluated:
        ensemble = [one.evaluation["ensemble"].get(str(n)) for n in sizes]
        kinds = ("binary", "binary_own_statistics", "real")
        values = [*(one.evaluation[kind] for kind in kinds), *ensemble]
        shown = [f"{value:.2f}" if value is not None else "" for value in values]
        setting = "; ".join(one.departures)
        lines.append([*one.row, one["seed"], *shown, setting])
    header = ["data set", "protocol", "method", "seed"]
    header += ["binary", "binary, own statistics", "real"]
    text = (
        "Test error (%) of one trained model with each of the paper's three kinds of weights "
        "(section 2.6), by `./reproduce evaluate RUN_DIR`; an ensemble of n averages the outputs "
        "of n draws. Own statistics: batch normalization by those of the binary weights, where "
        "training left those of drawn ones."
    )
    table = _table([*header, *(f"ensemble of {n}" for n in sizes), "setting"], lines)
    return f"{text}\n\n{table}"


def _tuning(tuned):
    lines = [
        [*one.row, one.path.parents[2].name, "; ".join(one.departures), f"{one['valid_error']:.2f}"]
        for one in sorted(tuned, key=lambda one: (one.row, one["valid_error"]))
    ]
    header = ["data set", "protocol", "method", "tried", "setting", "validation error"]
    text = (
        "By `./reproduce tune mnist` and `... cifar10`, for what the papers do not "
        "record, and whole runs of a choice given up since; lowest error first."
    )
    return f"{text}\n\n{_table(header, lines)}" if lines else ""


def _other_figures(published):
    rows = [row for row in published if row["quantity"] != "test error (%)"]
    lines = [
        [row["paper"], row["table"], NAMES.get(row["dataset"], ""), row["label"], row["quantity"]]
        + [row["value"] or "not given"]
        for row in rows
    ]
    return _table(["paper", "table", "data set", "what", "quantity", "published"], lines)


def write(options):
    """The command: reads `options.results`, writes README.md and figures/ there.

    Raises
    ------
    UserError
        If there is no such folder or it cannot be written.
    """
    results = Path(options.results)
    if not results.is_dir():
        raise UserError(f"{results} is not a folder; name one that holds runs with --results")
    runs, notes = read_runs(results)
    tuned, more = read_runs(results, tuning=True)
    benchmarks, damaged = read_benchmarks(results)
    notes += more + damaged
    try:
        pictures = figures.draw(runs, results / "figures")
        text = page(read_published(), runs, tuned, notes, benchmarks, pictures)
        write_atomically(results / "README.md", text.encode())
    except OSError as error:
        raise UserError(
            f"cannot write in {results}: {error.strerror}; make it writable or make room"
        ) from None
    print(f"{results / 'README.md'}: {len(runs)} runs, {len(notes)} notes")


def main(argv=None):
    parser = Parser(prog="report", description=__doc__)
    parser.add_argument("--results", metavar="DIR", default=original_stack.RESULTS)
    return run(parser, write, argv)


if __name__ == "__main__":
    sys.exit(main())
