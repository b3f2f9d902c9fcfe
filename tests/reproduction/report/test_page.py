import csv
import json
import re

import original_stack

import numpy as np
import pytest
import scipy.stats
from matplotlib.image import imread

import cifar10
from reproduction.report import figures
from reproduction.report import page as report
from reproduction.training import run_folder as record

FILES = [{"name": "train-images", "md5": "0" * 32, "official": True}]
COMPLETE = {
    "dataset": "mnist",
    "protocol": "paper",
    "method": "stochastic",
    "seed": 1,
    "epochs": 1000,
    "epochs_done": 1000,
    "finished": True,
    "test_weights": "real",
    "test_error": 1.2,
    "valid_error": 1.1,
    "test_images": 10000,
    "official_data": True,
    "hyperparameters": {"H": "Glorot"},
    "data": FILES,
    "seconds": 7200.0,
    "started": "2026-11-20T10:00:00+00:00",
    "cpu": "A processor",
    "threads": 2,
    "versions": {"theano": "1.0.5"},
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
}


def add_run(results, name=None, **changes):
    """Writes a run's files as training does; its folder."""
    found = {**COMPLETE, **changes}
    name = name or "{dataset}/{protocol}-{method}/seed-{seed}".format(**found)
    rows = [
        dict(zip(record.COLUMNS, (epoch, 0.3, 1 / epoch, 0.5, 5 / epoch, 10 * epoch), strict=True))
        for epoch in (2, 4, 6)
    ]
    W = np.random.RandomState(found["seed"]).uniform(-0.03, 0.03, (784, 70))
    with record.RunFolder(results / name, {}) as folder:
        folder.finish(found, rows, {"000_W": W})
    return results / name


def make(results, capsys):
    """The page that the command makes."""
    assert report.main(["--results", str(results)]) == 0
    assert capsys.readouterr().err == ""
    return (results / "README.md").read_text()


def cells(page, start):
    """The cells of the first line of the page that starts so."""
    line = next(line for line in page.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


PUBLISHED = {"protocol": "paper", "value": "1.18", "spread": "0.04", "runs": "6"}
SINGLE = {"protocol": "paper", "value": "8.27", "spread": "", "runs": "1"}
SMALL = {"protocol": "table1-adam-on", "value": "10.47", "spread": "", "runs": ""}


def test_interval_of_several_seeds_is_students():
    # mean 2, standard deviation 1, t(.975, 2) = 4.302653: 2 -+ 4.302653 / sqrt(3)
    np.testing.assert_allclose(report.interval([1, 2, 3], 10000), [-0.484138, 4.484138], rtol=1e-6)


def test_interval_of_one_seed_is_clopper_pearsons():
    # no image of 10 wrong: 1 - .025 ** (1 / 10)
    np.testing.assert_allclose(report.interval([0.0], 10), [0, 30.84971], rtol=1e-6)


def test_difference_is_welchs():
    found, half = report.difference([1.1, 1.2, 1.3], 10000, PUBLISHED)
    assert found == pytest.approx(0.02)
    # A difference of half the interval is what Welch's test finds at its 5%.
    test = scipy.stats.ttest_ind_from_stats(half, 0.1, 3, 0, 0.04, 6, equal_var=False)
    assert test.pvalue == pytest.approx(0.05)


def test_difference_of_single_runs_is_binomial():
    found, half = report.difference([8.5], 10000, SINGLE)
    variance = 8.5 * 91.5 / 10000 + 8.27 * 91.73 / 10000
    assert (found, half) == pytest.approx((0.23, 1.959964 * variance**0.5))


@pytest.mark.parametrize(
    ("errors", "published", "expected"),
    [
        ([], PUBLISHED, "missing"),
        ([1.18, 1.19], PUBLISHED, "not enough runs"),
        ([1.16, 1.18, 1.2], PUBLISHED, "reproduced"),
        ([1.0, 1.2, 1.4], PUBLISHED, "not enough runs"),  # imprecise
        ([1.4, 1.41, 1.42], PUBLISHED, "differs"),
        ([1.18, 1.18, 1.18], PUBLISHED, "reproduced"),
        ([8.6], SINGLE, "reproduced"),
        ([9.5], SINGLE, "differs"),
        ([10.47], SMALL, "not judged"),  # the paper does not describe the network
        ([], SMALL, "missing"),
        ([90.0], {**SINGLE, "value": ""}, "not judged"),
    ],
)
def test_verdict(errors, published, expected):
    assert report.verdict(errors, 10000, published) == expected


def test_page_of_no_runs(tmp_path, capsys):
    page = make(tmp_path, capsys)
    assert "from 0 finished runs" in page
    assert cells(page, "| paper | No regularizer | 1.30") == (
        ["paper", "No regularizer", "1.30 ± 0.04 (6 runs)", "", "", "0", "", "", "**missing**"]
        + ["7"]
    )
    assert cells(page, "| SVHN | `./reproduce svhn --method none")[1:] == (
        ["`./reproduce svhn --method none --seed N`", "none", "not measured"]
    )
    assert cells(page, "| MNIST | `./reproduce mnist --protocol release")[1] == (
        "`./reproduce mnist --protocol release --method stochastic --seed N`"
    )
    assert "EBP 2.2 ± 0.1; Bitwise DNNs 1.33" in page
    assert cells(page, "| table1-sgd-off") == (
        ["table1-sgd-off", "small CNN, SGD, learning rates not scaled", "–", "", "", "0", "", ""]
        + ["**missing**", "1, 2, 5, 7, 10, 12, 14"]
    )
    assert cells(page, "| CIFAR-10 | `./reproduce cifar10 --optimizer nesterov --lr-scaling on")[
        1:
    ] == ["`./reproduce cifar10 --optimizer nesterov --lr-scaling on --seed N`"] + (
        ["none", "not measured"]
    )
    assert not list((tmp_path / "figures").iterdir())


def test_page_of_runs(tmp_path, capsys):
    for seed, error, threads in ((1, 1.16, 1), (2, 1.18, 2), (3, 1.2, 2)):
        seconds = 7200.0 + seed
        add_run(tmp_path, seed=seed, test_error=error, seconds=seconds, threads=threads, earlier=[])
    elsewhere = {"until_epoch": 400, "cpu": "Another", "threads": 1}
    add_run(tmp_path, seed=4, method="none", seconds=7200.0, threads=2, earlier=[elsewhere])
    page = make(tmp_path, capsys)
    assert cells(page, "| Another") == (
        ["Another, 1 thread", "", "unknown", "1", "2026-11-20", "2026-11-20"]
    )
    assert cells(page, "| paper | BinaryConnect (stoch.) | 1.18")[3:] == (
        ["1.18", "0.02", "3", "1.13 to 1.23", "+0.00 ± 0.05", "**reproduced**", "7, 11, 12"]
    )
    assert cells(page, "| MNIST | `./reproduce mnist --method none")[2:] == (
        ["4", "2.0 hours (median of these runs, 1 or 2 threads)"]
    )
    assert cells(page, "| MNIST | `./reproduce mnist --method stochastic")[2:] == (
        ["1, 2, 3", "2.0 hours (median of these runs, 1 or 2 threads)"]
    )
    for threads, runs in (("1 thread", "1"), ("2 threads", "3")):
        processor = f"A processor, {threads}"
        assert cells(page, f"| {processor} |") == (
            [processor, "theano 1.0.5", "0123456789ab", runs, "2026-11-20", "2026-11-20"]
        )
    assert "## Notes" not in page
    assert "## Runs in other settings" not in page


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"epochs": 10, "epochs_done": 10}, "10 epochs instead of 1,000"),
        (
            {"official_data": False, "data": [{**FILES[0], "official": False}]},
            "unofficial data (train-images)",
        ),
        ({"hyperparameters": {"H": 1.0, "width": 0.25}}, "width 0.25"),
        (
            {"hyperparameters": {"H": 1.0, "width": 1.0, "train_size": 5000}},
            "the first 5,000 training images",
        ),
        ({"test_weights": "binary"}, "binary weights at test time"),
    ],
)
def test_runs_in_other_settings_are_kept_out_of_verdicts(tmp_path, capsys, changes, setting):
    add_run(tmp_path, **changes)
    page = make(tmp_path, capsys)
    assert cells(page, "| paper | BinaryConnect (stoch.) | 1.18")[3:9] == (
        ["", "", "0", "", "", "**reduced setting**"]
    )
    assert cells(page, "| mnist | paper | stochastic |")[3:] == (
        [setting, "1.20", "", "1", "1.00 to 1.43"]
    )


def test_runs_without_a_published_row(tmp_path, capsys):
    add_run(tmp_path, dataset="digits", official_data=False, data=[{**FILES[0], "official": False}])
    page = make(tmp_path, capsys)
    assert cells(page, "| digits | paper")[3] == "unofficial data (train-images)"


def test_time_estimated_from_a_shorter_run_or_the_benchmark(tmp_path, capsys):
    add_run(tmp_path, epochs=10, epochs_done=10, seconds=100.0)
    page = make(tmp_path, capsys)
    start = "| MNIST | `./reproduce mnist --method stochastic"
    assert cells(page, start)[2:] == ["none", "about 2.8 hours (from a run of 10 epochs)"]
    (tmp_path / "benchmarks").mkdir()
    timed = {"median_milliseconds": {"fused": 36.0}}  # 250 steps an epoch: 9 s
    (tmp_path / "benchmarks" / "mnist-published.json").write_text(json.dumps(timed))
    (tmp_path / "benchmarks" / "cifar10.json").write_text("{")
    page = make(tmp_path, capsys)
    assert cells(page, start)[2:] == (
        ["none", "about 2.5 hours (training steps only, by the benchmark)"]
    )
    assert "- `benchmarks/cifar10.json` is damaged and left out\n" in page


def test_troubled_runs_are_noted_and_left_out(tmp_path, capsys):
    add_run(tmp_path, seed=1)
    add_run(tmp_path, seed=1, name="copy")
    add_run(tmp_path, seed=2, finished=False, epochs_done=3)
    add_run(tmp_path, seed=3, finished=False, epochs_done=0, stopped="the loss is nan in epoch 1")
    (add_run(tmp_path, seed=4) / "run.json").write_text('{"dataset": "mn')
    (add_run(tmp_path, seed=5) / "run.json").unlink()
    (add_run(tmp_path, seed=6) / "epochs.csv").unlink()
    (add_run(tmp_path, seed=7) / "epochs.csv").write_text("epoch,train_loss\n1,x\n")
    layer = add_run(tmp_path, seed=8) / "first_layer.npz"
    layer.write_bytes(layer.read_bytes()[:5000])
    (add_run(tmp_path, seed=9) / "evaluation.json").write_text("[]")
    add_run(tmp_path, seed=10, test_error=None)
    add_run(tmp_path, seed=11, test_error=float("1e3"))
    page = make(tmp_path, capsys)
    folder = "mnist/paper-stochastic"
    assert page.split("## Notes\n\n")[1].splitlines() == [
        f"- `{folder}/seed-1` is left out: the same run as `copy`",
        f"- `{folder}/seed-10` is left out: its run.json is damaged",
        f"- `{folder}/seed-11` is left out: its run.json is damaged",
        f"- `{folder}/seed-2` is left out: unfinished, 3 of 1,000 epochs",
        f"- `{folder}/seed-3` is left out: unfinished, 0 of 1,000 epochs (the loss is nan in "
        "epoch 1)",
        f"- `{folder}/seed-4` is left out: its run.json is damaged",
        f"- `{folder}/seed-5` is left out: it has no run.json",
        f"- `{folder}/seed-6` has no epochs.csv: it is not in the figures made of it",
        f"- `{folder}/seed-7/epochs.csv` is damaged and left out",
        f"- `{folder}/seed-8/first_layer.npz` is damaged and left out",
        f"- `{folder}/seed-9/evaluation.json` is damaged and left out",
    ]
    assert cells(page, "| MNIST | `./reproduce mnist --method stochastic")[2] == "1, 6, 7, 8, 9"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *((key, [None, "1", -1]) for key in ("seed", "epochs", "test_images", "seconds")),
        *((key, [None, 1]) for key in ("dataset", "protocol", "method", "test_weights")),
        ("test_images", [0, 1.5]),
        ("test_error", [-1, 101, []]),
        ("hyperparameters", [None, [], "x", {"H": "x"}, {"width": "x"}, {"train_size": []}]),
        ("data", [None, [1], [{"official": True}]]),
        ("versions", ["x", [1]]),
        ("earlier", [None, 1, "x", [1], [{"versions": "x"}]]),
    ],
)
def test_damaged_values(tmp_path, key, values):
    for value in values:
        (tmp_path / "run.json").write_text(json.dumps({**COMPLETE, key: value}))
        assert report.read_runs(tmp_path) == ([], ["`.` is left out: its run.json is damaged"])


@pytest.mark.parametrize("key", list(COMPLETE)[: list(COMPLETE).index("started")])
def test_missing_values(tmp_path, key):
    found = {k: v for k, v in COMPLETE.items() if k != key}
    (tmp_path / "run.json").write_text(json.dumps(found))
    assert report.read_runs(tmp_path) == ([], ["`.` is left out: its run.json is damaged"])


@pytest.mark.parametrize(
    "changes", [{"real": 101}, {"binary": "x"}, {"ensemble": []}, {"ensemble": {"x": 1.0}}]
)
def test_damaged_evaluation(tmp_path, changes):
    found = {"binary": 2.0, "real": 1.0, "ensemble": {"1": 3.0}, **changes}
    (add_run(tmp_path, "run") / "evaluation.json").write_text(json.dumps(found))
    ((run,), notes) = report.read_runs(tmp_path)
    assert (run.evaluation, notes) == (None, ["`run/evaluation.json` is damaged and left out"])


def test_rows_of_table_1(tmp_path, capsys):
    cifar10 = {"dataset": "cifar10", "epochs": 500, "epochs_done": 500}
    cifar10["hyperparameters"] = {"H": 1.0, "width": 1.0, "train_size": None}
    cifar10.update(method="deterministic", test_weights="binary")
    add_run(tmp_path, **cifar10, protocol="table1-sgd-off", test_error=90.0)
    add_run(tmp_path, **cifar10, protocol="table1-adam-on", test_error=10.5)
    reduced = {**cifar10, "hyperparameters": {"H": 1.0, "width": 0.25}}
    add_run(tmp_path, **reduced, protocol="table1-sgd-on", test_error=30.0)
    page = make(tmp_path, capsys)
    assert cells(page, "| table1-sgd-off")[2:9] == (
        ["–", "90.00", "", "1", "89.40 to 90.58", "", "**not judged**"]
    )
    assert cells(page, "| table1-adam-on")[2:9] == (
        ["10.47", "10.50", "", "1", "9.91 to 11.12", "+0.03 ± 0.85", "**not judged**"]
    )
    assert cells(page, "| table1-sgd-on")[2:9] == (
        ["11.45", "", "", "0", "", "", "**reduced setting**"]
    )
    assert cells(page, "| cifar10 | table1-sgd-on")[3:5] == ["width 0.25", "30.00"]


def test_runs_that_chose_hyperparameters_are_apart(tmp_path, capsys):
    changes = {"epochs": 10, "epochs_done": 10, "method": "dropout"}
    for rate, error in (("0.3", 2.5), ("1", 2.25)):
        name = f"tuning/LR_start={rate}/mnist/paper-dropout/seed-1"
        folder = add_run(
            tmp_path, name, **changes, valid_error=error, hyperparameters={"LR_start": float(rate)}
        )
        (folder / "first_layer.npz").unlink()
    (add_run(tmp_path, "tuning/LR_start=9/mnist/x/seed-1") / "run.json").write_text("{")
    page = make(tmp_path, capsys)
    assert "from 0 finished runs" in page
    assert cells(page, "| paper | 50% Dropout")[8] == "**missing**"
    section = page.split("## Runs that chose hyperparameters")[1].split("## ")[0]
    setting = "10 epochs instead of 1,000"
    assert section.splitlines()[-3:-1] == [
        f"| mnist | paper | dropout | LR_start=1 | {setting} | 2.25 |",
        f"| mnist | paper | dropout | LR_start=0.3 | {setting} | 2.50 |",
    ]
    assert page.endswith(
        "- `tuning/LR_start=9/mnist/x/seed-1` is left out: its run.json is damaged\n"
    )
    assert not list((tmp_path / "figures").iterdir())


def test_deviations_are_those_of_the_page():
    page = (original_stack.ROOT / "DEVIATIONS.md").read_text()
    written = {int(number) for number in re.findall(r"^(\d+)\. \*\*", page, flags=re.MULTILINE)}
    named = {n for table in (report.DEVIATIONS, report.METHOD_DEVIATIONS) for n in table.values()}
    assert {number for numbers in named for number in numbers} <= written


def test_commands_of_table_1_are_those_of_the_script():
    rows = [h for h in cifar10.ROWS if h.protocol.startswith("table1")]
    assert {h.protocol for h in rows} == set(report.TABLE1)
    for h in rows:
        words = report.command("cifar10", h.protocol, h.method).split()
        chosen = dict(zip(words[2::2], words[3::2], strict=True))
        expected = {"--optimizer": h.optimizer, "--lr-scaling": h.choices["lr_scaling"]}
        assert chosen == {**expected, "--seed": "N"}


def test_no_such_folder(tmp_path, capsys):
    assert report.main(["--results", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == (
        f"report: {tmp_path}/x is not a folder; name one that holds runs with --results\n"
    )


def test_published_figures_are_whole():
    rows = report.read_published()
    assert all(None not in row and None not in row.values() for row in rows)
    keys = [(r["dataset"], r["protocol"], r["method"]) for r in rows if r["protocol"]]
    assert len(keys) == len(set(keys)) == 23
    assert all(row["value"] or "SGD" in row["label"] for row in rows)


def test_figures(tmp_path):
    methods = ("none", "deterministic", "stochastic", "dropout")
    for method in methods:
        weights = "binary" if method == "deterministic" else "real"
        for seed in (1, 2):
            add_run(tmp_path, method=method, seed=seed, test_weights=weights)
    add_run(tmp_path, method="none", seed=3, epochs=5)  # not drawn beside whole runs
    runs, notes = report.read_runs(tmp_path)
    assert not notes
    pictures = figures.draw(runs, tmp_path / "figures")
    assert pictures == {
        f"mnist, protocol paper: {title}": f"figures/{kind}-mnist-paper.svg"
        for title, kind in (
            ("training cost (dotted) and validation error (solid)", "curves"),
            ("latent weights of the first layer", "weights"),
            ("features of the first 64 hidden units (latent weights)", "features"),
        )
    }
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert len(drawn) == 6
    for name in drawn:
        if name.endswith("png"):
            assert imread(tmp_path / "figures" / name).std() > 0.05
    figures.draw(runs, tmp_path / "figures")
    again = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert drawn == again


def test_curves_hold_the_data_of_epochs_csv(tmp_path):
    folder = add_run(tmp_path)
    add_run(tmp_path, seed=2)
    chosen = figures.choose(report.read_runs(tmp_path)[0])
    figure, _ = figures.curves(chosen)
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


@pytest.mark.parametrize(
    ("least", "ticks"),
    [
        (0.02, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]),
        (2e-10, ["1e-10", "1e-09", "1e-08", "1e-07", "1e-06", "1e-05", "0.0001", "0.001", "0.01"]),
        (1e-40, ["1e-42", "1e-39", "1e-36", "1e-33", "1e-30", "1e-27", "1e-24", "1e-21", "1e-18"]),
    ],
)
def test_ticks_of_curves_are_apart(tmp_path, least, ticks):
    folder = add_run(tmp_path)
    table = (folder / "epochs.csv").read_text()
    assert table.count(f",{1 / 6},") == 1
    (folder / "epochs.csv").write_text(table.replace(f",{1 / 6},", f",{least},"))
    figure, _ = figures.curves(figures.choose(report.read_runs(tmp_path)[0]))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[: len(ticks)] == ticks
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(low.y1 < high.y0 for low, high in zip(boxes, boxes[1:], strict=False))


def test_titles_fit_their_panels(tmp_path):
    unofficial = {"official_data": False, "data": [{**FILES[0], "official": False}]}
    reduced = {"H": 1.0, "width": 0.25, "train_size": 10000}
    for method in ("none", "stochastic"):
        for seed in range(1, 21):
            changes = {"epochs": 40, "hyperparameters": reduced, **unofficial}
            add_run(tmp_path, method=method, seed=seed, **changes)
    figure, _ = figures.curves(figures.choose(report.read_runs(tmp_path)[0]))
    figure.draw_without_rendering()
    left, right = (axis.title.get_window_extent() for axis in figure.axes[:2])
    assert left.x1 < right.x0


def test_histogram_and_features_hold_the_weights_of_one_seed(tmp_path):
    add_run(tmp_path)
    add_run(tmp_path, seed=2)
    chosen = figures.choose(report.read_runs(tmp_path)[0])
    (axis,) = figures.weights(chosen)[0].axes
    assert axis.get_title() == "BinaryConnect (stoch.), seed 1\n1,000 epochs, as published"
    np.testing.assert_allclose(axis.patches[0].get_data().values.sum(), 100)
    bound = np.sqrt(1.5 / (784 + 70))
    np.testing.assert_allclose([line.get_xdata()[0] for line in axis.lines], [-bound, bound])
    (axis,) = figures.features(chosen)[0].axes
    image = axis.images[0].get_array()
    W = np.random.RandomState(1).uniform(-0.03, 0.03, (784, 70)).astype(np.float16)
    np.testing.assert_array_equal(image[1:29, 30:58], W[:, 1].reshape(28, 28))
