"""The lines of the papers' claims: each compares runs, or takes a figure from another record, and
judges what the paper says by it (see `RULE` in claims.py)."""

import statistics
from dataclasses import dataclass

from reproduction import published as papers
from reproduction.report.markdown import NAMES, signed, text
from reproduction.report.statistics import MARGIN, difference_of_errors, enough_runs, paired

METHODS = {"none": "no regularizer", "deterministic": "deterministic", "stochastic": "stochastic"}
OPTIMIZERS = {"sgd": "SGD", "nesterov": "Nesterov momentum", "adam": "ADAM"}
ENSEMBLE = "16"
VERDICTS = ("holds", "does not hold", "undecided", "another machine", "unofficial data")
VERDICTS += ("reduced setting", "not tested")


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


def order(rows, dataset, lower, higher):
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


def regularization(rows, dataset, method):
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


def multiplications(findings, part, name):
    """The share of multiplications that become additions, in the part "training" or "test" of data
    set `name`."""
    label = "training" if part == "training" else "test time, deterministic weights"
    published = _figure(label)
    line = Line(f"{NAMES[name]}: {label}", f"{_about(published)}{published['value']} %")
    if name in findings.multiplications:
        share = findings.multiplications[name][part]
        line.obtained = f"{share:.1f} %"
        off = share - float(published["value"])
        line.verdict = _within(off, off, MARGIN * float(published["value"]))
    return line


def memory(findings):
    """How much less memory weights take: in deployed networks, and in the benchmark's network."""
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


def test_weights(rows, dataset):
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


def scaling(findings, rows, optimizer):
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


def speed(findings):
    """Ratios of times, of a GPU if one was timed, otherwise of a CPU."""
    record = findings.gpu or findings.xnor or {"records": []}
    lines = []
    for start, task, images, rivals in (
        ("XNOR kernel against an unoptimized", "product", 0, ("plain float kernel",)),
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


def repetitions(rows, protocol):
    """The share of unique kernels in a trained network."""
    published = _figure("unique 3x3 kernels")
    line = Line(f"{NAMES['cifar10']}, protocol {protocol}", f"about {published['value']} %")
    row = rows["cifar10", protocol, "bnn"]
    evaluated = [run for run in _all(row) if run.evaluation]
    kind, (runs,) = comparable([r for r in evaluated if r.evaluation.get("unique_kernels")])
    if runs:
        shares = [statistics.mean(run.evaluation["unique_kernels"]) for run in runs]
        share = statistics.mean(shares)
        number = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        obtained = f"{share:.1f} %, the mean over the layers of {number}"
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
