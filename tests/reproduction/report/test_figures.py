import csv
import io

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from records import UNOFFICIAL, add_run, first_layer

from reproduction.experiments import ROWS
from reproduction.report import figures
from reproduction.report.runs import read_runs
from reproduction.report.statistics import comparisons


def read(results):
    return read_runs(results, ROWS)[0]


def draw(results):
    runs = read(results)
    return figures.draw(runs, comparisons(runs))


def test_figures(tmp_path):
    for method in ("none", "deterministic", "stochastic", "dropout"):
        weights = "binary" if method == "deterministic" else "real"
        for seed in (1, 2):
            add_run(tmp_path, method=method, seed=seed, test_weights=weights)
    add_run(tmp_path, method="none", seed=3, epochs=5, epochs_done=5)  # not drawn with whole runs
    titles, files = draw(tmp_path)
    assert titles == {
        "comparison": "Published and obtained test errors",
        **{
            f"{kind}-mnist-paper": f"mnist, protocol paper: {title}"
            for title, kind in (
                ("training cost (dotted) and validation error (solid)", "curves"),
                ("latent weights of the first layer", "weights"),
                ("features of the first 64 hidden units (latent weights)", "features"),
            )
        },
    }
    assert files.keys() == {f"{name}.{suffix}" for name in titles for suffix in ("svg", "png")}
    for name, content in files.items():
        assert figures.MADE.encode() in content[:4096]
        if name.endswith("png"):
            assert imread(io.BytesIO(content)).std() > 0.05


def test_comparison_shows_published_errors_seeds_and_intervals(tmp_path):
    for seed, error in ((1, 1.16), (2, 1.18), (3, 1.2)):
        add_run(tmp_path, seed=seed, test_error=error)
    add_run(tmp_path, method="none", epochs=10, epochs_done=10, test_error=1.35)
    add_run(tmp_path, method="none", seed=2, epochs=4, epochs_done=4, test_error=5.0)
    figure, _ = figures.comparison(comparisons(read(tmp_path)))
    mnist = figure.axes[0]
    labels = [label.get_text() for label in mnist.get_yticklabels()]
    assert labels == [
        "No regularizer",
        "BinaryConnect (det.)",
        "BinaryConnect (stoch.)",
        "50% Dropout",
        "BinaryConnect (stoch.), release",
        "BNN (Theano)",
        "BNN (Torch7)",
    ]
    dots = {
        to_hex(line.get_color()): line.get_xdata().tolist()
        for line in mnist.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }
    assert dots == {"#009e73": [1.16, 1.18, 1.2], "#999999": [1.35]}
    texts = [text.get_text() for text in mnist.texts]
    assert "5.00 →" in texts  # beyond the axis
    assert [text for text in texts if "→" not in text] == [
        "reduced setting",
        "missing",
        "reproduced",
        *["missing"] * 4,
    ]
    assert [len(axis.get_yticks()) for axis in figure.axes] == [7, 5, 5, 6]
    published = [line.get_xdata()[0] for line in mnist.lines if line.get_marker() == "|"]
    assert published == [1.3, 1.29, 1.18, 1.01, 1.15, 0.96, 1.4]


def test_curves_hold_the_data_of_epochs_csv(tmp_path):
    folder = add_run(tmp_path)
    add_run(tmp_path, seed=2)
    figure, _ = figures.curves(figures.choose(read(tmp_path)))
    cost, error = figure.axes
    assert cost.get_title() == "BinaryConnect (stoch.), seeds 1, 2\n1,000 epochs, as published"
    assert cost.get_ylabel() == "training cost (dotted)"
    assert error.get_ylabel() == "validation error, % (solid)"
    with open(folder / "epochs.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    for axis, name, style in ((cost, "train_loss", ":"), (error, "valid_error", "-")):
        assert len(axis.lines) == 2
        expected = [[float(row["epoch"]), float(row[name])] for row in rows]
        np.testing.assert_array_equal(axis.lines[0].get_xydata(), expected)
        assert axis.lines[0].get_linestyle() == style


def test_curves_of_three_seeds_are_their_mean_and_band(tmp_path):
    for seed, loss in ((1, 0.5), (2, 1.0), (3, 3.0)):
        folder = add_run(tmp_path, seed=seed)
        table = f"epoch,train_loss,valid_error\n1,{loss},{2 * loss}\n2,{loss / 2},{loss}\n"
        (folder / "epochs.csv").write_text(table)
    figure, _ = figures.curves(figures.choose(read(tmp_path)))
    (mean,) = figure.axes[0].lines
    np.testing.assert_allclose(mean.get_xydata(), [[1, 1.5], [2, 0.75]])
    (band,) = figure.axes[0].collections
    heights = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert heights == {(1, 0.5), (1, 3), (2, 0.25), (2, 1.5)}


@pytest.mark.parametrize(
    ("least", "ticks"),
    [
        (0.02, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]),
        (2e-10, ["1e-10", "1e-09", "1e-08", "1e-07", "1e-06", "1e-05", "0.0001", "0.001", "0.01"]),
        (1e-40, ["1e-42", "1e-39", "1e-36", "1e-33", "1e-30", "1e-27", "1e-24", "1e-21", "1e-18"]),
        (1e-300, ["0.2", "0.5", "1"]),
        (0, ["0.2", "0.5", "1"]),
    ],
)
def test_ticks_of_curves_do_not_touch(tmp_path, least, ticks):
    folder = add_run(tmp_path)
    table = (folder / "epochs.csv").read_text()
    assert table.count(f",{1 / 6},") == 1
    (folder / "epochs.csv").write_text(table.replace(f",{1 / 6},", f",{least},"))
    figure, _ = figures.curves(figures.choose(read(tmp_path)))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[: len(ticks)] == ticks
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(low.y1 < high.y0 for low, high in zip(boxes, boxes[1:], strict=False))


@pytest.mark.parametrize("losses", [(0, 0), (9e38, 1e-45), (1e-300, 1e-300)])
def test_curves_of_any_loss_are_drawn(tmp_path, losses):
    folder = add_run(tmp_path)
    lines = [f"{epoch + 1},{loss},0" for epoch, loss in enumerate(losses)]
    (folder / "epochs.csv").write_text("\n".join(["epoch,train_loss,valid_error", *lines]))
    titles, _ = draw(tmp_path)
    assert "curves-mnist-paper" in titles


@pytest.mark.parametrize("H", ["x", 1e300, True, None, 0, -1.0])
def test_any_magnitude_is_drawn(tmp_path, H):
    folder = add_run(tmp_path, hyperparameters={"H": H})
    edges = np.linspace(-3e38, 3e38, 102).astype(np.float32)
    np.savez(folder / "first_layer.npz", **{**first_layer(), "edges": edges})
    figure, _ = figures.weights(figures.choose(read(tmp_path)))
    figure.draw_without_rendering()


def test_names_are_not_formulas(tmp_path):
    data = [{"name": "$\\frac{$ \u20ac", "md5": "", "official": False}]
    add_run(tmp_path, official_data=False, data=data)
    _, files = draw(tmp_path)
    assert b"unofficial data ($\\frac{$ ?)" in files["curves-mnist-paper.svg"]


def test_titles_fit_their_panels(tmp_path):
    reduced = {"num_units": 256, "LR_start": 0.1}
    for method in ("none", "stochastic"):
        for seed in range(1, 21):
            changes = {"epochs": 40, "epochs_done": 40, "hyperparameters": reduced, **UNOFFICIAL}
            add_run(tmp_path, method=method, seed=seed, **changes)
    figure, _ = figures.curves(figures.choose(read(tmp_path)))
    figure.draw_without_rendering()
    left, right = (axis.title.get_window_extent() for axis in figure.axes[:2])
    assert left.x1 < right.x0


def test_histogram_and_features_hold_the_weights_of_one_seed(tmp_path):
    add_run(tmp_path)
    add_run(tmp_path, seed=2)
    chosen = figures.choose(read(tmp_path))
    (axis,) = figures.weights(chosen)[0].axes
    assert axis.get_title() == "BinaryConnect (stoch.), seed 1\n1,000 epochs, as published"
    np.testing.assert_allclose(axis.patches[0].get_data().values.sum(), 100)
    bound = np.sqrt(1.5 / (784 + 70))
    np.testing.assert_allclose([line.get_xdata()[0] for line in axis.lines], [-bound, bound])
    (axis,) = figures.features(chosen)[0].axes
    image = axis.images[0].get_array()
    W = np.random.RandomState(1).uniform(-0.03, 0.03, (784, 70)).astype(np.float16)
    np.testing.assert_array_equal(image[1:29, 30:58], W[:, 1].reshape(28, 28))
