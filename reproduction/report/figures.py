"""The figures of the paper, of our runs: features and histograms of the first layer's weights, and
training curves (BinaryConnect, figures 1 to 3), as SVG and PNG, readable in black and white.

The same runs give the same files, byte by byte.
"""

import textwrap

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

METHODS = {
    "none": "No regularizer",
    "deterministic": "BinaryConnect (det.)",
    "stochastic": "BinaryConnect (stoch.)",
    "dropout": "50% Dropout",
    "bnn": "BNN",
}
PANEL_WIDTH = 42  # characters
STYLE = {"font.size": 9, "axes.titlesize": 9, "svg.hashsalt": "binaryconnect"}


def draw(runs, folder):
    """Draw all figures that the runs allow.

    Parameters
    ----------
    runs : list of report.Run
    folder : Path
        Where they go; figures of an earlier report are removed from it.

    Returns
    -------
    dict
        {title: path, relative to the folder above} of the SVG files.
    """
    folder.mkdir(exist_ok=True)
    for kind in ("curves", "weights", "features"):
        for old in folder.glob(f"{kind}-*"):
            old.unlink()
    pictures = {}
    with matplotlib.rc_context(STYLE):
        for experiment in sorted({run.row[:2] for run in runs}):
            chosen = choose([run for run in runs if run.row[:2] == experiment])
            for kind, make in (("curves", curves), ("weights", weights), ("features", features)):
                made = make(chosen)
                if made is None:
                    continue
                figure, title = made
                path = folder / "-".join((kind, *experiment))
                figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
                figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})
                pictures[title] = f"{folder.name}/{path.name}.svg"
    return pictures


def choose(runs):
    """The runs of one data set and protocol that are drawn.

    Parameters
    ----------
    runs : list of report.Run

    Returns
    -------
    dict
        {method: runs of one setting, by seed}: the published setting where there is such a run,
        else that of the longest.
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
        None: no run has what this figure needs. So for the other two.
    """
    chosen = _with(chosen, lambda run: run.rows)
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
        for run in runs:
            epochs, costs, valid = (
                [row[name] for row in run.rows] for name in ("epoch", "train_loss", "valid_error")
            )
            axis.plot(epochs, costs, "k:", linewidth=1, marker=_marker(epochs), markersize=3)
            error_axis.plot(epochs, valid, "k-", linewidth=1, marker=_marker(epochs), markersize=3)
    for group in (axes, errors):
        low = max(t for t in _ROUND if t <= min(axis.get_ylim()[0] for axis in group))
        high = min(t for t in _ROUND if t >= max(axis.get_ylim()[1] for axis in group))
        ticks = [t for t in _ROUND if low <= t <= high]
        if len(ticks) > 15:  # too close to be read
            ticks = [t for t in _POWERS if low <= t <= high]
            ticks = ticks[:: 1 + len(ticks) // 15]
        for axis in group:
            axis.set_ylim(low, high)
            axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
            axis.minorticks_off()
    return figure, title


_POWERS = [10.0**power for power in range(-45, 13)]  # from the least of float32
_ROUND = [digit * power for power in _POWERS for digit in (1, 2, 5)]


def _marker(epochs):
    return "o" if len(epochs) < 10 else None  # a line of few points hardly shows


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
        share = 100 * kept["counts"] / max(1, kept["counts"].sum())
        axis.stairs(share, kept["edges"], fill=True, color="0.6", edgecolor="k", linewidth=0.5)
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
    """H of the first layer of a run with binary weights, else None."""
    H, shape = run["hyperparameters"].get("H"), run.first_layer["shape"]
    if run["method"] not in ("deterministic", "stochastic", "bnn") or H is None:
        return None
    if H != "Glorot":
        return H
    if len(shape) == 2:
        return float(np.sqrt(1.5 / (shape[0] + shape[1])))
    return float(np.sqrt(1.5 / ((shape[0] + shape[1]) * shape[2] * shape[3])))


def features(chosen):
    """Weights of the first units of a first layer on images of 28x28 pixels: figure 1 of the paper.

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
        heading = f"{METHODS[method]}, seed{'s' * (len(runs) > 1)} {seeds}"
        lines = [line for text in (heading, setting) for line in textwrap.wrap(text, PANEL_WIDTH)]
        axis.set_title("\n".join(lines))
        axes.append(axis)
    return figure, axes, title
