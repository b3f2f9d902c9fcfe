"""results/claims.md: the claims of the papers, each with the runs or the command that tests it, the
result, and a verdict."""

import statistics
from collections import Counter
from dataclasses import dataclass

from reproduction import published as papers
from reproduction.report.markdown import MADE, NAMES, signed, table, text
from reproduction.report.statistics import (
    CONFIDENCE,
    MARGIN,
    difference_of_errors,
    enough_runs,
    paired,
)

METHODS = {"none": "no regularizer", "deterministic": "deterministic", "stochastic": "stochastic"}
OPTIMIZERS = {"sgd": "SGD", "nesterov": "Nesterov momentum", "adam": "ADAM"}
ENSEMBLE = "16"
VERDICTS = ("holds", "does not hold", "undecided", "another machine", "unofficial data")
VERDICTS += ("reduced setting", "not tested")
RULE = """\
A difference is paired by seed if the two rows share at least two seeds. Otherwise the interval is
Welch's, and a row with one run has the binomial variance of its test error.

- *holds*: the {confidence:.0%} interval of the difference lies wholly on the claimed side of zero.
  If the claim is equality or a count, the interval lies within ±{margin:.0%}. If the claim is that
  something is not worse, the upper end of the interval lies within that margin;
- *does not hold*: the interval lies wholly on the other side, or beyond the margin;
- *undecided*: otherwise, or if there are fewer runs than the verdict of a row needs;
- *another machine*: the paper measured on its GPU, and we on the machine named, with other kernels;
  shown, but not judged;
- *unofficial data*, *reduced setting*: there are only such runs; shown, but not judged;
- *not tested*: there is no evidence."""


@dataclass
class Line:
    """One thing that a claim says.

    Attributes
    ----------
    what : str
    published : str
    obtained : str
        The statistic, with its unit; empty without evidence.
    verdict : str
        One of `VERDICTS`.
    """

    what: str
    published: str
    obtained: str = ""
    verdict: str = "not tested"


@dataclass
class Claim:
    """A claim of a paper.

    Attributes
    ----------
    title : str
    place : str
        Where the papers make the claim.
    statement : str
    test : str
        The runs or the command that tests it.
    lines : list of Line
    """

    title: str
    place: str
    statement: str
    test: str
    lines: list


def claims(findings):
    """All claims, beside the findings.

    Parameters
    ----------
    findings : reproduction.report.findings.Findings

    Returns
    -------
    list of Claim
    """
    rows = findings.by_row
    return [
        Claim(
            "Order of the methods",
            "BinaryConnect, Table 2",
            "Stochastic binary weights give a lower test error than deterministic binary weights, "
            "which give a lower test error than no regularizer. Differences are in percentage "
            "points.",
            "`./reproduce DATA --method METHOD --seed N` of these rows",
            [
                _order(rows, dataset, lower, higher)
                for dataset in NAMES
                for lower, higher in (("stochastic", "deterministic"), ("deterministic", "none"))
            ],
        ),
        Claim(
            "Regularization",
            "BinaryConnect, abstract and Figure 3",
            "Binary weights regularize: the training loss is higher than without a regularizer, "
            "and the test error is not. The training loss is taken from the last epoch.",
            "the same runs",
            [
                _regularization(rows, dataset, method)
                for dataset in NAMES
                for method in ("deterministic", "stochastic")
            ],
        ),
        Claim(
            "Multiplications",
            "BinaryConnect, conclusion",
            "About two thirds of the multiplications of training have a binary operand and become "
            "additions, and all of them at test time with deterministic weights. Batch "
            "normalization is not counted.",
            "`./reproduce multiplications`",
            [
                _multiplications(findings, part, name)
                for part in ("training", "test")
                for name in NAMES
            ],
        ),
        Claim(
            "Memory",
            "BinaryConnect, conclusion; Binarized Neural Networks, section 3.1",
            "Binary weights take at least 16 times less memory than 16-bit floats, and 32 times "
            "less than 32-bit floats.",
            "`./reproduce export RUN_DIR`; `./reproduce benchmark xnor`",
            _memory(findings),
        ),
        Claim(
            "Weights at test time",
            "BinaryConnect, section 2.6",
            "A network trained with sampled weights can be tested with its real weights: they are "
            "not worse than its binary ones, and an average over sampled networks approaches them. "
            "Binary weights have recomputed batch-norm statistics where `evaluate` gives both.",
            "`./reproduce evaluate RUN_DIR` of stochastic runs",
            [line for dataset in NAMES for line in _test_weights(rows, dataset)],
        ),
        Claim(
            "Scaling of the learning rates",
            "BinaryConnect, section 2.5 and Table 1",
            "Scaling the learning rates of binary weights lowers the test error with each "
            "optimizer. The paper does not describe its network; ours is an inference "
            "(`DEVIATIONS.md`, 14).",
            "`./reproduce cifar10 --optimizer O --lr-scaling on|off --seed N`",
            [_scaling(findings, rows, optimizer) for optimizer in OPTIMIZERS],
        ),
        Claim(
            "Shifts instead of multiplications",
            "Binarized Neural Networks, sections 1.4 and 1.5",
            "Shift-based batch normalization and shift-based AdaMax cost no accuracy.",
            "nothing yet: no command trains a row of protocol bnn-torch7 without shifts",
            [Line("shift-based against exact arithmetic", "no loss observed")],
        ),
        Claim(
            "Speed of XNOR",
            "Binarized Neural Networks, section 4",
            "Products of binary matrices by XNOR and population count are faster than products of "
            "floats. The paper timed its own kernels on a GPU, a GTX 750.",
            "`./reproduce benchmark xnor` on a CPU, `./reproduce benchmark xnor --opencl` on a GPU",
            _speed(findings),
        ),
        Claim(
            "Repetitions of filters",
            "Binarized Neural Networks, section 3.3, from memory of the paper",
            "Of the binary 3x3 kernels that a layer of the CIFAR-10 network applies to a feature "
            "map, about 42 % are unique, an inverse counting as a repetition; the operations could "
            "fall to a third.",
            "`./reproduce evaluate RUN_DIR` of a run of `./reproduce cifar10 --method bnn`",
            [_repetitions(rows, protocol) for protocol in ("bnn-theano", "bnn-torch7")],
        ),
    ]


def claims_page(findings):
    """The text of results/claims.md."""
    all_claims = claims(findings)
    counts = verdicts(all_claims)
    parts = [
        "# Claims of the papers",
        f"{MADE} {len(findings.runs)} finished runs and the records of commands; no number is "
        f"typed by hand. Of {counts.total()} statements: {counted(counts)}.",
    ]
    for claim in all_claims:
        lines = [
            [line.what, line.published, line.obtained, f"**{line.verdict}**"]
            for line in claim.lines
        ]
        parts += [
            f"## {claim.title}",
            f"{claim.statement} ({claim.place})",
            f"Tested by {claim.test}.",
            table(["", "published", "obtained", "verdict"], lines),
        ]
    parts += ["## How to read", RULE.format(confidence=CONFIDENCE, margin=MARGIN)]
    return "\n\n".join(parts) + "\n"


def verdicts(all_claims):
    """How often each verdict was given, as a Counter."""
    return Counter(line.verdict for claim in all_claims for line in claim.lines)


def counted(counts):
    """The verdicts and how often each was given: "*holds* 3, *undecided* 2"."""
    return ", ".join(f"*{verdict}* {counts[verdict]}" for verdict in VERDICTS if counts[verdict])


def comparable(*sides):
    """The runs of several rows in one setting that all rows have: the published setting if
    possible, otherwise the published setting on unofficial data, otherwise the longest runs.

    Parameters
    ----------
    sides : sequence of lists of Run

    Returns
    -------
    kind : str
        "" for the published setting, "unofficial data" or "reduced setting"; "not tested" if the
        rows have no setting in common.
    sides : list of lists of Run
    """
    settings = set.intersection(*({run.departures for run in side} for side in sides))
    if not settings:
        return "not tested", [[] for _ in sides]

    def weight(setting):
        run = next(run for run in sides[0] if run.departures == setting)
        return not setting, run.only_data_departs, run["epochs"], setting

    setting = max(settings, key=weight)
    kept = [[run for run in side if run.departures == setting] for side in sides]
    if not setting:
        return "", kept
    only_data = kept[0][0].only_data_departs
    return ("unofficial data" if only_data else "reduced setting"), kept


def _all(compared):
    return [*compared.runs, *compared.unofficial, *compared.others]


def _errors(runs):
    return {run["seed"]: run["test_error"] for run in runs}


def _enough(*compared):
    return all(len(c.runs) >= enough_runs(c.published) for c in compared)


def _below(difference, half, enough=True):
    """Whether a difference is below zero."""
    if not enough or abs(difference) <= half:
        return "undecided"
    return "holds" if difference < 0 else "does not hold"


def _within(low, high, margin):
    """Whether an interval lies within ±margin."""
    if -margin <= low and high <= margin:
        return "holds"
    return "does not hold" if low > margin or high < -margin else "undecided"


def _not_above(difference, half, margin):
    """Whether a difference is no larger than zero, up to a margin."""
    if difference + half <= margin:
        return "holds"
    return "does not hold" if difference > half else "undecided"


def _shown(difference, half, pairs, sides):
    seeds = f"{pairs} seeds, paired" if pairs else " and ".join(str(len(s)) for s in sides)
    return f"{signed(difference, half)} ({seeds}{'' if pairs else ' runs'})"


def _with_setting(obtained, runs):
    setting = text("; ".join(runs[0].departures))
    return f"{obtained}; {setting}" if setting else obtained


def _order(rows, dataset, lower, higher):
    """Whether one method has lower errors than another."""
    first, second = (rows[dataset, "paper", method] for method in (lower, higher))
    theirs = float(first.published["value"]) - float(second.published["value"])
    line = Line(f"{NAMES[dataset]}: {METHODS[lower]} minus {METHODS[higher]}", f"{theirs:+.2f}")
    kind, sides = comparable(_all(first), _all(second))
    if kind == "not tested":
        return line
    difference = difference_of_errors(*map(_errors, sides), sides[0][0]["test_images"])
    line.obtained = _with_setting(_shown(*difference, sides), sides[0])
    line.verdict = kind or _below(*difference[:2], _enough(first, second))
    return line


def _regularization(rows, dataset, method):
    """Whether a method raises the training loss and not the test error."""
    first, second = (rows[dataset, "paper", name] for name in (method, "none"))
    line = Line(f"{NAMES[dataset]}: {METHODS[method]}", "higher loss, lower error")
    kind, sides = comparable(*([r for r in _all(c) if r.epochs] for c in (first, second)))
    if kind == "not tested":
        return line
    losses = [{run["seed"]: run.epochs[-1]["train_loss"] for run in side} for side in sides]
    means = [statistics.mean(values.values()) for values in losses]
    loss, loss_half, pairs = paired(*losses)
    error, half, error_pairs = difference_of_errors(
        *map(_errors, sides), sides[0][0]["test_images"]
    )
    shown = f" (difference {loss:.2g} ± {loss_half:.2g}, {pairs} seeds)" if loss_half else ""
    obtained = f"loss {means[0]:.2g} against {means[1]:.2g}{shown}; "
    obtained += f"error {_shown(error, half, error_pairs, sides)}"
    line.obtained = _with_setting(obtained, sides[0])
    enough = _enough(first, second) and loss_half is not None
    margin = MARGIN * statistics.mean(_errors(sides[1]).values())
    parts = [_below(-loss, loss_half), _not_above(error, half, margin)] if enough else ["undecided"]
    line.verdict = kind or next(
        verdict for verdict in ("does not hold", "undecided", "holds") if verdict in parts
    )
    return line


def _multiplications(findings, part, name):
    label = "training" if part == "training" else "test time, deterministic weights"
    published = _figure(label)
    line = Line(f"{NAMES[name]}: {label}", f"{_about(published)}{published['value']} %")
    if name in findings.multiplications:
        share = findings.multiplications[name][part]
        line.obtained = f"{share:.1f} %"
        off = share - float(published["value"])
        line.verdict = _within(off, off, MARGIN * float(published["value"]))
    return line


def _memory(findings):
    sixteen = Line("weights, against 16-bit floats", f"at least {_figure('weights')['value']}")
    thirty_two = Line("weights, against 32-bit floats", _figure("weights and activations")["value"])
    packed = [n for n in findings.networks if n.run["method"] != "none"]
    if packed:
        for line, size in ((sixteen, 2), (thirty_two, 4)):
            times, of_file = (
                min(size * n.weights / bytes_of(n) for n in packed)
                for bytes_of in (lambda n: n.stored, lambda n: n.bytes)
            )
            line.obtained = (
                f"{times:.1f} times less in {len(packed)} deployed network"
                f"{'s' * (len(packed) > 1)} ({of_file:.1f} with all else in the file)"
            )
            line.verdict = "holds" if times >= float(line.published.split()[-1]) else "undecided"
    network = Line(
        "weights of the 784-3x4096-10 network with binary activations, 32-bit floats",
        _figure("weights and activations")["value"],
    )
    if findings.xnor:
        size = findings.xnor["weights_bytes"]
        times = size["float32"] / max(1, size["packed"])
        network.obtained = f"{times:.1f} times less"
        network.verdict = "holds" if times >= float(network.published) else "does not hold"
    return [sixteen, thirty_two, network]


def _test_weights(rows, dataset):
    """Real against binary weights, and an ensemble against real weights, of stochastic runs."""
    name = NAMES[dataset]
    real = Line(f"{name}: real minus binary weights", "real weights are used")
    ensemble = Line(f"{name}: ensemble of {ENSEMBLE} minus real weights", "no figure")
    row = rows[dataset, "paper", "stochastic"]
    kind, (runs,) = comparable([run for run in _all(row) if run.evaluation])
    enough = len(runs) >= enough_runs(row.published)

    def errors(of):
        by_seed = {run["seed"]: of(run.evaluation) for run in runs}
        return {seed: error for seed, error in by_seed.items() if error is not None}

    def binary(evaluation):
        own = evaluation.get("binary_own_statistics")
        return evaluation["binary"] if own is None else own

    with_real = errors(lambda evaluation: evaluation["real"])
    averaged = errors(lambda evaluation: evaluation["ensemble"].get(ENSEMBLE))
    for line, first, second in (
        (real, with_real, errors(binary)),
        (ensemble, averaged, with_real),
    ):
        if not (first and second):
            continue
        difference, half, pairs = difference_of_errors(first, second, runs[0]["test_images"])
        shown = _shown(difference, half, pairs, (first, second))
        line.obtained = _with_setting(shown, runs)
        margin = MARGIN * statistics.mean(second.values())
        if line is real:
            judged = _not_above(difference, half, margin)
        else:
            judged = _within(difference - half, difference + half, margin)
        line.verdict = kind or (judged if enough else "undecided")
    return [real, ensemble]


def _scaling(findings, rows, optimizer):
    """Whether scaling lowers the error with an optimizer."""
    keys = [
        ("cifar10", f"table1-{optimizer}-{scaling}", "deterministic") for scaling in ("on", "off")
    ]
    first, second = (rows[key] for key in keys)
    theirs = [c.published["value"] or "no figure" for c in (first, second)]
    line = Line(f"{OPTIMIZERS[optimizer]}: scaled against not", " against ".join(theirs))
    kind, sides = comparable(_all(first), _all(second))
    if kind != "not tested":
        difference = difference_of_errors(*map(_errors, sides), sides[0][0]["test_images"])
        means = [statistics.mean(_errors(side).values()) for side in sides]
        shown = f"{means[0]:.2f} against {means[1]:.2f}, {_shown(*difference, sides)}"
        line.obtained = _with_setting(shown, sides[0])
        line.verdict = kind or _below(*difference[:2], _enough(first, second))
        return line
    short = [[run["valid_error"] for run in findings.tuned if run.row == key] for key in keys]
    if all(short):
        line.obtained = (
            f"{min(short[0]):.2f} against {min(short[1]):.2f} %: the lowest validation errors of "
            "the short runs that chose the learning rates"
        )
        line.verdict = "reduced setting"
    return line


def _speed(findings):
    """Ratios of times, of a GPU if one was timed, otherwise of a CPU."""
    record = findings.gpu or findings.xnor or {"records": []}
    lines = []
    for start, task, images, rivals in (
        ("XNOR kernel against an unoptimised", "product", 0, ("plain float kernel",)),
        ("XNOR kernel against cuBLAS", "product", 0, ("CLBlast sgemm", "OpenBLAS sgemm")),
        ("multilayer perceptron", "network", 10000, ("plain float kernel",)),
    ):
        published = _figure(start)
        line = Line(published["label"], f"{published['value']} times")
        timed = [
            timing
            for timing in record["records"]
            if (timing["task"], timing["images"]) == (task, images) and timing["over"]
        ]
        if timed:
            largest = max(timed, key=lambda timing: timing["size"])
            kernel, over = next(iter(largest["over"].items()))
            machine = record["machine"]
            where = f"on {machine.get('device') or 'a CPU, ' + machine['processor']}"
            for rival in (name for name in rivals if name in over):
                line.obtained = text(f"{over[rival]:.1f} times: {kernel} against {rival} {where}")
                line.verdict = "another machine"
        lines.append(line)
    return lines


def _repetitions(rows, protocol):
    """The share of unique kernels in a trained network."""
    published = _figure("unique 3x3 kernels")
    line = Line(f"{NAMES['cifar10']}, protocol {protocol}", f"about {published['value']} %")
    row = rows["cifar10", protocol, "bnn"]
    evaluated = [run for run in _all(row) if run.evaluation]
    kind, (runs,) = comparable([r for r in evaluated if r.evaluation.get("unique_kernels")])
    if runs:
        shares = [statistics.mean(run.evaluation["unique_kernels"]) for run in runs]
        share = statistics.mean(shares)
        obtained = f"{share:.1f} %, the mean over the layers of {len(runs)} runs"
        line.obtained = _with_setting(obtained, runs)
        off = share - float(published["value"])
        line.verdict = kind or _within(off, off, MARGIN * float(published["value"]))
    return line


def _figure(start):
    """The row of published.csv that is not a test error and whose label begins with `start`."""
    return next(
        row
        for row in papers.rows()
        if row["quantity"] != "test error (%)" and row["label"].startswith(start)
    )


def _about(row):
    return "about " if row["quantity"].endswith("about") else ""


def obtained_figures(findings, times):
    """What was obtained for each row of published.csv that is not a test error.

    Parameters
    ----------
    findings : Findings
    times : dict
        {data set: text}, how long a run of the row takes that the released code trains.

    Returns
    -------
    dict
        {(label, data set): text}
    """
    lines_of = {claim.title: claim.lines for claim in claims(findings)}
    counts = {
        part: ", ".join(
            f"{NAMES[name]} {shares[part]:.1f}"
            for name, shares in findings.multiplications.items()
            if name in NAMES
        )
        for part in ("training", "test")
    }
    sixteen, _, network = lines_of["Memory"]
    texts = {
        "training": counts["training"],
        "test time": counts["test"],
        "weights": sixteen.obtained,
        "weights and": network.obtained,
        "XNOR kernel against an": lines_of["Speed of XNOR"][0].obtained,
        "XNOR kernel against c": lines_of["Speed of XNOR"][1].obtained,
        "multilayer": lines_of["Speed of XNOR"][2].obtained,
        "unique": "; ".join(
            line.obtained for line in lines_of["Repetitions of filters"] if line.obtained
        ),
    }
    figures = {}
    for row in papers.rows():
        if row["quantity"] == "training time (hours)":
            figures[row["label"], row["dataset"]] = times.get(row["dataset"], "")
        elif row["quantity"] != "test error (%)":
            starts = [start for start in texts if row["label"].startswith(start)]
            figures[row["label"], row["dataset"]] = texts[max(starts, key=len)] if starts else ""
    return figures
