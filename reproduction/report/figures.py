"""The figures of the report: published errors beside ours, and for our runs the figures 1 to 3 of
BinaryConnect, which show features and histograms of first-layer weights, and training curves.

The same runs give the same files, byte by byte. A method has the same color in every figure.
"""

import io
import math
import textwrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reproduction.report.markdown import printable
from reproduction.training.hyperparameters import BINARY_METHODS

METHODS = {  # {method: (name, color)}; the colors of Okabe and Ito suit the color-blind
    "none": ("No regularizer", "#D55E00"),
    "deterministic": ("BinaryConnect (det.)", "#0072B2"),
    "stochastic": ("BinaryConnect (stoch.)", "#009E73"),
    "dropout": ("50% Dropout", "#CC79A7"),
    "bnn": ("BNN", "#E69F00"),
}
GROUPS = {  # panels of the comparison: {title: (data set, whether the rows are from Table 1)}
    "MNIST": ("mnist", False),
    "CIFAR-10": ("cifar10", False),
    "SVHN": ("svhn", False),
    "CIFAR-10, small network (BinaryConnect, Table 1)": ("cifar10", True),
}
MADE = "BinaryConnect: ./reproduce report"  # marks a picture that this command made
PANEL_WIDTH = 42  # characters
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "svg.hashsalt": "binaryconnect",
    "text.parse_math": False,  # names are not formulas
}


def draw(runs, compared):
    """Draw all figures for which there are runs.

    Parameters
    ----------
    runs : list of Run
    compared : list of Comparison

    Returns
    -------
    titles : dict
        {name: title}; the comparison is the first.
    files : dict
        {file name: bytes}; each figure is an SVG and a PNG file.
    """
    titles, files = {}, {}
    with matplotlib.rc_context(STYLE):
        made = {"comparison": comparison(compared)}
        for experiment in sorted({run.row[:2] for run in runs}):
            chosen = choose([run for run in runs if run.row[:2] == experiment])
            for kind, make in (("curves", curves), ("weights", weights), ("features", features)):
                made["-".join((kind, *experiment))] = make(chosen)
        for name, (figure, title) in ((n, m) for n, m in made.items() if m):
            titles[name] = title
            for suffix, options in (
                ("svg", {"metadata": {"Date": None, "Creator": MADE}}),
                ("png", {"metadata": {"Software": MADE}, "dpi": 150}),
            ):
                content = io.BytesIO()
                figure.savefig(content, format=suffix, **options)
                files[f"{name}.{suffix}"] = content.getvalue()
    return titles, files


def comparison(compared):
    """Published errors beside ours, with one line of the figure for each published row.

    Parameters
    ----------
    compared : list of Comparison

    Returns
    -------
    Figure, title
    """
    groups = {}
    for title, key in GROUPS.items():
        of_group = [
            c
            for c in compared
            if (c.published["dataset"], c.published["protocol"].startswith("table1-")) == key
        ]
        if of_group:
            groups[title] = of_group
    sizes = [len(of_group) for of_group in groups.values()]
    figure = Figure(
        figsize=(7.0, 1.0 + 0.25 * sum(sizes) + 0.55 * len(sizes)), layout="constrained"
    )
    panels = figure.subplots(len(groups), squeeze=False, height_ratios=[n + 1 for n in sizes])
    for axis, (title, of_group) in zip(panels[:, 0], groups.items(), strict=True):
        axis.set_title(title, loc="left", fontweight="bold")
        _rows(axis, of_group)
    panels[-1, 0].set_xlabel("test error, %")
    shapes = [
        ("published, ± standard deviation", {"marker": "|", "markersize": 11, "color": "k"}),
        ("ours: a seed", {"marker": "o", "markersize": 4, "color": "0.2", "linestyle": "none"}),
        ("95% interval of ours", {"color": "0.2", "linewidth": 3, "alpha": 0.4}),
        ("in another setting", {"marker": "o", "color": "0.6", "linestyle": "none"}),
    ]
    handles = [Line2D([], [], label=label, **{"markersize": 4, **s}) for label, s in shapes]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure, "Published and obtained test errors"


def _rows(axis, compared):
    """Draw the rows of one group, the published error above ours."""
    inside = []
    for c in compared:
        value, spread = (float(c.published[key] or 0) for key in ("value", "spread"))
        inside += [value - spread, value + spread] if value else []
        inside += [*(c.interval or ()), *c.errors]
    low, high = min(inside), max(inside)
    margin = 0.1 * (high - low) or 1.0
    low, high = max(0, low - margin), high + margin / 2
    axis.set(xlim=(low, high + 2 * margin), ylim=(len(compared) - 0.4, -0.6))
    labels = []
    for y, c in enumerate(compared):
        row = c.published
        labels.append(c.name.removeprefix("small CNN, ").replace("learning rates ", ""))
        if row["value"]:
            spread = float(row["spread"] or 0)
            axis.errorbar(
                float(row["value"]), y - 0.17, xerr=spread or None, color="k", elinewidth=1
            )
            axis.plot(float(row["value"]), y - 0.17, "k|", markersize=11, markeredgewidth=1.5)
        color = METHODS[row["method"]][1]
        if c.interval:
            axis.plot(c.interval, [y + 0.2] * 2, color=color, linewidth=3, alpha=0.4)
        axis.plot(c.errors, [y + 0.2] * len(c.errors), "o", color=color, markersize=4)
        reduced = [] if c.runs else [run["test_error"] for run in [*c.unofficial, *c.others]]
        shown = [error for error in reduced if low <= error <= high]
        axis.plot(shown, [y + 0.2] * len(shown), "o", color="0.6", markersize=4)
        if outside := sorted(set(reduced) - set(shown)):
            axis.text(
                0.995,
                y + 0.2,
                f"{', '.join(f'{error:.2f}' for error in outside)} \N{RIGHTWARDS ARROW}",
                color="0.45",
                fontsize=8,
                ha="right",
                va="center",
                transform=axis.get_yaxis_transform(),
            )
        axis.text(
            1.01,
            y,
            c.verdict,
            color="k" if c.runs else "0.45",
            fontsize=8,
            va="center",
            transform=axis.get_yaxis_transform(),
        )
    axis.set_yticks(range(len(compared)), labels)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def choose(runs):
    """Choose which runs of one data set and protocol are drawn.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    dict
        {method: runs of one setting, by seed}. It is the published setting if a run has it,
        otherwise the setting of the longest run.
    """
    chosen = {}
    for method in METHODS:
        of_method = [run for run in runs if run["method"] == method]
        if of_method:
            best = max(of_method, key=lambda run: (not run.departures, run["epochs"]))
            same = [run for run in of_method if run.departures == best.departures]
            chosen[method] = sorted(same, key=lambda run: run["seed"])
    return chosen


def curves(chosen):
    """Training cost (dotted) and validation error (solid) of each method: figure 3 of the paper.

    Parameters
    ----------
    chosen : dict
        See `choose`.

    Returns
    -------
    (Figure, title) or None
        None if no run has the data for this figure. `weights` and `features` return the same.
    """
    chosen = _with(chosen, lambda run: run.epochs)
    if not chosen:
        return None
    figure, axes, title = _panels(chosen, "training cost (dotted) and validation error (solid)")
    errors = []
    for axis, runs in zip(axes, chosen.values(), strict=True):
        axis.set(yscale="log", xlabel="epoch", ylabel="training cost (dotted)")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        error_axis = axis.twinx()
        error_axis.set(yscale="log", ylabel="validation error, % (solid)")
        errors.append(error_axis)
        _lines(axis, runs, "train_loss", ":")
        _lines(error_axis, runs, "valid_error", "-")
    for group in (axes, errors):
        least = min(axis.get_ylim()[0] for axis in group)
        largest = max(axis.get_ylim()[1] for axis in group)
        low = max((t for t in _ROUND if t <= least), default=_ROUND[0])
        high = min((t for t in _ROUND if t >= largest), default=_ROUND[-1])
        ticks = [t for t in _ROUND if low <= t <= high]
        if len(ticks) > 15:  # too close to read
            ticks = [t for t in _POWERS if low <= t <= high]
            ticks = ticks[:: 1 + len(ticks) // 15]
        for axis in group:
            axis.set_ylim(low, high)
            axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
            axis.minorticks_off()
    return figure, title


_POWERS = [10.0**power for power in range(-45, 40)]  # the range of float32
_ROUND = [digit * power for power in _POWERS for digit in (1, 2, 5)]


def _lines(axis, runs, name, style):
    """Draw a line for each run, or for three and more runs their mean and a band around all."""
    epochs = [[row["epoch"] for row in run.epochs] for run in runs]
    # Values below the range of float32 count as 0, which a logarithmic axis does not show.
    values = [[row[name] if row[name] >= _POWERS[0] else 0 for row in run.epochs] for run in runs]
    if not any(map(any, values)):
        return
    color = METHODS[runs[0]["method"]][1]
    if len(runs) >= 3 and all(e == epochs[0] for e in epochs):
        band = np.min(values, axis=0), np.max(values, axis=0)
        axis.fill_between(epochs[0], *band, color=color, alpha=0.25, linewidth=0)
        epochs, values = epochs[:1], [np.mean(values, axis=0)]
    for x, y in zip(epochs, values, strict=True):
        marker = "o" if len(x) < 10 else None  # a line of few points is hardly visible
        axis.plot(x, y, style, color=color, linewidth=1, marker=marker, markersize=3)


def weights(chosen):
    """Histograms of the first layer's latent weights: figure 2 of the paper.

    See `curves`.
    """
    chosen = _first_seed(_with(chosen, lambda run: run.first_layer))
    if not chosen:
        return None
    figure, axes, title = _panels(chosen, "latent weights of the first layer")
    for axis, (run,) in zip(axes, chosen.values(), strict=True):
        kept = run.first_layer
        color = METHODS[run["method"]][1]
        share = 100 * kept["counts"] / max(1, kept["counts"].sum())
        axis.stairs(share, kept["edges"], fill=True, color=color, edgecolor="k", linewidth=0.5)
        axis.set(xlabel="weight", ylabel="share of the weights, %", ylim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        H = _magnitude(run)
        if H is not None:
            for bound in (-H, H):
                axis.axvline(bound, color="k", linestyle="--", linewidth=0.8)
            ends = share[0] + share[-1]
            axis.text(
                0.5,
                0.95,
                f"dashed: ±H = ±{H:.3g}\nin the outermost bins: {ends:.1f}%",
                ha="center",
                va="top",
                transform=axis.transAxes,
                fontsize=8,
            )
            axis.set_ylim(0, 1.35 * share.max())
    return figure, title


def _magnitude(run):
    """H of the first layer of a run with binary weights, otherwise None."""
    H, shape = run["hyperparameters"].get("H"), run.first_layer["shape"]
    if run["method"] not in BINARY_METHODS:
        return None
    if H == "Glorot":  # for a kernel, fan_in and fan_out both count its pixels
        return math.sqrt(1.5 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
    return H if isinstance(H, int | float) and abs(H) < 1e38 else None


def features(chosen):
    """Weights of the first units of a layer above images of 28x28 pixels: figure 1 of the paper.

    See `curves`.
    """
    chosen = _with(chosen, lambda run: run.first_layer and run.first_layer["shape"][0] == 784)
    chosen = _first_seed(chosen)
    if not chosen:
        return None
    number = min(64, *(run.first_layer["weights"].shape[1] for (run,) in chosen.values()))
    figure, axes, title = _panels(
        chosen, f"features of the first {number} hidden units (latent weights)", 3.4
    )
    for axis, (run,) in zip(axes, chosen.values(), strict=True):
        W = run.first_layer["weights"][:, :number].astype(np.float32)
        largest = np.abs(W).max() or 1.0
        side = int(np.ceil(np.sqrt(number)))
        canvas = np.full((29 * side + 1, 29 * side + 1), largest)  # white lines between the units
        for unit in range(number):
            top, left = 29 * (unit // side) + 1, 29 * (unit % side) + 1
            canvas[top : top + 28, left : left + 28] = W[:, unit].reshape(28, 28)
        axis.imshow(canvas, cmap="gray", vmin=-largest, vmax=largest, interpolation="nearest")
        axis.set_xlabel(f"black {-largest:.2g}, white {largest:.2g}")
        axis.set(xticks=[], yticks=[])
    return figure, title


def _with(chosen, needed):
    """`chosen` without the runs that lack what is needed."""
    kept = {method: [run for run in runs if needed(run)] for method, runs in chosen.items()}
    return {method: runs for method, runs in kept.items() if runs}


def _first_seed(chosen):
    return {method: runs[:1] for method, runs in chosen.items()}


def _panels(chosen, subject, size=2.6):
    """A figure with a panel per method, its panels, and its title."""
    first = next(iter(chosen.values()))[0]
    title = f"{first['dataset']}, protocol {first['protocol']}: {subject}"
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(4.0 * columns, (size + 0.5) * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10, wrap=True)
    axes = []
    for i, (method, runs) in enumerate(chosen.items()):
        axis = figure.add_subplot(rows, columns, i + 1)
        seeds = ", ".join(str(run["seed"]) for run in runs)
        setting = "; ".join(runs[0].departures) or f"{runs[0]['epochs']:,} epochs, as published"
        setting = printable(setting).encode("ascii", "replace").decode()  # the font has only ASCII
        heading = f"{METHODS[method][0]}, seed{'s' * (len(runs) > 1)} {seeds}"
        lines = [line for text in (heading, setting) for line in textwrap.wrap(text, PANEL_WIDTH)]
        axis.set_title("\n".join(lines))
        axes.append(axis)
    return figure, axes, title
